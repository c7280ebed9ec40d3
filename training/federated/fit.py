"""A federated training from the project's side: deals users to clients, starts Flower, makes the model of its table."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.dataset import Dataset, Events, histories_of
from core.errors import SettingsError, TrainingError
from core.histories import SECONDS_PER_DAY
from core.kinds import kind_weights
from core.settings import ROOT, Settings
from training.federated.accounting import compose, epsilon_of, mu_of
from training.federated.client_maths import Shard
from training.federated.job import ROUNDS_FILE, Job
from training.federated.partition import even, skewed
from training.models.event_weights import EventWeighting
from training.models.mf_model import MfRecall
from training.models.mf_problem import rotate_to_eigenbasis
from training.models.recall_base import popularity_bias

FLOWER = ROOT / ".venv-flower" / "bin" / "python"
STATISTICS_SHARE = 0.1
"""Part of the privacy budget (of mu squared) that goes into the statistics."""


@dataclass(frozen=True)
class FederatedFit:
    """What came of it.

    Attributes:
        models: After each round.
        facts: For the manifest: clients, rounds, strategy, the budget spent.
    """

    models: tuple[MfRecall, ...]
    facts: dict[str, Any]


def fit_federated(dataset: Dataset, events: Events, settings: Settings, *, seed: int) -> FederatedFit:
    """Trains ``mf`` by federated rounds.

    Args:
        dataset: Gives the numbers of users and items.
        events: What to learn from, each (user, item) pair once.
        settings: The sections ``federated``, ``private``, ``events``, ``mf``, ``recall``.
        seed: Deals the users and decides the start values.

    Raises:
        SettingsError: Flower's environment is missing, or there are fewer users than clients.
        TrainingError: Flower's run failed.
    """
    chosen = settings.federated
    if not FLOWER.is_file():
        raise SettingsError(
            "Flower's environment is missing", where=str(FLOWER), expected="a Python with flwr", found="nothing",
            next_step="run `make setup-flower`",
        )  # fmt: skip
    if dataset.n_users < chosen.clients:
        raise SettingsError(
            "more clients than users", where="federated.clients", expected=f"at most {dataset.n_users}",
            found=str(chosen.clients),
        )  # fmt: skip
    weighting = EventWeighting.from_settings(settings.mf, kind_weights(dataset.kinds, settings.events.kind_weights))
    if chosen.partition == "even":
        client_of = even(dataset.n_users, chosen.clients, seed)
    else:
        client_of = skewed(events, dataset.n_users, dataset.n_items, chosen.clients, seed)
    job, facts = _job(settings, dataset.n_users, dataset.n_items, seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        job.write(folder, list(_shards(dataset, events, settings, weighting, client_of)))
        _run(folder)
        with np.load(folder / ROUNDS_FILE) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    models = tuple(_model(table, found, settings, weighting) for table in found["tables"])
    return FederatedFit(models, facts)


def _job(settings: Settings, n_users: int, n_items: int, seed: int) -> tuple[Job, dict[str, Any]]:
    chosen, private, mf = settings.federated, settings.private, settings.mf
    facts: dict[str, Any] = {
        "clients": chosen.clients, "partition": chosen.partition, "rounds": chosen.rounds,
        "strategy": chosen.strategy, "secure_aggregation": chosen.secure, "epsilon": None,
    }  # fmt: skip
    noise = statistics_noise = 0.0
    rounds = chosen.rounds
    if private.epsilon > 0:
        rounds = private.rounds
        mu = mu_of(private.epsilon, private.delta)
        parts = [mu * STATISTICS_SHARE**0.5, *[mu * ((1 - STATISTICS_SHARE) / rounds) ** 0.5] * rounds]
        statistics_noise, noise = 1 / parts[0], 1 / parts[1]
        facts |= {
            "rounds": rounds, "epsilon": round(epsilon_of(compose(parts), private.delta), 6), "delta": private.delta,
            "noise_multiplier": noise, "clip": private.clip, "strategy": "clipped gradients",
        }  # fmt: skip
    job = Job(
        clients=chosen.clients,
        rounds=rounds,
        strategy=chosen.strategy,
        proximal=chosen.proximal if chosen.strategy == "fedprox" else 0.0,
        local_epochs=chosen.local_epochs,
        secure=chosen.secure,
        n_users=n_users,
        n_items=n_items,
        dimension=private.dimension if private.epsilon > 0 else mf.dimension,
        seed=seed,
        unobserved_ratio=mf.unobserved_ratio,
        regularisation=mf.regularisation,
        frequency_power=mf.frequency_power,
        noise=noise,
        statistics_noise=statistics_noise,
        clip=private.clip,
        statistics_clip=private.statistics_clip,
        gram_weight=private.gram_weight,
        step=private.step,
    )
    return job, facts


def _shards(
    dataset: Dataset, events: Events, settings: Settings, weighting: EventWeighting, client_of: np.ndarray
) -> Iterator[Shard]:
    """Each client's events; all of it is computed from one user at a time and the public newest time."""
    newest = float(events.timestamps.max())
    half_life = settings.recall.popularity_half_life_days
    for client in range(settings.federated.clients):
        histories = histories_of(events, dataset.n_users).select(np.flatnonzero(client_of == client))
        ages = (newest - histories.timestamps) / SECONDS_PER_DAY
        lengths = histories.lengths
        yield Shard(
            np.asarray(histories.starts, dtype=np.int64),
            np.asarray(histories.item_rows, dtype=np.int64),
            weighting.of_histories(histories).astype(np.float64),
            np.repeat(np.maximum(lengths, 1).astype(np.float64) ** -settings.mf.user_power, lengths),
            np.maximum(np.exp2(-ages / half_life), 1e-300),
        )


def _run(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run(
        [str(FLOWER), "-m", "training.federated.app", str(folder)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise TrainingError(
            "the federated run failed", where="training.federated.app", expected="exit status 0",
            found=f"{done.returncode}: {done.stderr[-2000:]}", next_step="read the message; `make setup-flower` again",
        )  # fmt: skip


def _model(table: np.ndarray, found: dict[str, np.ndarray], settings: Settings, weighting: EventWeighting) -> MfRecall:
    all_weight, mean_length = float(found["all_weight"]), float(found["mean_length"])
    items, _, spectrum = rotate_to_eigenbasis(table, table[:0], all_weight)
    vectors = torch.zeros(len(items) + 1, items.shape[1])
    vectors[:-1] = torch.from_numpy(items)
    # the sums held n^-power; the model's factor is (n / mean)^-power
    scale = float(found["scale"]) * mean_length**-settings.mf.user_power
    return MfRecall(
        vectors,
        torch.from_numpy(popularity_bias(found["mass"], settings.mf.popularity)),
        torch.from_numpy(popularity_bias(found["recent"], 1.0)),
        torch.from_numpy(spectrum),
        weighting=replace(weighting, scale=scale),
        regularisation=settings.mf.regularisation,
        frequency_power=settings.mf.frequency_power,
        all_items_mass=all_weight * len(items),
        user_power=settings.mf.user_power,
        mean_length=mean_length,
        candidates=settings.recall.candidates,
    ).eval()
