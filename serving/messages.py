"""Requests and answers of ``recommend`` as typed objects, and how they become tensors. No transport here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import RequestError
from core.tensors import (
    DIVERSITY,
    EXCLUDE_ITEMS,
    EXPLANATIONS,
    ITEM_IDS,
    K_RETURNED,
    PAD_ID,
    REASON_IDS,
    REASON_SHARES,
    RELEASE,
    SCORES,
    SESSION_ITEMS,
    USER_ATTRIBUTES,
    USER_ID,
)

LONGEST_ID = 1_024
"""Characters of an external id at most."""
MOST_ITEMS = 4_096
"""Session or excluded items per user at most."""


@dataclass(frozen=True)
class Reason:
    """One of the user's own past items behind a recommendation."""

    item_id: str
    share: float
    """Attention weight, 0..1."""


@dataclass(frozen=True)
class RecommendedItem:
    """One item of a list."""

    item_id: str
    score: float
    """Ranking score: unbounded, comparable within one list only. It need not fall along a list made for variety."""
    rank: int
    """1 is best."""
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Recommendation:
    """The answer for one user, best item first; shorter than k where the catalogue is exhausted."""

    user_id: str
    items: tuple[RecommendedItem, ...]
    release: str
    """Id of the release that answered."""
    latency_ms: float
    """Time of the call that brought it, shared by the users of one batch."""


@dataclass(frozen=True)
class Request:
    """A validated request for B users; all tuples have length B, but ``diversity`` is empty for the default."""

    users: tuple[str, ...]
    k: tuple[int, ...]
    session_items: tuple[tuple[str, ...], ...]
    exclude: tuple[tuple[str, ...], ...]
    diversity: tuple[float, ...] = ()
    attributes: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.users)

    def parts(self, max_batch: int) -> Iterator[Request]:
        """The same users in requests of ``max_batch`` at most, in order."""
        for start in range(0, len(self), max_batch):
            yield self.take(range(start, min(start + max_batch, len(self))))

    def take(self, places: Iterable[int]) -> Request:
        """The users at ``places``, in that order."""
        at = tuple(places)
        pick = lambda values: tuple(values[place] for place in at)  # noqa: E731
        return Request(
            pick(self.users),
            pick(self.k),
            pick(self.session_items),
            pick(self.exclude),
            pick(self.diversity) if self.diversity else (),
            pick(self.attributes) if self.attributes else (),
        )

    def tensors(self) -> dict[str, np.ndarray]:
        """Input tensors by name; the optional ones only where a user has any."""
        tensors = {
            USER_ID.name: np.array(self.users, dtype=object).reshape(-1, 1),
            K_RETURNED.name: np.array(self.k, dtype=np.int32).reshape(-1, 1),
        }
        if any(self.session_items):
            tensors[SESSION_ITEMS.name] = padded(self.session_items)
        if any(self.exclude):
            tensors[EXCLUDE_ITEMS.name] = padded(self.exclude)
        if self.diversity:
            tensors[DIVERSITY.name] = np.array(self.diversity, dtype=np.float32).reshape(-1, 1)
        if any(self.attributes):
            tensors[USER_ATTRIBUTES.name] = padded(self.attributes)
        return tensors


def make_request(
    users: Sequence[str],
    k: int | Sequence[int] = 10,
    session_items: Sequence[Sequence[str]] | None = None,
    exclude: Sequence[Sequence[str]] | None = None,
    diversity: float | Sequence[float] | None = None,
    attributes: Sequence[Mapping[str, str]] | None = None,
) -> Request:
    """Checks what a caller passes, before anything is sent: Triton must not see malformed input.

    Args:
        users: External user ids; unknown ones are welcome.
        k: How many items, one number for all or one per user. Its upper end is the release's; the server checks it.
        session_items: Per user, the newest items of the session, oldest first.
        exclude: Per user, items that must not come back.
        diversity: 0 by score alone to 1 by variety alone, for all or per user; None takes the release's default.
        attributes: Per user, values by attribute name, in place of what the release knows; names and values that it
            does not know are welcome.

    Raises:
        RequestError: The first thing that is wrong.
    """
    names = ids(users, "users", most=None)
    if not names:
        raise RequestError("no users given", where="users", expected="at least one user id", found="an empty list")
    return Request(
        names,
        counts(k, len(names)),
        item_lists(session_items, "session_items", len(names)),
        item_lists(exclude, "exclude", len(names)),
        _diversities(diversity, len(names)),
        _attribute_lists(attributes, len(names)),
    )


def counts(k: int | Sequence[int], count: int) -> tuple[int, ...]:
    """``k`` per user of ``count``. Raises RequestError where it is no whole number from 1."""
    wanted = tuple(k) if isinstance(k, Sequence) else (k,) * count
    if len(wanted) != count:
        raise RequestError("k has another length than users", where="k", expected=str(count), found=str(len(wanted)))
    for value in wanted:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value < 2**31:
            raise RequestError("k is out of range", where="k", expected="a whole number from 1", found=repr(value))
    return tuple(map(int, wanted))


