"""The membership attack: it finds a model that memorises, and is blind to one that learned nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from core.dataset import Dataset, load_dataset
from core.errors import SettingsError
from core.settings import ROOT, Settings, change_settings, load_settings
from pipeline.cli import app
from training.data.stage import build_dataset
from training.membership import audit_membership, hide_one, probability_of
from training.models.mf import fit_mf


@pytest.fixture(scope="module")
def small_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return change_settings(
        load_settings((ROOT / "config" / "smoke.toml",)),
        {"paths.var": tmp_path_factory.mktemp("membership"), "train.threads": 1},
    )


@pytest.fixture(scope="module")
def small_dataset(small_settings: Settings) -> Dataset:
    return load_dataset(build_dataset(small_settings))


def test_one_event_of_each_user_with_enough_of_them_is_hidden(small_dataset: Dataset) -> None:
    events = small_dataset.events
    users, hidden = hide_one(events, small_dataset.n_users, np.random.default_rng(0))
    assert (events.user_rows[hidden] == users).all()
    counts = np.bincount(events.user_rows, minlength=small_dataset.n_users)
    assert users.tolist() == np.flatnonzero(counts >= 3).tolist()


def test_probabilities_over_the_unseen_add_up_to_one(small_dataset: Dataset, small_settings: Settings) -> None:
    past = small_dataset.events.of_splits(("train",))
    model = fit_mf(small_dataset, past, small_settings, seed=0).eval()
    user = int(np.bincount(past.user_rows).argmax())
    unseen = np.setdiff1d(np.arange(small_dataset.n_items), past.item_rows[past.user_rows == user])
    users = np.full(len(unseen), user)
    assert np.exp(probability_of(model, small_dataset, past, users, unseen)).sum() == pytest.approx(1, abs=1e-4)


def test_attack_finds_a_model_that_memorises_and_is_blind_to_popularity(
    small_dataset: Dataset, small_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    memorising = change_settings(
        small_settings,
        {
            "mf.dimension": 32,
            "mf.regularisation": 1e-5,
            "mf.unobserved_ratio": 0.1,
            "mf.epochs": 40,
            "mf.popularity": 0,
        },
    )
    found = audit_membership("mf", small_dataset, memorising)
    assert found.low > 0.55
    assert found.low <= found.auc <= found.high

    def popularity(*args: object, **more: object) -> torch.nn.Module:
        model = fit_mf(*args, **more)  # type: ignore[arg-type]
        with torch.no_grad():
            model.item_vectors.zero_()
        return model

    monkeypatch.setattr("training.membership.fitter", lambda name: popularity)
    blind = audit_membership("mf", small_dataset, memorising)
    assert blind.low < 0.5 < blind.high


def test_too_few_users_are_told(small_settings: Settings, tmp_path: Path) -> None:
    few = change_settings(
        small_settings,
        {"data.source": "synthetic", "data.synthetic_users": 3, "data.synthetic_items": 40, "data.synthetic_events": 30,
         "paths.var": tmp_path},
    )  # fmt: skip
    with pytest.raises(SettingsError, match="nobody to attack"):
        audit_membership("mf", load_dataset(build_dataset(few)), few)


def test_verb_writes_what_the_report_shows(small_settings: Settings, small_dataset: Dataset) -> None:
    var = small_settings.paths.var
    options = ["--config", "config/smoke.toml", "--set", f"paths.var={var}", "--set", 'recall.sources=["mf"]']
    result = CliRunner().invoke(app, ["privacy", *options])
    assert result.exit_code == 0, result.output
    told = json.loads((var / "reports" / "privacy" / "privacy.json").read_text())
    assert told["membership"]["mf"]["members"] > 1
