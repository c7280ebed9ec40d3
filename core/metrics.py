"""Ranking metrics over the whole catalogue, per user.

Binary relevance; one vote per user. A list is an int array of item rows, best first, -1 where it is short.
Every function returns one value per user, so that means, standard errors and paired tests come from one place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    """What users really did next, ragged.

    Attributes:
        starts: Offsets int64 ``(U + 1,)``.
        item_rows: Relevant items int64 ``(pairs,)``, each once per user.
    """

    starts: np.ndarray
    item_rows: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Relevant items per user, int64 ``(U,)``."""
        return np.diff(self.starts)


def truth_of(user_index: np.ndarray, item_rows: np.ndarray, n_users: int) -> Truth:
    """Groups relevant pairs by user.

    Args:
        user_index: int ``(pairs,)`` in ``0..n_users-1``; each (user, item) pair once.
        item_rows: int ``(pairs,)``.
        n_users: U.
    """
    order = np.argsort(user_index, kind="stable")
    starts = np.zeros(n_users + 1, dtype=np.int64)
    np.cumsum(np.bincount(user_index, minlength=n_users), out=starts[1:])
    return Truth(starts, item_rows[order].astype(np.int64))


def hits(lists: np.ndarray, truth: Truth) -> np.ndarray:
    """Which recommended items are relevant.

    Args:
        lists: int ``(U, k)``, best first, -1 where the list is short.
        truth: Relevant items of the same users.

    Returns:
        bool ``(U, k)``.
    """
    if lists.size == 0 or len(truth.item_rows) == 0:
        return np.zeros(lists.shape, dtype=bool)
    width = int(max(lists.max(), truth.item_rows.max())) + 1
    owners = np.repeat(np.arange(len(truth.sizes)), truth.sizes)
    wanted = np.sort(owners * width + truth.item_rows)
    keys = np.arange(len(lists))[:, None] * width + lists
    place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    found: np.ndarray = (wanted[place] == keys) & (lists >= 0)
    return found


def recall(hit: np.ndarray, sizes: np.ndarray, k: int) -> np.ndarray:
    """Share of the relevant items within the first k: ``|top-k & T| / |T|``, NaN for an empty truth.

    >>> recall(np.array([[True, False, True]]), np.array([4]), 3)
    array([0.5])
    """
    return _ratio(hit[:, :k].sum(1), sizes)


def precision(hit: np.ndarray, k: int) -> np.ndarray:
    """Share of the first k that is relevant; short lists count as misses.

    >>> precision(np.array([[True, False]]), 4)
    array([0.25])
    """
    return hit[:, :k].sum(1) / k


def f1(hit: np.ndarray, sizes: np.ndarray, k: int) -> np.ndarray:
    """Harmonic mean of precision and recall at k; 0 where both are 0.

    >>> f1(np.array([[True, False]]), np.array([1]), 2).round(4)
    array([0.6667])
    """
    p, r = precision(hit, k), recall(hit, sizes, k)
    return np.where(p + r > 0, 2 * p * r / np.where(p + r > 0, p + r, 1), 0.0)


