"""What a goal asks of a compressed chain."""

from __future__ import annotations

from dataclasses import dataclass

from core.sections import GoalName


@dataclass(frozen=True)
class Goal:
    """Limits, all against fp32 and end to end, recall → rank.

    Attributes:
        name: safe, balanced or max.
        tables_ratio: Recall tables with their scales are at least this many times smaller.
        ranker_ratio: So is the ranker as a whole, where it can be compressed.
        ndcg_loss: Largest relative loss of NDCG@10, of the mean over users.
        overlap: Least mean overlap of the first lists.
    """

    name: GoalName
    tables_ratio: float
    ranker_ratio: float
    ndcg_loss: float
    overlap: float


GOALS: dict[GoalName, Goal] = {
    "safe": Goal("safe", 7.0, 4.0, 0.003, 0.95),
    "balanced": Goal("balanced", 14.0, 4.0, 0.005, 0.95),
    "max": Goal("max", 20.0, 4.0, 0.01, 0.90),
}
