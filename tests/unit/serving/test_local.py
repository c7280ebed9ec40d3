from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ReleaseError, RequestError
from serving.local import LocalPipeline
from serving.state import Catalogue
from tests.synthetic_release import SMALL

STAGES = ("pipeline", "mf", "gat", "popularity")
USERS = [f"u{row}" for row in range(SMALL.users)]


@pytest.fixture(scope="module")
def pipeline(release: Path) -> LocalPipeline:
    return LocalPipeline(release, threads=1)


def seen(pipeline: LocalPipeline, user: str) -> set[str]:
    (history,) = pipeline._context.store.lookup([user]).histories
    return set(pipeline._context.items.ids[history.item_rows])


@pytest.mark.parametrize("stage", STAGES)
def test_no_seen_item_and_no_repeat_comes_back(pipeline: LocalPipeline, stage: str) -> None:
    for answer in pipeline.recommend(USERS, k=SMALL.returned, stage=stage):
        ids = [item.item_id for item in answer.items]
        assert len(set(ids)) == len(ids)
        assert not set(ids) & seen(pipeline, answer.user_id)


@pytest.mark.parametrize("stage", STAGES)
def test_everything_seen_gives_an_empty_list(pipeline: LocalPipeline, stage: str) -> None:
    assert pipeline.recommend(["u0"], stage=stage)[0].items == ()


@pytest.mark.parametrize("stage", STAGES)
def test_unknown_user_is_answered_like_an_empty_history(pipeline: LocalPipeline, stage: str) -> None:
    unknown, empty = pipeline.recommend(["nobody", "u1"], k=5, stage=stage)
    assert len(unknown.items) == 5
    assert unknown.items == empty.items


def test_order_of_users_does_not_matter(pipeline: LocalPipeline) -> None:
    shuffled = [USERS[at] for at in np.random.default_rng(0).permutation(len(USERS))]
    by_user = {answer.user_id: answer for answer in pipeline.recommend(shuffled, k=10)}
    assert list(by_user) == shuffled
    for answer in pipeline.recommend(USERS, k=10):
        assert [i.item_id for i in answer.items] == [i.item_id for i in by_user[answer.user_id].items]


@pytest.mark.parametrize("stage", STAGES)
def test_rows_name_the_same_items_as_answers(pipeline: LocalPipeline, stage: str) -> None:
    rows = pipeline.recommend_rows(USERS, 10, stage)
    ids = np.append(pipeline._context.items.ids, "")
    for found, answer in zip(rows, pipeline.recommend(USERS, k=10, stage=stage), strict=True):
        assert [name for name in ids[found] if name] == [item.item_id for item in answer.items]


def test_rows_are_padded_beyond_what_a_stage_can_give(pipeline: LocalPipeline) -> None:
    rows = pipeline.recommend_rows(["u1"], SMALL.candidates + 5, "mf")
    assert (rows[0, : SMALL.candidates] >= 0).all()
    assert (rows[0, SMALL.candidates :] == -1).all()


def test_popularity_follows_event_counts_with_ties_to_the_lower_row(pipeline: LocalPipeline, release: Path) -> None:
    counts = Catalogue.read(release / "repository" / "respond" / "1").counts
    wanted = np.lexsort((np.arange(len(counts)), -counts))[:10]
    assert pipeline.recommend_rows(["u1"], 10, "popularity")[0].tolist() == wanted.tolist()


def test_session_items_are_excluded_and_change_the_list(pipeline: LocalPipeline) -> None:
    (plain,) = pipeline.recommend(["u1"], k=5)
    clicked = [item.item_id for item in plain.items[:2]]
    (after,) = pipeline.recommend(["u1"], k=5, session_items=[clicked])
    assert not {item.item_id for item in after.items} & set(clicked)
    assert [reason.item_id for reason in after.items[0].reasons] == clicked[::-1]


def test_excluded_items_do_not_come_back(pipeline: LocalPipeline) -> None:
    (plain,) = pipeline.recommend(["u1"], k=5)
    unwanted = [item.item_id for item in plain.items]
    (after,) = pipeline.recommend(["u1"], k=5, exclude=[unwanted])
    assert not {item.item_id for item in after.items} & set(unwanted)


def test_answers_carry_release_and_ranks(pipeline: LocalPipeline) -> None:
    (answer,) = pipeline.recommend(["u5"], k=4)
    assert answer.release == "r000001"
    assert [item.rank for item in answer.items] == [1, 2, 3, 4]
    assert sorted((item.score for item in answer.items), reverse=True) == [item.score for item in answer.items]


def test_k_above_the_release_is_a_request_error(pipeline: LocalPipeline) -> None:
    with pytest.raises(RequestError, match="k is out of range"):
        pipeline.recommend(["u5"], k=SMALL.returned + 1)


def test_unknown_stage_is_a_request_error(pipeline: LocalPipeline) -> None:
    with pytest.raises(RequestError, match="no such stage"):
        pipeline.recommend(["u5"], stage="magic")  # type: ignore[arg-type]


def test_no_release_is_an_error_that_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError) as error:
        LocalPipeline(tmp_path)
    assert error.value.next_step == "conch release"
