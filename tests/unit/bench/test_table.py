from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.machine import measured_commit, this_machine
from bench.protocols import Protocol, Published
from bench.results import build, score
from bench.rows import Row, Run, missing
from bench.scoring import question
from bench.table import render
from tests.unit.bench.test_scoring import unseen_lists
from tests.unit.bench.worlds import two_tastes

FIT = ("train", "valid")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Ours knows the answers, the peer does not, another peer is missing."""
    folder, asked = tmp_path_factory.mktemp("lists"), question(two_tastes(), FIT, FIT, "test", liked_from=4)
    poor = unseen_lists(asked)[:, ::-1].copy()
    good = np.full_like(poor, -1)
    truth = asked.groups["all"].truth
    for place, (start, size) in enumerate(zip(truth.starts, truth.sizes, strict=False)):
        good[place, :size] = truth.item_rows[start : start + size]
    rows = []
    for name, ours, lists in (("poor", False, poor), ("conch pipeline", True, good)):
        file = folder / f"{name}.npz"
        np.savez(file, lists=lists)
        facts = {"epochs": 4, "seconds_per_epoch": 0.375}
        runs = tuple(Run(seed, file, 1.5, 99.0, "2026-01-01T00:00Z", "abc", facts) for seed in (0, 1))
        settings = {"config": ["config/smoke.toml"], "set": []} if ours else {"k": 3}
        rows.append(Row(name, ours, runs, settings))
    rows.append(missing("absent", "exit code 1: no | such module"))
    protocol = Protocol(
        name="made",
        title="Made data",
        source="files",
        published=(Published(name="Paper", source="Someone 2020", metrics={"ndcg@20": 0.1234}),),
    )
    return build(
        protocol, asked, [score(row, asked) for row in rows], [], machine=this_machine(), threads=1, command="make x",
        seeds=(0, 1),
    )  # fmt: skip


def test_result_is_plain_json(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_knowing_the_answers_is_a_perfect_score_and_wins(result: dict[str, Any]) -> None:
    ours = next(row for row in result["rows"] if row["ours"])
    assert ours["metrics"]["warm"]["ndcg@10"] == 1
    gap = next(one for one in result["differences"] if one["users"] == "warm" and one["metric"] == "ndcg@10")
    assert gap["verdict"] == "wins"
    assert gap["low"] <= gap["mean"] <= gap["high"]


def test_table_shows_numbers_reasons_and_cited_figures(result: dict[str, Any]) -> None:
    text = render(result)
    assert "| conch pipeline | 1.0000 |" in text
    assert "| absent | not run: exit code 1: no / such module |" in text
    assert "| Paper | 0.1234 | Someone 2020 |" in text
    assert "wins |" in text
    assert "| poor | 4 | 0.375 |  | 1.50 |" in text


def test_runs_of_other_commits_are_told(result: dict[str, Any]) -> None:
    assert "by commits `abc`" in render(result)
    assert "by commits" not in render({**result, "commit": "abc"})


def test_every_table_line_has_as_many_cells_as_its_head(result: dict[str, Any]) -> None:
    for block in render(result).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_machine_reads_the_processors_name(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nmodel name\t: Fast One 3000\n", encoding="utf-8")
    assert this_machine(file).cpu == "Fast One 3000"


def test_changed_result_files_leave_the_commit_clean_and_other_changes_do_not(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "bench" / "results").mkdir(parents=True)
    result, code = tmp_path / "bench" / "results" / "a.json", tmp_path / "code.py"
    for file in (result, code):
        file.write_text("1", encoding="utf-8")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    result.write_text("2", encoding="utf-8")
    assert not measured_commit(tmp_path).endswith("+dirty")
    measured_commit.cache_clear()
    code.write_text("2", encoding="utf-8")
    assert measured_commit(tmp_path).endswith("+dirty")
