"""Every kind of recall model through every pass: what it costs, what is left alone, and that it comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from compression.judge import ask, overlap, propose
from compression.recall import RecallCompressor
from compression.registry import restore
from compression.store import save_candidate
from compression.task import Task

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
    turned = COMPRESSOR.make(tasks["mf"], "rank50-rotated-int4-rows")
    assert "rotation" in {one.layer for one in turned.unchanged}
    assert "rotate" not in {one.name for one in turned.passes}


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
