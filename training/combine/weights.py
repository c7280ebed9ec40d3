"""Weights of the members, learned on tables of users that no member has seen the answers of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from core.bootstrap import standard_error
from core.tensors import MASKED
from training.combine.tables import WindowTable
from training.models.mix_model import LARGEST_LOGIT, USER_FACTS

FOLDS = 5
STEPS = 60
"""Most iterations of L-BFGS; the problem has a few dozen unknowns."""
TREND_RIDGE, GATE_RIDGE, WEIGHT_RIDGE = 0.1, 0.02, 0.002
NEGLIGIBLE = 0.01
"""Weights below this share become 0: such a member costs time in serving and moves nothing."""


@dataclass(frozen=True)
class Weighting:
    """How members are added up; see :class:`training.models.mix_model.MixRecall`.

    Attributes:
        weights: float32 ``(M,)``, sum 1.
        gate: float32 ``(M, USER_FACTS)``.
        facts_mean: float32 ``(USER_FACTS,)``.
        facts_scale: float32 ``(USER_FACTS,)``.
    """

    weights: torch.Tensor
    gate: torch.Tensor
    facts_mean: torch.Tensor
    facts_scale: torch.Tensor

    @classmethod
    def fixed(cls, weights: torch.Tensor) -> Weighting:
        """The same weights for all users."""
        return cls(
            weights / weights.sum(), torch.zeros(len(weights), USER_FACTS), torch.zeros(USER_FACTS),
            torch.ones(USER_FACTS),
        )  # fmt: skip

    def of_users(self, facts: torch.Tensor) -> torch.Tensor:
        """Weights ``(U, M)`` of users with the given facts, sum 1."""
        logits = ((facts - self.facts_mean) / self.facts_scale) @ self.gate.T
        moved = self.weights * torch.exp(torch.clamp(logits, -LARGEST_LOGIT, LARGEST_LOGIT))
        return moved / moved.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Learning:
    """What is learned, and how windows count.

    Attributes:
        older_weight: Say of a window against that of the next newer one.
        follow_time: Weights have a trend over the windows, and are given for the time after the newest one.
        by_user: Weights depend on the users' facts.
    """

    older_weight: float
    follow_time: bool
    by_user: bool


def learn_weights(
    tables: Sequence[WindowTable], learning: Learning, users: Sequence[np.ndarray] | None = None
) -> Weighting:
    """Weights with the lowest listwise loss: the softmax over each user's candidates, spread evenly over the hits.

    Args:
        tables: Windows, oldest first.
        learning: What is learned.
        users: bool per table, which of its users teach; all when None.
    """
    masks = users or [np.ones(len(table), dtype=bool) for table in tables]
    taught = [_taught(table, torch.from_numpy(mask)) for table, mask in zip(tables, masks, strict=True)]
    members = tables[0].standard.shape[2]
    everyone = torch.cat([part.facts for part in taught])
    mean, scale = everyone.mean(dim=0), everyone.std(dim=0, unbiased=False)
    scale = torch.where(scale > 1e-3, scale, torch.ones_like(scale))
    level, trend, gate = torch.zeros(members), torch.zeros(members), torch.zeros(members, USER_FACTS)
    temperature = torch.zeros(())
    unknown = [level, temperature, *([trend] if learning.follow_time else []), *([gate] if learning.by_user else [])]
    for tensor in unknown:
        tensor.requires_grad_(True)
    optimizer = torch.optim.LBFGS(unknown, max_iter=STEPS, line_search_fn="strong_wolfe")
    says = [learning.older_weight ** (len(taught) - 1 - at) for at in range(len(taught))]

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = WEIGHT_RIDGE * level.square().sum() + TREND_RIDGE * trend.square().sum()
        total = total + GATE_RIDGE * gate.square().sum()
        for at, (part, say) in enumerate(zip(taught, says, strict=True)):
            logits = level + trend * (at - len(taught))  # 0 is the window that serving falls into
            logits = logits + ((part.facts - mean) / scale) @ gate.T
            weights = torch.softmax(logits, dim=1) * torch.exp(temperature)
            total = total + say / sum(says) * part.loss(weights)
        total.backward()
        return total

    optimizer.step(loss)
    weights = torch.softmax(level.detach(), dim=0)
    weights = torch.where(weights >= NEGLIGIBLE, weights, torch.zeros_like(weights))
    return Weighting(weights / weights.sum(), gate.detach(), mean, scale)


def best_member(tables: Sequence[WindowTable], users: Sequence[np.ndarray] | None = None) -> Weighting:
    """All weight on the member with the highest NDCG@10 over the given users; arguments as in ``learn_weights``."""
    masks = users or [np.ones(len(table), dtype=bool) for table in tables]
    alone = torch.eye(tables[0].standard.shape[2])
    means = [
        np.concatenate([table.ndcg(one)[mask] for table, mask in zip(tables, masks, strict=True)]).mean()
        for one in alone
    ]
    return Weighting.fixed(alone[int(np.argmax(means))])


@dataclass(frozen=True)
class _Taught:
    """The users of a table that have a hit among their candidates."""

    standard: torch.Tensor
    valid: torch.Tensor
    labels: torch.Tensor
    facts: torch.Tensor

    def loss(self, weights: torch.Tensor) -> torch.Tensor:
        scores = torch.einsum("ucm,um->uc", self.standard, weights.expand(len(self.standard), -1))
        logs = torch.log_softmax(torch.where(self.valid, scores, torch.full_like(scores, MASKED)), dim=1)
        return -((logs * self.labels).sum(dim=1) / self.labels.sum(dim=1)).sum() / max(1, len(self.standard))


def _taught(table: WindowTable, mask: torch.Tensor) -> _Taught:
    index = torch.nonzero(mask & (table.labels.sum(dim=1) > 0)).squeeze(1)
    return _Taught(table.standard[index], table.rows[index] >= 0, table.labels[index], table.facts[index])


Learn = Callable[[Sequence[np.ndarray] | None], Weighting]
"""From the users that teach, bool per table (None: all of them), to weights."""


@dataclass(frozen=True)
class Trial:
    """NDCG@10 of one way to weigh, each user judged by weights that never saw this user.

    Attributes:
        name: Of the way.
        values: float64 ``(users,)`` over all tables.
    """

    name: str
    values: np.ndarray


def cross_fitted(name: str, tables: Sequence[WindowTable], learn: Learn) -> Trial:
    """Judges ``learn`` on folds of users: a user is in the same fold in all tables."""
    values = [np.zeros(len(table)) for table in tables]
    for fold in range(FOLDS):
        weighting = learn([table.users % FOLDS != fold for table in tables])
        for table, of_table in zip(tables, values, strict=True):
            held = table.users % FOLDS == fold
            of_table[held] = table.ndcg(weighting.of_users(table.facts))[held]
    return Trial(name, np.concatenate(values))


def clearly_better(trial: Trial, other: Trial) -> bool:
    """Whether the mean gain of ``trial`` over ``other`` is above one standard error."""
    gains = trial.values - other.values
    return float(gains.mean()) > standard_error(gains)
