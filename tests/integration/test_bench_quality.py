"""`make bench-quality` on a user's own files: real `conch` commands, real adapters, one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bench.ours import Chain, dataset_artifact
from bench.quality import INCOMPLETE, app
from tests.integration.own_files import OwnFiles, write_own_files

SMALL = (
    "recall.candidates=40",
    "serving.max_k=30",
    'recall.sources=["mf"]',
    "mf.epochs=3",
    "ranker.epochs=1",
)


def bench(files: OwnFiles, folder: Path, *options: str) -> Result:
    """Runs the command with everything written to ``folder``."""
    command = ["--protocol", "ml-1m-half", "--seeds", "1", "--threads", "1", "--work", str(folder / "work")]
    command += ["--events", str(files.events), "--items", str(files.items), "--users", str(files.users)]
    command += ["--out", str(folder / "out"), *(part for text in SMALL for part in ("--set", text)), *options]
    return CliRunner().invoke(app, command)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> OwnFiles:
    return write_own_files(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def run(files: OwnFiles, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("bench")
    return folder, bench(files, folder, "--only", "conch,popularity,GF-CF", "--allow-missing")


@pytest.fixture(scope="module")
def result(run: tuple[Path, Result]) -> dict[str, Any]:
    folder, done = run
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads((folder / "out" / "quality-ml-1m-half.json").read_text(encoding="utf-8"))
    return found


def test_every_stage_and_peer_that_ran_has_numbers_and_costs(result: dict[str, Any]) -> None:
    ran = {row["name"]: row for row in result["rows"] if "not_run" not in row}
    assert {"popularity", "GF-CF", "conch mf", "conch recall", "conch pipeline"} <= set(ran)
    assert all(0 < row["metrics"]["warm"]["ndcg@10"] < 1 and row["peak_mb"] > 10 for row in ran.values())
    assert ran["conch pipeline"]["seconds"] > ran["conch mf"]["seconds"] > 0


def test_models_beat_popularity_on_data_with_tastes(result: dict[str, Any]) -> None:
    ndcg = {row["name"]: row["metrics"]["warm"]["ndcg@10"] for row in result["rows"] if "not_run" not in row}
    assert ndcg["conch pipeline"] > 1.2 * ndcg["popularity"]
    assert ndcg["GF-CF"] > 1.2 * ndcg["popularity"]


def test_result_names_no_folder_of_this_machine(
    files: OwnFiles, run: tuple[Path, Result], result: dict[str, Any]
) -> None:
    for folder in (run[0], files.events.parent):
        assert str(folder) not in json.dumps(result)


def test_resume_trains_nothing_again(files: OwnFiles, run: tuple[Path, Result]) -> None:
    folder = run[0]
    before = {file: file.stat().st_mtime_ns for file in (folder / "work").rglob("done.json")}
    done = bench(files, folder, "--only", "conch,popularity,GF-CF", "--allow-missing", "--resume")
    assert done.exit_code == 0, done.output
    assert {file: file.stat().st_mtime_ns for file in (folder / "work").rglob("done.json")} == before


def test_dataset_is_made_again_when_a_newer_one_lies_before_it(files: OwnFiles, tmp_path: Path) -> None:
    data = tuple(text for text in files.overrides(tmp_path) if text.startswith("data."))
    chain = Chain((), data, (), tmp_path, 1)
    first = dataset_artifact(chain, resume=True)
    assert dataset_artifact(chain, resume=True).manifest.run_id == first.manifest.run_id
    other = dataset_artifact(Chain((), data, ("data.min_user_events=6",), tmp_path, 1), resume=True)
    again = dataset_artifact(chain, resume=True)
    assert again.manifest.run_id not in (first.manifest.run_id, other.manifest.run_id)
    assert again.manifest.tensors == first.manifest.tensors != other.manifest.tensors


def test_rows_left_out_make_the_exit_code_say_so(files: OwnFiles, run: tuple[Path, Result]) -> None:
    done = bench(files, run[0], "--only", "popularity", "--resume")
    assert done.exit_code == INCOMPLETE
    assert "conch: not run: left out by --only" in done.output
