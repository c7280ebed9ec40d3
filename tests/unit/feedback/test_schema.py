"""Event schema: what parses, what becomes a rejection."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.feedback import Feedback, Impression, Rejected, canonical, parse_event, parse_feedback, parse_impression
from core.feedback_reasons import Reason
from tests.unit.feedback.worlds import answer, impression, ref

SHOWN = impression("r-1")


def changed(**fields: object) -> bytes:
    return json.dumps(json.loads(canonical(answer("e-1", SHOWN))) | fields).encode()


def test_events_survive_their_canonical_form() -> None:
    click = answer("e-1", SHOWN, value=4.5)
    assert parse_event(canonical(SHOWN)) == SHOWN
    assert parse_event(canonical(click)) == click
    assert canonical(parse_event(canonical(click))) == canonical(click)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"\xff\xfe{",
        b'{"a":' * 50_000,
        changed(newer_field=1),
        changed(schema_version=2),
        changed(item="nul\0"),
        changed(item="x" * 257),
        changed(type="stare"),
        changed(user_ref="196"),
        changed(corrects="e-0"),
        changed(type="dwell"),
        changed(event_time_ms=-1),
        changed(position=0),
        canonical(answer("e-1", SHOWN)).replace(b'"item":"a"', b'"item":"\\ud800"'),
        canonical(answer("e-1", SHOWN, value=1.0)).replace(b"1.0", b"NaN"),
        canonical(answer("e-1", SHOWN, value=1.0)).replace(b"1.0", b"1e999"),
        changed(item="y" * 5_000_000),
    ],
    ids=lambda payload: repr(payload[:12]) + str(len(payload)),
)
def test_bad_payload_is_rejected_with_reason_schema(payload: bytes) -> None:
    found = parse_feedback(payload)
    assert isinstance(found, Rejected)
    assert found.reason == Reason.SCHEMA
    assert found.detail
    assert found.payload == payload


@given(st.binary(max_size=200))
def test_any_bytes_give_an_event_or_a_rejection(payload: bytes) -> None:
    assert isinstance(parse_event(payload), Feedback | Impression | Rejected)


@pytest.mark.parametrize(
    "slate", [[("a", 1), ("b", 3)], [("a", 2), ("b", 1)], [("a", 1), ("a", 2)]], ids=["gap", "order", "twice"]
)
def test_impression_is_rejected_when_its_slate_is_not_one(slate: list[tuple[str, int]]) -> None:
    places = [{"item": item, "position": place, "score": 0.0, "source": "mf"} for item, place in slate]
    payload = json.dumps(json.loads(canonical(SHOWN)) | {"slate": places}).encode()
    assert isinstance(parse_impression(payload), Rejected)


@pytest.mark.parametrize("propensity", [0, 1.5, -0.1])
def test_impression_is_rejected_when_a_propensity_is_none(propensity: float) -> None:
    place = {"item": "a", "position": 1, "score": 0.0, "source": "mf", "propensity": propensity}
    payload = json.dumps(json.loads(canonical(SHOWN)) | {"slate": [place]}).encode()
    assert isinstance(parse_impression(payload), Rejected)


def test_pseudonyms_differ_by_user_and_by_key() -> None:
    from core.feedback_users import is_user_ref, user_ref

    assert ref("ann") == ref("ann")
    assert len({ref("ann"), ref("bob"), user_ref("ann", b"q" * 32)}) == 3
    assert is_user_ref(ref("ann"))
    assert not is_user_ref("ann")
