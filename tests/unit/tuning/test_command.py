"""`conch tune` from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.settings import ROOT, load_settings
from pipeline.cli import main

SMOKE = ("--config", str(ROOT / "config" / "smoke.toml"), "--set", "train.threads=1", "--set", "mf.epochs=2")


def conch(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    assert conch("dataset", *SMOKE, "--set", f"paths.var={folder}") == 0
    return folder


def tune(var: Path, *arguments: str) -> int | str | None:
    return conch("tune", *arguments, *SMOKE, "--set", f"paths.var={var}")


def test_embedding_size_is_cross_validated_over_time_windows(var: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ("--search", "mf.dimension=choice:2,4,8", "--sampler", "grid", "--pick", "one-se")
    assert tune(var, "mf", *search, "--study", "size") == 0
    told = json.loads((var / "tuning" / "size" / "results.json").read_text())
    rows = told["profiles"]["mf.dimension"]
    assert [row["value"] for row in rows] == [2, 4, 8]
    assert all(row["standard_error"] > 0 for row in rows)
    assert told["measured_on"] == "3 windows of time"
    best = max(rows, key=lambda row: row["quality"])
    near = [row["value"] for row in rows if row["quality"] >= best["quality"] - best["standard_error"]]
    picked = load_settings((var / "tuning" / "size" / "best.toml",)).mf.dimension
    as_it_was = told["picked"]["trial"] is None
    assert picked == (32 if as_it_was else min(near))
    assert "tune mf: 3 trials by grid" in capsys.readouterr().err


def test_train_takes_the_best_file(var: Path) -> None:
    assert tune(var, "mf", "--search", "mf.dimension=int:3:5", "--trials", "2", "--study", "taken") == 0
    best = var / "tuning" / "taken" / "best.toml"
    assert conch("train", "mf", *SMOKE, "--config", str(best), "--set", f"paths.var={var}") == 0


def test_two_workers_tune_a_real_model(var: Path) -> None:
    arguments = ("mf", "--search", "mf.dimension=int:2:9", "--trials", "4", "--workers", "2", "--sampler", "random")
    assert tune(var, *arguments) == 0
    told = json.loads((var / "tuning" / "mf-random" / "results.json").read_text())
    assert sum(told["trials"].values()) == 4


def test_unknown_key_names_the_closest(var: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(var, "mf", "--search", "mf.dimenson=int:2:9") == 2
    assert "did you mean mf.dimension?" in capsys.readouterr().err


def test_unknown_model_is_refused(var: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(var, "fm") == 2
    assert "unknown model" in capsys.readouterr().err


def test_same_data_built_twice_go_on_with_the_study(var: Path) -> None:
    arguments = ("mf", "--search", "mf.dimension=int:2:4", "--trials", "2", "--study", "again")
    assert tune(var, *arguments) == 0
    assert conch("dataset", *SMOKE, "--set", f"paths.var={var}") == 0
    assert tune(var, *arguments) == 0


def test_other_data_are_refused(var: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("mf", "--search", "mf.dimension=int:2:4", "--trials", "2", "--study", "bound")
    assert tune(var, *arguments) == 0
    assert conch("dataset", *SMOKE, "--set", "data.seed=5", "--set", f"paths.var={var}") == 0
    assert tune(var, *arguments) == 2
    assert "data" in capsys.readouterr().err


def test_help_shows_how_a_range_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert conch("tune", "--help") == 0
    assert "int:LOW:HIGH" in capsys.readouterr().out
