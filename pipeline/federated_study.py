"""`conch federate --study`: federated against central quality over rounds, and what privacy costs and brings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.artifacts import latest_artifact, write_json
from core.bootstrap import standard_error
from core.dataset import Dataset, Events, load_dataset
from core.histories import pad
from core.metrics import hits, ndcg
from core.progress import SILENT, Progress
from core.settings import Settings, change_settings
from pipeline.question import held_out
from training.federated.fit import fit_federated
from training.membership import audit_membership
from training.models.mf import fit_mf
from training.models.mf_model import MfRecall
from training.requests import user_codes
from training.stage import use_hardware

K = 10
EPSILONS = (1.0, 3.0, 10.0, 30.0, 100.0)
RUNS: Mapping[str, Mapping[str, Any]] = {
    "even, FedAvg": {"federated.partition": "even", "federated.strategy": "fedavg"},
    "even, FedProx": {"federated.partition": "even", "federated.strategy": "fedprox"},
    "skewed, FedAvg": {"federated.partition": "skewed", "federated.strategy": "fedavg"},
    "skewed, FedProx": {"federated.partition": "skewed", "federated.strategy": "fedprox"},
}


def federated_file(var: Path) -> Path:
    """Where the report finds the study; ``var`` is ``paths.var``."""
    return var / "reports" / "federated" / "federated.json"


def study(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Trains centrally, by every kind of client and strategy, and by several budgets; writes the figures.

    Quality over rounds is that of models without the valid split, asked about it; the test split is asked once, of
    each last model, fitted on ``train.fit``.

    Raises:
        ArtifactError: No dataset yet.
        SettingsError: Flower's environment is missing, or too few users.
        TrainingError: Flower's run failed.
    """
    use_hardware(settings)
    artifact = latest_artifact(settings.paths.var, "dataset")
    dataset, seed = load_dataset(artifact), settings.train.seed
    open_ = change_settings(settings, {"private.epsilon": 0.0})
    parts = {"valid": ("train",), "test": tuple(settings.train.fit)}
    events = {split: dataset.events.of_splits(fit) for split, fit in parts.items()}

    def score(model: MfRecall, split: str) -> np.ndarray:
        return ndcg_of(model, dataset, parts[split], split)

    def one(name: str, chosen: Settings) -> dict[str, Any]:
        started = time.perf_counter()
        fit = fit_federated(dataset, events["valid"], chosen, seed=seed)
        rounds = [round(float(score(model, "valid").mean()), 5) for model in fit.models]
        last = score(fit_federated(dataset, events["test"], chosen, seed=seed).models[-1], "test")
        quality = _summary(last)
        row = {"name": name, **fit.facts, "valid_over_rounds": rounds, **quality}
        row |= {"of_central": round(quality["ndcg"] / central["ndcg"], 4)}
        row |= {"of_central_valid": round(rounds[-1] / central["valid_ndcg"], 4)}
        progress.say(f"federate: {name}: {row['of_central']:.3f} of central, {time.perf_counter() - started:.1f} s")
        return row

    popular = fit_mf(dataset, events["test"], open_, seed=seed)
    central: dict[str, Any] = _summary(score(popular, "test"))
    popular.item_vectors.zero_()  # what is left is the bias
    popularity = _summary(score(popular, "test"))
    popularity["of_central"] = round(popularity["ndcg"] / central["ndcg"], 4)
    central["valid_ndcg"] = round(float(score(fit_mf(dataset, events["valid"], open_, seed=seed), "valid").mean()), 5)
    central["membership"] = asdict(audit_membership("mf", dataset, open_))
    runs = [one(name, change_settings(open_, dict(changes))) for name, changes in RUNS.items()]
    curve = []
    for epsilon in EPSILONS:
        chosen = change_settings(settings, {"private.epsilon": epsilon, "federated.partition": "even"})
        attacked = audit_membership("mf", dataset, chosen, SILENT, fit=_fit_last)
        curve.append(one(f"epsilon {epsilon:g}", chosen) | {"membership": asdict(attacked)})
    first = change_settings(open_, dict(RUNS["even, FedAvg"]))
    open_run = audit_membership("mf", dataset, first, SILENT, fit=_fit_last)
    report = {
        "dataset": artifact.manifest.digest(), "users": int(held_out(dataset, parts["test"], "test").warm.sum()),
        "seed": seed, "fit": list(parts["test"]), "k": K, "central": {"name": "central", **central},
        "popularity": {"name": "popularity alone", **popularity}, "runs": runs,
        "without_noise": {"name": "federated without noise", "membership": asdict(open_run)}, "private": curve,
    }  # fmt: skip
    file = federated_file(settings.paths.var)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, report)
    return report


@torch.no_grad()
def ndcg_of(model: MfRecall, dataset: Dataset, fit: tuple[str, ...], split: str) -> np.ndarray:
    """NDCG@10 of each user with a history who has something new in ``split``, float64 ``(U,)``.

    Users without one get recent popularity from every model: they would hide the differences.
    """
    question = held_out(dataset, fit, split)
    histories, found = dataset.histories(fit), np.empty((len(question.user_rows), K), dtype=np.int64)
    for start in range(0, len(found), 256):
        users = question.user_rows[start : start + 256]
        padded = pad(histories.select(users), dataset.n_items)
        arrays = (padded.rows, padded.ages, padded.values, padded.kinds, padded.exclude)
        rows, _ = model(*map(torch.from_numpy, arrays), user_codes(dataset, users))
        found[start : start + 256] = rows[:, :K].numpy()
    return ndcg(hits(found, question.truth), question.truth.sizes, K)[question.warm]


def _fit_last(dataset: Dataset, events: Events, settings: Settings, *, seed: int, progress: Progress) -> MfRecall:
    return fit_federated(dataset, events, settings, seed=seed).models[-1]


def _summary(values: np.ndarray) -> dict[str, float]:
    return {"ndcg": round(float(values.mean()), 5), "ndcg_se": round(float(standard_error(values)), 5)}
