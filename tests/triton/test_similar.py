"""Similar items and users out of Triton: the same as the release in process."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from core.errors import RequestError, ServerError
from core.settings import Settings
from serving.client import AsyncConchClient, ConchClient
from serving.local import LocalPipeline
from serving.server import TritonServer
from tests.synthetic_release import SMALL, write_synthetic_release
from tests.triton.conftest import settings_in

ITEMS = [f"ítem-{row}" for row in range(SMALL.items)]
USERS = [f"u{row}" for row in range(40)]


@pytest.mark.parametrize("batch", [1, 7, SMALL.items])
def test_similar_items_equal_the_local_pipeline(client: ConchClient, local: LocalPipeline, batch: int) -> None:
    for start in range(0, len(ITEMS), batch):
        asked = ITEMS[start : start + batch]
        for one, other in zip(client.similar_items(asked, k=8), local.similar_items(asked, k=8), strict=True):
            assert (one.asked, one.release) == (other.asked, other.release)
            assert [item.item_id for item in one.items] == [item.item_id for item in other.items]
            assert np.allclose([i.score for i in one.items], [i.score for i in other.items], atol=1e-5)
            assert [item.reasons[0].item_id for item in one.items] == list(one.asked) * 8


def test_scores_of_similar_items_fall_and_the_asked_one_is_not_among_them(client: ConchClient) -> None:
    for answer in client.similar_items(ITEMS, k=SMALL.returned):
        scores = [item.score for item in answer.items]
        assert len(scores) == SMALL.returned
        assert scores == sorted(scores, reverse=True)
        assert answer.asked[0] not in {item.item_id for item in answer.items}


def test_several_items_are_one_question(client: ConchClient, local: LocalPipeline) -> None:
    questions = [["ítem-1", "ítem-2"], ["ítem-1"], ["ítem-2", "no such item", "ítem-1"]]
    both, one, noisy = client.similar_items(questions, k=5, exclude=[["ítem-3"], [], ["ítem-3"]])
    assert [i.item_id for i in both.items] == [i.item_id for i in noisy.items]
    assert [i.item_id for i in both.items] != [i.item_id for i in one.items]
    assert not {"ítem-1", "ítem-2", "ítem-3"} & {i.item_id for i in both.items}
    wanted = local.similar_items(questions[:1], k=5, exclude=[["ítem-3"]])[0]
    assert [i.item_id for i in both.items] == [i.item_id for i in wanted.items]


def test_unknown_item_has_no_similar_ones(client: ConchClient) -> None:
    known, unknown = client.similar_items(["ítem-1", "no such item"], k=3)
    assert len(known.items) == 3
    assert unknown.items == ()
    assert unknown.release == "r000001"


@pytest.mark.parametrize("batch", [1, 40])
def test_similar_users_equal_the_local_pipeline(client: ConchClient, local: LocalPipeline, batch: int) -> None:
    for start in range(0, len(USERS), batch):
        asked = USERS[start : start + batch]
        for one, other in zip(client.similar_users(asked, k=6), local.similar_users(asked, k=6), strict=True):
            assert [user.user_id for user in one.users] == [user.user_id for user in other.users]
            assert np.allclose([u.score for u in one.users], [u.score for u in other.users], atol=1e-5)
            assert one.user_id not in {user.user_id for user in one.users}


def test_session_alone_finds_similar_users_and_nothing_finds_none(client: ConchClient) -> None:
    session, nothing = client.similar_users(["nobody", "nobody"], k=4, session_items=[["ítem-5"], []])
    assert len(session.users) == 4
    assert nothing.users == ()


def test_similar_ones_over_http_and_asyncio_are_the_same(server: TritonServer, client: ConchClient) -> None:
    async def ask() -> tuple[list[object], list[object]]:
        async with AsyncConchClient(server.settings.serving) as connected:
            items = await connected.similar_items(ITEMS[:20], k=4)
            users = await connected.similar_users(USERS[:20], k=4)
            return [answer.items for answer in items], [answer.users for answer in users]

    with ConchClient(server.settings.serving, protocol="http") as http:
        over_http = (
            [a.items for a in http.similar_items(ITEMS[:20], k=4)],
            [a.users for a in http.similar_users(USERS[:20], k=4)],
        )
    wanted = (
        [a.items for a in client.similar_items(ITEMS[:20], k=4)],
        [a.users for a in client.similar_users(USERS[:20], k=4)],
    )
    assert asyncio.run(ask()) == over_http == wanted


@pytest.mark.parametrize("k", [SMALL.returned + 1, 10_000])
def test_k_above_the_release_is_refused(client: ConchClient, k: int) -> None:
    with pytest.raises(RequestError, match=f"a number from 1 to {SMALL.returned}"):
        client.similar_items(["ítem-1"], k=k)
    with pytest.raises(RequestError, match=f"a number from 1 to {SMALL.returned}"):
        client.similar_users(["u3"], k=k)


@pytest.fixture
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A release that serves nothing but recommendations."""
    folder = tmp_path_factory.mktemp("plain")
    write_synthetic_release(folder / "release", extras=())
    settings = settings_in(folder)
    from serving.activate import install_release

    install_release(folder / "release", settings.paths.var / "repository")
    return settings


def test_a_release_without_similar_ones_says_which_setting_brings_them(plain_server: Settings) -> None:
    with TritonServer(plain_server, free_ports=True) as running, running.client() as client:
        assert client.recommend(["u5"])[0].items
        with pytest.raises(ServerError, match="does not serve similar_users") as error:
            client.similar_users(["u5"])
    assert "similar.users" in str(error.value.next_step)
