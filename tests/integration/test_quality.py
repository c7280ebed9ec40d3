"""The whole chain learns: on data with structure each stage beats popularity by more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import load_dataset
from pipeline.measure import evaluate
from serving.local import LocalPipeline


@pytest.fixture(scope="module")
def report(smoke_var: Path) -> dict[str, Any]:
    release = latest_artifact(smoke_var, "release")
    dataset = load_dataset(parent_artifact(release, smoke_var, "dataset"))
    with LocalPipeline(release.path) as pipeline:
        return evaluate(pipeline, dataset, fit=("train", "valid"), ks=(10,))


@pytest.mark.parametrize("stage", ["mf", "gat", "recall", "pipeline"])
def test_stage_beats_popularity(report: dict[str, Any], stage: str) -> None:
    popular = report["models"]["popularity"]["warm"]["ndcg@10"]
    assert report["models"][stage]["warm"]["ndcg@10"] > 1.2 * popular


def test_pipeline_is_not_below_the_better_recall_model(report: dict[str, Any]) -> None:
    warm = {name: report["models"][name]["warm"] for name in ("mf", "gat", "pipeline")}
    better = max(warm["mf"]["ndcg@10"], warm["gat"]["ndcg@10"])
    assert warm["pipeline"]["ndcg@10"] >= better - warm["pipeline"]["ndcg@10_se"]


def test_pipeline_gain_over_popularity_is_outside_chance(report: dict[str, Any]) -> None:
    assert report["pipeline_minus"]["popularity"]["low"] > 0
