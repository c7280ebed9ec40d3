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
