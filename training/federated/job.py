"""A federated training as files: what the project's environment writes for Flower's, and what comes back.

``job.json`` holds a :class:`Job`, ``client-<n>.npz`` the events of one client, ``rounds.npz`` the tables after rounds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.federated.client_maths import Shard

ROUNDS_FILE = "rounds.npz"


@dataclass(frozen=True)
class Job:
    """What the server is told.

    Attributes:
        clients: Clients.
        rounds: Rounds of learning; one of statistics comes before them.
        strategy: fedavg or fedprox.
        proximal: FedProx' mu; 0 with fedavg.
        local_epochs: Local passes of a client and round.
        secure: Whether sums are made by SecAgg+.
        n_users: All clients' users, with events or without: no secret.
        n_items: I.
        dimension: D.
        seed: Of the start values.
        unobserved_ratio: As ``mf.unobserved_ratio``.
        regularisation: As ``mf.regularisation``.
        frequency_power: As ``mf.frequency_power``.
        noise: Standard deviation of the noise over the clip, of each learning round's sum; 0 without privacy.
        statistics_noise: As ``noise``, of the statistics.
        clip: Longest contribution of a user to a learning round.
        statistics_clip: As ``clip``, to the statistics.
        gram_weight: Weight of a user's Gram matrix against the gradients under one clip.
        step: Length of the private step; 1 is the whole way to the minimum.
    """

    clients: int
    rounds: int
    strategy: str
    proximal: float
    local_epochs: int
    secure: bool
    n_users: int
    n_items: int
    dimension: int
    seed: int
    unobserved_ratio: float
    regularisation: float
    frequency_power: float
    noise: float
    statistics_noise: float
    clip: float
    statistics_clip: float
    gram_weight: float
    step: float

    @property
    def private(self) -> bool:
        """Whether noise is added."""
        return self.noise > 0

    def write(self, folder: Path, shards: list[Shard]) -> None:
        """Writes the job; ``shards`` has one part per client."""
        (folder / "job.json").write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        for client, shard in enumerate(shards):
            np.savez(folder / f"client-{client}.npz", **vars(shard))

    @classmethod
    def read(cls, folder: Path) -> Job:
        """What :meth:`write` wrote."""
        return cls(**json.loads((folder / "job.json").read_text(encoding="utf-8")))


def read_shard(folder: Path, client: int) -> Shard:
    """One client's events; only this client opens the file."""
    with np.load(folder / f"client-{client}.npz") as arrays:
        return Shard(**{name: arrays[name] for name in arrays.files})
