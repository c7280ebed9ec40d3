"""The spectral recall as it is served: the user's vector is a weighted sum over the history."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from training.models.event_weights import EventWeighting
from training.models.recall_base import RecallModel


class SpectralRecall(RecallModel):
    """A low-pass filter of the user-item graph (GF-CF, Shen et al. 2021) as two item tables.

    ``x = sum_l w_l h_l`` over the history, score ``x . t_i``: no user table, no solve.

    Args:
        history_vectors: float32 ``(I + 1, D)``, last row zero: what an item in the history says. None where that is
            its item vector times ``history_scale``: the two differ by a factor per item as they are fitted.
        item_vectors: float32 ``(I + 1, D)``, last row zero: what an item is recommended for.
        item_bias: float32 ``(I + 1,)``.
        empty_bias: float32 ``(I + 1,)``.
        weighting: How events are weighted.
        candidates: K.
        history_scale: float32 ``(I + 1,)``, in place of ``history_vectors``.
    """

    kind: ClassVar[str] = "spectral"
    history_vectors: torch.Tensor
    history_scale: torch.Tensor

    def __init__(
        self,
        history_vectors: torch.Tensor | None,
        item_vectors: torch.Tensor,
        item_bias: torch.Tensor,
        empty_bias: torch.Tensor,
        *,
        weighting: EventWeighting,
        candidates: int,
        history_scale: torch.Tensor | None = None,
    ) -> None:
        super().__init__(item_vectors, item_bias, empty_bias, candidates)
        if (history_vectors is None) == (history_scale is None):
            raise TypeError("either history_vectors or history_scale")
        if history_vectors is not None:
            self.register_buffer("history_vectors", history_vectors.float().contiguous())
        if history_scale is not None:
            self.register_buffer("history_scale", history_scale.float().contiguous())
        self.tied = history_vectors is None
        self.weighting = weighting

    def user_vectors(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """See the base class."""
        present = (rows != self.n_items).to(ages.dtype)
        weights = self.weighting.of_tensors(ages, values, kinds) * present  # (B, L)
        if self.tied:
            weights = weights * F.embedding(rows, self.history_scale.unsqueeze(1)).squeeze(2)
        table = "item_vectors" if self.tied else "history_vectors"
        return (weights.unsqueeze(1) @ self.rows_of(table, rows)).squeeze(1)

    def facts(self) -> dict[str, Any]:
        return {"weighting": self.weighting.as_facts()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Self:
        return cls(
            tensors.get("history_vectors"),
            tensors["item_vectors"],
            tensors["item_bias"],
            tensors["empty_bias"],
            weighting=EventWeighting.from_facts(facts["weighting"]),
            candidates=facts["candidates"],
            history_scale=tensors.get("history_scale"),
        )
