"""Several members of the ranker: judged on users they did not see, worth more together, served as one graph."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from core.sections import RankerSettings
from core.tensors import MASKED
from tests.unit.ranking.test_fit import fit, inputs_of
from tests.unit.ranking.test_training import hidden_examples
from tests.unit.ranking.worlds import block_dataset, quick_settings, random_ranker
from training.combine.weights import Learning
from training.models.ranker import ItemTables, Ranker
from training.ranking import combining
from training.ranking.combining import Shares, choose_combination, learn_shares, out_of_fold, train_members
from training.ranking.examples import Examples
from training.ranking.scoring import by_correction, by_member, mean_auc, scores_of

MEMBERS = ("network", "trees", "linear")
SETTINGS = RankerSettings(
    members=MEMBERS, epochs=3, learning_rate=0.01, weight_decay=0.0, dropout=0.0, batch_users=16, trees=20
)


def new_ranker(members: tuple[str, ...] = MEMBERS) -> Ranker:
    plain = random_ranker(trained=False)
    shape = dataclasses.replace(plain.shape, members=members, trees=20, tree_depth=3)
    torch.manual_seed(0)
    return Ranker(shape, plain.tables).eval()


@pytest.fixture(scope="module")
def examples() -> Examples:
    return hidden_examples(new_ranker(), seed=1, users=80)


@pytest.fixture(scope="module")
def trained(examples: Examples) -> Ranker:
    ranker = new_ranker()
    train_members(ranker, (examples,), SETTINGS, epochs=12, seed=0)
    return ranker


@pytest.mark.parametrize("member", [0, 1, 2])
def test_every_kind_of_member_finds_a_signal_that_recall_lacks(trained: Ranker, member: int) -> None:
    unseen = hidden_examples(trained, seed=2, users=80)
    assert mean_auc(scores_of(by_member(trained, member), unseen), unseen) > 0.85


def test_untrained_members_leave_the_blend(examples: Examples) -> None:
    assert all(not scores[batch.valid].any() for scores, batch in zip(
        scores_of(by_correction(new_ranker()), examples), examples.batches, strict=True
    ))  # fmt: skip


def test_correction_is_the_sum_of_shares_times_members(trained: Ranker, examples: Examples) -> None:
    trained.correction.shares.copy_(torch.tensor([0.2, 0.3, 0.5]))
    batch = examples.batches[0]
    with torch.no_grad():
        parts = [by_member(trained, at)(batch) for at in range(3)]
        expected = 0.2 * parts[0] + 0.3 * parts[1] + 0.5 * parts[2]
        torch.testing.assert_close(trained.correction(batch.candidates), expected)


def test_repeated_networks_differ_by_their_seeds(examples: Examples) -> None:
    ranker = new_ranker(("network", "network"))
    train_members(ranker, (examples,), SETTINGS, epochs=1, seed=0)
    one, two = (scores_of(by_member(ranker, at), examples)[0] for at in range(2))
    assert not torch.equal(one, two)


def test_nobody_is_judged_by_members_that_saw_them(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(hidden_examples(new_ranker(), seed=3, users=30), users=np.arange(20, 50))
    taught: list[set[int]] = []

    def record(ranker: Ranker, parts: list[Examples], *args: object, **kwargs: object) -> None:
        taught.append({int(user) for part in parts for user in part.users})
        for member in ranker.correction.members:
            torch.nn.init.constant_(getattr(member, "weight", torch.zeros(1)), len(taught))

    monkeypatch.setattr(combining, "train_members", record)
    ranker = new_ranker(("linear",))
    tables = out_of_fold(ranker, (examples, other), SETTINGS, epochs=1, seed=0)
    for table in tables:
        batch = (examples if len(table) == 80 else other).batches[0]
        valid = table.rows >= 0
        fold_of_user = []
        for at in range(len(table)):
            column = table.standard[at, :, 1][valid[at]]
            sums = batch.features[at][valid[at]].sum(-1)
            fold_of_user.append(int((column / sums).median().round()))
        assert set(fold_of_user) == set(range(1, combining.FOLDS + 1))
        for user, fold in zip(table.users.tolist(), fold_of_user, strict=True):
            assert user not in taught[fold - 1]


@pytest.mark.parametrize("combine", ["average", "weighted", "stacking"])
def test_combination_is_used_where_it_helps(examples: Examples, combine: str) -> None:
    ranker = new_ranker()
    settings = SETTINGS.model_copy(update={"combine": combine})
    other = hidden_examples(ranker, seed=5, users=60)
    found = choose_combination(ranker, (examples, other), settings, epochs=3, seed=0)
    assert found.choice.strength > 0
    assert found.choice.gain > 0.1
    assert found.choice.auc > 0.8
    found.apply(ranker)
    assert torch.equal(ranker.correction.shares, found.shares.shares)


def test_noise_gets_no_share(examples: Examples) -> None:
    ranker = new_ranker()
    (table,) = out_of_fold(ranker, (examples,), SETTINGS, epochs=3, seed=0)
    noise = torch.randn(table.standard[..., :1].shape, generator=torch.Generator().manual_seed(0))
    table = dataclasses.replace(table, standard=torch.cat([table.standard, noise], -1))
    shares = learn_shares([table], Learning(1.0, follow_time=False, by_user=False)).shares
    assert shares[-1] < 0.05 * shares.sum()


def test_even_shares_are_the_mean() -> None:
    assert Shares.even(4).of_users(torch.randn(3, 2)).tolist() == [[0.25] * 4] * 3


def test_fit_with_all_members_ships_a_ranker_that_answers() -> None:
    dataset = block_dataset()
    settings = quick_settings("ranker.epochs=1", 'ranker.members=["network","trees","linear"]', "ranker.trees=10")
    fitted, recall = fit(dataset, settings)
    assert fitted.model.shape.members == MEMBERS
    assert fitted.metrics["strength"] >= 0
    with torch.no_grad():
        rows, scores, _, _ = fitted.model(*inputs_of(dataset, recall, np.arange(20)))
    assert bool((scores[:, 0] > MASKED / 2).all())
    assert bool((rows[:, 0] < dataset.n_items).all())
    again, _ = fit(dataset, settings)
    state = again.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in fitted.model.state_dict().items())


def test_fit_without_a_network_explains_by_plain_attention() -> None:
    dataset = block_dataset()
    fitted, recall = fit(dataset, quick_settings('ranker.members=["trees"]', "ranker.trees=5"))
    with torch.no_grad():
        *_, reasons, weights = fitted.model(*inputs_of(dataset, recall, np.arange(20)))
    assert bool((weights[:, 0, 0] > 0).any())
    assert int(reasons.max()) <= dataset.n_items
    assert isinstance(fitted.model.tables, ItemTables)
