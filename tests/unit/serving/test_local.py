from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import ReleaseError, RequestError
from serving.local import LocalPipeline
from serving.state import Catalogue
from tests.synthetic_release import SMALL, synthetic_reranker, write_synthetic_release

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


def test_diversity_zero_answers_as_without_it(pipeline: LocalPipeline) -> None:
    plain, zero = pipeline.recommend(USERS, k=10), pipeline.recommend(USERS, k=10, diversity=0)
    assert [answer.items for answer in plain] == [answer.items for answer in zero]


def test_diversity_changes_lists_and_rows_alike(pipeline: LocalPipeline) -> None:
    plain, varied = pipeline.recommend(USERS, k=10), pipeline.recommend(USERS, k=10, diversity=0.7)
    assert any([i.item_id for i in a.items] != [i.item_id for i in b.items] for a, b in zip(plain, varied, strict=True))
    ids = np.append(pipeline._context.items.ids, "")
    for rows, answer in zip(pipeline.recommend_rows(USERS, 10, diversity=0.7), varied, strict=True):
        assert [name for name in ids[rows] if name] == [item.item_id for item in answer.items]


def test_diversity_per_user_stays_with_its_user(pipeline: LocalPipeline) -> None:
    """Users are answered in batches of similar history, not in the order asked."""
    strengths = [0.9 if at % 2 else 0.0 for at in range(len(USERS))]
    mixed = pipeline.recommend(USERS, k=8, diversity=strengths)
    wanted = {value: pipeline.recommend(USERS, k=8, diversity=value) for value in (0.0, 0.9)}
    assert [a.items for a in mixed] == [wanted[value][at].items for at, value in enumerate(strengths)]


def test_diversity_of_a_single_stage_is_a_request_error(pipeline: LocalPipeline) -> None:
    with pytest.raises(RequestError, match="stage mf is not re-ranked"):
        pipeline.recommend(["u5"], diversity=0.5, stage="mf")


def test_ranked_candidates_come_in_the_order_asked(pipeline: LocalPipeline) -> None:
    ranked = pipeline.ranked(USERS)
    assert ranked.rows.shape == (SMALL.users, SMALL.returned)
    rows = pipeline.recommend_rows(USERS, SMALL.returned)
    assert (np.where(ranked.scores > -1e29, ranked.rows, -1) == rows).all()


def test_excluded_items_of_the_rules_come_back_in_no_stage(tmp_path: Path) -> None:
    write_synthetic_release(tmp_path, excluded=(3, 7, 11))
    with LocalPipeline(tmp_path, threads=1) as pipeline:
        for stage in STAGES:
            rows = pipeline.recommend_rows(USERS, SMALL.returned, stage)
            assert not np.isin(rows, (3, 7, 11)).any()
        assert not {i.item_id for i in pipeline.similar_items(["ítem-1"], k=20)[0].items} & {"ítem-3", "ítem-7"}


def test_similar_items_fall_and_leave_the_asked_one_out(pipeline: LocalPipeline) -> None:
    for answer in pipeline.similar_items([f"ítem-{row}" for row in range(SMALL.items)], k=9):
        scores = [item.score for item in answer.items]
        assert scores == sorted(scores, reverse=True)
        assert answer.asked[0] not in {item.item_id for item in answer.items}
        assert {reason.item_id for item in answer.items for reason in item.reasons} == set(answer.asked)


def test_similar_lists_are_not_reranked(tmp_path: Path) -> None:
    reranker = synthetic_reranker(SMALL)
    write_synthetic_release(tmp_path, reranker=replace(reranker, diversity=1.0))
    with LocalPipeline(tmp_path, threads=1) as pipeline:
        scores = [item.score for item in pipeline.similar_items(["ítem-1"], k=10)[0].items]
    assert scores == sorted(scores, reverse=True)


def test_unknown_items_have_no_similar_ones(pipeline: LocalPipeline) -> None:
    assert pipeline.similar_items(["no such item"])[0].items == ()


def test_similar_users_leave_out_who_asks(pipeline: LocalPipeline) -> None:
    for answer in pipeline.similar_users(USERS[2:30], k=SMALL.returned):
        names = [user.user_id for user in answer.users]
        assert answer.user_id not in names
        assert len(set(names)) == len(names) >= SMALL.returned - 1


def test_users_without_a_history_have_no_similar_ones_until_a_session(pipeline: LocalPipeline) -> None:
    silent, clicking = pipeline.similar_users(["u1", "nobody"], k=3, session_items=[[], ["ítem-4"]])
    assert silent.users == ()
    assert len(clicking.users) == 3


@pytest.mark.parametrize("noun", ["items", "users"])
def test_a_release_without_similar_ones_names_the_setting(tmp_path: Path, noun: str) -> None:
    write_synthetic_release(tmp_path, extras=())
    with LocalPipeline(tmp_path, threads=1) as pipeline, pytest.raises(ReleaseError, match=noun) as error:
        pipeline.similar_items(["ítem-1"]) if noun == "items" else pipeline.similar_users(["u5"])
    assert f"similar.{noun}=true" in str(error.value.next_step)


def test_rerank_tables_of_another_release_are_refused(tmp_path: Path) -> None:
    write_synthetic_release(tmp_path)
    np.savez(
        tmp_path / "repository" / "respond" / "1" / "rerank.npz",
        method="mmr", diversity=0.0, pool=5, vectors=np.zeros((3, 2)), boosts=np.zeros(3),
        groups=np.zeros((3, 0), int), limits=np.zeros(0, int),
    )  # fmt: skip
    with pytest.raises(ReleaseError, match="do not belong to this release"):
        LocalPipeline(tmp_path)
