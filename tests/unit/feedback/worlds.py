"""Events and clocks to test with."""

from __future__ import annotations

from dataclasses import dataclass

from core.feedback import Exploration, Feedback, FeedbackType, Impression, Place
from core.feedback_keys import FeedbackKeys
from core.feedback_tokens import TokenKeys, issue_token
from core.feedback_users import user_ref

KEYS = FeedbackKeys(b"p" * 32, TokenKeys((b"t" * 32,)))
START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


@dataclass
class ManualClock:
    """A clock that tests turn."""

    wall_ms: int = START_MS
    running_s: float = 100.0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_s(self) -> float:
        return self.running_s

    def advance(self, seconds: float) -> None:
        self.wall_ms += round(seconds * 1000)
        self.running_s += seconds


def ref(user: str) -> str:
    return user_ref(user, KEYS.pseudonym)


def impression(
    request: str,
    user: str = "ann",
    items: tuple[str, ...] = ("a", "b", "c", "d"),
    at_ms: int = START_MS,
    **fields: object,
) -> Impression:
    values: dict[str, object] = {
        "request_id": request,
        "user_ref": ref(user),
        "event_time_ms": at_ms,
        "release": "r1",
        "ensemble": "rec_r1",
        "slate": tuple(
            Place(position=place, item=item, score=-float(place), propensity=0.5, source="mf")
            for place, item in enumerate(items, 1)
        ),
        "exploration": Exploration(method="gumbel", temperature=1.0, seed=7),
        "latency_ms": 3.5,
    }
    return Impression.model_validate(values | fields)


def token(shown: Impression, hours: float = 24.0, keys: FeedbackKeys = KEYS) -> str:
    items = [place.item for place in shown.slate]
    expires_s = round(shown.event_time_ms / 1000 + hours * 3600)
    return issue_token(keys.tokens, shown.request_id, shown.user_ref, items, expires_s)


def answer(
    event_id: str,
    shown: Impression,
    item: str = "a",
    kind: FeedbackType = "click",
    after_ms: int = 1_000,
    **fields: object,
) -> Feedback:
    values: dict[str, object] = {
        "event_id": event_id,
        "type": kind,
        "user_ref": shown.user_ref,
        "event_time_ms": shown.event_time_ms + after_ms,
        "request_id": shown.request_id,
        "token": token(shown),
        "item": item,
    }
    return Feedback.model_validate(values | fields)


def deletion(event_id: str, user: str, at_ms: int = START_MS) -> Feedback:
    return Feedback(event_id=event_id, type="delete_user", user_ref=ref(user), event_time_ms=at_ms)
