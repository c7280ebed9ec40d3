"""What a client computes from its users' events. Numpy alone: it runs in Flower's environment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shard:
    """The events of a client's users.

    Attributes:
        starts: int64 ``(U + 1,)``, offsets of each user's events.
        item_rows: int64 ``(events,)``, each item at most once per user.
        weights: float64 ``(events,)``, before the scale that makes their mean 1.
        lengths_factor: float64 ``(events,)``, ``n^-user_power`` of the user with n events.
        recent: float64 ``(events,)``, weight in the popularity of late.
    """

    starts: np.ndarray
    item_rows: np.ndarray
    weights: np.ndarray
    lengths_factor: np.ndarray
    recent: np.ndarray

    def users(self) -> list[slice]:
        """Events of each user who has some."""
        bounds = zip(self.starts[:-1], self.starts[1:], strict=True)
        return [slice(start, stop) for start, stop in bounds if stop > start]


@dataclass(frozen=True)
class Constants:
    """What all clients were told after the first round.

    Attributes:
        scale: Of every event's weight.
        all_weight: ``a0``, weight of every pair as a zero.
        regularisation: ``reg``.
        frequency_power: ``nu``.
        user_count: Users of all clients who have events.
    """

    scale: float
    all_weight: float
    regularisation: float
    frequency_power: float
    user_count: float

    def ridge(self, mass: np.ndarray | float, columns: float) -> np.ndarray:
        """Weight of the squared norm of rows with this mass."""
        return np.asarray(self.regularisation * (mass + self.all_weight * columns) ** self.frequency_power)


COUNT_UNITS = np.array([1.0, 100.0, 100.0])
"""Numbers at the end of the statistics: users, events, sum of the weights; counted in these units, so that a user's
counts do not fill the clip."""
COUNTS = len(COUNT_UNITS)


def statistics(shard: Shard, n_items: int, clip: float = 0.0) -> np.ndarray:
    """Sums over users, float64 ``(2 I + COUNTS,)``: mass of each item, recent mass of each, then the counts.

    Args:
        shard: The client's events.
        n_items: I.
        clip: Longest vector of one user; 0 for no bound.
    """
    total = np.zeros(2 * n_items + COUNTS)
    for part in shard.users():
        rows = shard.item_rows[part]
        first = shard.weights[part] * shard.lengths_factor[part]
        counts = np.array([1.0, len(rows), shard.weights[part].sum()]) / COUNT_UNITS
        size = float(np.sqrt((first**2).sum() + (shard.recent[part] ** 2).sum() + (counts**2).sum()))
        factor = min(1.0, clip / size) if clip else 1.0
        total[rows] += factor * first
        total[n_items + rows] += factor * shard.recent[part]
        total[2 * n_items :] += factor * counts
    return total


def fold_in(shard: Shard, items: np.ndarray, constants: Constants) -> np.ndarray:
    """Vectors of the users who have events, float64 ``(users, D)``: exact minimisers with the items fixed."""
    users = shard.users()
    vectors = np.zeros((len(users), items.shape[1]))
    gram = constants.all_weight * items.T @ items
    for user, part in enumerate(users):
        weights = _weights(shard, constants, part)
        own = items[shard.item_rows[part]]
        ridge = float(constants.ridge(weights.sum(), len(items)))
        matrix = gram + (own * weights[:, None]).T @ own
        matrix[np.diag_indices_from(matrix)] += ridge
        vectors[user] = np.linalg.solve(matrix, weights @ own)
    return vectors


def local_table(
    shard: Shard,
    items: np.ndarray,
    mass: np.ndarray,
    gram: np.ndarray | None,
    constants: Constants,
    epochs: int,
    proximal: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The item table after local passes over users and items.

    The client's events of an item stand for everybody's: they are scaled to the item's mass over all clients, and the
    users who do not have it come in by everybody's Gram matrix of the round before.

    Args:
        shard: The client's events.
        items: float64 ``(I, D)``, everybody's table.
        mass: float64 ``(I,)``, of each item over all clients.
        gram: float64 ``(D, D)``, sum of ``x x'`` over all users; None in the first round, where the own one is scaled.
        constants: See there.
        epochs: Local passes.
        proximal: FedProx' mu, pull towards ``items`` as a share of an item's mass.

    Returns:
        The change of the table times the client's share of each item ``(I, D)``, these shares ``(I,)``, the Gram
        matrix ``(D, D)`` of the client's users.
    """
    users = shard.users()
    user_of = np.repeat(np.arange(len(users)), [part.stop - part.start for part in users])
    weights = _weights(shard, constants, slice(None))
    own_mass = np.bincount(shard.item_rows, weights, len(items))
    share = np.divide(own_mass, mass, out=np.zeros_like(mass), where=mass > 0)
    order = np.argsort(shard.item_rows, kind="stable")
    ends = np.cumsum(np.bincount(shard.item_rows, minlength=len(items)))
    ridges = constants.ridge(mass, constants.user_count)
    table, own_gram = items.copy(), np.zeros((items.shape[1],) * 2)
    for _ in range(epochs):
        vectors = fold_in(shard, table, constants)
        own_gram = vectors.T @ vectors
        everybody = own_gram * (constants.user_count / max(len(users), 1)) if gram is None else gram
        for item in np.flatnonzero(own_mass):
            events = order[ends[item - 1] if item else 0 : ends[item]]
            of_users, scaled = vectors[user_of[events]], weights[events] / share[item]
            pull = proximal * mass[item]
            matrix = constants.all_weight * everybody + (of_users * scaled[:, None]).T @ of_users
            matrix[np.diag_indices_from(matrix)] += ridges[item] + pull
            table[item] = np.linalg.solve(matrix, scaled @ of_users + pull * items[item])
    return (table - items) * share[:, None], share, own_gram


def clipped_gradient(
    shard: Shard, items: np.ndarray, constants: Constants, clip: float, gram_weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of users' gradients and Gram matrices, each user's clipped: what the private step is made of.

    A user gives ``w (1 - x.y) x`` to each of the own items and ``gram_weight x x'``; both together are no longer than
    ``clip``.

    Returns:
        float64 ``(I, D)`` and ``(D, D)``, the latter still times ``gram_weight``.
    """
    gradient, gram = np.zeros_like(items), np.zeros((items.shape[1],) * 2)
    for vector, part in zip(fold_in(shard, items, constants), shard.users(), strict=True):
        rows = shard.item_rows[part]
        gaps = _weights(shard, constants, part) * (1 - items[rows] @ vector)
        square = float(vector @ vector)
        size = float(np.sqrt(square * (gaps @ gaps) + (gram_weight * square) ** 2))
        factor = min(1.0, clip / size) if size else 1.0
        gradient[rows] += factor * gaps[:, None] * vector
        gram += factor * gram_weight * np.outer(vector, vector)
    return gradient, gram


def _weights(shard: Shard, constants: Constants, part: slice) -> np.ndarray:
    weights: np.ndarray = constants.scale * shard.weights[part] * shard.lengths_factor[part]
    return weights
