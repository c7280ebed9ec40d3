"""The gateway before a real Triton: answers, events, faults. The store is in memory, everything else is real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from core.feedback_keys import load_keys
from core.sections import GatewaySettings
from core.settings import Settings
from serving.activate import install_release
from serving.gateway.app import make_app
from serving.gateway.explore import replay
from serving.gateway.keys import add_key, read_keys
from serving.gateway.parts import Gateway, Triton, Wiring
from serving.server import TritonServer
from tests.gateway_store import MemoryStore
from tests.triton.conftest import settings_in
from tests.triton.test_server import processes_of

PLAIN = GatewaySettings(explore_temperature=0, explore_epsilon=0, deadline_ms=2_000, requests_per_second=1e6, burst=1e6)


class Play:
    """A gateway and a client of it inside one event loop."""

    def __init__(self, gateway: Gateway, client: httpx.AsyncClient, store: MemoryStore, key: str) -> None:
        self.gateway, self.client, self.store, self.key = gateway, client, store, key

    async def ask(self, user: str, **more: object) -> dict:
        reply = await self.client.post("/v1/recommendations", json={"user_id": user, "k": 5, **more})
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def tell(self, answer: dict, type_: str, item: str, event_id: str) -> dict:
        event = {
            "event_id": event_id,
            "type": type_,
            "user_id": answer["user_id"],
            "item_id": item,
            "request_id": answer["request_id"],
            "token": answer["token"],
            "event_time_ms": int(time.time() * 1000),
        }
        reply = await self.client.post("/v1/events", json={"events": [event]})
        assert reply.status_code == 200, reply.text
        return dict(reply.json()["acknowledgements"][0])  # fmt: skip


@asynccontextmanager
async def running(server: TritonServer, folder: Path, settings: GatewaySettings = PLAIN) -> AsyncIterator[Play]:
    var = server.settings.paths.var
    store = MemoryStore()
    key = add_key(folder / "api.keys", "operator", ("recommend", "events", "operator"))
    secret = json.loads(server.state_file.read_bytes())["secret"]
    wiring = Wiring(
        settings, (Triton(server.address, lambda: secret),), var / "repository", folder / "serving.json", store, store,
        load_keys(folder / "keys"), read_keys(folder / "api.keys"),
    )  # fmt: skip
    app = make_app(wiring)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://g") as client:
        yield Play(app.state.gateway, client, store, key)


def play(
    server: TritonServer, folder: Path, act: Callable[[Play], Awaitable[None]], settings: GatewaySettings = PLAIN
) -> None:
    async def run() -> None:
        async with running(server, folder, settings) as game:
            await act(game)

    asyncio.run(run())


def ids(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def until(what: Callable[[], bool], seconds: float) -> float:
    started = time.perf_counter()
    while not what():
        assert time.perf_counter() - started < seconds, "too late"
        await asyncio.sleep(0.02)
    return time.perf_counter() - started


def test_answer_is_that_of_triton_with_release_reasons_and_token(server: TritonServer, tmp_path: Path) -> None:
    async def act(game: Play) -> None:
        answer = await game.ask("u5")
        with server.client() as direct:
            (wanted,) = direct.recommend(["u5"], k=5)
        assert ids(answer) == [item.item_id for item in wanted.items]
        assert (answer["release"], answer["arm"], answer["degraded"]) == ("r000001", "stable", False)
        assert answer["items"][0]["reasons"]
        assert (await game.client.get("/health/ready")).status_code == 200
        await until(lambda: len(game.store.impressions) == 1, 5)
        (seen,) = game.store.impressions
        assert [place.item for place in seen.slate] == ids(answer)
        assert (seen.request_id, seen.arm, seen.release) == (answer["request_id"], "stable", "r000001")
        assert b"conch_answers_total" in (await game.client.get("/metrics")).content

    play(server, tmp_path, act)


def test_like_changes_the_next_answer_and_a_skip_stays_away(server: TritonServer, tmp_path: Path) -> None:
    async def act(game: Play) -> None:
        first = await game.ask("somebody new")
        liked, skipped = ids(first)[2], ids(first)[0]
        assert (await game.tell(first, "like", liked, "e1"))["status"] == "stored"
        assert (await game.tell(first, "like", liked, "e1"))["status"] == "duplicate"
        await game.tell(first, "skip", skipped, "e2")
        second = await game.ask("somebody new")
        assert not {liked, skipped} & set(ids(second))
        assert any(reason["item_id"] == liked for item in second["items"] for reason in item["reasons"])

    play(server, tmp_path, act)


def test_slates_are_explored_and_replay_from_the_log(server: TritonServer, tmp_path: Path) -> None:
    async def act(game: Play) -> None:
        answers = {answer["request_id"]: ids(answer) for answer in [await game.ask("u5") for _ in range(10)]}
        assert len({tuple(slate) for slate in answers.values()}) > 1
        await until(lambda: len(game.store.impressions) == 10, 10)
        for seen in game.store.impressions:
            items, chances = replay(seen)
            assert items == answers[seen.request_id]
            assert chances == [place.propensity for place in seen.slate]

    play(server, tmp_path, act, PLAIN.model_copy(update={"explore_temperature": 0.5, "explore_epsilon": 0.3}))


def test_defined_answers_for_odd_questions(server: TritonServer, tmp_path: Path) -> None:
    async def act(game: Play) -> None:
        post = game.client.post
        assert (await post("/v1/recommendations", json={"user_id": "u5", "k": 21})).status_code == 422
        assert (await post("/v1/recommendations", json={"user_id": "u5", "k": 0})).status_code == 422
        assert (await game.ask("u0"))["items"] == []  # has seen everything
        assert len((await game.ask("u5", session_items=["no such item"], exclude=["nor this"]))["items"]) == 5
        bad = await post("/v1/recommendations", content=b"[" * 50_000, headers={"content-type": "application/json"})
        assert (bad.status_code, bad.headers["content-type"]) == (400, "application/problem+json")
        events = [{"event_id": "x", "type": "like"}, {"surprise": "\x00"}]
        reply = await post("/v1/events", json={"events": events})
        assert [one["status"] for one in reply.json()["acknowledgements"]] == ["quarantined"] * 2
        game.store.away = True
        good = {"event_id": "y", "type": "like", "user_id": "u5", "item_id": "a", "event_time_ms": 1}
        away = await post("/v1/events", json={"events": [good]})
        assert (away.status_code, away.headers["retry-after"]) == (503, "3")
        assert len((await game.ask("u5"))["items"]) == 5
        game.store.away = False
        assert (await game.client.delete("/v1/users/u5")).status_code == 401
        assert (await game.client.delete("/v1/users/u5", headers={"x-api-key": game.key})).status_code == 202
        assert (await post("/v1/admin/rollback", headers={"x-api-key": game.key})).status_code == 501
        assert "access-control-allow-origin" not in (await game.client.get("/", headers={"origin": "http://x"})).headers

    play(server, tmp_path, act)


def test_burst_is_answered_quickly_or_degraded_and_recovers(server: TritonServer, tmp_path: Path) -> None:
    tight = PLAIN.model_copy(update={"max_active": 1_000, "max_in_flight": 4, "max_waiting": 8, "wait_ms": 50})

    async def act(game: Play) -> None:
        answers = await asyncio.gather(*(game.ask(f"u{at}") for at in range(2, 120)))
        degraded = [answer for answer in answers if answer["degraded"]]
        assert degraded
        assert all(answer["arm"] == "fallback" for answer in degraded)
        assert len(degraded) < len(answers)
        assert not (await game.ask("u5"))["degraded"]

    play(server, tmp_path, act, tight)


def test_more_than_can_be_worked_on_are_told_to_come_back_and_nobody_is_left_without_an_answer(
    server: TritonServer, tmp_path: Path
) -> None:
    small = PLAIN.model_copy(update={"max_active": 8})

    async def act(game: Play) -> None:
        asked = [game.client.post("/v1/recommendations", json={"user_id": f"u{at}", "k": 5}) for at in range(2, 62)]
        replies = await asyncio.gather(*asked)
        refused = [reply for reply in replies if reply.status_code == 503]
        assert 0 < len(refused) < len(replies)
        assert {reply.status_code for reply in replies} == {200, 503}
        assert all((r.headers["retry-after"], r.json()["code"]) == ("1", "crowded") for r in refused)
        assert f'conch_shed_total{{answer="503"}} {len(refused)}.0' in (await game.client.get("/metrics")).text
        assert len((await game.ask("u5"))["items"]) == 5, "places are given back"

    play(server, tmp_path, act, small)


def own_server(folder: Path, release: Path) -> tuple[Settings, TritonServer]:
    settings = settings_in(folder)
    install_release(release, settings.paths.var / "repository")
    return settings, TritonServer(settings, free_ports=True)


def test_dead_stub_is_noticed_within_two_seconds_answered_by_popularity_and_healed(
    tmp_path: Path, release: Path
) -> None:
    settings, server = own_server(tmp_path, release)

    async def act(game: Play) -> None:
        repository = settings.paths.var / "repository"
        stubs = [pid for pid in processes_of(repository / "respond") if pid != server.pid]
        assert stubs
        for pid in stubs:
            os.kill(pid, signal.SIGKILL)
        noticed = await until(lambda: not game.gateway.replicas.healthy, 2.0)
        answer = await game.ask("u5")
        assert noticed <= 2.0
        assert (answer["degraded"], answer["arm"]) == (True, "fallback")
        assert len(answer["items"]) == 5
        await until(lambda: game.gateway.replicas.healthy, 20)
        assert not (await game.ask("u5"))["degraded"]

    with server:
        pid = server.pid
        play(server, tmp_path, act)
        assert server.pid == pid
        os.kill(pid, 0)


def test_stopped_and_killed_triton_are_answered_by_popularity(tmp_path: Path, release: Path) -> None:
    _, server = own_server(tmp_path, release)

    async def act(game: Play) -> None:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            slow = await asyncio.gather(*(game.ask("u5") for _ in range(20)))
            assert all(answer["degraded"] for answer in slow)
            started = time.perf_counter()
            assert (await game.ask("u5"))["degraded"]
            assert time.perf_counter() - started < 0.1  # the breaker is open
            assert (await game.client.get("/health/ready")).status_code == 503
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await until(lambda: game.gateway.replicas.healthy, 10)
        patience = time.perf_counter() + 15
        while (await game.ask("u5"))["degraded"]:  # what waited in the stopped server comes first
            assert time.perf_counter() < patience
            await asyncio.sleep(0.05)
        os.kill(server.pid, signal.SIGKILL)
        dead = await game.ask("u5")
        assert (dead["degraded"], len(dead["items"])) == (True, 5)
        assert (await game.client.get("/health/live")).status_code == 200

    with server:
        play(server, tmp_path, act, PLAIN.model_copy(update={"deadline_ms": 300}))
