"""What the server makes of the clients' sums. Numpy alone: it runs in Flower's environment."""

from __future__ import annotations

import numpy as np

from training.federated.client_maths import COUNT_UNITS, COUNTS, Constants
from training.federated.job import Job

INITIAL_SPREAD = 0.1
"""As in central training."""


class ServerState:
    """The item table and what clients are told beside it.

    Attributes:
        items: float64 ``(I, D)``.
        mass: float64 ``(I,)``, 0 before the statistics.
        recent: float64 ``(I,)``, recent mass.
        gram: float64 ``(D, D)`` of all users in the round before; zero before the first.
        constants: None before the statistics.
        mean_length: Events per user.
    """

    def __init__(self, job: Job) -> None:
        rng = np.random.default_rng(job.seed)
        self.job = job
        self.items = rng.normal(0, INITIAL_SPREAD / np.sqrt(job.dimension), (job.n_items, job.dimension))
        self.mass = self.recent = np.zeros(job.n_items)
        self.gram = np.zeros((job.dimension, job.dimension))
        self.mean_length = 0.0
        self.constants: Constants | None = None

    def take_statistics(self, total: np.ndarray) -> None:
        """Sets masses and constants from :func:`training.federated.client_maths.statistics`, summed."""
        job = self.job
        total = np.maximum(total, 0)  # noise may take a count below
        users, events, weight = np.maximum(total[-COUNTS:] * COUNT_UNITS, 1.0)
        scale = events / weight
        self.mass, self.recent = total[: job.n_items] * scale, total[job.n_items : 2 * job.n_items]
        pairs = users * max(np.count_nonzero(self.mass), 1)
        all_weight = job.unobserved_ratio * self.mass.sum() / pairs
        self.constants = Constants(scale, all_weight, job.regularisation, job.frequency_power, users)
        self.mean_length = events / users
        self.items[self.mass == 0] = 0

    def take_tables(self, change: np.ndarray, share: np.ndarray, gram: np.ndarray) -> None:
        """One round of FedAvg: items' changes, averaged by the clients' shares of each item."""
        weight = np.where(share > 1e-3, share, np.inf)  # sums to 1 but for rounding, to 0 for items nobody has
        self.items = self.items + change / weight[:, None]
        self.gram = (gram + gram.T) / 2

    def take_gradient(self, gradient: np.ndarray, gram: np.ndarray) -> None:
        """One private round: a Newton step with the users' Gram matrix in place of every item's own.

        The fixed point without noise is central training's; all that follows from the noisy sums costs no privacy.
        """
        assert self.constants is not None
        values, basis = np.linalg.eigh((gram + gram.T) / (2 * self.job.gram_weight))
        values = np.maximum(values, 0)  # noise leaves a Gram matrix no longer positive
        self.gram = (basis * values) @ basis.T
        ridge = self.constants.ridge(self.mass, self.constants.user_count)[:, None]
        rotated, wanted = self.items @ basis, gradient @ basis
        zeros = self.constants.all_weight * values
        slope = wanted - (zeros + ridge) * rotated
        observed = self.mass[:, None] * values / self.constants.user_count
        step = self.job.step * slope / (zeros + ridge + observed)
        self.items = np.where(self.mass[:, None] > 0, (rotated + step) @ basis.T, 0)
