"""A canary's guardian on a real store and a real publisher."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from core.errors import FeedbackError, PublishError
from core.feedback import Event, Feedback
from core.feedback_keys import keys_folder, load_keys
from core.feedback_labels import TRAINING_EVENTS
from core.feedback_tokens import issue_token
from core.feedback_users import user_ref
from core.progress import SILENT
from core.settings import Settings, load_settings
from feedback.store import EventStore, store_folder
from pipeline.cli import app
from pipeline.loop.canary import look_after_canary
from pipeline.loop.publishing import PublishedReleases
from pipeline.loop.schedule import tick
from pipeline.loop.stored_labels import stored_labels
from serving import audit
from serving.ledger import read_ledger
from serving.pointer import Pointer, pointer_file, read_pointer
from serving.publish import Publisher
from tests.sealed_release import seal_release
from tests.unit.feedback.worlds import impression

STABLE, CANARY = "r000001", "r000002"
ITEMS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A var folder with two releases."""
    var = tmp_path_factory.mktemp("canary") / "var"
    for version in (1, 2):
        seal_release(var, version)
    return var


@pytest.fixture
def settings(sealed: Path, tmp_path: Path) -> Settings:
    var = Path(shutil.copytree(sealed, tmp_path / "var"))
    changes = (f'paths.var="{var}"', "canary.min_requests=200", "canary.stage_minutes=0")
    return load_settings((), changes)


def releases(settings: Settings) -> list[Path]:
    return sorted((settings.paths.var / "artifacts" / "release").iterdir())


def start(settings: Settings, weight: float = 0.5) -> Pointer:
    """The first release is live, the second one its canary."""
    first, second = releases(settings)
    Publisher(settings.paths.var, "tester").activate(first, reason="first")
    return Publisher(settings.paths.var, "tester").start_canary(second, weight=weight, reason="try").after


