"""Combining several members of the ranker: each user is scored by members that never saw this user."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.bootstrap import standard_error
from core.progress import SILENT, Progress
from core.sections import RankerSettings
from training.combine.tables import WindowTable
from training.combine.weights import Learning, learn_weights
from training.distributed.sharing import UNSHARED, Sharing
from training.models.ranker import Ranker
from training.models.ranker_members import GATE_FACTS, LINEAR, TREES, gate_facts, user_shares
from training.ranking.choosing import STRENGTHS, Choice
from training.ranking.examples import Examples
from training.ranking.scoring import by_base, by_member, mean_auc, scores_of
from training.ranking.training import train_linear, train_network
from training.ranking.trees import train_trees

FOLDS = 4
SMALLEST_BLEND = 0.05
"""Least weight of the blend among the learned ones: corrections stay corrections."""
SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class Shares:
    """How members are added to the blend; see :class:`training.models.ranker_members.Correction`.

    Attributes:
        shares: ``(M,)``.
        gate: ``(M, GATE_FACTS)``.
        facts_mean: ``(GATE_FACTS,)``.
        facts_scale: ``(GATE_FACTS,)``.
    """

    shares: Tensor
    gate: Tensor
    facts_mean: Tensor
    facts_scale: Tensor

    @classmethod
    def even(cls, members: int) -> Shares:
        """The mean of all members, for every user."""
        return cls(
            torch.full((members,), 1 / members), torch.zeros(members, GATE_FACTS), torch.zeros(GATE_FACTS),
            torch.ones(GATE_FACTS),
        )  # fmt: skip

    def of_users(self, facts: Tensor) -> Tensor:
        """Shares ``(U, M)`` of users with facts ``(U, GATE_FACTS)``."""
        return user_shares(self.shares, self.gate, (facts - self.facts_mean) / self.facts_scale)


@dataclass(frozen=True)
class Combination:
    """What held-out users decided.

    Attributes:
        shares: Of the members.
        choice: What their sum is worth on users that the members did not see.
    """

    shares: Shares
    choice: Choice

    def apply(self, ranker: Ranker) -> None:
        """Sets shares, gate and strength of ``ranker``."""
        correction, shares = ranker.correction, self.shares
        correction.shares.copy_(shares.shares)
        correction.gate.copy_(shares.gate)
        correction.facts.mean.copy_(shares.facts_mean)
        correction.facts.scale.copy_(shares.facts_scale)
        ranker.strength.fill_(self.choice.strength)


def train_members(
    ranker: Ranker,
    examples: Sequence[Examples],
    settings: RankerSettings,
    *,
    epochs: int,
    seed: int,
    progress: Progress = SILENT,
    sharing: Sharing = UNSHARED,
) -> None:
    """Trains every member in place, each alone on top of the blend; networks of one kind differ by their seeds.

    Workers share the networks' steps; trees and linear members are what the first worker makes of them.
    """
    for at, kind in enumerate(ranker.shape.members):
        if kind == TREES:
            train_trees(ranker, examples, settings, member=at, seed=seed + at)
        elif kind == LINEAR:
            train_linear(ranker, examples, member=at)
        else:
            generator = torch.Generator().manual_seed(seed + 1_000 * at)
            train_network(
                ranker,
                examples,
                settings,
                epochs=epochs,
                generator=generator,
                member=at,
                progress=progress,
                sharing=sharing.part(f"member-{at}"),
            )
    ranker.correction.load_state_dict(sharing.group.agree(ranker.correction.state_dict))


def choose_combination(
    ranker: Ranker,
    examples: Sequence[Examples],
    settings: RankerSettings,
    *,
    epochs: int,
    seed: int,
    progress: Progress = SILENT,
    sharing: Sharing = UNSHARED,
) -> Combination:
    """Scores every user by members trained on other users, and weighs the members by these scores.

    The strength of their sum is chosen on all windows as for a lone network, clearest gain first; what it is worth is
    told for the newest one.

    Args:
        ranker: Untrained, with its blend.
        examples: The label windows, oldest first; a user is in the same fold in all of them.
        settings: ``combine`` says how.
        epochs: Passes of the networks.
        seed: Of the members.
        progress: Where bars go.
        sharing: See :func:`train_members`.
    """
    tables = out_of_fold(ranker, examples, settings, epochs=epochs, seed=seed, progress=progress, sharing=sharing)
    members = len(ranker.shape.members)
    if settings.combine == "average":
        shares = Shares.even(members)
        of_users = [shares.of_users(table.facts) for table in tables]
    else:
        learning = Learning(1.0, follow_time=False, by_user=settings.combine == "stacking")
        shares = learn_shares(tables, learning)
        of_users = _cross_fitted(tables, learning)
    values = [_gains(table, part) for table, part in zip(tables, of_users, strict=True)]
    everyone = {strength: np.concatenate([part[strength] for part in values]) for strength in STRENGTHS}
    strength = max(STRENGTHS, key=lambda tried: clearness(everyone[tried]))
    newest = values[-1][strength]
    used = clearness(everyone[strength]) > 1
    auc = _auc(tables[-1], strength * of_users[-1], examples[-1])
    choice = Choice(epochs, strength if used else 0.0, float(newest.mean()), standard_error(newest), auc)
    return sharing.group.agree(lambda: Combination(shares, choice))


def out_of_fold(
    ranker: Ranker,
    examples: Sequence[Examples],
    settings: RankerSettings,
    *,
    epochs: int,
    seed: int,
    progress: Progress = SILENT,
    sharing: Sharing = UNSHARED,
) -> list[WindowTable]:
    """Per window the blend and every member's correction, ``standard`` ``(U, C, 1 + M)``, out of fold over users."""
    width = 1 + len(ranker.shape.members)
    found = [torch.zeros(len(part), part.batches[0].rows.shape[1], width) for part in examples]
    with progress.bar("ranker folds", FOLDS) as bar:
        for fold in range(FOLDS):
            trial = copy.deepcopy(ranker)
            teach = [part.where(part.users % FOLDS != fold) for part in examples]
            train_members(trial, teach, settings, epochs=epochs, seed=seed, sharing=sharing.part(f"fold-{fold}"))
            scorers = [by_base(ranker), *(by_member(trial, at) for at in range(width - 1))]
            for part, scores in zip(examples, found, strict=True):
                inside = part.users % FOLDS == fold
                held = part.where(inside)
                if len(held):
                    columns = [torch.cat(scores_of(scorer, held)) for scorer in scorers]
                    scores[torch.from_numpy(inside)] = torch.stack(columns, -1)
            bar.advance()
    return [_table(part, scores) for part, scores in zip(examples, found, strict=True)]


