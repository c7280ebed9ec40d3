"""Packed rankers as plain tensors and facts, and back; whatever does not fit is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compression.candidate import Stored, TensorClass
from compression.ranker.dense import QuantLinear, linear_layers, replace_layer
from compression.ranker.fold import with_width
from compression.ranker.module import CompactRanker, PackedTables, Ranks
from compression.ranker.packing import PackedTable
from compression.ranker.values import FoldedValues
from core.errors import ArtifactError
from training.models.ranker import ItemTables, Ranker, RankerShape
from training.ratings.model import RatingFacts

TABLES = ("both", "past", "item")


def compact_facts(model: CompactRanker) -> dict[str, Any]:
    """JSON-able facts that with its tensors give the ranker back."""
    return {
        "form": "packed",
        "shape": model.shape.to_facts(),
        "ranks": [model.ranks.similarity, model.ranks.content],
        "columns": {name: getattr(model, name).to_facts() for name in TABLES},
        "int8": [name for name, layer in model.named_modules() if isinstance(layer, QuantLinear)],
        "codes": 0 if model.values is None else len(model.values.user_codes),
        "kept": model.kept,
    }


def compact_tensors(model: nn.Module) -> dict[str, Stored]:
    """All tensors of a packed or plain ranker, by class."""
    return {name: Stored(tensor, _kind(name)) for name, tensor in model.state_dict().items() if tensor.numel()}


def restore_compact(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> CompactRanker:
    """The ranker of ``compact_tensors`` and ``compact_facts``.

    Raises:
        ArtifactError: A tensor that is missing, left over, of another shape or dtype, or not finite.
    """
    shape = RankerShape.from_facts(facts["shape"])
    ranks = Ranks(*facts["ranks"])
    rows = shape.n_items + 1
    packed = PackedTables(*(PackedTable.from_facts(facts["columns"][name], rows) for name in TABLES))
    values = None
    if shape.rating is not None:
        known = {name: shape.rating[name] for name in RatingFacts.__dataclass_fields__}
        rating = RatingFacts(**known | {"activity": tuple(shape.rating["activity"])})
        width = packed.both.place("values")
        columns = max(1, sum(column.width for column in shape.user_columns))
        values = FoldedValues(rating, width.stop - width.start - 1, int(facts["codes"]), columns)
    model = CompactRanker(shape, ranks, packed, values, bare_ranker(shape, ranks), int(facts["kept"]))
    for name, layer in linear_layers(model):
        if name in facts["int8"]:
            replace_layer(model, name, QuantLinear(layer.in_features, layer.out_features, bias=layer.bias is not None))
    fill(model, tensors)
    return model.eval()


def bare_ranker(shape: RankerShape, ranks: Ranks) -> Ranker:
    """An untrained ranker whose tables are never read, its attentions over keys of ``ranks``."""
    one = torch.zeros(1, 1)
    return with_width(Ranker(shape, ItemTables(one, one, one, one.long())), ranks)


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies tensors into a module after checking every one.

    Raises:
        ArtifactError: See ``restore_compact``.
    """
    expected = {name: tensor for name, tensor in model.state_dict().items() if tensor.numel()}
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or extra:
        raise _refused("tensors", "exactly those of its facts", f"missing {missing[:5]}, left over {extra[:5]}")
    for name, wanted in expected.items():
        found = tensors[name]
        if found.dtype != wanted.dtype:
            raise _refused(name, str(wanted.dtype), str(found.dtype))
        if found.shape != wanted.shape:
            raise _refused(name, str(tuple(wanted.shape)), str(tuple(found.shape)))
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise _refused(name, "finite numbers", f"{int((~torch.isfinite(found)).sum()):,} NaN or Inf")
        wanted.copy_(found)


def _refused(where: str, expected: str, found: str) -> ArtifactError:
    return ArtifactError(
        "a compressed ranker does not fit its facts",
        where=where,
        expected=expected,
        found=found,
        next_step="run `conch compress` again",
    )


def _kind(name: str) -> TensorClass:
    if name.endswith(("scale", "scales")):
        return "scales"
    if name.startswith(("tables.", *(f"{table}." for table in TABLES))):
        return "tables"
    return "dense"
