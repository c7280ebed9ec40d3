"""The train stage: dataset in, one artefact per model out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numba
import torch
from safetensors.torch import save_file

from core.artifacts import Artifact, create_artifact, latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.errors import SettingsError, TrainingError
from core.progress import SILENT, Progress, Recorded
from core.settings import Settings
from training.content.newcomers import fit_newcomers
from training.content.store import save_content
from training.content.transfer import configured_start
from training.content.warm import warm_cold_items
from training.continuation import Continuation
from training.distributed.fits import fit_ranker_by_workers, fit_recall_by_workers
from training.distributed.sharing import Sharing
from training.models.fitters import FITTERS, MEMBERS, SHARED, fitter
from training.models.ranker import save_ranker
from training.models.recall import load_model, save_model
from training.ranking.fit import RecallSet, fit_ranker
from training.ratings.store import KIND as RATING
from training.ratings.store import train_rating

MODELS = (*FITTERS, "ranker", RATING)
NO_CONTINUATIONS: Mapping[str, Continuation] = MappingProxyType({})
NETWORK_FILE = "network.safetensors"
"""Weights as they are trained, beside those that are served: a continuation starts from them."""


def train(
    settings: Settings,
    progress: Progress = SILENT,
    models: Sequence[str] = (),
    continuations: Mapping[str, Continuation] = NO_CONTINUATIONS,
) -> list[Artifact]:
    """Trains the named models on the newest dataset, in the order recall, then ranking.

    Args:
        settings: All settings; ``train.fit`` names the splits that are learned from.
        progress: Where bars and summary lines go.
        models: Recall models, ranker and rating; those of ``recall.sources`` and the ranker by default, and rating
            where ``rating.enabled``. The ranker alone takes the newest recall models.
        continuations: By recall model (mf, gat): what it goes on from.

    Raises:
        SettingsError: An unknown model or device.
        TrainingError: Nothing to learn from, or a loss that is not finite.
    """
    models = models or (*settings.recall.sources, "ranker", *((RATING,) if settings.rating.enabled else ()))
    for name in (*models, *settings.recall.sources):
        if name not in MODELS:
            raise SettingsError("unknown model", where="conch train", expected=" | ".join(MODELS), found=name)
    use_hardware(settings)
    data = latest_artifact(settings.paths.var, "dataset")
    dataset = load_dataset(data)
    if len(dataset.events.of_splits(settings.train.fit)) == 0:
        raise TrainingError(
            "no events to learn from",
            where=str(data.path),
            expected=f"events in the splits {', '.join(settings.train.fit)}",
            found="none",
            next_step="check train.fit and the split column of the data",
        )
    made = [
        _train_recall(name, data, dataset, settings, progress, continuations.get(name))
        for name in FITTERS
        if name in models
    ]
    if "ranker" in models:
        made.append(_train_ranker(data, dataset, settings, progress))
    if RATING in models:
        made.append(train_rating(data, dataset, settings, progress))
    return made


def use_hardware(settings: Settings) -> None:
    """Sets thread counts and refuses a device that is not there; none is chosen silently."""
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
        numba.set_num_threads(min(settings.train.threads, numba.get_num_threads()))
    if settings.train.device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(
            "no CUDA device",
            where="train.device",
            expected="an NVIDIA GPU with a CUDA build of torch",
            found=f"torch {torch.__version__}",
            next_step="use --set train.device=cpu",
        )


def _train_recall(
    name: str,
    data: Artifact,
    dataset: Dataset,
    settings: Settings,
    progress: Progress,
    continuation: Continuation | None,
) -> Artifact:
    started, recorded = time.perf_counter(), Recorded(progress)
    events = dataset.events.of_splits(settings.train.fit)
    with create_artifact(
        settings.paths.var, name, settings=_sections(settings, name), seed=settings.train.seed, parents=(data,)
    ) as draft:
        if settings.train.workers > 1 and name in SHARED:
            model = fit_recall_by_workers(name, data, settings, recorded, continuation)
        else:
            fit: Any = fitter(name)
            if continuation is not None:
                fit = partial(fit, continuation=continuation)
            model = fit(dataset, events, settings, seed=settings.train.seed, progress=recorded)
        warmed = warm_cold_items(
            model,
            dataset,
            events,
            settings,
            seed=settings.train.seed,
            start=configured_start(settings.content),
            progress=recorded,
        )
        newcomers = fit_newcomers(
            warmed.model, dataset, events, settings.content, seed=settings.train.seed, progress=recorded
        )
        draft.tensors |= save_model(newcomers.model, draft.path)
        if continuation is not None and continuation.kept:
            save_file(continuation.kept, draft.path / NETWORK_FILE)
        draft.metrics |= {
            **({"content": warmed.metrics} if warmed.metrics else {}),
            **({"newcomers": newcomers.metrics} if newcomers.metrics else {}),
            "curves": recorded.curves_of(name),
            "events": len(events),
            "train_seconds": round(time.perf_counter() - started, 2),
        }
    if continuation is not None and continuation.checkpoints is not None:
        continuation.checkpoints.remove()
    progress.say(f"train {name}: {len(events):,} events, {time.perf_counter() - started:.1f} s")
    if warmed.fitted is not None:
        save_content(warmed, settings, (data, draft.finished()))
    return draft.finished()


def _train_ranker(data: Artifact, dataset: Dataset, settings: Settings, progress: Progress) -> Artifact:
    started, recorded = time.perf_counter(), Recorded(progress)
    sources = {name: latest_artifact(settings.paths.var, name) for name in settings.recall.sources}
    for recall in sources.values():
        if parent_artifact(recall, settings.paths.var, "dataset").manifest.run_id != data.manifest.run_id:
            raise TrainingError(
                f"{recall.manifest.kind} was trained on another dataset",
                where=str(recall.path),
                expected=f"parent dataset {data.manifest.run_id}",
                next_step=f"run `conch train {recall.manifest.kind}` first",
            )
    with create_artifact(
        settings.paths.var,
        "ranker",
        settings=_sections(settings, "ranker"),
        seed=settings.train.seed,
        parents=(data, *sources.values()),
    ) as draft:
        if settings.train.workers > 1:
            fit = fit_ranker_by_workers(data, sources, settings, recorded)
        else:
            models = RecallSet({name: load_model(artifact) for name, artifact in sources.items()})
            fit = fit_ranker(
                dataset,
                settings,
                seed=settings.train.seed,
                progress=recorded,
                recall=models,
                sharing=Sharing(train=settings.train),
            )
        draft.tensors |= save_ranker(fit.model, draft.path)
        curves = recorded.curves_of("ranker")
        draft.metrics |= {**fit.metrics, "curves": curves, "train_seconds": round(time.perf_counter() - started, 2)}
    progress.say(f"train ranker: {time.perf_counter() - started:.1f} s")
    return draft.finished()


def _sections(settings: Settings, name: str) -> dict[str, Any]:
    tree = settings.model_dump(mode="json")
    own = (name, *MEMBERS) if name == "mix" else (name,) if name == "ranker" else (name, "content")
    return {section: tree[section] for section in ("train", "events", "recall", *own)}
