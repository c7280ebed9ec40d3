"""Which recipe each member of a mix gets: bytes go where the mix's scores lose most without them.

A member's loss is measured by itself, as the mean squared change of its standardised scores. Rounding errors of
different members have nothing to do with each other, so that losses add up with the squares of the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from compression.packed import HalfColumn
from compression.recipe import MixRecipe, Recipe, all_recipes
from compression.tables import LARGE_CELLS, Packed, apply_recipe, no_rotation, with_parts
from core.histories import Histories, pad
from training.models.mix_model import MixRecall, standardised_scores
from training.models.recall import RecallModel

USERS = 128
"""Users whose scores are compared."""
BATCH = 16
LEAST_SHARE = 0.75
"""Ranks below are left out: with a few bits for every direction the same bytes lose less."""


@dataclass(frozen=True)
class Choice:
    """One recipe of one member.

    Attributes:
        recipe: What is done.
        size_bytes: Of its tables with their scales.
        loss: Mean squared change of its standardised scores.
    """

    recipe: Recipe
    size_bytes: int
    loss: float


def mix_recipes(
    model: MixRecall, users: Mapping[int, torch.Tensor], histories: Histories, seed: int, ratios: tuple[float, float],
    most: int,
) -> Iterator[MixRecipe]:  # fmt: skip
    """The combinations of recipes that no other one beats in both size and foreseen loss, largest first.

    Args:
        model: Trained.
        users: User vectors by ``id`` of the member, see ``compression.recall.user_vectors``.
        histories: Of users of the fit.
        seed: Of rotations and of the choice of users.
        ratios: How many times smaller than fp32 the tables have to be, least and most.
        most: Number of combinations, spread evenly over the sizes.
    """
    whole = sum(table.numel() * 4 for member in members_of(model) for table in member.item_tables().values())
    choices = [_choices(member, users[id(member)], histories, seed) for member in members_of(model)]
    weights = model.weights.double().square().tolist()
    made = []
    for picks in itertools.product(*choices):
        size = sum(one.size_bytes for one in picks)
        if ratios[0] <= whole / size <= ratios[1]:
            loss = sum(weight * one.loss for weight, one in zip(weights, picks, strict=True))
            made.append((size, loss, MixRecipe(tuple(one.recipe for one in picks))))
    front = _front(made)
    for at in np.unique(np.linspace(len(front) - 1, 0, min(most, len(front))).astype(int))[::-1]:
        yield front[at]


def members_of(model: MixRecall) -> list[RecallModel]:
    """Its members, in order."""
    return [member for member in model.members if isinstance(member, RecallModel)]


def _front(made: list[tuple[int, float, MixRecipe]]) -> list[MixRecipe]:
    """Smallest first."""
    kept, least = [], float("inf")
    for _, loss, recipe in sorted(made, key=lambda one: one[:2]):
        if loss < least:
            kept.append(recipe)
            least = loss
    return kept


def _choices(member: RecallModel, users: torch.Tensor, histories: Histories, seed: int) -> list[Choice]:
    rng = np.random.default_rng(seed)
    asked = histories.select(np.sort(rng.choice(len(histories), min(USERS, len(histories)), replace=False)))
    before = _scores(member, asked)
    found = []
    for recipe in all_recipes():
        if (
            recipe.blocks
            or recipe.share < LEAST_SHARE
            or not (recipe.tiers or (recipe.bits, recipe.axis) == (8, "rows"))
        ):
            continue  # 4 bits in rotated tiers lose no more than int4 with searched ranges, and are quickly made
        packed = apply_recipe(member, users, recipe, seed)
        small = with_parts(packed.tensors, packed.facts, {}).eval()
        loss = float((_scores(small, asked) - before).square().mean())
        found.append(Choice(recipe, _bytes_of(packed), loss))
    return found


def _is_tried(recipe: Recipe, member: RecallModel) -> bool:
    """Rotated tiers of 4 bits lose no more than int4 with searched ranges, and are made in a tenth of the time; of
    large tables, which have many directions of like weight, no rank is reduced and nothing left unrotated."""
    quick = recipe.tiers is not None or (recipe.bits, recipe.axis) == (8, "rows")
    if recipe.blocks or recipe.share < LEAST_SHARE or not quick:
        return False
    large = member.item_vectors.numel() > LARGE_CELLS
    return not large or (recipe.share == 1 and (recipe.rotate or no_rotation(member) is not None))


@torch.no_grad()
def _scores(member: RecallModel, histories: Histories) -> torch.Tensor:
    """Standardised scores ``(U, I + 1)``."""
    found = []
    for at in range(0, len(histories), BATCH):
        padded = pad(histories.select(np.arange(at, min(at + BATCH, len(histories)))), member.n_items)
        rows, ages, values, kinds = map(torch.from_numpy, (padded.rows, padded.ages, padded.values, padded.kinds))
        codes = torch.zeros(len(rows), 1, dtype=torch.int64)  # attributes move users without a history alone
        found.append(standardised_scores(member, rows, ages, values, kinds, codes))
    return torch.cat(found)


def _bytes_of(packed: Packed) -> int:
    """What its tables cost with their scales; columns aside, they are the same for all recipes."""
    return sum(
        stored.size_bytes
        for name, part in packed.parts.items()
        if not isinstance(part, HalfColumn)
        for stored in part.stored(name).values()
    )
