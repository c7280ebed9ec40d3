"""The whole stage on a small chain: an artefact, or exit code 3 with a report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.artifacts import latest_artifact
from core.errors import ArtifactError
from core.settings import Settings, change_settings
from export.stage import export_models
from pipeline.cli import app
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
