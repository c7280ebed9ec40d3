"""Rankers come back from disk as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.artifacts import Artifact, create_artifact
from core.errors import ArtifactError
from tests.unit.ranking.worlds import random_inputs, random_ranker
from training.models.ranker import Ranker, load_ranker, save_ranker


def stored(ranker: Ranker, var: Path) -> Artifact:
    with create_artifact(var, "ranker", settings={}) as draft:
        draft.tensors |= save_ranker(ranker, draft.path)
    return draft.finished()


@pytest.mark.parametrize("members", [("network",), ("network", "trees", "linear"), ("trees",)])
def test_loaded_ranker_answers_as_the_saved_one(members: tuple[str, ...], tmp_path: Path) -> None:
    ranker, inputs = random_ranker(members=members), random_inputs(4, 16)
    ranker.blend.copy_(torch.tensor([0.2, 1.4]))
    ranker.strength.fill_(0.5)
    loaded = load_ranker(stored(ranker, tmp_path))
    assert not loaded.training
    assert loaded.shape == ranker.shape
    with torch.no_grad():
        assert all(torch.equal(one, two) for one, two in zip(ranker(*inputs), loaded(*inputs), strict=True))


def test_load_refuses_weights_of_another_shape(tmp_path: Path) -> None:
    with create_artifact(tmp_path, "ranker", settings={}) as draft:
        save_ranker(random_ranker(), draft.path)
        draft.tensors |= {"shape": random_ranker(n_items=40).shape.to_facts()}
    with pytest.raises(ArtifactError, match="shape"):
        load_ranker(draft.finished())