def traffic(
    settings: Settings, pointer: Pointer, users: int, clicks: dict[str, float], seed: int = 0, broken: float = 0
) -> None:
    """Slates for users who are dealt as the pointer says, clicked with a probability by release."""
    rng = np.random.default_rng(seed)
    keys = load_keys(keys_folder(settings.paths.var))
    store = EventStore(store_folder(settings.paths.var), keys, settings.feedback)
    events: list[Event] = []
    now_ms = time.time_ns() // 1_000_000
    for user in range(users):
        name, release = f"user-{seed}-{user}", pointer.release_of(f"user-{seed}-{user}")
        reference = user_ref(name, keys.pseudonym)
        fails = release == CANARY and rng.random() < broken
        more = {"arm": "fallback", "degraded": "popularity", "model_error": "broken"} if fails else {}
        shown = impression(f"q-{seed}-{user}", name, ITEMS, now_ms, user_ref=reference, release=release, **more)
        events.append(shown)
        if rng.random() < clicks[release]:
            token = issue_token(keys.tokens, shown.request_id, reference, ITEMS, now_ms // 1_000 + 600)
            events.append(
                Feedback(
                    event_id=f"e-{seed}-{user}", type="click", user_ref=reference, event_time_ms=now_ms,
                    request_id=shown.request_id, token=token, item="b",
                )
            )  # fmt: skip
    assert all(told.status == "stored" for told in store.append(events))
    store.close()


def pointer_of(settings: Settings) -> Pointer:
    found = read_pointer(pointer_file(settings.paths.var))
    assert found is not None
    return found


def test_nothing_to_look_after_without_a_canary(settings: Settings) -> None:
    assert look_after_canary(settings) is None


def test_as_good_a_canary_advances_stage_by_stage_until_it_is_live(settings: Settings) -> None:
    pointer = start(settings, weight=0.25)
    verdicts = []
    for seed in range(3):
        traffic(settings, pointer, 1_500, {STABLE: 0.2, CANARY: 0.2}, seed)
        look = look_after_canary(settings)
        assert look is not None
        verdicts.append(look.verdict)
        pointer = pointer_of(settings)
        if pointer.canary is None:
            break
    assert verdicts == ["advance", "advance"]
    assert (pointer.stable, pointer.canary) == (CANARY, None)
    assert [record["actor"] for record in audit.records(audit.audit_file(settings.paths.var))][-2:] == [
        "conch canary", "conch canary",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("clicks", "broken", "reason"),
    [(0.02, 0.0, "click rate"), (0.2, 0.3, "error rate")],
    ids=["fewer clicks", "broken"],
)
def test_a_bad_canary_is_taken_back_and_blocked(settings: Settings, clicks: float, broken: float, reason: str) -> None:
    pointer = start(settings)
    traffic(settings, pointer, 6_000, {STABLE: 0.2, CANARY: clicks}, broken=broken)
    look = look_after_canary(settings)
    assert look is not None
    assert (look.verdict, reason in look.reason) == ("rollback", True), look.reason
    assert (pointer_of(settings).stable, pointer_of(settings).canary) == (STABLE, None)
    assert reason in read_ledger(settings.paths.var).blocked[CANARY]
    noted = json.loads((settings.paths.var / "loop" / "canary.jsonl").read_text().splitlines()[-1])
    assert (noted["verdict"], noted["canary"]) == ("rollback", CANARY)


def test_a_young_canary_is_held(settings: Settings) -> None:
    pointer = start(settings)
    traffic(settings, pointer, 50, {STABLE: 0.2, CANARY: 0.2})
    look = look_after_canary(settings)
    assert look is not None
    assert look.verdict == "hold"
    assert pointer_of(settings) == pointer


def test_a_stage_lasts_its_time_and_looking_alone_changes_nothing(settings: Settings) -> None:
    slow = settings.model_copy(update={"canary": settings.canary.model_copy(update={"stage_minutes": 30.0})})
    pointer = start(slow)
    traffic(slow, pointer, 1_500, {STABLE: 0.2, CANARY: 0.2})
    held = look_after_canary(slow)
    later = look_after_canary(slow, acts=False, now=lambda: datetime.now(UTC) + timedelta(minutes=31))
    assert held is not None
    assert later is not None
    assert (held.verdict, later.verdict) == ("hold", "advance")
    assert pointer_of(slow) == pointer


def test_every_stage_begins_its_count_anew(settings: Settings) -> None:
    pointer = start(settings, weight=0.25)
    traffic(settings, pointer, 1_500, {STABLE: 0.2, CANARY: 0.2})
    assert look_after_canary(settings) is not None
    again = look_after_canary(settings)
    assert again is not None
    assert (again.weight, again.verdict) == (0.5, "hold"), "what was seen at 25 % does not count for 50 %"
    assert again.arms[1]["requests"] == 0


def test_what_was_decided_on_one_canary_is_not_done_to_the_next(settings: Settings) -> None:
    first = start(settings)
    publisher = Publisher(settings.paths.var, "operator")
    publisher.move_canary(0.75, reason="by hand meanwhile")
    with pytest.raises(PublishError, match="the pointer has moved on"):
        publisher.move_canary(0.6, reason="late", seen=first)
    publisher.move_canary(1.0, reason="by hand meanwhile")
    replaced = publisher.start_canary(releases(settings)[0], weight=0.5, reason="back", unblessed=True).after
    for late in (publisher.abort_canary, partial(publisher.move_canary, 0.9)):
        with pytest.raises(PublishError, match="the pointer has moved on"):
            late(reason="late", seen=first)
    assert pointer_of(settings) == replaced
    assert CANARY not in read_ledger(settings.paths.var).blocked


def test_a_look_for_cron_looks_at_the_triggers_too_where_the_canary_cannot_be_judged(settings: Settings) -> None:
    start(settings)
    labels = settings.paths.var / "labels.parquet"
    pq.write_table(TRAINING_EVENTS.empty_table(), labels)
    change = [f"--set=paths.var='{settings.paths.var}'", f"--labels={labels}"]
    result = CliRunner().invoke(app, ["schedule", "--once", *change])
    assert isinstance(result.exception, FeedbackError)
    assert "schedule: no: never ran" in result.output


def test_nothing_is_retrained_while_a_canary_is_undecided(settings: Settings) -> None:
    start(settings)
    traffic(settings, pointer_of(settings), 600, {STABLE: 0.5, CANARY: 0.5})
    found = tick(settings, PublishedReleases(settings), lambda fresh: stored_labels(settings, ()), SILENT)
    assert found.trigger == "time"
    assert not found.run
    assert "the canary r000002 is not decided yet" in found.reason
