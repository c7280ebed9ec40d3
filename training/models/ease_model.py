"""EASE as it is served: the history as a vector over the catalogue, times the item-item weights."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch

from training.models.event_weights import EventWeighting
from training.models.recall_base import RecallModel


class EaseRecall(RecallModel):
    """Item-item regression (Steck 2019): ``score_j = sum_l w_l^p B_lj`` over the history's items ``l``.

    The user's vector is the history itself, spread over the catalogue by a scatter that does not reduce, so that a
    request needs ``(B, I)`` cells and one matrix product, whatever the history's length.

    Args:
        item_vectors: float32 ``(I + 1, I + 1)``, ``B'``: row j holds the weights towards item j; last row and column
            zero.
        similarity_vectors: float32 ``(I + 1, D)``, last row zero: a small space for comparing items.
        item_bias: float32 ``(I + 1,)``.
        empty_bias: float32 ``(I + 1,)``.
        weighting: How events are weighted.
        weight_power: ``p``.
        candidates: K.
    """

    kind: ClassVar[str] = "ease"
    takes_content: ClassVar[bool] = False  # an item's vector is as wide as the catalogue
    small_vectors: torch.Tensor

    def __init__(
        self,
        item_vectors: torch.Tensor,
        similarity_vectors: torch.Tensor,
        item_bias: torch.Tensor,
        empty_bias: torch.Tensor,
        *,
        weighting: EventWeighting,
        weight_power: float,
        candidates: int,
    ) -> None:
        super().__init__(item_vectors, item_bias, empty_bias, candidates)
        self.register_buffer("small_vectors", similarity_vectors.float().contiguous())
        self.weighting = weighting
        self.weight_power = weight_power

    def served(self, flavour: str, exact: bool = False) -> RecallModel:
        """See the base class; exact, since a row is too wide to score candidates again."""
        return super().served(flavour, exact=True)

    @property
    def similarity_vectors(self) -> torch.Tensor:
        """See the base class; a row of ``item_vectors`` is as wide as the catalogue."""
        return self.small_vectors

    def user_vectors(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """Event weights at the places of the history's items, ``(B, I + 1)``; 0 elsewhere and at the padding row."""
        present = (rows != self.n_items).to(ages.dtype)
        weights = self.weighting.of_tensors(ages, values, kinds) ** self.weight_power * present  # (B, L)
        return weights.new_zeros(rows.shape[0], self.n_items + 1).scatter(1, rows, weights)

    def facts(self) -> dict[str, Any]:
        return {"weighting": self.weighting.as_facts(), "weight_power": self.weight_power}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Self:
        return cls(
            tensors["item_vectors"],
            tensors["small_vectors"],
            tensors["item_bias"],
            tensors["empty_bias"],
            weighting=EventWeighting.from_facts(facts["weighting"]),
            weight_power=facts["weight_power"],
            candidates=facts["candidates"],
        )
