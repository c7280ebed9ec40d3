"""Fits the ranker's boosted trees: LightGBM's LambdaMART (Burges 2010) on top of the base scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import lightgbm
import numpy as np

from core.sections import RankerSettings
from training.models.ranker import Ranker
from training.models.ranker_members import TreesMember
from training.models.ranker_trees import CompleteTrees
from training.ranking.examples import Examples
from training.ranking.scoring import by_base
from training.ranking.training import with_hits


@dataclass(frozen=True)
class TreeData:
    """Valid candidates of the users who have a hit, user after user.

    Attributes:
        features: float32 ``(n, F)``.
        labels: float32 ``(n,)``.
        base: float32 ``(n,)``, where boosting starts.
        group: int ``(users,)``, candidates of each user.
    """

    features: np.ndarray
    labels: np.ndarray
    base: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, ranker: Ranker, examples: Sequence[Examples]) -> TreeData:
        """The examples as LightGBM takes them."""
        columns = [
            (
                batch.features[batch.valid].numpy(),
                batch.labels[batch.valid].numpy(),
                by_base(ranker)(batch)[batch.valid].numpy(),
                batch.valid.sum(1).numpy(),
            )
            for batch in with_hits(examples)
        ]
        return cls(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def train_trees(
    ranker: Ranker, examples: Sequence[Examples], settings: RankerSettings, *, member: int, seed: int
) -> lightgbm.Booster:
    """Fits a member of trees in place.

    Args:
        ranker: Its base scores are where boosting starts.
        examples: Users of one or more windows.
        settings: Number, depth and rate of the trees.
        member: Which member of the correction.
        seed: Of the columns and users that each tree looks at.

    Returns:
        LightGBM's own form of the same trees.

    Raises:
        TrainingError: No candidate of any user came true.
    """
    data = TreeData.of(ranker, examples)
    booster = lightgbm.train(
        {
            "objective": "lambdarank",
            "lambdarank_truncation_level": 20,
            "learning_rate": settings.tree_rate,
            "max_depth": settings.tree_depth,
            "num_leaves": 2**settings.tree_depth,
            "min_data_in_leaf": 50,
            "lambda_l2": 5.0,
            "feature_fraction": 0.6,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "use_missing": False,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "seed": seed,
            "verbosity": -1,
        },
        lightgbm.Dataset(data.features, data.labels, group=data.group, init_score=data.base),
        num_boost_round=settings.trees,
    )
    trees = cast(TreesMember, ranker.correction.members[member])
    trees.sum.load(CompleteTrees.from_dump(booster.dump_model(), settings.tree_depth))
    return booster
