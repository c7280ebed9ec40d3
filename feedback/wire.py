"""An event on its way between processes: with the time of its arrival, by which it is judged wherever it ends up."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from core.feedback import Event, Rejected, body_digest, canonical, parse_event
from core.feedback_reasons import Reason


@dataclass(frozen=True)
class Arrival:
    """An event and when the first server got it.

    Attributes:
        event: As it came.
        arrived_ms: That server's clock.
    """

    event: Event | Rejected
    arrived_ms: int


def pack(arrival: Arrival) -> bytes:
    """As JSON."""
    event = arrival.event
    if not isinstance(event, Rejected):
        return b'{"arrived_ms":%d,"event":%s}' % (arrival.arrived_ms, canonical(event))
    told = {
        "payload": base64.b64encode(event.payload).decode(), "reason": str(event.reason), "detail": event.detail,
        "event_id": event.event_id, "user_ref": event.user_ref,
    }  # fmt: skip
    return json.dumps({"arrived_ms": arrival.arrived_ms, "rejected": told}).encode()


def unpack(data: bytes) -> Arrival:
    """Back from JSON; what is damaged becomes a :class:`Rejected` that says so."""
    try:
        read = json.loads(data)
        arrived_ms = int(read["arrived_ms"])
        if "event" in read:
            start = data.index(b'"event":') + len(b'"event":')
            return Arrival(parse_event(data[start:-1]), arrived_ms)
        told = read["rejected"]
        rejected = Rejected(
            base64.b64decode(told["payload"]), Reason(told["reason"]), str(told["detail"]), told["event_id"],
            told["user_ref"],
        )  # fmt: skip
        return Arrival(rejected, arrived_ms)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Arrival(Rejected(data, Reason.CORRUPT, "damaged on its way"), 0)


def message_id(event: Event | Rejected) -> str:
    """Equal events have equal ids: a broker drops copies by it. Another body under the same key has another one."""
    if isinstance(event, Rejected):
        return body_digest(event.payload + str(event.reason).encode()).hex()
    return body_digest(canonical(event)).hex()
