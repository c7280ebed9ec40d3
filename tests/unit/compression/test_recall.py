"""Every kind of recall model through every pass: what it costs, what is left alone, and that it comes back."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from compression.judge import ask, overlap, propose
from compression.recall import RecallCompressor, user_vectors
from compression.recipe import Recipe
from compression.registry import restore
from compression.store import save_candidate
from compression.tables import apply_recipe
from compression.task import Task
from compression.tied import factor_per_row
from core.histories import pad
from core.settings import change_settings
from training.models.mf_model import TURN, MfRecall
from training.models.mix_model import MixRecall
from training.models.recall import RecallModel, build_model
from training.models.spectral import fit_spectral
from training.models.spectral_model import SpectralRecall

COMPRESSOR = RecallCompressor()
KINDS = ("mf", "gat", "spectral", "ease", "mix")


def lists_of(module: torch.nn.Module, task: Task) -> np.ndarray:
    asked = ask(task.dataset, task.fit, "valid", 200, np.random.default_rng(0))
    return propose(module, asked).lists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["int4-rows", "rank75-tiers5421h3221"])
def test_candidates_come_back_from_disk_bit_by_bit(kind: str, name: str, tasks: dict[str, Task], tmp_path) -> None:
    made = COMPRESSOR.make(tasks[kind], name)
    told = save_candidate(made, tmp_path)
    again = restore(told["compressor"], load_file(tmp_path / f"recall_{kind}.safetensors"), told["facts"])
    assert np.array_equal(lists_of(again, tasks[kind]), lists_of(made.module, tasks[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_int8_keeps_the_lists_at_a_quarter_of_the_size(kind: str, tasks: dict[str, Task]) -> None:
    task = tasks[kind]
    made, original = COMPRESSOR.make(task, "int8-columns"), COMPRESSOR.original(task)
    # Two thousand cells are small enough for scales to count.
    assert original.sizes.vectors / made.sizes.vectors > 2.2
    assert overlap(lists_of(made.module, task), lists_of(task.model, task), 20).mean() > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_the_ordering_of_candidates_is_from_mild_to_small(kind: str, tasks: dict[str, Task]) -> None:
    made = list(COMPRESSOR.candidates(tasks[kind]))
    assert len(made) == len({one.name for one in made}) > 5
    assert made[-1].sizes.vectors < 0.7 * made[0].sizes.vectors
    assert all(one.passes and one.parent for one in made)


def test_what_cannot_be_done_is_listed_with_its_reason(tasks: dict[str, Task]) -> None:
    ease = COMPRESSOR.make(tasks["ease"], "rank50-int4-columns")
    assert {one.layer for one in ease.unchanged} >= {"rank", "small_vectors"}
    turned = COMPRESSOR.make(tasks["ease"], "rotated-int4-rows")
    assert "rotation" in {one.layer for one in turned.unchanged}
    assert "rotate" not in {one.name for one in turned.passes}


def test_a_turned_mf_solves_for_the_same_users(tasks: dict[str, Task]) -> None:
    """The rotation alone costs nothing: users and items turn alike, and the solve happens in the eigenbasis."""
    task, model = tasks["mf"], tasks["mf"].model
    assert isinstance(model, MfRecall)
    users = user_vectors(task)[id(model)]
    packed = apply_recipe(model, users, Recipe(1.0, 32, "rows", rotate=True), seed=0)
    turned = build_model(packed.tensors, packed.facts)
    assert set(TURN) <= set(packed.tensors)
    assert not torch.allclose(turned.item_vectors, model.item_vectors)
    assert overlap(lists_of(turned, task), lists_of(model, task), 20).mean() > 0.999


@pytest.fixture(scope="module")
def mixed(tasks: dict[str, Task]) -> Task:
    """A mix of two members; the trained one keeps one of them alone."""
    models = [tasks[kind].model for kind in ("mf", "spectral")]
    members = [model for model in models if isinstance(model, RecallModel)]
    mix = MixRecall(members, torch.tensor([0.8, 0.2]), members[0].empty_bias, candidates=members[0].candidates)
    return replace(tasks["mix"], model=mix.eval())


def test_members_of_a_mix_get_recipes_of_their_own(mixed: Task, tmp_path) -> None:
    task = mixed
    names = [one.name for one in COMPRESSOR.candidates(task)]
    assert any(len(set(name.split("+"))) == 2 for name in names)
    made = COMPRESSOR.make(task, "rotated-tiers5443h5443+int4-rows")
    assert {one.name for one in made.passes} == {"tied", "rotate", "tiers", "int4"}
    told = save_candidate(made, tmp_path)
    again = restore(told["compressor"], load_file(tmp_path / "recall_mix.safetensors"), told["facts"])
    assert np.array_equal(lists_of(again, task), lists_of(made.module, task))
    with pytest.raises(KeyError, match="no-such"):
        COMPRESSOR.make(task, "no-such+int4-rows")


def test_foreseen_losses_order_the_mixes_as_their_lists_do(mixed: Task) -> None:
    """What the front calls larger and better keeps more of the lists, within noise."""
    task = mixed
    found = list(COMPRESSOR.candidates(task))
    kept = [overlap(lists_of(one.module, task), lists_of(task.model, task), 20).mean() for one in found]
    sizes = [one.sizes.vectors for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert np.corrcoef(sizes, kept)[0, 1] > 0.5
    assert max(kept) > 0.95


@pytest.mark.parametrize("response", [0.0, 1.0, 0.5])
def test_a_spectral_model_is_stored_as_one_table_without_any_loss(response: float, tasks: dict[str, Task]) -> None:
    dataset = tasks["spectral"].dataset
    settings = change_settings(tasks["spectral"].settings, {"spectral.response": response})
    model = fit_spectral(dataset, dataset.events, settings, seed=0)
    made = COMPRESSOR.make(replace(tasks["spectral"], model=model), "int8-rows")
    assert "tied" in [one.name for one in made.passes]
    assert not any(name.startswith("history_vectors") for name in made.stored)
    tied = SpectralRecall(
        None,
        model.item_vectors,
        model.item_bias,
        model.empty_bias,
        weighting=model.weighting,
        candidates=model.candidates,
        history_scale=factor_per_row(model.history_vectors, model.item_vectors),
    )
    padded = pad(dataset.histories(("train",)), dataset.n_items)
    question = tuple(map(torch.from_numpy, (padded.rows, padded.ages, padded.values, padded.kinds)))
    torch.testing.assert_close(tied.user_vectors(*question), model.user_vectors(*question), rtol=1e-4, atol=1e-6)


def test_tables_that_differ_by_more_than_a_factor_stay_two(tasks: dict[str, Task]) -> None:
    model = tasks["spectral"].model
    assert isinstance(model, SpectralRecall)
    other = copy.deepcopy(model)
    other.history_vectors[3, 0] += 0.01
    made = COMPRESSOR.make(replace(tasks["spectral"], model=other), "int8-rows")
    assert any(name.startswith("history_vectors") for name in made.stored)
    assert ("tied", "the two tables differ by more than a factor per item") in [
        (one.layer, one.reason) for one in made.unchanged
    ]
    assert "tied" not in [one.name for one in made.passes]


def test_rows_of_zeros_are_tied_by_a_factor_of_zero() -> None:
    base = torch.tensor([[1.0, 2.0], [0.0, 0.0], [-3.0, 1.0]])
    found = factor_per_row(base * torch.tensor([[2.0], [5.0], [-0.5]]), base)
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([2.0, 0.0, -0.5]))
    assert factor_per_row(torch.ones(3, 2), base) is None
    assert factor_per_row(torch.ones(3, 3), base) is None


def test_full_rank_rotation_keeps_scores(tasks: dict[str, Task]) -> None:
    """Users and items turn alike; 8 bits more or less are all that may change."""
    task = tasks["spectral"]
    made = COMPRESSOR.make(task, "rank75")
    assert overlap(lists_of(made.module, task), lists_of(task.model, task), 20).mean() > 0.8


def test_empty_histories_keep_their_order(tasks: dict[str, Task]) -> None:
    task = tasks["mf"]
    made = COMPRESSOR.make(task, "rank50-int8-columns").module
    n = task.dataset.n_items
    rows, zeros = torch.full((1, 4), n), torch.zeros(1, 4)
    codes = torch.zeros(1, max(1, task.dataset.user_features.codes.shape[1]), dtype=torch.int64)
    kinds = torch.zeros(1, 4, dtype=torch.int64)
    wanted, _ = task.model(rows, zeros, zeros, kinds, rows, codes)
    found, _ = made(rows, zeros, zeros, kinds, rows, codes)
    assert overlap(found.numpy(), wanted.numpy(), 20).mean() == 1.0
