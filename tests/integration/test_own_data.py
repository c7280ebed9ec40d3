"""The whole chain on own files, through the command line, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.own_files import OwnFiles, Truths, mean_ndcg, read_lists, split_by_time, write_own_files


def conch(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from pipeline.cli import main; main()"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300)


def options(files: OwnFiles, var: Path) -> list[str]:
    return [part for text in files.overrides(var) for part in ("--set", text)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> OwnFiles:
    return write_own_files(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def var(files: OwnFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own-var")
    done = conch("run", *options(files, folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def truths(files: OwnFiles) -> Truths:
    return split_by_time(files.events)


@pytest.fixture(scope="module")
def users_file(truths: Truths, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("users") / "users.txt"
    file.write_text("\n".join(sorted({*truths.seen, *truths.later})), encoding="utf-8")
    return file


@pytest.mark.parametrize("stage", ["pipeline", "mf", "gat", "popularity"])
def test_lists_hold_no_seen_item_and_no_repeat(
    stage: str, files: OwnFiles, var: Path, truths: Truths, users_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "recs.csv"
    arguments = ("recommend", "--users", str(users_file), "--k", "10", "--stage", stage, "--out", str(out))
    done = conch(*arguments, *options(files, var))
    assert done.returncode == 0, done.stderr
    lists = read_lists(out)
    assert set(lists) == {*truths.seen, *truths.later}
    for user, items in lists.items():
        assert len(items) == len(set(items)) == 10
        assert not set(items) & truths.seen.get(user, set())


def test_evaluate_agrees_with_an_independent_evaluator(
    files: OwnFiles, var: Path, truths: Truths, users_file: Path, tmp_path: Path
) -> None:
    report_file = tmp_path / "report.json"
    assert conch("evaluate", "--json", str(report_file), *options(files, var)).returncode == 0
    report = json.loads(report_file.read_text())
    for stage in ("popularity", "mf", "gat", "pipeline"):
        out = tmp_path / f"{stage}.csv"
        arguments = ("recommend", "--users", str(users_file), "--k", "10", "--stage", stage, "--out", str(out))
        assert conch(*arguments, *options(files, var)).returncode == 0
        expected = mean_ndcg(read_lists(out), truths, 10)
        assert report["models"][stage]["warm"]["ndcg@10"] == pytest.approx(expected, abs=6e-6), stage


def test_recommend_shows_titles_and_the_release(files: OwnFiles, var: Path) -> None:
    done = conch("recommend", "007", *options(files, var))
    assert done.returncode == 0, done.stderr
    assert "Title " in done.stdout
    assert "release r000001" in done.stdout


def test_unknown_user_gets_a_full_list(files: OwnFiles, var: Path) -> None:
    done = conch("recommend", "never seen", "--k", "7", *options(files, var))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Title ") >= 7


@pytest.mark.parametrize("k", ["0", "-3", "31"])
def test_k_out_of_range_is_a_clear_error(k: str, files: OwnFiles, var: Path) -> None:
    done = conch("recommend", "007", "--k", k, *options(files, var))
    assert done.returncode == 2
    assert "k is out of range" in done.stderr
    assert f"found: {k}" in done.stderr
    assert "Traceback" not in done.stderr


def test_excluded_items_do_not_come_back(files: OwnFiles, var: Path, tmp_path: Path) -> None:
    asked = tmp_path / "user.txt"
    asked.write_text("007\n")

    def lists(*more: str) -> list[str]:
        out = tmp_path / "recs.csv"
        done = conch("recommend", "--users", str(asked), "--k", "5", "--out", str(out), *more, *options(files, var))
        assert done.returncode == 0, done.stderr
        return read_lists(out)["007"]

    first, second, *_ = lists()
    again = lists("--exclude", first, "--session", second)
    assert len(again) == 5
    assert not {first, second} & set(again)


def test_measuring_a_learned_split_is_refused(files: OwnFiles, var: Path) -> None:
    done = conch("evaluate", "--split", "valid", *options(files, var))
    assert done.returncode == 2
    assert "learned from the valid split" in done.stderr
