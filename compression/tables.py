"""Applies a recipe to a recall model: the smaller model, its packed parts, and what was left alone and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from compression.blocks import make_blocks
from compression.candidate import Unchanged
from compression.packed import HalfColumn, PackedBlocks, PackedTable, PackedTiers, Part
from compression.quantize import quantize, random_rotation, random_turn
from compression.rank_reduction import diagonal_within, joint_factors, shared_basis
from compression.recipe import SPREAD, Recipe, TierPlan
from compression.tied import factor_per_row
from compression.tiers import popularity_order, quantize_tiers
from training.models.gat_model import GatRecall
from training.models.mf_model import TURN
from training.models.recall import RecallModel, build_model

HISTORY, ITEMS = "history_vectors", "item_vectors"
SCALE = "history_scale"
COLUMNS = ("item_bias", "empty_bias")
NEWCOMERS = "newcomers.vectors"
LARGE_CELLS = 4_000_000
"""A model with more cells in its item tables is large: fewer recipes are tried."""
BLOCKS_FROM_ITEMS = 50_000
"""Smaller catalogues are scanned whole: blocks are 2.0 times faster than fp32 at 50,000 made items and 1.0 times at
batch 16 (whole int8 scan 1.4 and 0.7), but slower than both at 20,000."""


@dataclass(frozen=True)
class Packed:
    """A model under way.

    Attributes:
        tensors: State of the model, by name, what packed parts restore included.
        facts: For ``build_model``.
        parts: Packed parts by tensor name.
        unchanged: What was left alone.
        energy: Share of the scores' squared size that the rank keeps.
        users: Vectors of users ``(U, D)`` in the tables' space.
    """

    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]
    parts: dict[str, Part] = field(default_factory=dict)
    unchanged: tuple[Unchanged, ...] = ()
    energy: float = 1.0
    users: torch.Tensor | None = None


def facts_of(model: RecallModel) -> dict[str, Any]:
    """What ``build_model`` needs beside the tensors."""
    return {"model": model.kind, "candidates": model.candidates, **model.facts()}


def apply_recipe(model: RecallModel, users: torch.Tensor, recipe: Recipe, seed: int) -> Packed:
    """Ties tables that differ by a factor per item, reduces the rank, rotates, quantizes, arranges in blocks.

    Args:
        model: A trained model that is no mix.
        users: Vectors of users as the model computes them ``(U, D)``.
        recipe: What to do.
        seed: Of the rotation and of the samples that blocks are made from.
    """
    reduced = _reduce_rank(model, _tie(model, users), recipe)
    rotated = _rotate(model, reduced, seed) if recipe.rotate else reduced
    quantized = _quantize(model, rotated, recipe)
    return _arrange(model, quantized, seed) if recipe.blocks else quantized


def with_parts(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any], parts: Mapping[str, Any]) -> RecallModel:
    """The model with its packed parts attached, those of a mix's members to the members."""
    model = build_model(dict(tensors), dict(facts))
    for at, member in enumerate(getattr(model, "members", [])):
        prefix = f"members.{at}."
        member.packed = {name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)}
    model.packed = {name: part for name, part in parts.items() if "." not in name}
    return model


def _tie(model: RecallModel, users: torch.Tensor) -> Packed:
    """Leaves out a spectral model's history table where its item table and a factor per item say the same."""
    packed = Packed(dict(model.state_dict()), facts_of(model), users=users)
    if model.kind != "spectral" or HISTORY not in packed.tensors:
        return packed
    factors = factor_per_row(packed.tensors[HISTORY], packed.tensors[ITEMS])
    if factors is None:
        return _noting(packed, Unchanged("tied", "the two tables differ by more than a factor per item"))
    tensors = {name: tensor for name, tensor in packed.tensors.items() if name != HISTORY}
    return replace(packed, tensors=tensors | {SCALE: factors})


def _reduce_rank(model: RecallModel, packed: Packed, recipe: Recipe) -> Packed:
    users, tensors = packed.users, dict(packed.tensors)
    rank = recipe.rank_of(model.dimension)
    if recipe.share >= 1 or users is None:
        return packed
    if reason := no_rank(model, rank):
        return _noting(packed, Unchanged("rank", reason))
    known = users[users.abs().sum(1) > 0]
    if HISTORY not in tensors:
        of_users, energy = shared_basis(known, tensors[ITEMS], rank)
        if "spectrum" in tensors:
            of_users, tensors["spectrum"] = diagonal_within(of_users, tensors["spectrum"])
        of_items = of_users
    else:
        factors = joint_factors(known, tensors[ITEMS], rank)
        of_users, of_items, energy = factors.of_users, factors.of_items, factors.energy
        tensors[HISTORY] = tensors[HISTORY] @ of_users
    tensors[ITEMS] = tensors[ITEMS] @ of_items
    if NEWCOMERS in tensors:
        tensors[NEWCOMERS] = tensors[NEWCOMERS] @ of_users
    return replace(packed, tensors=tensors, energy=energy, users=users @ of_users)


