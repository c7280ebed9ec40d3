"""The five steps with the trained torch modules in place of the graphs, eager."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from core.artifacts import latest_artifact, parent_artifact
from core.tensors import StepSpec
from export.parity import run_torch
from serving.local import LocalPipeline, Tensors
from training.models.ranker import load_ranker
from training.models.recall import load_model


class TorchPipeline(LocalPipeline):
    """Answers as :class:`LocalPipeline`, by torch.

    Args:
        release: Folder of a release.
        var: ``paths.var`` with the ranker that the release was made from, the newest one, and its parents.
        threads: Of torch.
    """

    def __init__(self, release: Path, var: Path, threads: int) -> None:
        super().__init__(release, threads)
        torch.set_num_threads(threads)
        ranker = latest_artifact(var, "ranker")
        self._modules: dict[str, torch.nn.Module] = {
            spec.name: load_model(parent_artifact(ranker, var, source)).eval() for source, spec in self._recall.items()
        }
        self._modules[self._rank.name] = load_ranker(ranker).eval()
        self._sessions.clear()  # their memory is not this peer's

    def _run(self, spec: StepSpec, tensors: Tensors) -> Tensors:
        outputs: list[np.ndarray] = run_torch(self._modules[spec.name], spec, tensors)
        return {tensor.name: output for tensor, output in zip(spec.outputs, outputs, strict=True)}
