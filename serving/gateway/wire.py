"""Requests and answers of the gateway's HTTP API, version 1."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from core.feedback import MAX_SLATE

LONGEST_ID = 128
MOST_K = min(200, MAX_SLATE)
"""An impression must hold the whole slate."""
MOST_ITEMS = 1_000
MOST_EVENTS = 1_000


def _plain(text: str) -> str:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("holds control characters or lone surrogates")
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError("is not in Unicode's normal form C")
    return text


Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, strict=True), AfterValidator(_plain)]
"""An external id: 1 to 128 characters, NFC, no control characters."""
Word = Annotated[str, Field(max_length=LONGEST_ID, strict=True), AfterValidator(_plain)]


class Message(BaseModel):
    """Base: frozen, no unknown field, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class RecommendationRequest(Message):
    """Asks for items."""

    user_id: Id
    """Unknown users are welcome."""
    k: int = Field(10, ge=1, le=MOST_K, strict=True)
    """How many items; the release may take less."""
    session_items: list[Id] = Field([], max_length=MOST_ITEMS)
    """Newest items of this session, oldest first."""
    exclude: list[Id] = Field([], max_length=MOST_ITEMS)
    """Items that must not come back."""
    diversity: float | None = Field(None, ge=0, le=1, strict=True)
    """0 by score alone, 1 by variety alone; as the release is set when left out."""
    context: dict[Id, Word] = Field({}, max_length=32)
    """Attributes of the user for this request alone, such as {"age": "25"}; `session` names the session."""


class ReasonOut(Message):
    """One of the user's own items behind a recommendation."""

    item_id: str
    share: float
    title: str | None = None


class ItemOut(Message):
    """One recommendation."""

    item_id: str
    score: float
    position: int
    """1 is the top."""
    title: str | None = None
    source: str | None = None
    """Who proposed it, where that is known: popularity, explore, or a recall source."""
    reasons: list[ReasonOut] = []


class RecommendationAnswer(Message):
    """A slate."""

    request_id: str
    user_id: str
    release: str
    arm: Literal["stable", "canary", "fallback"]
    degraded: bool
    """True where popularity answers in place of the models."""
    degraded_reason: str | None = None
    token: str
    """Send it back with events about this slate."""
    items: list[ItemOut]
    latency_ms: dict[str, float]
    """By stage: history, wait, triton, order, total."""


class EventIn(Message):
    """What a user did. Fields as in core.feedback."""

    event_id: str
    """Chosen by the client, unique for ever: send it again after any error."""
    type: Literal["click", "like", "dislike", "skip", "purchase", "dwell", "correction"]
    user_id: Id
    item_id: Id | None = None
    request_id: str | None = None
    """Of the answer."""
    token: str | None = None
    """Of the answer."""
    event_time_ms: int = Field(ge=0, lt=1 << 53, strict=True)
    """Milliseconds since the epoch, the client's clock."""
    position: int | None = Field(None, ge=1, le=MAX_SLATE, strict=True)
    value: float | None = Field(None, strict=True)
    dwell_ms: int | None = Field(None, ge=0, le=86_400_000, strict=True)
    corrects: str | None = None
    session: Word | None = None


class EventsRequest(Message):
    """A batch of events; each is judged alone, so that one bad event does not hold up the others."""

    events: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_EVENTS)


class AcknowledgementOut(Message):
    """What became of one event; durable in every case."""

    event_id: str | None
    status: Literal["stored", "duplicate", "quarantined"]
    reason: str | None = None
    detail: str | None = None


class EventsAnswer(Message):
    """One acknowledgement per event, in order."""

    acknowledgements: list[AcknowledgementOut]


EXAMPLE_REQUEST = {"user_id": "196", "k": 5, "session_items": ["50"], "exclude": ["1"]}
EXAMPLE_ANSWER = {
    "request_id": "0198c0de5f1e7d3a9b",
    "user_id": "196",
    "release": "r000001",
    "arm": "stable",
    "degraded": False,
    "token": "1.6a0f.c2xhdGU.c2ln",
    "items": [
        {"item_id": "181", "score": 3.4, "position": 1, "title": "Return of the Jedi", "source": None,
         "reasons": [{"item_id": "50", "share": 0.6, "title": "Star Wars"}]}
    ],
    "latency_ms": {"history": 0.3, "wait": 0.0, "triton": 4.1, "order": 0.1, "total": 4.9},
}  # fmt: skip
EXAMPLE_EVENTS = {
    "events": [
        {"event_id": "5b6f3c1e", "type": "like", "user_id": "196", "item_id": "181", "position": 1,
         "request_id": "0198c0de5f1e7d3a9b", "token": "1.6a0f.c2xhdGU.c2ln", "event_time_ms": 1764000000000}
    ]
}  # fmt: skip
EXAMPLE_EVENTS_ANSWER = {"acknowledgements": [{"event_id": "5b6f3c1e", "status": "stored"}]}
