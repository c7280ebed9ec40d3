"""What the ensemble answers: the same as the release in process, for every kind of user and request."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from core.errors import RequestError
from serving.client import AsyncConchClient, ConchClient
from serving.local import LocalPipeline
from serving.messages import Recommendation
from serving.server import TritonServer
from tests.synthetic_release import SMALL

USERS = [f"u{row}" for row in range(100)]
SESSION = [[f"ítem-{row % 7 + at}" for at in range(row % 4)] for row in range(100)]
EXCLUDE = [[f"ítem-{row % 11}"] if row % 3 == 0 else [] for row in range(100)]


def assert_same(found: list[Recommendation], wanted: list[Recommendation]) -> None:
    """The same users, items, reasons and release; scores to rounding."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one.user_id, one.release) == (other.user_id, other.release)
        assert [i.item_id for i in one.items] == [i.item_id for i in other.items]
        assert np.allclose([i.score for i in one.items], [i.score for i in other.items], rtol=1e-4, atol=1e-6)
        for item, same in zip(one.items, other.items, strict=True):
            assert [r.item_id for r in item.reasons] == [r.item_id for r in same.reasons]
            assert np.allclose([r.share for r in item.reasons], [r.share for r in same.reasons])


@pytest.mark.parametrize("batch", [1, 2, SMALL.max_batch, 100])
def test_answers_equal_the_local_pipeline(client: ConchClient, local: LocalPipeline, batch: int) -> None:
    for start in range(0, len(USERS), batch):
        cut = slice(start, start + batch)
        arguments = {"k": 10, "session_items": SESSION[cut], "exclude": EXCLUDE[cut]}
        assert_same(client.recommend(USERS[cut], **arguments), local.recommend(USERS[cut], **arguments))


def test_http_answers_like_grpc(server: TritonServer, client: ConchClient) -> None:
    with ConchClient(server.settings.serving, protocol="http") as http:
        found = http.recommend(USERS, k=5, session_items=SESSION, exclude=EXCLUDE)
    assert_same(found, client.recommend(USERS, k=5, session_items=SESSION, exclude=EXCLUDE))


def test_asynchronous_client_answers_like_the_blocking_one(server: TritonServer, client: ConchClient) -> None:
    async def ask() -> list[Recommendation]:
        async with AsyncConchClient(server.settings.serving) as connected:
            return await connected.recommend(USERS, k=5, session_items=SESSION)

    assert_same(asyncio.run(ask()), client.recommend(USERS, k=5, session_items=SESSION))


def test_unknown_user_and_empty_history_get_the_same_list(client: ConchClient) -> None:
    unknown, empty = client.recommend(["never-seen", "u1"], k=10)
    assert len(unknown.items) == 10
    assert unknown.items == empty.items


def test_user_who_saw_everything_gets_an_empty_list(client: ConchClient) -> None:
    (answer,) = client.recommend(["u0"], k=10)
    assert answer.items == ()
    assert answer.release == "r000001"


def test_excluding_nearly_everything_leaves_a_short_list(client: ConchClient) -> None:
    allowed = {"ítem-3", "ítem-50"}
    everything = [f"ítem-{row}" for row in range(SMALL.items)]
    (answer,) = client.recommend(["u1"], k=10, exclude=[[item for item in everything if item not in allowed]])
    assert {item.item_id for item in answer.items} == allowed


def test_unknown_and_repeated_session_items_change_nothing(client: ConchClient) -> None:
    plain, noisy = client.recommend(
        ["u5", "u5"], k=5, session_items=[["ítem-1", "ítem-2"], ["ítem-2", "no such item", "ítem-1", "ítem-2"]]
    )
    assert plain.items == noisy.items


def test_k_may_differ_within_one_request(client: ConchClient) -> None:
    answers = client.recommend(["u5", "u6", "u7"], k=[1, SMALL.returned, 3])
    assert [len(answer.items) for answer in answers] == [1, SMALL.returned, 3]


@pytest.mark.parametrize("k", [SMALL.returned + 1, 10_000])
def test_k_above_the_release_is_refused_with_its_limit(client: ConchClient, k: int) -> None:
    with pytest.raises(RequestError, match=f"a number from 1 to {SMALL.returned}"):
        client.recommend(["u5"], k=k)


def test_sixteen_clients_at_once_get_their_own_answers(client: ConchClient, local: LocalPipeline) -> None:
    """Requests of many widths in one batcher: each is answered, at once, and as if it were alone."""
    order = [at % len(USERS) for at in range(640)]

    def ask(at: int) -> Recommendation:
        return client.recommend([USERS[at]], k=7, session_items=[SESSION[at]], exclude=[EXCLUDE[at]])[0]

    with ThreadPoolExecutor(16) as pool:
        found = [answer for start in range(0, 640, 20) for answer in pool.map(ask, order[start : start + 20])]
    wanted = local.recommend(USERS, k=7, session_items=SESSION, exclude=EXCLUDE)
    assert_same(found, [wanted[at] for at in order])


def test_a_wrong_request_fails_alone_among_those_batched_with_it(client: ConchClient, local: LocalPipeline) -> None:
    def ask(at: int) -> Recommendation | str:
        try:
            return client.recommend([USERS[at]], k=SMALL.returned + 1 if at % 5 == 0 else 4)[0]
        except RequestError as error:
            return error.what

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(100)))
    assert found[::5] == ["the server refused the request"] * 20
    right = [at for at in range(100) if at % 5]
    assert_same([found[at] for at in right], local.recommend([USERS[at] for at in right], k=4))  # type: ignore[misc]


@pytest.mark.parametrize("batch", [1, 100])
def test_varied_answers_equal_the_local_pipeline(client: ConchClient, local: LocalPipeline, batch: int) -> None:
    strengths = [(row % 5) / 4 for row in range(len(USERS))]
    for start in range(0, len(USERS), batch):
        cut = slice(start, start + batch)
        arguments = {"k": 10, "session_items": SESSION[cut], "exclude": EXCLUDE[cut], "diversity": strengths[cut]}
        assert_same(client.recommend(USERS[cut], **arguments), local.recommend(USERS[cut], **arguments))


def test_diversity_changes_the_list_and_zero_does_not(client: ConchClient) -> None:
    plain, zero, varied = (client.recommend(USERS, k=10, **asked) for asked in ({}, {"diversity": 0}, {"diversity": 1}))
    assert [answer.items for answer in plain] == [answer.items for answer in zero]
    assert any(one.items != other.items for one, other in zip(plain, varied, strict=True))


def test_requests_with_and_without_diversity_share_a_batcher(client: ConchClient, local: LocalPipeline) -> None:
    def ask(at: int) -> Recommendation:
        return client.recommend([USERS[at]], k=7, diversity=0.8 if at % 2 else None)[0]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(len(USERS))))
    wanted = {True: local.recommend(USERS, k=7, diversity=0.8), False: local.recommend(USERS, k=7)}
    assert_same(found, [wanted[bool(at % 2)][at] for at in range(len(USERS))])
