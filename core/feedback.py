"""Events of the feedback loop, schema version 1: impressions (what was shown) and feedback (what the user did).

An event never changes once it is stored. The server adds ``seq`` and ``ingest_time_ms`` (:class:`Stored`); everything
else is what the gateway wrote. No field holds the user's own id: ``user_ref`` is its pseudonym, see
``core.feedback_users``. Texts hold no NUL and no lone surrogates, numbers are finite.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.feedback_reasons import Reason

SCHEMA_VERSION = 1
MAX_EVENT_BYTES = 64 * 1024
"""A serialised event is at most this long."""
MAX_SLATE = 100
MAX_CANDIDATES = 1_000

FeedbackType = Literal["click", "like", "dislike", "skip", "purchase", "dwell", "correction", "delete_user"]
"""click, like, purchase: wanted it. dislike, skip: did not. dwell: looked at it for ``dwell_ms``. correction: takes
back an earlier event of the same user (``corrects``). delete_user: everything about this user goes."""
CandidateSource = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
"""Recall source of an item (mf, gat, …), or ``popularity``, ``content``, ``explore``."""
Arm = Literal["stable", "canary", "shadow", "interleave", "fallback"]
"""Who answered. ``fallback`` slates are deterministic and stay out of off-policy estimates."""


UNPRINTABLE = re.compile("[\ud800-\udfff]")
"""Lone surrogates: texts that are no Unicode."""


def _printable(text: str) -> str:
    if (not text.isascii() and UNPRINTABLE.search(text)) or "\0" in text:
        raise ValueError("holds NUL or a lone surrogate")
    return text


ItemId = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
EventId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
"""Chosen by the client, unique for ever; UUIDs do. No colon: keys of impressions hold one."""
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
UserRef = Annotated[str, Field(pattern=r"^u1_[0-9a-f]{32}$")]
ReleaseId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
TimeMs = Annotated[int, Field(ge=0, lt=1 << 53)]
"""Milliseconds since the epoch, UTC."""


class Frozen(BaseModel):
    """Base of all events: frozen, no unknown field, no NaN, no infinity, no guessing of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Place(Frozen):
    """One place of a slate."""

    position: int = Field(ge=1, le=MAX_SLATE)
    """1 is the top."""
    item: ItemId
    score: float
    propensity: float | None = Field(None, gt=0, le=1)
    """Probability that this item stood at this position under the policy that made the slate; None where it is not
    known. Such places can be learned from, and stay out of off-policy estimates."""
    source: CandidateSource


class Candidate(Frozen):
    """An item that competed for the slate."""

    item: ItemId
    score: float


class Exploration(Frozen):
    """What makes slate and propensities replayable from the candidates."""

    method: Name = "none"
    """``none``, or the name of the sampler."""
    temperature: float = Field(0.0, ge=0)
    """0 is deterministic."""
    epsilon: float = Field(0.0, ge=0, le=1)
    """Share of uniform choices."""
    seed: int = Field(0, ge=0, lt=1 << 64)
    """Key of the counter-based generator (Philox)."""
    draws: int = Field(0, ge=0)
    """Samples behind a propensity that was estimated; 0 where it is exact."""


class Impression(Frozen):
    """A slate that was answered. Its identity is its ``request_id``: a second one with the same id is a duplicate."""

    schema_version: Literal[1] = 1
    kind: Literal["impression"] = "impression"
    request_id: RequestId
    user_ref: UserRef
    event_time_ms: TimeMs
    """When the answer left, by the gateway's clock."""
    release: ReleaseId
    ensemble: Name
    arm: Arm = "stable"
    experiment: Name | None = None
    bucket: int | None = Field(None, ge=0)
    """Bucket of the user in the experiment."""
    session: Annotated[str, Field(max_length=128), AfterValidator(_printable)] | None = None
    slate: tuple[Place, ...] = Field(max_length=MAX_SLATE)
    candidates: tuple[Candidate, ...] = Field((), max_length=MAX_CANDIDATES)
    """Best first; empty where they were not kept."""
    exploration: Exploration = Exploration()
    latency_ms: float = Field(ge=0)
    degraded: Literal["none", "cache", "popularity"] = "none"
    model_error: Annotated[str, Field(max_length=500), AfterValidator(_printable)] | None = None

    @model_validator(mode="after")
    def _is_slate(self) -> Self:
        if [place.position for place in self.slate] != list(range(1, len(self.slate) + 1)):
            raise ValueError("positions are not 1, 2, 3, … in order")
        if len({place.item for place in self.slate}) != len(self.slate):
            raise ValueError("an item stands twice in the slate")
        return self

    @property
    def key(self) -> str:
        """Unique key in the store."""
        return f"imp:{self.request_id}"


