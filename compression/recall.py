"""The compressor of recall models: rank reduction, rotation, int8 and int4 tables; a mix member by member."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch

from compression.candidate import Candidate, Pass, Stored, TensorClass, Unchanged, check_changed
from compression.goals import GOALS
from compression.mixing import members_of, mix_recipes
from compression.packed import HalfColumn, PackedBlocks, Part, read_table
from compression.recipe import MixRecipe, Recipe, all_recipes, recipe_of
from compression.tables import (
    HISTORY,
    ITEMS,
    LARGE_CELLS,
    NEWCOMERS,
    SCALE,
    Packed,
    apply_recipe,
    facts_of,
    no_blocks,
    no_rank,
    no_rotation,
    with_parts,
)
from compression.task import Task
from core.histories import Histories
from training.models.mix_model import MixRecall
from training.models.recall import RecallModel
from training.models.similar import vectors_of_users

NAME = "recall"
MOST_USERS = 20_000
"""Users whose vectors say which directions of a table are reached."""
MOST_OF_MIX, MOST_OF_LARGE = 24, 10
"""Combinations of members' recipes that are judged, fewer where the tables are large."""
TABLES = (HISTORY, ITEMS, NEWCOMERS, "small_vectors")
ONE_PER_ITEM = ("item_bias", "empty_bias", "scalars.item")


class RecallCompressor:
    """See :class:`compression.registry.Compressor`."""

    def original(self, task: Task) -> Candidate:
        """The trained model, every tensor in fp32."""
        model = cast(RecallModel, task.model)
        stored = {name: Stored(tensor, tensor_class(name)) for name, tensor in model.state_dict().items()}
        facts = {"model": facts_of(model), "tables": {}, "columns": []}
        return Candidate(task.step, "fp32", NAME, model, stored, facts)

    def candidates(self, task: Task) -> Iterator[Candidate]:
        """One candidate per recipe that comes to something new for this model, mildest first.

        Of large tables only recipes near the goal's ratio are tried, and those of large catalogues come in blocks.
        """
        original, users = self.original(task), user_vectors(task)
        model, seed = cast(RecallModel, task.model), task.settings.compress.seed
        for recipe in self._recipes(task, model, users):
            yield check_changed(original, compress(task.step, model, users, recipe, seed))

    def _recipes(
        self, task: Task, model: RecallModel, users: Mapping[int, torch.Tensor]
    ) -> Iterator[Recipe | MixRecipe]:
        goal = GOALS[task.settings.compress.goal].tables_ratio
        large = sum(part.item_vectors.numel() for part in _parts(model)) > LARGE_CELLS
        if isinstance(model, MixRecall):
            ratios, most = ((goal, goal * 1.5), MOST_OF_LARGE) if large else ((1.0, math.inf), MOST_OF_MIX)
            histories = calibration_histories(task)
            yield from mix_recipes(model, users, histories, task.settings.compress.seed, ratios, most)
            return
        arranged = no_blocks(model) is None
        seen = {(model.dimension, 32, "none", False)}
        for recipe in all_recipes():
            if recipe.blocks != (arranged and recipe.bits < 32) or (large and not goal / 2 <= recipe.ratio <= goal * 2):
                continue
            effective = _effective(model, recipe)
            if effective not in seen:
                seen.add(effective)
                yield recipe

    def make(self, task: Task, name: str) -> Candidate:
        """One candidate by name."""
        recipe, seed = recipe_of(name), task.settings.compress.seed
        made = compress(task.step, cast(RecallModel, task.model), user_vectors(task), recipe, seed)
        return check_changed(self.original(task), made)

    def restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> RecallModel:
        """The model that was stored."""
        parts: dict[str, Part] = {name: read_table(name, tensors, told) for name, told in facts["tables"].items()}
        parts |= {name: HalfColumn(tensors[name]) for name in facts["columns"]}
        state = {
            name: tensor
            for name, tensor in tensors.items()
            if name not in parts and name.rpartition(".")[0] not in facts["tables"]
        }
        for name, one in parts.items():
            state[name] = one.restored() if isinstance(one, HalfColumn) else one.values()
        return with_parts(state, facts["model"], parts)


def user_vectors(task: Task) -> dict[int, torch.Tensor]:
    """Vectors ``(U, D)`` of users of the fit by ``id`` of the model, or of each member of a mix."""
    histories = calibration_histories(task)
    parts = _parts(cast(RecallModel, task.model))
    return {id(part): torch.from_numpy(vectors_of_users(part, histories)) for part in parts}


def calibration_histories(task: Task) -> Histories:
    """Histories of at most ``MOST_USERS`` users of the fit."""
    histories = task.dataset.histories(task.fit)
    if len(histories) <= MOST_USERS:
        return histories
    rng = torch.Generator().manual_seed(task.settings.compress.seed)
    chosen = torch.randperm(len(histories), generator=rng)[:MOST_USERS].sort().values
    return histories.select(chosen.numpy())


