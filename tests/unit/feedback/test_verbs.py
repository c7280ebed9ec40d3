"""`conch events` on a store with one user."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.feedback_keys import keys_folder, load_keys
from core.feedback_users import user_ref
from feedback.store import EventStore, store_folder
from pipeline.cli import app
from tests.unit.feedback.worlds import impression


@pytest.fixture
def var(tmp_path: Path) -> Path:
    keys = load_keys(keys_folder(tmp_path))
    store = EventStore(store_folder(tmp_path), keys)
    now_ms = time.time_ns() // 1_000_000
    store.append([impression("r1", at_ms=now_ms, user_ref=user_ref("ann", keys.pseudonym))])
    store.close()
    return tmp_path


def run(var: Path, *verb: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["events", *verb, "--set", f"paths.var={var}"])
    return result.exit_code, result.output


def test_sealed_events_are_counted_and_verified(var: Path) -> None:
    assert "sealed 1 events" in run(var, "seal")[1]
    assert json.loads(run(var, "status")[1]) == {"sealed": 1, "segments": 1, "unsealed": 0}
    assert run(var, "verify") == (0, "all is well\n")


def test_damaged_segment_is_named_with_exit_code_1_and_repaired(var: Path) -> None:
    run(var, "seal")
    (segment,) = (store_folder(var) / "segments").iterdir()
    segment.write_bytes(b"damaged")
    code, output = run(var, "verify")
    assert code == 1
    assert str(segment) in output
    assert run(var, "verify", "--repair")[0] == 0


def test_forgotten_user_is_in_no_segment(var: Path) -> None:
    run(var, "seal")
    assert "1 events taken out" in run(var, "forget", "ann")[1]
    assert json.loads(run(var, "status")[1])["sealed"] == 0


def test_quarantine_of_a_clean_store_is_empty(var: Path) -> None:
    assert run(var, "quarantine") == (0, "")


def test_missing_store_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["events", "status", "--set", f"paths.var={tmp_path}"])
    assert result.exit_code != 0
    assert "conch gateway" in str(result.exception)


def test_labels_of_a_dataset_are_made_again(var: Path, tmp_path: Path) -> None:
    run(var, "seal")
    (dataset,) = (store_folder(var) / "datasets").iterdir()
    code, output = run(var, "labels", str(dataset), str(tmp_path / "labels.parquet"))
    assert code == 0
    assert json.loads(output)["labels"] == 0
    assert (tmp_path / "labels.parquet").is_file()
