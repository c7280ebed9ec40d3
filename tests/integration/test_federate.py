"""`conch federate`: real runs of Flower with three clients and secure aggregation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.errors import SettingsError
from core.settings import Settings, change_settings
from pipeline.cli import app
from pipeline.federated_study import ndcg_of
from training.federated import fit as federated
from training.models.mf import fit_mf
from training.models.recall import load_model

SMALL = {"federated.clients": 3, "federated.rounds": 3, "private.rounds": 2, "private.dimension": 4}


@pytest.fixture
def flower(require: object) -> None:
    require("flower", federated.FLOWER.is_file(), "run `make setup-flower`")  # type: ignore[operator]


@pytest.fixture
def small(smoke_settings: Settings, smoke_var: Path, tmp_path: Path) -> Settings:
    shutil.copytree(smoke_var / "artifacts", tmp_path / "artifacts")
    return change_settings(smoke_settings, {"paths.var": tmp_path, **SMALL})


@pytest.fixture
def dataset(small: Settings) -> Dataset:
    return load_dataset(latest_artifact(small.paths.var, "dataset"))


@pytest.mark.usefixtures("flower")
def test_command_writes_an_mf_artefact_with_its_rounds_in_the_manifest(small: Settings) -> None:
    sets = [f'paths.var="{small.paths.var}"', *(f"{key}={value}" for key, value in SMALL.items())]
    sets += ["private.epsilon=8"]
    result = CliRunner().invoke(
        app, ["federate", "--config", "config/smoke.toml", *(word for one in sets for word in ("--set", one))]
    )
    assert result.exit_code == 0, result.output
    made = latest_artifact(small.paths.var, "mf")
    facts = made.manifest.metrics["federated"]
    assert (facts["clients"], facts["rounds"], facts["secure_aggregation"]) == (3, 2, True)
    assert facts["epsilon"] == pytest.approx(8)
    assert load_model(made).dimension == 4
    assert parent_artifact(made, small.paths.var, "dataset").manifest.kind == "dataset"


@pytest.mark.usefixtures("flower")
def test_secure_sums_lead_to_the_table_of_open_ones_and_near_central_quality(small: Settings, dataset: Dataset) -> None:
    events = dataset.events.of_splits(("train",))
    secure, open_ = (
        federated.fit_federated(dataset, events, change_settings(small, {"federated.secure": flag}), seed=1).models[-1]
        for flag in (True, False)
    )
    assert secure.item_vectors.abs().max() > 0.05
    # bases may differ in sign: scores do not
    found, wanted = (model.item_vectors.numpy() @ model.item_vectors.numpy().T for model in (secure, open_))
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()
    central = ndcg_of(fit_mf(dataset, events, small, seed=1), dataset, ("train",), "valid").mean()
    assert ndcg_of(secure, dataset, ("train",), "valid").mean() > 0.8 * central


@pytest.mark.usefixtures("flower")
def test_skewed_clients_with_the_proximal_term_train_too(small: Settings, dataset: Dataset) -> None:
    chosen = change_settings(small, {"federated.partition": "skewed", "federated.strategy": "fedprox"})
    fit = federated.fit_federated(dataset, dataset.events.of_splits(("train",)), chosen, seed=1)
    assert (len(fit.models), fit.facts["strategy"]) == (3, "fedprox")


def test_missing_environment_is_named(small: Settings, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federated, "FLOWER", Path("/nowhere/python"))
    with pytest.raises(SettingsError, match="setup-flower"):
        federated.fit_federated(dataset, dataset.events, small, seed=1)