def compress(
    step: str, model: RecallModel, users: Mapping[int, torch.Tensor], recipe: Recipe | MixRecipe, seed: int
) -> Candidate:
    """The candidate of a recipe; a mix takes one for all members, or one for each.

    Args:
        step: Name of the served step.
        model: Trained.
        users: User vectors ``(U, D)`` by ``id`` of the model, of a mix's members instead.
        recipe: What to do.
        seed: Of the rotation.
    """
    started = time.perf_counter()
    if isinstance(model, MixRecall):
        members = recipe.members if isinstance(recipe, MixRecipe) else (recipe,) * len(model.members)
        packed = _compress_mix(model, users, members, seed)
    elif isinstance(recipe, MixRecipe):
        raise TypeError(f"{recipe.name} is for a mix, {step} is none")
    else:
        members, packed = (recipe,), apply_recipe(model, users[id(model)], recipe, seed)
    passes = passes_of(members, packed, time.perf_counter() - started)
    parts = packed.parts
    stored = {name: Stored(tensor, tensor_class(name)) for name, tensor in packed.tensors.items() if name not in parts}
    for name, part in parts.items():
        stored |= {name: Stored(part.values, "columns")} if isinstance(part, HalfColumn) else part.stored(name)
    facts = {
        "model": packed.facts,
        "tables": {name: part.facts() for name, part in parts.items() if not isinstance(part, HalfColumn)},
        "columns": [name for name, part in parts.items() if isinstance(part, HalfColumn)],
    }
    return Candidate(
        step,
        recipe.name,
        NAME,
        with_parts(packed.tensors, packed.facts, parts),
        stored,
        facts,
        parent=recipe.parent,
        passes=passes,
        unchanged=packed.unchanged,
        metrics={"energy": round(packed.energy, 6)},
    )


def tensor_class(name: str) -> TensorClass:
    """The class of an unpacked tensor by its name, members' prefixes aside."""
    bare = name.split(".", 2)[2] if name.startswith("members.") else name
    if bare == SCALE:
        return "scales"
    return "tables" if bare in TABLES else "columns" if bare in ONE_PER_ITEM else "dense"


def passes_of(recipes: Sequence[Recipe], packed: Packed, seconds: float) -> tuple[Pass, ...]:
    """The passes of members' recipes that did something; time is divided evenly."""
    left = {one.layer.rsplit(".", 1)[-1] for one in packed.unchanged}
    made: list[tuple[str, dict[str, Any]]] = []
    if any(name.rpartition(".")[2] == SCALE for name in packed.tensors):
        made.append(("tied", {}))
    for recipe in dict.fromkeys(recipes):
        if recipe.share < 1 and (packed.energy < 1 or "rank" not in left):
            made.append(("rank", {"share": recipe.share, "energy": round(packed.energy, 6)}))
        if recipe.rotate and "rotation" not in left:
            made.append(("rotate", {}))
        if recipe.tiers:
            made.append(("tiers", {"items": recipe.tiers.items, "histories": recipe.tiers.histories}))
        elif recipe.bits < 32:
            made.append((f"int{recipe.bits}", {"axis": recipe.axis}))
    for part in packed.parts.values():
        if isinstance(part, PackedBlocks):
            made.append(("blocks", {"probes": part.blocks.probes, "of": len(part.blocks.order)}))
    return tuple(Pass(name, parameters, seconds / len(made)) for name, parameters in made)


def _compress_mix(model: MixRecall, users: Mapping[int, torch.Tensor], recipes: Sequence[Recipe], seed: int) -> Packed:
    """Members are compressed one by one; only their scores meet, so that each keeps its own space."""
    tensors = dict(model.state_dict())
    parts: dict[str, Part] = {}
    unchanged: list[Unchanged] = []
    energies = []
    for at, (member, recipe) in enumerate(zip(_parts(model), recipes, strict=True)):
        prefix = f"members.{at}."
        packed = apply_recipe(member, users[id(member)], recipe, seed)
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
        tensors |= {prefix + name: tensor for name, tensor in packed.tensors.items()}
        parts |= {prefix + name: part for name, part in packed.parts.items()}
        unchanged += [Unchanged(prefix + one.layer, one.reason) for one in packed.unchanged]
        energies.append(packed.energy)
    return Packed(tensors, facts_of(model), parts, tuple(unchanged), min(energies))


def _parts(model: RecallModel) -> list[RecallModel]:
    return members_of(model) if isinstance(model, MixRecall) else [model]


def _effective(model: RecallModel, recipe: Recipe) -> tuple[int, int, str, bool]:
    """What a recipe comes to for one model: recipes that come to the same are tried once."""
    rank = recipe.rank_of(model.dimension)
    rank = model.dimension if no_rank(model, rank) else rank
    turned = recipe.rotate and no_rotation(model) is None
    kind = recipe.tiers.name if recipe.tiers else recipe.axis if recipe.bits < 32 else "none"
    return rank, recipe.bits, kind, turned
