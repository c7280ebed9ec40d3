"""The ranker and the rating model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.sections.base import Section, Target


class RankerSettings(Section):
    """The ranker: a blend of the recall scores, corrected by a network, boosted trees or a linear model."""

    target: Target = "any"
    """What counts as a hit: any later event, or only those valued at or above the mean (for example high ratings)."""
    windows: int = Field(4, ge=2, le=8)
    """Label windows, the newest of the fitted events. The last one decides how much the network is used."""
    window_share: float = Field(0.1, gt=0, le=0.3)
    """Share of the fitted events in each label window; fewer windows are made where they would need above 60 %."""
    predicted_values: bool = True
    """Fit the rating model in each window and let its predicted values take part (data with values only)."""
    max_users: int = Field(8_000, ge=1)
    """Users per label window that examples are made from; a random choice where there are more."""
    epochs: int = Field(8, ge=1)
    """Most passes over the examples; the best number is chosen on held-out users."""
    learning_rate: float = Field(0.003, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    batch_users: int = Field(32, ge=1)
    """Users per step; each brings its whole merged candidate list."""
    embedding: int = Field(4, ge=1)
    """Width of each attribute's embedding."""
    cross_layers: int = Field(2, ge=1)
    """DCN-v2 cross layers."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the deep layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the deep layers' units dropped while training."""
    content_dimension: int = Field(16, ge=1)
    """Width of the attribute vectors whose cosine says how alike two items are."""
    members: tuple[Literal["network", "trees", "linear"], ...] = Field(("network",), min_length=1)
    """What corrects the blend: DCN-v2 with target attention (a repeated one has another seed), gradient-boosted trees
    (LambdaMART), a linear model; all of them see the same features of a candidate."""
    combine: Literal["average", "weighted", "stacking"] = "average"
    """Of several members. weighted: shares learned on users that the members did not see. stacking: shares that depend
    on the user's history."""
    trees: int = Field(100, ge=1)
    """Number of boosted trees."""
    tree_depth: int = Field(3, ge=1, le=6)
    """Their depth; the served graph compares all 2^depth - 1 nodes of every tree."""
    tree_rate: float = Field(0.05, gt=0)
    """Shrinkage of each tree."""


class RatingSettings(Section):
    """The rating head for explicit values: Bayesian matrix factorisation, see training/ratings/."""

    enabled: bool = False
    """Train and serve the rating model in `conch run` too; `conch train rating` does so by name."""
    dimension: int = Field(12, ge=1, le=64)
    """D, length of user and item vectors."""
    iterations: int = Field(20, ge=1)
    """Updates of users and items."""
    implicit_dimension: int = Field(48, ge=1)
    """Leading directions of who rated what at all, which the vectors' priors rest on."""
    ridge: float = Field(30.0, gt=0)
    """Penalty of the priors' coefficients."""
    folds: int = Field(4, ge=2)
    """Cross-fitting: the combiner learns from predictions that did not see the value."""
    like_at: float | None = None
    """Value from which on an item counts as liked; the mean of the values when unset."""
    hidden: int = Field(16, ge=1)
    """Width of the combiner's hidden layer."""
    epochs: int = Field(12, ge=1)
    """Passes of the combiner over the cross-fitted pairs."""
    learning_rate: float = Field(0.005, gt=0)
    weight_decay: float = Field(0.01, ge=0)
