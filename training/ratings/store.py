"""The rating model as an artefact."""

from __future__ import annotations

import time

from safetensors.torch import save_file

from core.artifacts import Artifact, create_artifact
from core.dataset import Dataset
from core.errors import ArtifactError
from core.progress import Progress
from core.settings import Settings
from training.models.weights import read_weights
from training.ratings.fit import fit_rating
from training.ratings.model import RatingModel

KIND = "rating"
WEIGHTS = "model.safetensors"


def train_rating(data: Artifact, dataset: Dataset, settings: Settings, progress: Progress) -> Artifact:
    """Trains the rating model on ``train.fit`` and writes its artefact.

    Raises:
        TrainingError: The data has no values to learn from.
    """
    started = time.perf_counter()
    events = dataset.events.of_splits(settings.train.fit)
    sections = {name: getattr(settings, name).model_dump(mode="json") for name in ("train", KIND)}
    seed = settings.train.seed
    with create_artifact(settings.paths.var, KIND, settings=sections, seed=seed, parents=(data,)) as draft:
        fit = fit_rating(dataset, events, settings.rating, seed=seed, progress=progress)
        save_file(fit.model.tensors(), draft.path / WEIGHTS)
        draft.tensors |= fit.model.as_facts() | {"cut": fit.cut}
        seconds = round(time.perf_counter() - started, 2)
        draft.metrics |= {"events": len(events), "cross_fitted": fit.metrics, "train_seconds": seconds}
    known = fit.metrics
    progress.say(
        f"train rating: {len(events):,} events, cross-fitted RMSE {known['rmse']:.4f}, AUC {known['auc']:.4f}, "
        f"logloss {known['log_loss']:.4f}, {seconds:.1f} s"
    )
    return draft.finished()


def load_rating(artifact: Artifact) -> RatingModel:
    """The model of a rating artefact. Raises ArtifactError where it holds none."""
    facts = artifact.manifest.tensors
    if facts.get("model") != KIND:
        raise ArtifactError(
            "not a rating model", where=str(artifact.path), expected=KIND, found=str(facts.get("model"))
        )
    return RatingModel.from_tensors(read_weights(artifact, WEIGHTS), facts)
