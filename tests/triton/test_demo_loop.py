"""The whole loop, tiny: simulated users, a retrain, a worse release refused, a rollback on a running server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.progress import SILENT
from core.settings import ROOT, change_settings, load_settings
from pipeline.loop.demo import Story, run_demo_loop
from serving.pointer import pointer_file, read_pointer

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo-loop")


@pytest.fixture(scope="module")
def story(var: Path) -> Story:
    settings = change_settings(load_settings([ROOT / "config" / "smoke.toml"]), {"paths.var": var, "gat.epochs": 1})
    return run_demo_loop(settings, SILENT, rounds=1)


def test_every_release_is_measured_on_the_same_users_of_the_final_window(story: Story) -> None:
    qualities = [one.quality for one in story.rounds]
    assert len(qualities) == 3
    assert all(quality is not None and quality.shape == (story.gain.users,) for quality in qualities)
    first, last = qualities[0], qualities[1]
    assert first is not None
    assert last is not None
    assert story.gain.difference == pytest.approx(float(np.mean(last - first)))
    assert story.gain.standard_error > 0


def test_slightly_worse_release_is_refused_with_its_interval(story: Story, var: Path) -> None:
    assert story.loss == pytest.approx(0.02, abs=0.005)
    assert story.refused.action == "refused"
    assert "ndcg@10 not worse" in story.refused.reason
    report = json.loads(Path(story.refused.figures["report"]).read_text())
    ndcg = next(f for f in report["findings"] if f["check"] == "ndcg@10 not worse")
    assert ndcg["figures"]["relative_low"] < -0.01
    assert not (var / "demo-loop" / "blessings" / f"{report['challenger']}.json").exists()


def test_rollback_answers_with_the_first_release_again(story: Story, var: Path) -> None:
    assert (story.rollback.before, story.rollback.after) == ("r000002", "r000001")
    assert 0 < story.rollback.milliseconds < 1_000
    pointer = read_pointer(pointer_file(var / "demo-loop"))
    assert pointer is not None
    assert pointer.stable == "r000001"


def test_page_tells_quality_refusal_and_rollback(story: Story, var: Path) -> None:
    page = (var / "demo-loop" / "reports" / "demo-loop.html").read_text()
    for told in ("r000001", "r000002", "refused", "interval", "Rollback", f"{story.rollback.milliseconds:.0f} ms"):
        assert told in page
