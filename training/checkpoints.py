"""Checkpoints of a training run: tensors and generator states after an epoch, kept until the artefact is complete.

A checkpoint is a folder written under a temporary name and renamed; ``state.json`` holds the sha256 of the tensors.
A damaged one is passed over with a warning, and the one before it counts. Never pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from core.artifacts import sha256_of, sync_folder
from core.progress import SILENT, Progress

TENSORS, STATE = "tensors.safetensors", "state.json"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stood.

    Attributes:
        step: Its number, ascending.
        tensors: Everything that is a tensor.
        facts: Plain JSON values: generator states, counts.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Their place.
        identity: Hash of everything that decides the run (data, settings, seed): those of another run never count.
        progress: Told about damaged ones, and where the run goes on.
    """

    def __init__(self, folder: Path, identity: str, progress: Progress = SILENT) -> None:
        self._folder = folder / identity[:32]
        self._progress = progress

    def part(self, name: str) -> Checkpoints:
        """Those of one part of the run, in a folder below; :meth:`remove` takes them along."""
        return Checkpoints(self._folder, f"of-{name}", self._progress)

    def told_to(self, progress: Progress) -> Checkpoints:
        """The same ones, with another progress."""
        return Checkpoints(self._folder.parent, self._folder.name, progress)

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint durably; all but the newest two go."""
        temporary = self._folder / f".tmp-{checkpoint.step:06d}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
        save_file(tensors, temporary / TENSORS)
        state = {"step": checkpoint.step, "sha256": sha256_of(temporary / TENSORS), "facts": checkpoint.facts}
        (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
        for name in (TENSORS, STATE):
            with (temporary / name).open("rb") as stream:
                os.fsync(stream.fileno())
        final = self._folder / f"{checkpoint.step:06d}"
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        sync_folder(self._folder)
        for old in self._finished()[:-KEPT]:
            shutil.rmtree(old)

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint; None where there is none."""
        for path in reversed(self._finished()):
            try:
                state = json.loads((path / STATE).read_text(encoding="utf-8"))
                if sha256_of(path / TENSORS) != state["sha256"]:
                    raise ValueError("tensors differ from their sha256")
                found = Checkpoint(int(state["step"]), load_file(path / TENSORS), state["facts"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._progress.say(f"checkpoint {path} is damaged ({error}); the one before it counts")
                continue
            self._progress.say(f"checkpoint: going on after epoch {found.step}")
            return found
        return None

    def remove(self) -> None:
        """The run is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _finished(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*")) if self._folder.is_dir() else []


def generator_states(generators: dict[str, np.random.Generator]) -> dict[str, Any]:
    """States as JSON: PCG64's are integers beyond 64 bits, which JSON holds."""
    return {name: generator.bit_generator.state for name, generator in generators.items()}


def restore_generators(generators: dict[str, np.random.Generator], states: dict[str, Any]) -> None:
    """Sets the states that :func:`generator_states` gave."""
    for name, generator in generators.items():
        generator.bit_generator.state = states[name]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Adam's moments and step counts by the place of their parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"optimizer.{at}.{name}": torch.as_tensor(value)
        for at, parameter in enumerate(parameters)
        for name, value in optimizer.state[parameter].items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Sets what :func:`optimizer_tensors` gave."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, at, name = key.split(".", 2)
            parameter = parameters[int(at)]
            # Adam counts its steps on the CPU, its moments stand beside the weights
            optimizer.state[parameter][name] = value.to(parameter.device if value.dim() else "cpu", copy=True)
