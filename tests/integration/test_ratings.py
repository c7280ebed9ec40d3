"""The rating model through the whole chain: trained, exported, released, asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import load_dataset
from core.errors import RequestError
from core.settings import Settings
from pipeline.cli import main
from pipeline.console import Terminal
from pipeline.ratings import evaluate_ratings
from serving.rate import LocalRater
from training.ratings.predict import predict_pairs
from training.ratings.store import load_rating


def test_release_rates_as_the_trained_module_does(smoke_settings: Settings, smoke_var: Path) -> None:
    release = latest_artifact(smoke_var, "release")
    dataset = load_dataset(parent_artifact(release, smoke_var, "dataset"))
    fit = tuple(release.manifest.tensors["fit"])
    users, items = np.arange(0, 90, 3), np.arange(0, 120, 9)
    with LocalRater(release.path) as rater:
        ids = [list(dataset.items.ids[items])] * len(users)
        answers = rater.rate(list(dataset.users.ids[users]), ids)
    found = np.array([[item.rating for item in answer.items] for answer in answers])
    likely = np.array([[item.like_probability for item in answer.items] for answer in answers])
    pairs = np.repeat(users, len(items)), np.tile(items, len(users))
    model = load_rating(latest_artifact(smoke_var, "rating"))
    ratings, probabilities = predict_pairs(model, dataset, dataset.histories(fit), *pairs)
    np.testing.assert_allclose(found.ravel(), ratings, atol=2e-3)
    np.testing.assert_allclose(likely.ravel(), probabilities, atol=1e-3)
    assert all(item.known for answer in answers for item in answer.items)


def test_unknown_users_and_items_are_rated_and_told(smoke_var: Path) -> None:
    with LocalRater(latest_artifact(smoke_var, "release").path) as rater:
        first, second = rater.rate(["nobody", "nobody"], [["nothing"], []])
    assert not first.items[0].known
    assert 1 <= first.items[0].rating <= 5
    assert second.items == ()


def test_ids_that_cannot_be_are_refused(smoke_var: Path) -> None:
    with LocalRater(latest_artifact(smoke_var, "release").path) as rater, pytest.raises(RequestError):
        rater.rate(["u"], [["x" * 2_000]])


def test_command_prints_what_programs_read(
    smoke_settings: Settings, smoke_var: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load_dataset(latest_artifact(smoke_var, "dataset"))
    user, item = str(dataset.users.ids[0]), str(dataset.items.ids[0])
    with pytest.raises(SystemExit) as stopped:
        main(["rate", user, item, "--json", "--set", f'paths.var="{smoke_var}"'])
    assert not stopped.value.code
    answer = json.loads(capsys.readouterr().out)
    assert answer["items"][0]["item_id"] == item
    assert 0 < answer["items"][0]["like_probability"] < 1


def test_report_holds_figures_curves_and_plots(smoke_settings: Settings, smoke_var: Path, tmp_path: Path) -> None:
    report = evaluate_ratings(smoke_settings, "test", tmp_path / "ratings.json", Terminal())
    assert json.loads((tmp_path / "ratings.json").read_text())["models"] == report["models"]
    rating, pairs = report["models"]["rating"]["all"], report["pairs"]["all"]
    assert rating["rmse"] < report["models"]["global mean"]["all"]["rmse"]
    assert sum(report["calibration"]["counts"]) == sum(report["predicted_actual"]["pairs"]) == pairs
    for name in report["plots"]:
        assert "<svg" in (smoke_var / "reports" / "ratings" / name).read_text()[:2_000]
