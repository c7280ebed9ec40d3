"""The table of stages: what `conch run` does, in order. Each verb of the command line is one row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from core.artifacts import Artifact
from core.progress import Progress
from core.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One step from artefacts to artefacts.

    Attributes:
        name: Verb of the `conch` command and target of the Makefile.
        reads: Kinds of artefact it takes, newest first found.
        writes: Kinds of artefact it makes.
        help: One line.
        run: The work; heavy imports happen inside, so that `conch --help` stays quick.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    help: str
    run: Callable[[Settings, Progress], list[Artifact]]


def _dataset(settings: Settings, progress: Progress) -> list[Artifact]:
    from training.data.stage import build_dataset

    return [build_dataset(settings, progress)]


def _train(settings: Settings, progress: Progress) -> list[Artifact]:
    from training.stage import train

    return train(settings, progress)


def _compress(settings: Settings, progress: Progress) -> list[Artifact]:
    if not settings.compress.enabled:
        return []
    from pipeline.compressing.stage import compress

    return [compress(settings, progress)]


def _export(settings: Settings, progress: Progress) -> list[Artifact]:
    from export.stage import export_models

    if settings.export.target == "onnx":
        return [export_models(settings, progress)]
    from export.tensorrt.build import this_machine
    from export.tensorrt.stage import export_plans, refuse_unmade

    refuse_unmade(settings)
    this_machine()  # before minutes of work that would end here
    return [export_models(settings, progress), export_plans(settings, progress)]


def _release(settings: Settings, progress: Progress) -> list[Artifact]:
    from pipeline.publish import install_first
    from pipeline.release import assemble_release

    release = assemble_release(settings, progress)
    install_first(settings, release, progress)
    return [release]


STAGES = (
    Stage("dataset", (), ("dataset",), "Read, clean and split the events; learn vocabularies and features.", _dataset),
    Stage("train", ("dataset",), ("mf", "gat", "ranker"), "Train the recall models and the ranker.", _train),
    Stage(
        "compress",
        ("ranker", "gat", "mf"),
        ("compressed",),
        "Make the trained models small, where compress.enabled.",
        _compress,
    ),
    Stage("export", ("ranker", "gat", "mf"), ("graphs",), "Export to ONNX and prove parity with torch.", _export),
    Stage(
        "release",
        ("graphs", "dataset"),
        ("release",),
        "Assemble a Triton release; make it live unless a gate is in force.",
        _release,
    ),
)


def run_stages(settings: Settings, progress: Progress, names: tuple[str, ...] = ()) -> None:
    """Runs the named stages in table order, all of them by default, and says how long each took."""
    chosen = [stage for stage in STAGES if not names or stage.name in names]
    seconds = {}
    for stage in chosen:
        started = time.perf_counter()
        stage.run(settings, progress)
        seconds[stage.name] = time.perf_counter() - started
    if len(chosen) > 1:
        parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        progress.say(f"run: {sum(seconds.values()):.1f} s ({parts})")
