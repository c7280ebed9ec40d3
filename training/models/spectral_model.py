"""The spectral recall as it is served: the user's vector is a weighted sum over the history."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch

from training.models.event_weights import EventWeighting
from training.models.recall_base import RecallModel


class SpectralRecall(RecallModel):
    """A low-pass filter of the user-item graph (GF-CF, Shen et al. 2021) as two item tables.

    ``x = sum_l w_l h_l`` over the history, score ``x . t_i``: no user table, no solve.

    Args:
        history_vectors: float32 ``(I + 1, D)``, last row zero: what an item in the history says.
        item_vectors: float32 ``(I + 1, D)``, last row zero: what an item is recommended for.
        item_bias: float32 ``(I + 1,)``.
        empty_bias: float32 ``(I + 1,)``.
        weighting: How events are weighted.
        candidates: K.
    """

    kind: ClassVar[str] = "spectral"
    history_vectors: torch.Tensor

    def __init__(
        self,
        history_vectors: torch.Tensor,
        item_vectors: torch.Tensor,
        item_bias: torch.Tensor,
        empty_bias: torch.Tensor,
        *,
        weighting: EventWeighting,
        candidates: int,
    ) -> None:
        super().__init__(item_vectors, item_bias, empty_bias, candidates)
        self.register_buffer("history_vectors", history_vectors.float().contiguous())
        self.weighting = weighting

    def user_vectors(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """See the base class."""
        present = (rows != self.n_items).to(ages.dtype)
        weights = self.weighting.of_tensors(ages, values, kinds) * present  # (B, L)
        return (weights.unsqueeze(1) @ self.rows_of("history_vectors", rows)).squeeze(1)

    def facts(self) -> dict[str, Any]:
        return {"weighting": self.weighting.as_facts()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Self:
        return cls(
            tensors["history_vectors"],
            tensors["item_vectors"],
            tensors["item_bias"],
            tensors["empty_bias"],
            weighting=EventWeighting.from_facts(facts["weighting"]),
            candidates=facts["candidates"],
        )
