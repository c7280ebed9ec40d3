"""The whole stage on a small chain: an artefact that export takes, or exit code 3 with a report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compression.store import compressed_of, load_modules
from core.artifacts import latest_artifact
from core.errors import ArtifactError
from core.settings import Settings, change_settings
from export.stage import export_models
from pipeline.cli import app
from pipeline.compressing.stage import compress
from training.stage import train


@pytest.fixture(scope="module")
def trained(small_settings: Settings, small_dataset: object) -> Settings:
    train(small_settings)
    return small_settings


def test_release_without_compressed_models_is_refused_where_they_are_wanted(trained: Settings) -> None:
    with pytest.raises(ArtifactError, match="no compressed models"):
        export_models(change_settings(trained, {"compress.enabled": True}))


def test_goal_that_nothing_meets_ends_with_code_3_and_a_report(trained: Settings, tmp_path: Path) -> None:
    shutil.copytree(trained.paths.var, tmp_path / "var")
    options = ["--config", "config/smoke.toml", "--set", f"paths.var={tmp_path / 'var'}"]
    result = CliRunner().invoke(app, ["compress", "--goal", "max", *options])
    if result.exit_code == 0:  # a chain this small may do it: then there is an artefact
        assert latest_artifact(tmp_path / "var", "compressed").manifest.tensors["steps"]
        return
    assert result.exit_code == 3
    report = json.loads((tmp_path / "var" / "compress-max" / "report.json").read_text())
    assert report["chosen"]["goals_met"] is False
    assert report["chosen"]["why"] in result.output
    assert (tmp_path / "var" / "compress-max" / "report.html").read_text().startswith("<!doctype html>")


def test_chosen_models_are_stored_reported_and_exported(trained: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits wide enough for noise on a few users: what is tested is the way, not the quality."""
    from compression.goals import GOALS, Goal

    monkeypatch.setitem(GOALS, "safe", Goal("safe", 1.5, 1.0, 0.9, 0.1))
    settings = change_settings(
        trained, {"compress.enabled": True, "compress.goal": "safe", "compress.max_latency_ratio": 50.0}
    )
    made = compress(settings)
    assert set(load_modules(made)) == {"recall_mf", "recall_gat", "rank"}
    assert made.path == compressed_of(latest_artifact(settings.paths.var, "ranker"), settings.paths.var).path
    report = json.loads(made.file("report.json").read_text())
    names = {one["name"] for one in report["candidates"]["recall_mf"]}
    assert all(one["parent"] in names | {""} for one in report["candidates"]["recall_mf"])
    graphs = export_models(settings)
    assert "compressed" in graphs.manifest.parents