class Feedback(Frozen):
    """What a user did with one item of a slate, or a note about earlier events."""

    schema_version: Literal[1] = 1
    kind: Literal["feedback"] = "feedback"
    event_id: EventId
    type: FeedbackType
    user_ref: UserRef
    event_time_ms: TimeMs
    """When it happened, by the client's clock."""
    request_id: RequestId | None = None
    """The impression it answers. Without one (and its token) an event is an orphan."""
    token: str | None = Field(None, pattern=r"^[\x21-\x7e]{1,512}$")
    """Impression token as the answer gave it, see ``core.feedback_tokens``."""
    item: ItemId | None = None
    position: int | None = Field(None, ge=1, le=MAX_SLATE)
    value: float | None = None
    """A rating or an amount, in the units of the data's own values."""
    dwell_ms: int | None = Field(None, ge=0, le=86_400_000)
    corrects: EventId | None = None
    """type=correction: the event that is taken back."""
    session: Annotated[str, Field(max_length=128), AfterValidator(_printable)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.corrects is not None) != (self.type == "correction"):
            raise ValueError("corrects belongs to type=correction, and to no other")
        if self.item is None and self.type not in ("correction", "delete_user"):
            raise ValueError(f"type={self.type} needs an item")
        if self.type == "dwell" and self.dwell_ms is None:
            raise ValueError("type=dwell needs dwell_ms")
        return self

    @property
    def key(self) -> str:
        """Unique key in the store."""
        return self.event_id


Event = Impression | Feedback
Kind = TypeVar("Kind", Impression, Feedback)


@dataclass(frozen=True)
class Rejected:
    """An event that never became one: kept in quarantine, never dropped silently.

    Attributes:
        payload: What was sent, without the user's own id; the store keeps its first 4 KiB.
        reason: Why; ``schema`` for anything that does not parse.
        detail: For people: field and complaint.
        event_id: The client's id for it where one could be read.
        user_ref: Whose, where that is known, so that deleting the user finds it.
    """

    payload: bytes
    reason: Reason
    detail: str
    event_id: str | None = None
    user_ref: str | None = None


@dataclass(frozen=True)
class Stored:
    """An event with what the server added.

    Attributes:
        seq: Order of arrival, strictly ascending whatever clocks do.
        ingest_time_ms: The server's clock at arrival, never behind that of an earlier ``seq``.
        event: As sent.
    """

    seq: int
    ingest_time_ms: int
    event: Event


def canonical(event: Event) -> bytes:
    """The event as JSON, the same bytes for equal events: what is stored and compared."""
    return event.model_dump_json(exclude_none=True).encode()


def body_digest(body: bytes) -> bytes:
    """16 bytes that tell two bodies under one id apart."""
    return hashlib.blake2b(body, digest_size=16).digest()


def parse_feedback(payload: bytes) -> Feedback | Rejected:
    """Reads one feedback event; anything wrong (size, UTF-8, JSON, fields, a newer schema) becomes a :class:`Rejected`.

    Args:
        payload: JSON.
    """
    return _parsed(Feedback, payload)


def parse_impression(payload: bytes) -> Impression | Rejected:
    """Reads one impression, as :func:`parse_feedback`."""
    return _parsed(Impression, payload)


def parse_event(payload: bytes) -> Event | Rejected:
    """Reads either, by its field ``kind`` as :func:`canonical` wrote it."""
    is_impression = b'"kind":"impression"' in payload[:64]
    return _parsed(Impression, payload) if is_impression else _parsed(Feedback, payload)


def _parsed(model: type[Kind], payload: bytes) -> Kind | Rejected:
    if len(payload) > MAX_EVENT_BYTES:
        return Rejected(payload, Reason.SCHEMA, f"{len(payload):,} bytes, at most {MAX_EVENT_BYTES:,}")
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return Rejected(payload, Reason.SCHEMA, f"{place}: {first['msg']}"[:500])
