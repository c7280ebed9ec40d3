from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench.peers import Bench, Peer, read_peers, run_peer
from bench.protocols import read_protocol
from bench.results import score
from bench.scoring import question
from tests.unit.bench.worlds import two_tastes

FIT = ("train", "valid")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder, data = tmp_path_factory.mktemp("bench"), two_tastes()
    return Bench(
        "made",
        question(data, ("train",), ("train",), "valid"),
        question(data, FIT, FIT, "test"),
        data.has_times,
        "ndcg@10",
        "warm",
        folder / "runs",
        folder / "envs",
        1,
        (0, 1),
        False,
        lambda line: None,
    )


def test_peer_learns_the_tastes_with_the_settings_that_valid_chose(bench: Bench) -> None:
    row = run_peer("gf-cf", Peer(adapter="gfcf", grid={"factors": [2], "ideal": [0.0, 1.0, -1.0]}), bench)
    popular = run_peer("popularity", Peer(adapter="popularity"), bench)
    assert row.settings["ideal"] == max(row.tuning["all"], key=lambda one: one["ndcg@10"])["ideal"] != -1
    ndcg = [score(one, bench.test).values["warm"]["ndcg@10"].mean() for one in (row, popular)]
    assert ndcg[0] > 1.2 * ndcg[1]
    assert row.runs[0].peak_mb > 10


def test_peer_that_is_not_there_says_so_instead_of_giving_numbers(bench: Bench) -> None:
    row = run_peer("gone", Peer(adapter="no_such_adapter"), bench)
    assert row.failed
    assert not row.runs
    assert "no_such_adapter" in str(row.not_run)


def test_peer_beyond_its_time_says_so(bench: Bench) -> None:
    row = run_peer("slow", Peer(adapter="ease", grid={"l2": [1.0]}, timeout_seconds=0.01), bench)
    assert row.failed
    assert "timed out" in str(row.not_run)


def test_peer_without_its_requirements_says_so(bench: Bench) -> None:
    row = run_peer("nowhere", Peer(adapter="ease", environment="no-such-file"), bench)
    assert row.failed
    assert "no requirements file" in str(row.not_run)


def test_peer_that_does_not_fit_the_data_is_no_failure(bench: Bench) -> None:
    timeless = replace(bench, has_times=False)
    row = run_peer("recent", Peer(adapter="popularity", needs_times=True), timeless)
    assert row.not_run == "the data has no times"
    assert not row.failed


def test_slow_peer_gets_fewer_seeds_on_the_named_protocol(bench: Bench) -> None:
    peer = Peer(adapter="popularity", seeded=True, most_seeds={"made": 1})
    assert [run.seed for run in run_peer("slow", peer, bench).runs] == [0]
    elsewhere = replace(bench, protocol="another")
    assert [run.seed for run in run_peer("slow", peer, elsewhere).runs] == [0, 1]


def test_resume_takes_the_finished_run_and_a_plain_run_makes_it_again(bench: Bench) -> None:
    peer = Peer(adapter="popularity")
    first = run_peer("again", peer, bench).runs[0]
    os.utime(first.lists_file, (0, 0))
    run_peer("again", peer, replace(bench, resume=True))
    assert first.lists_file.stat().st_mtime == 0
    run_peer("again", peer, bench)
    assert first.lists_file.stat().st_mtime > 0


def test_resume_trains_again_when_the_settings_changed(bench: Bench) -> None:
    resuming = replace(bench, resume=True)
    files = {
        run_peer("changed", Peer(adapter="ease", grid={"l2": [l2]}), resuming).runs[0].lists_file for l2 in (5.0, 6.0)
    }
    assert len(files) == 2


def test_committed_peers_can_be_read_and_have_their_files() -> None:
    root = Path("bench")
    for peer in read_peers().values():
        assert (root / "adapters" / f"{peer.adapter}.py").is_file()
        assert peer.environment is None or (root / "peers" / f"{peer.environment}.txt").is_file()
        assert peer.candidates("movielens-100k")


@pytest.mark.parametrize("name", ["movielens-100k", "ml-1m-half", "ml-100k-ratio", "gowalla"])
def test_committed_protocols_can_be_read_and_have_their_settings(name: str) -> None:
    assert all(Path(file).is_file() for file in read_protocol(name).config)