def no_rank(model: RecallModel, rank: int) -> str | None:
    """Why a model's rank stays, if it does."""
    if model.kind == "ease":
        return "an item's row holds a weight per item, and the user's vector is the history itself"
    if _heads(model) > 1:
        return "every head has its own columns"
    if rank >= model.dimension:
        return f"rank {rank} is not below the width {model.dimension}"
    return None


def no_rotation(model: RecallModel) -> str | None:
    """Why a model's tables cannot be rotated, if they cannot."""
    if _heads(model) > 1:
        return "every head has its own columns"
    return "an item's row holds a weight per item" if model.kind == "ease" else None


def _heads(model: RecallModel) -> int:
    return int(model.length_scale.shape[1]) if isinstance(model, GatRecall) else 1


def _rotate(model: RecallModel, packed: Packed, seed: int) -> Packed:
    if reason := no_rotation(model):
        return _noting(packed, Unchanged("rotation", reason))
    tensors, width = dict(packed.tensors), packed.tensors[ITEMS].shape[1]
    if model.kind == "mf":  # solves in its own basis, so that the rotation has to be undone at request time
        left, right = random_turn(width, seed)
        tensors |= dict(zip(TURN, (left, right), strict=True))
        turn = torch.kron(left, right)
    else:
        turn = random_rotation(width, seed)
    for name in (HISTORY, ITEMS, NEWCOMERS):
        if name in tensors:
            tensors[name] = tensors[name] @ turn
    users = None if packed.users is None else packed.users @ turn
    return replace(packed, tensors=tensors, users=users)


def _quantize(model: RecallModel, packed: Packed, recipe: Recipe) -> Packed:
    if recipe.bits == 32:
        return packed
    tensors, parts = dict(packed.tensors), dict(packed.parts)
    for name in COLUMNS:
        column = HalfColumn(tensors[name][:-1].clamp(-65_000, 65_000).half())
        tensors[name], parts[name] = column.restored(), column
    for name in (HISTORY, ITEMS):
        if name in tensors:
            table = _in_tiers(name, tensors, parts, recipe.tiers) if recipe.tiers else _in_codes(tensors[name], recipe)
            tensors[name], parts[name] = table.values(), table
    left = [Unchanged(name, reason) for name, reason in _not_packed(model).items()]
    return replace(packed, tensors=tensors, parts=parts, unchanged=(*packed.unchanged, *left))


def no_blocks(model: RecallModel) -> str | None:
    """Why a model's items are not arranged in blocks, if they are not."""
    if model.kind in ("ease", "mix"):
        return "all scores are needed, and exact"
    if model.n_items < BLOCKS_FROM_ITEMS:
        return f"{model.n_items:,} items are fewer than {BLOCKS_FROM_ITEMS:,}"
    return None


def _arrange(model: RecallModel, packed: Packed, seed: int) -> Packed:
    """Puts the items into blocks as they are scored in the end, after rank, rotation and rounding."""
    if reason := no_blocks(model):
        return _noting(packed, Unchanged("blocks", reason))
    inner, bias, popularity = (packed.parts[name] for name in (ITEMS, *COLUMNS))
    if packed.users is None or isinstance(inner, HalfColumn | PackedBlocks):
        raise TypeError("blocks are made of a quantized table and users' vectors in its space")
    if not isinstance(bias, HalfColumn) or not isinstance(popularity, HalfColumn):
        raise TypeError("blocks are made of columns of halves")
    columns = bias.restored(), popularity.restored()
    blocks = make_blocks(inner.values(), *columns, packed.users, model.candidates, seed)
    if blocks is None:
        return _noting(packed, Unchanged("blocks", "users' best items lie in too many blocks"))
    return replace(packed, parts=packed.parts | {ITEMS: PackedBlocks(inner, blocks, bias, popularity)})


def _in_codes(table: torch.Tensor, recipe: Recipe) -> PackedTable:
    return PackedTable(quantize(table, recipe.bits, recipe.axis))


def _in_tiers(name: str, tensors: dict[str, torch.Tensor], parts: dict[str, Part], plan: TierPlan) -> PackedTiers:
    """By the order of the popularity column as it is stored, which tells the same order when it is read."""
    order = popularity_order(tensors["empty_bias"])
    column = parts["empty_bias"]
    widths = plan.histories if name == HISTORY else plan.items
    return PackedTiers(quantize_tiers(tensors[name], order, widths, SPREAD), column.values)  # type: ignore[arg-type]


def _not_packed(model: RecallModel) -> dict[str, str]:
    small = {
        "scalars.item": "one number per item, learned in fp32",
        "small_vectors": "compares items; no part of the recall graph",
        NEWCOMERS: "one row per attribute value: too few to matter",
    }
    return {name: reason for name, reason in small.items() if name in model.state_dict()}


def _noting(packed: Packed, unchanged: Unchanged) -> Packed:
    return replace(packed, unchanged=(*packed.unchanged, unchanged))
