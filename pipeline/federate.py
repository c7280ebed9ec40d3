"""`conch federate`: a recall model whose users' events stay with clients."""

from __future__ import annotations

import time

from core.artifacts import Artifact, create_artifact, latest_artifact
from core.dataset import load_dataset
from core.progress import Progress
from core.settings import Settings
from training.federated.fit import fit_federated
from training.models.recall import save_model
from training.stage import use_hardware


def federate(settings: Settings, progress: Progress) -> Artifact:
    """Trains ``mf`` by Flower on the newest dataset; the artefact is one like any other of its kind.

    Raises:
        ArtifactError: No dataset yet.
        SettingsError: Flower's environment is missing.
        TrainingError: Flower's run failed.
    """
    use_hardware(settings)
    started = time.perf_counter()
    data = latest_artifact(settings.paths.var, "dataset")
    dataset = load_dataset(data)
    events = dataset.events.of_splits(settings.train.fit)
    tree = settings.model_dump(mode="json")
    sections = {name: tree[name] for name in ("train", "events", "recall", "mf", "content", "federated", "private")}
    with create_artifact(
        settings.paths.var, "mf", settings=sections, seed=settings.train.seed, parents=(data,)
    ) as draft:
        fit = fit_federated(dataset, events, settings, seed=settings.train.seed)
        draft.tensors |= save_model(fit.models[-1], draft.path)
        seconds = round(time.perf_counter() - started, 2)
        draft.metrics |= {"federated": fit.facts, "events": len(events), "train_seconds": seconds}
    budget = "no privacy budget" if fit.facts["epsilon"] is None else f"epsilon {fit.facts['epsilon']:g}"
    progress.say(
        f"federate: {fit.facts['clients']} {fit.facts['partition']} clients, {fit.facts['rounds']} rounds of "
        f"{fit.facts['strategy']}, {budget}, {seconds:.1f} s, wrote {draft.finished().path}"
    )
    return draft.finished()