def read_answer(request: Request, tensors: dict[str, np.ndarray], latency_ms: float) -> list[Recommendation]:
    """One :class:`Recommendation` per user of the request from the output tensors by name."""
    releases = tensors[RELEASE.name].tolist()
    return [
        Recommendation(user_id, items, text(releases[at][0]), latency_ms)
        for at, (user_id, items) in enumerate(zip(request.users, read_items(tensors), strict=True))
    ]


def read_items(tensors: dict[str, np.ndarray]) -> list[tuple[RecommendedItem, ...]]:
    """The list of each row of a batch from the output tensors by name."""
    item_ids, reason_ids = tensors[ITEM_IDS.name].tolist(), tensors[REASON_IDS.name].tolist()
    scores, shares = tensors[SCORES.name].tolist(), tensors[REASON_SHARES.name].tolist()
    return [
        tuple(
            RecommendedItem(
                text(item_ids[at][place]),
                scores[at][place],
                place + 1,
                tuple(
                    Reason(text(reason_ids[at][place][slot]), shares[at][place][slot])
                    for slot in range(EXPLANATIONS)
                    if reason_ids[at][place][slot]
                ),
            )
            for place in range(len(item_ids[at]))
            if item_ids[at][place]
        )
        for at in range(len(item_ids))
    ]


def _diversities(diversity: float | Sequence[float] | None, count: int) -> tuple[float, ...]:
    if diversity is None:
        return ()
    wanted = tuple(diversity) if isinstance(diversity, Sequence | np.ndarray) else (diversity,) * count
    if len(wanted) != count:
        raise RequestError(
            "diversity has another length than users", where="diversity", expected=str(count), found=str(len(wanted))
        )
    for value in wanted:
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:  # NaN compares false
            raise RequestError(
                "diversity is out of range", where="diversity", expected="a number from 0 to 1", found=repr(value)
            )
    return tuple(map(float, wanted))


def item_lists(lists: Sequence[Sequence[str]] | None, where: str, count: int) -> tuple[tuple[str, ...], ...]:
    """One list of item ids for each of ``count``, empty ones for None. Raises RequestError, see ``ids``."""
    if lists is None:
        return ((),) * count
    if isinstance(lists, str) or len(lists) != count:
        found = "one string" if isinstance(lists, str) else f"{len(lists)} lists"
        raise RequestError(f"{where} needs one list per user", where=where, expected=f"{count} lists", found=found)
    return tuple(ids(entry, f"{where}[{at}]", MOST_ITEMS) for at, entry in enumerate(lists))


def _attribute_lists(attributes: Sequence[Mapping[str, str]] | None, count: int) -> tuple[tuple[str, ...], ...]:
    if attributes is None:
        return ((),) * count
    where = "attributes"
    if (
        isinstance(attributes, Mapping)
        or len(attributes) != count
        or not all(isinstance(a, Mapping) for a in attributes)
    ):
        raise RequestError(
            "attributes needs one mapping per user",
            where=where,
            expected=f"{count} mappings",
            found=repr(attributes)[:80],
        )
    for at, values in enumerate(attributes):
        for name, value in values.items():
            if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name:
                raise RequestError(
                    "an attribute is not usable",
                    where=f"{where}[{at}]",
                    expected="name and value as text, no = in the name",
                    found=repr((name, value))[:80],
                )
    lists = [[f"{name}={value}" for name, value in values.items()] for values in attributes]
    return item_lists(lists, where, count)


def ids(given: Sequence[str], where: str, most: int | None) -> tuple[str, ...]:
    """External ids, checked. Raises RequestError for a string instead of a list, or an id that cannot be one."""
    if isinstance(given, str | bytes):
        raise RequestError(f"{where} is one string", where=where, expected="a list of ids", found=repr(given)[:80])
    if most is not None and len(given) > most:
        raise RequestError(f"{where} is too long", where=where, expected=f"at most {most} ids", found=str(len(given)))
    for at, value in enumerate(given):
        if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID or not _is_utf8(value):
            raise RequestError(
                "an id is not usable",
                where=f"{where}[{at}]",
                expected=f"text of 1 to {LONGEST_ID} characters",
                found=repr(value)[:80],
            )
    return tuple(given)


def _is_utf8(text: str) -> bool:
    """False for lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def padded(lists: Sequence[Sequence[str]]) -> np.ndarray:
    """Lists side by side, object ``(B, n)``, padded with ""."""
    width = max(map(len, lists))
    array = np.full((len(lists), width), PAD_ID, dtype=object)
    for row, entries in enumerate(lists):
        array[row, : len(entries)] = entries
    return array


def text(value: bytes | str) -> str:
    """A cell of a string tensor: bytes from Triton, str in process."""
    return value.decode() if isinstance(value, bytes) else value
