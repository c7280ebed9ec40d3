"""`conch gateway` as users run it: a process that learns from a like, survives what fuzzers send, and ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from core.artifacts import latest_artifact
from core.dataset import load_dataset
from core.settings import Settings
from pipeline.loop.judging import read_labels
from pipeline.online import online_of
from tests.gateway_process import Running, running_gateway

FUZZED = int(os.environ.get("CONCH_FUZZ", "300"))
"""Requests; the full number of the goals is 10,000."""
ALPHABET = [
    '"',
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "user_id",
    "k",
    "1e999",
    "NaN",
    "null",
    "-1",
    "\\ud800",
    "\x00",
    "é",
    " ",
]


@pytest.fixture(scope="module")
def gateway(smoke_settings: Settings, smoke_var: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_gateway(smoke_settings, tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=20) as connected:
        yield connected


def ids(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def online_row(client: httpx.Client, release: str) -> dict:
    rows = client.get("/v1/demo").json()["online"]
    return next(row for row in rows if (row["release"], row["arm"]) == (release, "stable"))


def tell(client: httpx.Client, answer: dict, item: str, event_id: str, kind: str, **more: object) -> None:
    event = {
        "event_id": event_id, "type": kind, "user_id": answer["user_id"], "item_id": item, **more,
        "request_id": answer["request_id"], "token": answer["token"], "event_time_ms": time.time_ns() // 1_000_000,
    }  # fmt: skip
    reply = client.post("/v1/events", json={"events": [event]}).json()
    assert reply["acknowledgements"][0]["status"] == "stored", reply


def test_new_user_with_three_likes_gets_a_list_of_their_own(gateway: Running, client: httpx.Client) -> None:
    first = gateway.ask(client, "a new user")
    assert not first["degraded"]
    liked = ids(first)[7:10]
    for place, item in enumerate(liked):
        gateway.like(client, first, item, f"new-{place}")
    after = gateway.ask(client, "a new user")
    assert not set(liked) & set(ids(after))
    assert ids(after) != [item for item in ids(first) if item not in liked][: len(ids(after))]
    reasons = {reason["item_id"] for item in after["items"] for reason in item["reasons"]}
    assert reasons <= set(liked)
    assert reasons


def test_titles_come_with_the_items(gateway: Running, client: httpx.Client, smoke_var: Path) -> None:
    dataset = load_dataset(latest_artifact(smoke_var, "dataset"))
    titles = dict(zip(dataset.items.ids.tolist(), dataset.titles.tolist(), strict=True))
    for item in gateway.ask(client, "somebody")["items"]:
        assert item["title"] in (titles[item["item_id"]], None)


def test_likes_come_out_of_the_store_as_labels(
    gateway: Running, client: httpx.Client, smoke_settings: Settings
) -> None:
    dataset = load_dataset(latest_artifact(smoke_settings.paths.var, "dataset"))
    user = str(dataset.users.ids[0])
    answer = gateway.ask(client, user)
    gateway.like(client, answer, ids(answer)[0], "label-1")
    until = time.monotonic() + 10
    found: list[tuple[str, str, str]] = []
    while time.monotonic() < until and not found:  # impressions are written beside the requests
        table = read_labels(smoke_settings, None).table
        rows = zip(*(table[name].to_pylist() for name in ("user_id", "item_id", "event")), strict=True)
        found = [row for row in rows if row[0] == user]
        time.sleep(0.1)
    assert found == [(user, ids(answer)[0], "like")]


def test_what_users_make_of_the_release_is_in_page_metrics_and_store(
    gateway: Running, client: httpx.Client, smoke_settings: Settings
) -> None:
    answer = gateway.ask(client, "dweller", k=4)
    release, items = answer["release"], ids(answer)
    row_before = online_row(client, release)
    tell(client, answer, items[0], "dwell-1", "dwell", dwell_ms=7_000)
    tell(client, answer, items[1], "skip-1", "skip")
    tell(client, answer, items[2], "click-1", "click")
    row = online_row(client, release)
    assert {kind: row["events"][kind] - row_before["events"][kind] for kind in ("dwell", "skip", "click")} == {
        "dwell": 1, "skip": 1, "click": 1,
    }  # fmt: skip
    assert row["mean_dwell_ms"] == 7_000
    assert row["distinct_items"] >= 4
    page = client.get("/metrics").text
    assert f'conch_dwell_seconds_sum{{arm="stable",release="{release}"}} 7.0' in page
    assert f'conch_items_shown{{arm="stable",release="{release}"}} {float(row["distinct_items"])}' in page
    until, found = time.monotonic() + 10, {"dwell_ms": {"value": 0}}
    while time.monotonic() < until and not found["dwell_ms"]["value"]:  # impressions are written beside the requests
        found = {one["release"]: one for one in online_of(smoke_settings, hours=1)}[release]
        time.sleep(0.1)
    assert found["dwell_ms"]["value"] == 7_000
    assert found["slates"] == row["slates"]
    assert 0 < found["click_rate"]["value"] <= 1


def test_request_ids_come_back_and_stand_in_the_logs(gateway: Running, client: httpx.Client) -> None:
    body = {"user_id": "traced", "k": 3}
    reply = client.post("/v1/recommendations", json=body, headers={"X-Request-ID": "trace-77"})
    assert reply.headers["x-request-id"] == "trace-77"
    refused = client.post("/v1/recommendations", json={"user_id": 7}, headers={"X-Request-ID": "not usable"})
    own = refused.headers["x-request-id"]
    assert len(own) == 32, "an id that is not usable is replaced"
    assert refused.json()["request_id"] == own
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == "trace-77"]
    assert (line["route"], line["status"], line["method"]) == ("/v1/recommendations", 200, "POST")
    assert (line["answer"], line["release"], line["arm"]) == tuple(
        reply.json()[name] for name in ("request_id", "release", "arm")
    )
    assert 0 < line["triton_ms"] < line["ms"]
    assert [line["status"] for line in lines if line.get("request_id") == own] == [422]
    assert "traced" not in gateway.log.read_text(), "logs do not name users"


def test_fuzzed_requests_leave_triton_alive(gateway: Running, client: httpx.Client) -> None:
    pid = json.loads(gateway.state_file.read_text())["pid"]
    rng = np.random.default_rng(0)
    valid = json.dumps({"user_id": "u", "k": 3, "session_items": ["1"], "exclude": [], "context": {"age": "25"}})
    for _ in range(FUZZED):
        letters = list(valid)
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(len(letters)))
            letters[at : at + int(rng.integers(0, 4))] = [ALPHABET[int(rng.integers(len(ALPHABET)))]]
        path = ("/v1/recommendations", "/v1/events")[int(rng.integers(2))]
        body = "".join(letters).encode("utf-8", "surrogatepass")
        reply = client.post(path, content=body, headers={"content-type": "application/json"})
        assert reply.status_code in (200, 400, 422), (reply.status_code, body)
    assert json.loads(gateway.state_file.read_text())["pid"] == pid
    os.kill(pid, 0)
    assert not gateway.ask(client, "u")["degraded"]


def test_sigterm_under_load_loses_no_answer_and_leaves_nothing(gateway: Running) -> None:
    """Last in this file: it ends the gateway."""
    triton = json.loads(gateway.state_file.read_text())["pid"]
    problems: list[str] = []
    answered = [0]
    ending = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=gateway.url, timeout=20) as mine:
            while True:
                try:
                    gateway.ask(mine, "loaded")
                    answered[0] += 1
                except httpx.ConnectError:
                    if not ending.is_set():
                        problems.append("refused before the end")
                    return
                except httpx.HTTPError as error:  # a connection that closes while idle is retried by clients
                    if not ending.is_set():
                        problems.append(repr(error))
                        return

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    ending.set()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(60) == 0, gateway.log.read_text()
    for thread in threads:
        thread.join(30)
    assert problems == []
    assert answered[0] > 0
    assert "gateway: stopped" in gateway.log.read_text()
    assert not gateway.state_file.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(triton, 0)
