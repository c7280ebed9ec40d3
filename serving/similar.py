"""Requests and answers of ``similar_items`` and ``similar_users`` as typed objects. No transport here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import RequestError
from core.tensors import EXCLUDE_ITEMS, K_RETURNED, LIKE_ITEMS, PAD_ID, RELEASE, SCORES, USER_IDS
from serving.messages import MOST_ITEMS, RecommendedItem, Request, counts, ids, item_lists, padded, read_items, text


@dataclass(frozen=True)
class SimilarItems:
    """What is like the given items, nearest first; empty where none of them is known.

    Each item's score is the cosine of its vector with the question's, -1..1. Its reasons are the given items nearest
    to it, their shares being cosines.
    """

    asked: tuple[str, ...]
    items: tuple[RecommendedItem, ...]
    release: str
    latency_ms: float


@dataclass(frozen=True)
class SimilarUser:
    """One user of the release."""

    user_id: str
    score: float
    """Cosine of both users' vectors, -1..1."""
    rank: int


@dataclass(frozen=True)
class SimilarUsers:
    """The users whose taste is nearest to that of ``user_id``; empty where nothing is known of them.

    Names of users: for analysts, never for other users.
    """

    user_id: str
    users: tuple[SimilarUser, ...]
    release: str
    latency_ms: float


@dataclass(frozen=True)
class ItemsRequest:
    """A validated request for items like others; all tuples have length B."""

    asked: tuple[tuple[str, ...], ...]
    k: tuple[int, ...]
    exclude: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.asked)

    def take(self, places: Iterable[int]) -> ItemsRequest:
        """The questions at ``places``, in that order."""
        at = tuple(places)
        pick = lambda values: tuple(values[place] for place in at)  # noqa: E731
        return ItemsRequest(pick(self.asked), pick(self.k), pick(self.exclude))

    def tensors(self) -> dict[str, np.ndarray]:
        """Input tensors by name."""
        tensors = {
            LIKE_ITEMS.name: padded(self.asked),
            K_RETURNED.name: np.array(self.k, dtype=np.int32).reshape(-1, 1),
        }
        if any(self.exclude):
            tensors[EXCLUDE_ITEMS.name] = padded(self.exclude)
        return tensors


def items_request(
    items: Sequence[str | Sequence[str]],
    k: int | Sequence[int] = 10,
    exclude: Sequence[Sequence[str]] | None = None,
) -> ItemsRequest:
    """Checks what a caller passes, before anything is sent.

    Args:
        items: One question each: an item id, or several that are asked about together.
        k: How many items, one number for all or one per question.
        exclude: Per question, items that must not come back.

    Raises:
        RequestError: The first thing that is wrong.
    """
    if isinstance(items, str | bytes) or not len(items):
        raise RequestError("no items given", where="items", expected="a list of item ids", found=repr(items)[:80])
    asked = tuple(
        ids([entry] if isinstance(entry, str) else entry, f"items[{at}]", MOST_ITEMS) for at, entry in enumerate(items)
    )
    empty = next((at for at, entry in enumerate(asked) if not entry), None)
    if empty is not None:
        raise RequestError("a question names no item", where=f"items[{empty}]", expected="an item id", found="nothing")
    return ItemsRequest(asked, counts(k, len(asked)), item_lists(exclude, "exclude", len(asked)))


def read_similar_items(request: ItemsRequest, tensors: dict[str, np.ndarray], latency_ms: float) -> list[SimilarItems]:
    """One answer per question from the output tensors by name."""
    releases = tensors[RELEASE.name].tolist()
    return [
        SimilarItems(asked, items, text(releases[at][0]), latency_ms)
        for at, (asked, items) in enumerate(zip(request.asked, read_items(tensors), strict=True))
    ]


def read_similar_users(request: Request, tensors: dict[str, np.ndarray], latency_ms: float) -> list[SimilarUsers]:
    """One answer per user from the output tensors by name."""
    found, scores = tensors[USER_IDS.name].tolist(), tensors[SCORES.name].tolist()
    releases = tensors[RELEASE.name].tolist()
    return [
        SimilarUsers(
            user_id,
            tuple(
                SimilarUser(text(name), score, rank)
                for rank, (name, score) in enumerate(zip(found[at], scores[at], strict=True), start=1)
                if text(name) != PAD_ID
            ),
            text(releases[at][0]),
            latency_ms,
        )
        for at, user_id in enumerate(request.users)
    ]
