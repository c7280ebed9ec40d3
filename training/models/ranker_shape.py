"""The sizes that a ranker is built from, kept beside its weights so that it can be read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.features import FeatureColumn

STATISTICS = ("popularity", "recent_popularity", "returning_popularity", "trend", "age", "mean_value")
"""Columns of the item statistics table, in order."""


@dataclass(frozen=True)
class RankerShape:
    """Sizes of one ranker.

    Attributes:
        n_items: I; row I is the padding row of every table.
        sources: Recall sources in the order of their candidate lists.
        candidates: K, candidates per recall source.
        returned: R, items returned.
        dimension: D, width of the similarity vectors.
        content_dimension: Width of the content vectors, at least 1.
        item_columns: Item attributes.
        user_columns: User attributes.
        embedding: Width of each attribute's embedding.
        cross_layers: DCN-v2 cross layers.
        hidden: Widths of the deep network's layers.
        dropout: Dropout of the deep network while training.
        members: Kinds of the members that correct the blend, see ``training.models.ranker_members``.
        trees: Trees of each member of that kind.
        tree_depth: Their depth.
        rating: Facts of the rating model among the item tables; None for data without values.
    """

    n_items: int
    sources: tuple[str, ...]
    candidates: int
    returned: int
    dimension: int
    content_dimension: int
    item_columns: tuple[FeatureColumn, ...]
    user_columns: tuple[FeatureColumn, ...]
    embedding: int
    cross_layers: int
    hidden: tuple[int, ...]
    dropout: float
    members: tuple[str, ...] = ("network",)
    trees: int = 0
    tree_depth: int = 0
    rating: dict[str, Any] | None = None

    def to_facts(self) -> dict[str, Any]:
        """Plain JSON values for a manifest."""
        return asdict(self)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> RankerShape:
        """Reads what ``to_facts`` wrote, from JSON or directly."""
        columns = {
            name: tuple(FeatureColumn(**column) for column in facts[name]) for name in ("item_columns", "user_columns")
        }
        lists = {name: tuple(facts[name]) for name in ("hidden", "sources", "members")}
        return cls(**{**facts, **columns, **lists})
