"""Plain facts about features: how much is missing, how many values, how much they say about what came true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dataset import Dataset
from core.features import UNKNOWN, FeatureTable
from training.models.ranker_features import PREDICTED_VALUE
from training.models.ranker_shape import STATISTICS
from training.ranking.examples import Examples
from training.ranking.importance import PREDICTED, Kind, slots_of

DECILES = 10


@dataclass(frozen=True)
class FeatureFacts:
    """One feature.

    Attributes:
        missing: Share of the items or users without it.
        values: Distinct known values.
        information_bits: Mutual information with "the candidate came true", over the later window's candidates, less
            its bias (Miller and Madow); of tags, the tag that says most.
    """

    missing: float
    values: int
    information_bits: float


def feature_facts(dataset: Dataset, examples: Examples) -> dict[tuple[Kind, str], FeatureFacts]:
    """Facts of all features, by kind and name."""
    valid = [batch.valid for batch in examples.batches]
    labels = np.concatenate([batch.labels[mask].numpy() for batch, mask in zip(examples.batches, valid, strict=True)])
    rows = np.concatenate([batch.rows[mask].numpy() for batch, mask in zip(examples.batches, valid, strict=True)])
    users = np.concatenate(
        [
            batch.user_features.unsqueeze(1).expand(-1, mask.shape[1], -1)[mask].numpy()
            for batch, mask in zip(examples.batches, valid, strict=True)
        ]
    )
    statistics = examples.batches[0].tables.statistics.numpy()
    found: dict[tuple[Kind, str], FeatureFacts] = {}
    tables: tuple[tuple[Kind, FeatureTable, np.ndarray], ...] = (
        ("item", dataset.item_features, dataset.item_features.codes[rows]),
        ("user", dataset.user_features, users),
    )
    for kind, table, of_candidates in tables:
        for at, column in enumerate(table.columns):
            slots = slots_of(table, at)
            own, codes = table.codes[:, slots], of_candidates[:, slots]
            if column.kind == "tags":
                known = range(1, column.cardinality)
                bits = max((information_bits((codes == code).any(1).astype(int), labels) for code in known), default=0)
            else:
                bits = information_bits(codes[:, 0], labels)
            missing = float((own == UNKNOWN).all(1).mean()) if len(own) else 1.0
            found[kind, column.name] = FeatureFacts(missing, len(np.unique(own[own != UNKNOWN])), bits)
    for at, name in enumerate(STATISTICS):
        values = statistics[:-1, at]
        found["statistic", name] = FeatureFacts(
            0.0, len(np.unique(values)), _bits_of_number(values, values[rows], labels)
        )
    if examples.batches[0].tables.rating is not None:
        predicted = np.concatenate(
            [
                batch.features[..., PREDICTED_VALUE][mask].numpy()
                for batch, mask in zip(examples.batches, valid, strict=True)
            ]
        )
        bits = _bits_of_number(predicted, predicted, labels)
        found["prediction", PREDICTED] = FeatureFacts(0.0, len(np.unique(predicted)), bits)
    return found


def _bits_of_number(values: np.ndarray, of_candidates: np.ndarray, labels: np.ndarray) -> float:
    """Mutual information of a number, cut at the deciles of ``values``."""
    edges = np.unique(np.quantile(values, np.arange(1, DECILES) / DECILES))
    return information_bits(np.searchsorted(edges, of_candidates, side="right"), labels)


def information_bits(codes: np.ndarray, labels: np.ndarray) -> float:
    """Mutual information of two discrete columns in bits, less its expected value for independent ones, at least 0.

    >>> information_bits(np.array([0, 1] * 500), np.array([0, 1] * 500)) > 0.99
    True
    """
    if len(codes) == 0:
        return 0.0
    _, code = np.unique(codes, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    n_codes, n_labels = int(code.max()) + 1, int(label.max()) + 1
    joint = np.bincount(code * n_labels + label, minlength=n_codes * n_labels).reshape(n_codes, n_labels) / len(code)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    filled = joint > 0
    bits = float((joint[filled] * np.log2(joint[filled] / independent[filled])).sum())
    return max(bits - (n_codes - 1) * (n_labels - 1) / (2 * len(code) * np.log(2)), 0.0)
