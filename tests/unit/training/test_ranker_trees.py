"""Boosted trees as tensors: equal to LightGBM's own answers, in torch and in the exported graph."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.models.ranker_trees import ALWAYS_LEFT, CompleteTrees, TreeSum

ROWS, WIDTH, DEPTH, TREES = 3_000, 6, 4, 30


def data(seed: int) -> np.ndarray:
    """Continuous, whole-numbered and constant columns: values that fall exactly on thresholds occur."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    features[:, 1] = rng.integers(0, 5, ROWS)
    features[:, 2] = 0.1 * rng.integers(0, 9, ROWS)
    features[:, 5] = 3.0
    return features


@pytest.fixture(scope="module")
def booster() -> lightgbm.Booster:
    features = data(0)
    labels = (features[:, 0] * features[:, 1] + np.sin(3 * features[:, 3]) > 0.5).astype(np.float32)
    return lightgbm.train(
        {"objective": "lambdarank", "max_depth": DEPTH, "num_leaves": 11, "use_missing": False, "verbosity": -1,
         "num_threads": 1, "min_data_in_leaf": 20, "deterministic": True},
        lightgbm.Dataset(features, labels, group=[30] * (ROWS // 30)),
        num_boost_round=TREES,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trees(booster: lightgbm.Booster) -> TreeSum:
    module = TreeSum(TREES, DEPTH)
    module.load(CompleteTrees.from_dump(booster.dump_model(), DEPTH))
    return module


@pytest.mark.parametrize("seed", [0, 1])
def test_sum_of_trees_equals_lightgbm(booster: lightgbm.Booster, trees: TreeSum, seed: int) -> None:
    features = data(seed)
    expected = booster.predict(features, raw_score=True)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(trees(torch.from_numpy(features)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_value_on_a_threshold_goes_left_as_in_lightgbm(booster: lightgbm.Booster, trees: TreeSum) -> None:
    inner = trees.thresholds < ALWAYS_LEFT / 2
    features = data(1)
    rng = np.random.default_rng(3)
    for column in range(WIDTH):
        own = trees.thresholds[inner & (trees.features == column)].numpy()
        if len(own):
            features[:, column] = rng.choice(own, ROWS)
    expected = booster.predict(features, raw_score=True)
    np.testing.assert_allclose(trees(torch.from_numpy(features)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_shallow_trees_fill_a_deeper_form(booster: lightgbm.Booster, trees: TreeSum) -> None:
    deeper = TreeSum(TREES + 2, DEPTH + 1)
    deeper.load(CompleteTrees.from_dump(booster.dump_model(), DEPTH + 1))
    features = torch.from_numpy(data(2))
    torch.testing.assert_close(deeper(features), trees(features))


def test_untrained_trees_are_zero() -> None:
    assert not TreeSum(5, 3)(torch.randn(4, 7, WIDTH)).any()


@pytest.mark.parametrize("batch", [1, 5])
def test_exported_trees_equal_lightgbm_without_tree_operators(
    booster: lightgbm.Booster, trees: TreeSum, batch: int, tmp_path: Path
) -> None:
    path = tmp_path / "trees.onnx"
    example = torch.from_numpy(data(0)[:60].reshape(3, 20, WIDTH))
    torch.onnx.export(
        trees, (example,), str(path), dynamo=True, opset_version=20, verbose=False, external_data=False,
        dynamic_shapes=({0: torch.export.Dim("B", min=1, max=64)},), input_names=["features"],
    )  # fmt: skip
    used = {(node.domain, node.op_type) for node in onnx.load(path).graph.node}
    assert not {domain for domain, _ in used} - {""}
    assert not {name for _, name in used} & {"NonZero", "Unique", "ScatterElements", "ScatterND", "Loop", "If"}
    features = data(4)[: 20 * batch]
    (found,) = onnxruntime.InferenceSession(str(path)).run(None, {"features": features.reshape(batch, 20, WIDTH)})
    expected = booster.predict(features, raw_score=True).reshape(batch, 20)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
