"""How trained models are made small, and how much quality that may cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.sections.base import Section

GoalName = Literal["safe", "balanced", "max"]


class CompressSettings(Section):
    """`conch compress`, see compression/."""

    enabled: bool = False
    """Whether `conch run` compresses, and whether `conch export` takes the newest compressed models of the ranker."""
    goal: GoalName = "balanced"
    """safe: 7 times smaller tables, 0.3 % NDCG@10; balanced: 14 times, 0.5 %; max: 20 times, 1 %."""
    split: Literal["train", "valid"] = "valid"
    """Split that candidates are judged on, by models that did not learn from it where they are refitted; never test."""
    max_users: int = Field(5_000, ge=10)
    """Users of that split that candidates are judged on; a random choice where there are more."""
    overlap_at: int = Field(50, ge=1)
    """Length of the lists whose overlap with fp32's is measured."""
    max_latency_ratio: float = Field(1.25, gt=0)
    """Largest median latency at batch 1, relative to fp32, that a chosen model may have."""
    seed: int = 0
    """Seed of rotations, resamples and the choice of users."""
