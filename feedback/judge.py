"""Which feedback an event store takes: token, times; everything else about an event is checked when it is parsed."""

from __future__ import annotations

from dataclasses import dataclass

from core.feedback import Event, Feedback, Rejected, canonical
from core.feedback_reasons import Reason
from core.feedback_tokens import TokenKeys, check_token
from core.sections import FeedbackSettings


@dataclass(frozen=True)
class Verdict:
    """One event as it goes into the inbox.

    Attributes:
        key: ``Event.key``; the client's id of a rejected one, where it had one.
        user_ref: Whose; None where that is not known.
        body: Canonical JSON; of a rejected one what was sent.
        reason: Why it goes into quarantine; None for a good one.
        detail: For people.
        event: None for a rejected one.
    """

    key: str | None
    user_ref: str | None
    body: bytes
    reason: Reason | None
    detail: str
    event: Event | None


def judge(event: Event | Rejected, now_ms: int, tokens: TokenKeys, settings: FeedbackSettings) -> Verdict:
    """Judges an event by itself; whether its id is new is for the inbox to say.

    Impressions come from the gateway and are trusted.

    Args:
        event: As it came.
        now_ms: The server's clock.
        tokens: Keys of impression tokens.
        settings: Limits on times.
    """
    if isinstance(event, Rejected):
        return Verdict(event.event_id, event.user_ref, event.payload, event.reason, event.detail, None)
    reason, detail = None, ""
    if isinstance(event, Feedback) and event.type != "delete_user":
        reason, detail = _feedback_fault(event, now_ms, tokens, settings)
    return Verdict(event.key, event.user_ref, canonical(event), reason, detail, event)


def _feedback_fault(
    event: Feedback, now_ms: int, tokens: TokenKeys, settings: FeedbackSettings
) -> tuple[Reason | None, str]:
    ahead_s = (event.event_time_ms - now_ms) / 1_000
    if ahead_s > settings.future_seconds:
        return Reason.FUTURE, f"{ahead_s:,.0f} s ahead, at most {settings.future_seconds:,.0f}"
    if -ahead_s > settings.oldest_days * 86_400:
        return Reason.TOO_OLD, f"{-ahead_s / 86_400:,.1f} days old, at most {settings.oldest_days:g}"
    if event.request_id is None:
        return Reason.ORPHAN, "names no request"
    return check_token(tokens, event.token, event.request_id, event.user_ref, now_ms / 1_000), ""
