"""The mix as a recall model: the suite, and what adding up standardised scores must keep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.dataset import Dataset
from core.errors import SettingsError
from core.settings import load_settings
from core.tensors import recall_step
from tests.suites.recall_data import block_dataset
from tests.suites.recall_suite import FIT, RecallSuite, RecordingProgress, ndcg, requests
from training.models.fitters import fitter
from training.models.mix_model import MixRecall, known_items, standardised_scores
from training.models.recall import restore_model, save_model
from training.models.recall_base import RecallModel

SMALL = ("mf.dimension=8", "mf.epochs=4", "gat.dimension=8", "gat.batch_users=32", "gat.epochs=4")


class TestMix(RecallSuite):
    fit = staticmethod(fitter("mix"))
    spec = recall_step("mix")
    settings = (*SMALL, "mix.method=average")
    expected_ndcg = 0.42
    expected_ndcg_without_times = 0.42

    def test_progress_shows_a_loss_for_every_epoch(self, dataset: Dataset) -> None:
        """Of every member, and then what the mix is made of."""
        seen = RecordingProgress()
        settings = load_settings((), self.settings)
        self.fit(dataset, dataset.events.of_splits(FIT), settings, seed=0, progress=seen)
        *losses, summary = seen.notes
        assert [note.split()[0] for note in losses] == ["loss"] * 8
        assert summary == "mix: mf, gat by average, weights 0.50, 0.50"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return block_dataset()


@pytest.fixture(scope="module")
def members(dataset: Dataset) -> list[RecallModel]:
    events, settings = dataset.events.of_splits(FIT), load_settings((), SMALL)
    return [fitter(name)(dataset, events, settings, seed=0) for name in ("mf", "gat")]


def mix(members: list[RecallModel], *weights: float) -> MixRecall:
    return MixRecall(members, torch.tensor(weights), members[0].empty_bias, candidates=50).eval()


def train(dataset: Dataset, *overrides: str, seed: int = 0) -> MixRecall:
    settings = load_settings((), (*SMALL, *overrides))
    model = fitter("mix")(dataset, dataset.events.of_splits(FIT), settings, seed=seed)
    assert isinstance(model, MixRecall)
    return model


@pytest.mark.parametrize("place", [0, 1])
def test_mix_of_one_member_keeps_its_order(dataset: Dataset, members: list[RecallModel], place: int) -> None:
    alone = mix([members[place]], 3.0)
    inputs = requests(dataset, 40, 64)
    assert torch.equal(alone(*inputs)[0], members[place](*inputs)[0][:, : alone.candidates])


def test_order_of_members_changes_no_score(dataset: Dataset, members: list[RecallModel]) -> None:
    *history, _, features = requests(dataset, 40, 64)
    one, two = mix(members, 0.3, 0.7), mix(members[::-1], 0.7, 0.3)
    torch.testing.assert_close(one.scores(*history, features), two.scores(*history, features), rtol=1e-5, atol=1e-5)


def test_members_weigh_one_together_for_every_user(dataset: Dataset, members: list[RecallModel]) -> None:
    gated = MixRecall(
        members,
        torch.tensor([2.0, 6.0]),
        members[0].empty_bias,
        gate=torch.tensor([[0.4, -0.1], [-2.0, 0.3]]),
        candidates=50,
    )
    rows, ages, *_ = requests(dataset, 40, 64)
    weights = gated.member_weights(rows, ages)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(40))
    assert len(weights.unique(dim=0)) > 1
    torch.testing.assert_close(gated.weights, torch.tensor([0.25, 0.75]))


def test_standardised_scores_have_mean_0_and_deviation_1_over_what_a_user_could_get(
    dataset: Dataset, members: list[RecallModel]
) -> None:
    rows, *rest, _, features = requests(dataset, 40, 64)
    reachable = known_items(members[0].empty_bias).expand(40, -1).scatter(1, rows, 0.0) > 0
    for member in members:
        standard = standardised_scores(member, rows, *rest, features)
        assert torch.isfinite(standard).all()
        for of_user, of_mask in zip(standard[:-1], reachable[:-1], strict=True):  # the last history is empty
            assert of_user[of_mask].mean().abs() < 1e-4
            assert (of_user[of_mask].std(unbiased=False) - 1).abs() < 1e-3


def test_item_that_a_member_never_saw_gets_its_lowest_score(dataset: Dataset, members: list[RecallModel]) -> None:
    first = dataset.events.of_splits(FIT)
    lost = int(first.item_rows[0])
    settings = load_settings((), SMALL)
    blind = fitter("mf")(dataset, first.where(first.item_rows != lost), settings, seed=0)
    *history, _, features = requests(dataset, 20, 64)
    assert (standardised_scores(blind, *history, features)[:-1, lost] < 0).all()
    scores = mix([members[1], blind], 1, 1).scores(*history, features)
    assert scores[:-1, lost].abs().max() < 20


def test_repeated_entry_is_fitted_with_another_seed_and_shares_one_weight(dataset: Dataset) -> None:
    model = train(dataset, 'mix.members=["mf","mf","gat"]', "mix.method=average")
    assert [member.kind for member in model._members()] == ["mf", "mf", "gat"]
    torch.testing.assert_close(model.weights, torch.tensor([0.25, 0.25, 0.5]))
    one, two, _ = model._members()
    assert not torch.equal(one.item_vectors, two.item_vectors)


def test_entry_can_have_settings_of_its_own(dataset: Dataset) -> None:
    model = train(dataset, 'mix.members=["mf","mf dimension=5 epochs=2"]', "mix.method=average")
    assert [member.dimension for member in model._members()] == [8, 5]


def test_given_weights_are_used_and_members_without_any_are_left_out(dataset: Dataset) -> None:
    model = train(dataset, 'mix.members=["mf","gat","mf dimension=5"]', "mix.weights=[3,1,0]")
    assert [member.kind for member in model._members()] == ["mf", "gat"]
    torch.testing.assert_close(model.weights, torch.tensor([0.75, 0.25]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('mix.members=["nothing"]', "unknown member"),
        ('mix.members=["mix"]', "unknown member"),
        ('mix.members=["mf heat=3"]', "unknown setting mf.heat"),
        ("mix.weights=[1]", "do not fit"),
        ("mix.weights=[1,-1]", "do not fit"),
        ("mix.weights=[0,0]", "do not fit"),
    ],
)
def test_settings_that_make_no_sense_are_refused(dataset: Dataset, wrong: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train(dataset, wrong)


@pytest.mark.parametrize("method", ["weighted", "bagging", "boosting", "stacking"])
def test_every_method_ranks_about_as_well_as_its_best_member(
    dataset: Dataset, members: list[RecallModel], method: str, tmp_path: Path
) -> None:
    model = train(dataset, f"mix.method={method}", "mix.bags=2", "mix.rounds=2")
    assert ndcg(dataset, model) > max(ndcg(dataset, member) for member in members) - 0.04
    facts = save_model(model, tmp_path)
    inputs = requests(dataset, 7, 16)
    for one, two in zip(model(*inputs), restore_model(tmp_path, facts)(*inputs), strict=True):
        assert torch.equal(one, two)


def test_bagging_fits_each_member_on_samples_of_users(dataset: Dataset) -> None:
    model = train(dataset, "mix.method=bagging", "mix.bags=3", "mix.bag_share=0.5", 'mix.members=["mf"]')
    assert len(model.members) == 3
    torch.testing.assert_close(model.weights, torch.full((3,), 1 / 3))
    assert torch.equal(known_items(model.empty_bias), known_items(train(dataset, "mix.method=average").empty_bias))