def ndcg(hit: np.ndarray, sizes: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen 2002, binary gains).

    ``sum_n hit_n / log2(n + 2)`` over the ideal ``sum_{n < min(|T|, k)} 1 / log2(n + 2)``.

    >>> ndcg(np.array([[True, False]]), np.array([1]), 2)
    array([1.])
    """
    discounts = 1 / np.log2(np.arange(max(k, hit.shape[1])) + 2)
    ideal = np.concatenate([[0.0], np.cumsum(discounts[:k])])
    return _ratio(hit[:, :k] @ discounts[: min(k, hit.shape[1])], ideal[np.minimum(sizes, k)])


def hit_rate(hit: np.ndarray, k: int) -> np.ndarray:
    """1 where at least one of the first k is relevant."""
    return hit[:, :k].any(1).astype(np.float64)


def mrr(hit: np.ndarray, k: int) -> np.ndarray:
    """Reciprocal rank of the first relevant item within k, else 0.

    >>> mrr(np.array([[False, True, True]]), 3)
    array([0.5])
    """
    first = hit[:, :k].argmax(1)
    return np.where(hit[:, :k].any(1), 1 / (first + 1), 0.0)


def average_precision(hit: np.ndarray, sizes: np.ndarray, k: int) -> np.ndarray:
    """Mean of the precision at each relevant place, over ``min(|T|, k)``.

    >>> average_precision(np.array([[True, False, True]]), np.array([2]), 3).round(4)
    array([0.8333])
    """
    top = hit[:, :k]
    at_each = np.cumsum(top, 1) / (np.arange(top.shape[1]) + 1)
    return _ratio((at_each * top).sum(1), np.minimum(sizes, k))


def accuracy_metrics(hit: np.ndarray, sizes: np.ndarray, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """All of the above at each k, keyed ``ndcg@10`` and so on; each value ``(U,)``."""
    values: dict[str, np.ndarray] = {}
    for k in ks:
        values[f"recall@{k}"] = recall(hit, sizes, k)
        values[f"ndcg@{k}"] = ndcg(hit, sizes, k)
        values[f"hit@{k}"] = hit_rate(hit, k)
        values[f"mrr@{k}"] = mrr(hit, k)
        values[f"map@{k}"] = average_precision(hit, sizes, k)
        values[f"precision@{k}"] = precision(hit, k)
        values[f"f1@{k}"] = f1(hit, sizes, k)
    return values


def coverage(lists: np.ndarray, n_items: int) -> float:
    """Share of the catalogue that appears in at least one list.

    >>> coverage(np.array([[0, 1], [1, -1]]), 4)
    0.5
    """
    return float(len(np.unique(lists[lists >= 0])) / n_items)


def gini(lists: np.ndarray, n_items: int) -> float:
    """Gini coefficient of how often each item of the catalogue is recommended: 0 even, towards 1 for one item.

    >>> gini(np.array([[0, 1], [2, 3]]), 4)
    0.0
    """
    counts = np.sort(np.bincount(lists[lists >= 0], minlength=n_items)).astype(np.float64)
    if counts.sum() == 0:
        return 0.0
    ranks = np.arange(1, n_items + 1)
    return float(((2 * ranks - n_items - 1) * counts).sum() / (n_items * counts.sum()))


def novelty(lists: np.ndarray, item_counts: np.ndarray, n_users: int) -> float:
    """Mean self-information in bits of the recommended items, ``-log2((count + 1) / (n_users + 1))``.

    >>> novelty(np.array([[0]]), np.array([1]), 3)
    1.0
    """
    shown = lists[lists >= 0]
    return float(-np.log2((item_counts[shown] + 1) / (n_users + 1)).mean()) if len(shown) else 0.0


def intra_list_diversity(lists: np.ndarray, codes: np.ndarray, widest: int = 20) -> float:
    """Mean over users of the mean Jaccard distance between the attribute sets of two items in a list.

    Args:
        lists: int ``(U, k)``; the first ``widest`` places count.
        codes: Item attribute codes ``(I, F)`` whose numbers are unique across columns, 0 where unknown.
        widest: Places looked at.

    Returns:
        0 (all alike) to 1 (nothing in common); NaN without attributes or pairs.
    """
    top = lists[:, :widest]
    if codes.shape[1] == 0 or top.shape[1] < 2:
        return float("nan")
    total, pairs = 0.0, 0
    for one in range(top.shape[1]):
        for two in range(one):
            both = (top[:, one] >= 0) & (top[:, two] >= 0)
            a, b = codes[top[both, one]], codes[top[both, two]]
            shared = ((a[:, :, None] == b[:, None, :]) & (a[:, :, None] > 0)).any(2).sum(1)
            union = (a > 0).sum(1) + (b > 0).sum(1) - shared
            total += float(np.where(union > 0, 1 - shared / np.maximum(union, 1), 0.0).sum())
            pairs += int(both.sum())
    return total / pairs if pairs else float("nan")


def vector_diversity(lists: np.ndarray, vectors: np.ndarray) -> float:
    """Mean over users of the mean of ``1 - cosine`` over all pairs of items in a list (Ziegler et al. 2005).

    >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> vector_diversity(np.array([[0, 1], [0, 2]]), vectors)
    1.5

    Args:
        lists: int ``(U, k)``, -1 where a list is short.
        vectors: float ``(I, D)`` or more rows, of length 1 or 0; a vector of length 0 is at distance 1 from all.

    Returns:
        0 (all alike) to 2 (opposites); NaN where no list has two items.
    """
    known = (lists >= 0)[:, :, None]
    shown = np.where(known, vectors[lists], 0).astype(np.float64)  # (U, k, D)
    total = shown.sum(1)
    # Over ordered pairs, the cosines add up to |sum|^2 minus each vector's own square.
    cosines = (total * total).sum(1) - (shown * shown).sum((1, 2))
    sizes = known.sum((1, 2))
    pairs = sizes * (sizes - 1)
    return float((1 - cosines[pairs > 0] / pairs[pairs > 0]).mean()) if (pairs > 0).any() else float("nan")


def _ratio(value: np.ndarray, base: np.ndarray) -> np.ndarray:
    return np.divide(value, base, out=np.full(len(base), np.nan), where=base > 0)
