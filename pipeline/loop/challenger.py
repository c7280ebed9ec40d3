"""Makes challengers: incremental ones that go on from the live release, and full ones from nothing."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np

from compression.store import KIND as COMPRESSED
from core.artifacts import Artifact, latest_artifact, parent_artifact
from core.dataset import load_dataset
from core.errors import TrainingError
from core.progress import Progress
from core.settings import Settings, change_settings
from export.stage import export_models
from pipeline.compressing.stage import compress
from pipeline.release import assemble_release
from training.checkpoints import Checkpoints
from training.continuation import Continuation, mixed_learners, rows_in
from training.models.recall import WEIGHTS
from training.models.weights import read_weights
from training.ratings.store import KIND as RATING
from training.stage import NETWORK_FILE, train

Mode = Literal["incremental", "full"]
GOES_ON = ("mf", "gat")
"""Recall models that can start from an earlier one; the others are closed forms."""
MB = 1 << 20


def make_challenger(
    settings: Settings, data: Artifact, champion: Artifact | None, mode: Mode, progress: Progress
) -> Artifact:
    """Trains, exports and assembles a release on the newest dataset; it is not installed.

    Incremental: the models of ``retrain.continues`` start from the live release's weights by item id, with fewer
    epochs; gat, where it is among them, with lower rates, from users with new events and a share of the others. The
    ranker is always fitted anew, and with the full settings: its windows move with the data, and the recall models
    that it fits for them start from nothing.

    Args:
        settings: Of the loop, with the data's own.
        data: The dataset artefact, the newest one.
        champion: The live release; without one the run is a full one.
        mode: See above.
        progress: Where bars and lines go.

    Raises:
        TrainingError: Loss not finite, nothing to learn from, or out of memory. Nothing went live.
    """
    settings = as_live(settings, champion)
    chosen = settings
    if mode == "incremental" and champion is not None:
        chosen = gentle(settings)
    continuations = {
        name: _continuation(
            name,
            chosen,
            data,
            champion if mode == "incremental" and name in settings.retrain.continues else None,
            progress,
        )
        for name in GOES_ON
        if name in settings.recall.sources
    }
    with memory_limit(settings.retrain.memory_mb):
        train(chosen, progress, settings.recall.sources, continuations=continuations)
        train(settings, progress, ("ranker", *((RATING,) if settings.rating.enabled else ())))
        if settings.compress.enabled:
            compress(settings, progress)
        export_models(settings, progress)
        return assemble_release(settings, progress)


def as_live(settings: Settings, champion: Artifact | None) -> Settings:
    """Compresses where the live release is compressed, under its goal; not with ``retrain.keep_compressed`` off."""
    if champion is None or settings.compress.enabled or not settings.retrain.keep_compressed:
        return settings
    graphs = parent_artifact(champion, settings.paths.var, "graphs")
    if COMPRESSED not in graphs.manifest.parents:
        return settings
    goal = parent_artifact(graphs, settings.paths.var, COMPRESSED).manifest.settings["compress"]["goal"]
    return change_settings(settings, {"compress.enabled": True, "compress.goal": goal})


def gentle(settings: Settings) -> Settings:
    """Fewer epochs and lower rates for a run that goes on."""
    of = settings.retrain
    changed: dict[str, float] = {}
    for name in of.continues:
        changed[f"{name}.epochs"] = max(1, round(getattr(settings, name).epochs * of.epochs_factor))
    if "gat" in of.continues:
        changed["gat.table_rate"] = settings.gat.table_rate * of.rate_factor
        changed["gat.scalar_rate"] = settings.gat.scalar_rate * of.rate_factor
    return change_settings(settings, changed)


def _continuation(
    name: str, settings: Settings, data: Artifact, champion: Artifact | None, progress: Progress
) -> Continuation:
    var = settings.paths.var
    checkpoints = None
    if settings.retrain.checkpoints and name == "gat":  # mf's epochs take seconds: it starts over
        checkpoints = Checkpoints(var / "loop" / "checkpoints", _identity(settings, data, champion), progress)
    if champion is None:
        return Continuation(checkpoints=checkpoints)
    graphs = parent_artifact(champion, var, "graphs")
    if name not in graphs.manifest.parents:
        return Continuation(checkpoints=checkpoints)
    model = parent_artifact(graphs, var, name)
    old, new = load_dataset(parent_artifact(champion, var, "dataset")), load_dataset(data)
    file = NETWORK_FILE if name == "gat" else WEIGHTS
    known = {record.path for record in model.manifest.files}
    fitted = new.events.of_splits(settings.train.fit)
    since = float(old.events.of_splits(tuple(champion.manifest.tensors["fit"])).timestamps.max(initial=0.0))
    rng = np.random.default_rng([settings.train.seed, 7])
    return Continuation(
        start=read_weights(model, file) if file in known else None,
        old_rows=rows_in(old.items, new.items),
        learners=mixed_learners(new, fitted, since, settings.retrain.replay_share, rng) if file in known else None,
        checkpoints=checkpoints,
    )


def _identity(settings: Settings, data: Artifact, champion: Artifact | None) -> str:
    """Hash of everything that decides gat's weights. The data's files stand for the data: run ids differ each time."""
    facts = {
        "data": {record.path: record.sha256 for record in data.manifest.files if record.path != "report.json"},
        "champion": champion.manifest.digest() if champion is not None else None,
        **{name: getattr(settings, name).model_dump(mode="json") for name in ("train", "events", "recall", "gat")},
        "retrain": settings.retrain.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def memory_limit(limit_mb: int) -> Iterator[None]:
    """Limits this process's address space; running into it is a TrainingError, and the limit goes afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if limit_mb:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb * MB, hard))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
        raise TrainingError(
            "out of memory",
            where="retrain.memory_mb",
            expected=f"{limit_mb} MB of address space" if limit_mb else "enough memory",
            found=str(error)[:200],
            next_step="raise retrain.memory_mb, or train smaller models",
        ) from None
    finally:
        if limit_mb:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def newest_release(var_settings: Settings, release_id: str) -> Artifact:
    """The release artefact of this id. Raises ArtifactError where there is none."""
    from core.artifacts import load_artifact

    folder = var_settings.paths.var / "artifacts" / "release"
    for path in sorted(folder.glob("[0-9]*/manifest.json"), reverse=True):
        found = load_artifact(path.parent)
        if found.manifest.tensors["release_id"] == release_id:
            return found
    return latest_artifact(var_settings.paths.var, f"release {release_id}")