def learn_shares(
    tables: Sequence[WindowTable], learning: Learning, users: Sequence[np.ndarray] | None = None
) -> Shares:
    """Shares with the lowest listwise loss. The blend is one of the weighed; shares are relative to it."""
    spread = torch.stack([_spread(table) for table in tables]).mean(0)  # (1 + M,)
    scaled = [replace(table, standard=table.standard / spread) for table in tables]
    learned = learn_weights(scaled, learning, users)
    blend = learned.weights[0].clamp(min=SMALLEST_BLEND)
    return Shares(
        learned.weights[1:] / blend * spread[0] / spread[1:],
        learned.gate[1:] - learned.gate[0],
        learned.facts_mean,
        learned.facts_scale,
    )


def clearness(gains: np.ndarray) -> float:
    """Mean gain in standard errors."""
    return float(gains.mean()) / max(standard_error(gains), 1e-9)


def _cross_fitted(tables: Sequence[WindowTable], learning: Learning) -> list[Tensor]:
    """Shares ``(U, M)`` of each table's users, learned without them."""
    found = [torch.zeros(len(table), table.standard.shape[2] - 1) for table in tables]
    for fold in range(FOLDS):
        shares = learn_shares(tables, learning, [table.users % FOLDS != fold for table in tables])
        for table, of_table in zip(tables, found, strict=True):
            held = torch.from_numpy(table.users % FOLDS == fold)
            of_table[held] = shares.of_users(table.facts[held])
    return found


def _gains(table: WindowTable, shares: Tensor) -> dict[float, np.ndarray]:
    """NDCG@10 of each user above the blend's, by strength."""
    only_blend = torch.cat([torch.ones(len(table), 1), torch.zeros_like(shares)], 1)
    base = table.ndcg(only_blend)
    with_shares = {strength: torch.cat([only_blend[:, :1], strength * shares], 1) for strength in STRENGTHS}
    return {strength: table.ndcg(weights) - base for strength, weights in with_shares.items()}


def _auc(table: WindowTable, shares: Tensor, examples: Examples) -> float:
    weights = torch.cat([torch.ones(len(table), 1), shares], 1)
    scores = torch.einsum("ucm,um->uc", table.standard, weights)
    return mean_auc(list(scores.split([len(batch.rows) for batch in examples.batches])), examples)


def _spread(table: WindowTable) -> Tensor:
    """Deviation of each column over all valid candidates, ``(1 + M,)``; 1 for a constant one."""
    deviation = table.standard[table.rows >= 0].std(0, unbiased=False)
    return torch.where(deviation > SMALLEST_SPREAD, deviation, torch.ones_like(deviation))


def _table(examples: Examples, scores: Tensor) -> WindowTable:
    valid = torch.cat([batch.valid for batch in examples.batches])
    rows = torch.cat([batch.rows for batch in examples.batches])
    return WindowTable(
        torch.where(valid.unsqueeze(-1), scores, torch.zeros_like(scores)),
        torch.where(valid, rows, torch.full_like(rows, -1)),
        torch.cat([batch.labels for batch in examples.batches]),
        torch.cat([gate_facts(batch.features) for batch in examples.batches]),
        examples.truth,
        examples.users,
    )
