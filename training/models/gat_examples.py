"""What the graph model learns from: a user's history up to a cut, and everything that came after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.histories import LONGEST_HISTORY, SECONDS_PER_DAY, Histories
from core.sections import GatSettings


@dataclass(frozen=True)
class Cuts:
    """Examples before they are batched.

    Attributes:
        users: int64 ``(n,)``.
        cuts: int64 ``(n,)``, how many of the user's oldest events form the history.
        weights: float32 ``(n,)``.
    """

    users: np.ndarray
    cuts: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class ExampleBatch:
    """B examples as edges; E is the number of history events kept, M of all history events, T of targets.

    Attributes:
        weights: float32 ``(B,)``.
        lengths: float32 ``(B,)``, history events before any were dropped.
        edge_items: int64 ``(E,)``, and so on: the kept events, with their example in ``edge_users``.
        edge_positions, edge_ages, edge_since_first, edge_values: float32 ``(E,)``, as in serving.
        edge_kinds: int64 ``(E,)``.
        masked_users, masked_items: int64 ``(M,)``, all history events: never a candidate.
        target_users, target_items: int64 ``(T,)``.
        target_weights: float32 ``(T,)``, by kind.
    """

    weights: np.ndarray
    lengths: np.ndarray
    edge_users: np.ndarray
    edge_items: np.ndarray
    edge_positions: np.ndarray
    edge_ages: np.ndarray
    edge_since_first: np.ndarray
    edge_values: np.ndarray
    edge_kinds: np.ndarray
    masked_users: np.ndarray
    masked_items: np.ndarray
    target_users: np.ndarray
    target_items: np.ndarray
    target_weights: np.ndarray

    def select(self, places: np.ndarray) -> ExampleBatch:
        """The examples at ``places`` (int64, ascending); where there are none, the first one with weight 0."""
        if len(places) == len(self.weights):
            return self
        weights = self.weights[places]
        if len(places) == 0:
            places, weights = np.zeros(1, np.int64), np.zeros(1, np.float32)
        new_place = np.full(len(self.weights), -1)
        new_place[places] = np.arange(len(places))
        chosen = {"weights": weights, "lengths": self.lengths[places]}
        for prefix in ("edge_", "masked_", "target_"):
            owners = new_place[getattr(self, f"{prefix}users")]
            kept = owners >= 0
            for name, values in vars(self).items():
                if name.startswith(prefix):
                    chosen[name] = owners[kept] if name == f"{prefix}users" else values[kept]
        return ExampleBatch(**chosen)


class ExampleSource:
    """Draws cuts and builds batches from the events of all users.

    With times, a cut lies at a gap between two sessions, and with less weight anywhere; without times the events are
    shuffled per epoch, so that a cut leaves a random part out. Cuts with nothing after them do not occur.

    Args:
        histories: The training events.
        settings: The section ``gat``.
        has_times: Whether the order of events means anything.
        target_weights: How much an event counts as a target, by the code of its kind; 0 for kinds that are never
            asked for; all 1 when None.
    """

    def __init__(
        self,
        histories: Histories,
        settings: GatSettings,
        has_times: bool,
        target_weights: np.ndarray | None = None,
    ) -> None:
        self._settings = settings
        self._has_times = has_times
        self._target_weights = np.ones(int(histories.kinds.max(initial=0)) + 1)
        if target_weights is not None:
            self._target_weights = target_weights
        self._starts = histories.starts
        self._lengths = histories.lengths
        self._users = np.repeat(np.arange(len(histories)), self._lengths)
        oldest_first = self._starts[self._users] + self._starts[self._users + 1] - 1 - np.arange(len(self._users))
        self._items = histories.item_rows[oldest_first].astype(np.int64)
        self._times = histories.timestamps[oldest_first]
        self._values = histories.values[oldest_first]
        self._kinds = histories.kinds[oldest_first].astype(np.int64)
        gaps = np.diff(self._times, prepend=self._times[:1]) > settings.session_gap_days * SECONDS_PER_DAY
        gaps[self._starts[:-1][self._lengths > 0]] = False
        self._gaps = np.flatnonzero(gaps) if has_times else np.zeros(0, np.int64)
        """Events that open a session other than the user's first."""
        opened = np.concatenate([[0], np.cumsum(gaps & has_times)])
        self._returned = opened[1:] > opened[self._starts[self._users]]
        self._gap_counts = np.bincount(self._users[self._gaps], minlength=len(histories))
        self._gap_starts = np.concatenate([[0], np.cumsum(self._gap_counts)])

    def popularity(self, n_items: int) -> np.ndarray:
        """How often each item is what a user comes back for, float64 ``(I,)``.

        Events after a user's first session count 1, those of the first session ``random_cut_weight``: the mix that
        the model learns to continue; all times the weight of their kind as a target. 0 for items without events and
        no others.
        """
        weights = np.full(len(self._users), self._settings.random_cut_weight)
        weights[self._returned] = 1
        return np.bincount(
            self._items, weights * np.maximum(self._target_weights[self._kinds], 1e-6), minlength=n_items
        )

    def draw(self, rng: np.random.Generator) -> Cuts:
        """One epoch's cuts in random order: per user one at a session gap, if there is one, and one anywhere."""
        active = np.flatnonzero(self._lengths)
        if 0 < self._settings.max_users_per_epoch < len(active):
            active = np.sort(rng.choice(active, self._settings.max_users_per_epoch, replace=False))
        if not self._has_times:
            order = np.lexsort((rng.random(len(self._users)), self._users))
            self._items, self._values, self._kinds = self._items[order], self._values[order], self._kinds[order]
        returning = active[self._gap_counts[active] > 0]
        picked = (rng.random(len(returning)) * self._gap_counts[returning]).astype(np.int64)
        at_gap = self._gaps[self._gap_starts[returning] + picked] - self._starts[returning]
        anywhere = (rng.random(len(active)) * self._lengths[active]).astype(np.int64)
        users = np.concatenate([returning, active])
        weights = np.repeat([1.0, self._settings.random_cut_weight], [len(returning), len(active)])
        cuts = np.concatenate([at_gap, anywhere])
        order = rng.permutation(len(users))
        return Cuts(users[order], cuts[order], weights[order].astype(np.float32))

    def batches(self, cuts: Cuts, rng: np.random.Generator) -> Iterator[ExampleBatch]:
        """Batches of ``batch_users`` examples, in order."""
        size = self._settings.batch_users
        for first in range(0, len(cuts), size):
            part = slice(first, first + size)
            yield self.batch(Cuts(cuts.users[part], cuts.cuts[part], cuts.weights[part]), rng)

    def batch(self, cuts: Cuts, rng: np.random.Generator) -> ExampleBatch:
        """One batch; a share ``drop`` of the history is left out, at random, to learn from short ones too."""
        starts = self._starts[cuts.users]
        owners, events = _ranges(starts, starts + cuts.cuts)
        targets, target_events = _ranges(starts + cuts.cuts, starts + self._lengths[cuts.users])
        newest = starts[owners] + cuts.cuts[owners] - 1
        positions = newest - events
        kept = (rng.random(len(events)) >= self._settings.drop) & (positions < LONGEST_HISTORY)
        oldest = np.maximum(starts[owners], newest - LONGEST_HISTORY + 1)
        edges = events[kept]
        target_weights = self._target_weights[self._kinds[target_events]].astype(np.float32)
        asked = target_weights > 0
        targets, target_events, target_weights = targets[asked], target_events[asked], target_weights[asked]
        return ExampleBatch(
            weights=cuts.weights * (np.bincount(targets, minlength=len(cuts)) > 0),
            lengths=np.minimum(cuts.cuts, LONGEST_HISTORY).astype(np.float32),
            edge_users=owners[kept],
            edge_items=self._items[edges],
            edge_positions=positions[kept].astype(np.float32),
            edge_ages=((self._times[newest[kept]] - self._times[edges]) / SECONDS_PER_DAY).astype(np.float32),
            edge_since_first=((self._times[edges] - self._times[oldest[kept]]) / SECONDS_PER_DAY).astype(np.float32),
            edge_values=self._values[edges],
            edge_kinds=self._kinds[edges],
            masked_users=owners,
            masked_items=self._items[events],
            target_users=targets,
            target_items=self._items[target_events],
            target_weights=target_weights,
        )


def _ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concatenates ``first[n] .. last[n] - 1``: the range each number belongs to, and the number."""
    lengths = last - first
    owners = np.repeat(np.arange(len(first)), lengths)
    offsets = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owners, first[owners] + offsets
