"""Places, breaker, rate limit, keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.errors import SettingsError
from core.intervals import wilson
from core.sections import GatewaySettings
from serving.gateway.guard import Breaker, Places
from serving.gateway.keys import RateLimit, add_key, read_keys
from serving.gateway.run import check_settings


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_places_turn_away_at_once_when_the_queue_is_full_and_hand_over_in_order() -> None:
    async def play() -> list[object]:
        places, order = Places(1, 2), []
        assert await places.enter(0)

        async def wait(name: str) -> None:
            order.append((name, await places.enter(5)))

        tasks = [asyncio.create_task(wait(name)) for name in "ab"]
        await asyncio.sleep(0)
        assert places.waiting == 2
        assert not await places.enter(5)
        places.leave()
        await asyncio.sleep(0.01)
        places.leave()
        await asyncio.gather(*tasks)
        places.leave()
        assert (places.inside, places.waiting) == (0, 0)
        return order

    assert asyncio.run(play()) == [("a", True), ("b", True)]


def test_place_is_not_lost_when_the_one_who_waits_gives_up_or_is_cancelled() -> None:
    async def play() -> None:
        places = Places(1, 5)
        assert await places.enter(0)
        assert not await places.enter(0.01)
        gone = asyncio.create_task(places.enter(5))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        handed = asyncio.create_task(places.enter(5))
        await asyncio.sleep(0)
        places.leave()
        handed.cancel()  # after the hand-over, before it knows
        await asyncio.gather(handed, return_exceptions=True)
        assert (places.inside, places.waiting) == (0, 0)

    asyncio.run(play())


def test_breaker_opens_after_failures_in_a_row_and_lets_one_try() -> None:
    clock = Time()
    breaker = Breaker(3, 2.0, clock)
    for _ in range(2):
        breaker.failed()
    assert breaker.lets_pass()
    breaker.failed()
    assert (breaker.state, breaker.lets_pass()) == ("open", False)
    clock.now += 2.1
    assert breaker.state == "half-open"
    assert [breaker.lets_pass(), breaker.lets_pass()] == [True, False]
    breaker.succeeded()
    assert (breaker.state, breaker.lets_pass()) == ("closed", True)


def test_rate_limit_gives_each_caller_a_bucket() -> None:
    clock = Time()
    limit = RateLimit(10, 2, clock)
    assert [limit.wait_s("a") for _ in range(3)] == pytest.approx([0, 0, 0.1])
    assert limit.wait_s("b") == 0
    clock.now += 0.11
    assert limit.wait_s("a") == 0


def test_key_file_holds_hashes_and_finds_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "api.keys"
    key = add_key(path, "shop", ("recommend", "events"))
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    keys = read_keys(path)
    found = keys.find(key)
    assert found is not None
    assert (found.name, found.scopes) == ("shop", {"recommend", "events"})
    assert keys.find(key + "x") is None
    path.write_text("shop nonsense recommend\n")
    with pytest.raises(SettingsError, match="not a key"):
        read_keys(path)


def test_gateway_refuses_strangers_without_keys() -> None:
    with pytest.raises(SettingsError, match="anybody"):
        check_settings(GatewaySettings(host="0.0.0.0"))
    check_settings(GatewaySettings(host="0.0.0.0", require_keys=True))
    check_settings(GatewaySettings())


def test_wilson_interval_holds_its_share() -> None:
    assert wilson(0, 0) == (0, 1)
    low, high = wilson(30, 100)
    assert (low, high) == pytest.approx((0.2189, 0.3958), abs=1e-3)
