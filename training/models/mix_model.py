"""Several recall models as one: standardised scores, added up with weights that may depend on the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from training.models.recall_base import UNSEEN, RecallModel

SMALLEST_DEVIATION = 1e-6
LARGEST_LOGIT = 4.0
"""A user's facts multiply a member's weight by e^4 at most."""
USER_FACTS = 2
"""Logarithms of the history's length and of its span in days."""


class MixRecall(RecallModel):
    """``score = sum_m w_m(u) z_m``, z standardised per user over the items that the user could get.

    Members may be of any kind and dimension: only their scores meet. Items without training events keep their place
    below all others, and an empty history the order by recent popularity that every member gives it.

    ``item_vectors``, ``similarity_vectors`` and ``user_vectors`` are those of the first member.

    Args:
        members: M fitted models over the same catalogue.
        weights: Not negative ``(M,)``, at least one above 0; brought to sum 1.
        empty_bias: float32 ``(I + 1,)``, see the base class; tells also which items have training events.
        gate: float32 ``(M, USER_FACTS)``: how a user's standardised facts move the logarithms of the weights.
        facts_mean: float32 ``(USER_FACTS,)``.
        facts_scale: float32 ``(USER_FACTS,)``, above 0.
        candidates: K.
    """

    kind: ClassVar[str] = "mix"
    takes_content: ClassVar[bool] = False  # scores are standardised over the items with events
    weights: torch.Tensor
    gate: torch.Tensor
    facts_mean: torch.Tensor
    facts_scale: torch.Tensor

    def __init__(
        self,
        members: Sequence[RecallModel],
        weights: torch.Tensor,
        empty_bias: torch.Tensor,
        *,
        gate: torch.Tensor | None = None,
        facts_mean: torch.Tensor | None = None,
        facts_scale: torch.Tensor | None = None,
        candidates: int,
    ) -> None:
        first = members[0]
        super().__init__(first.item_vectors, first.item_bias, empty_bias, candidates)
        for name in ("item_vectors", "item_bias"):
            self.register_buffer(name, getattr(first, name), persistent=False)  # stored once, with the member
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", (weights / weights.sum()).float())
        self.register_buffer("gate", torch.zeros(len(members), USER_FACTS) if gate is None else gate.float())
        self.register_buffer("facts_mean", torch.zeros(USER_FACTS) if facts_mean is None else facts_mean.float())
        self.register_buffer("facts_scale", torch.ones(USER_FACTS) if facts_scale is None else facts_scale.float())

    def user_vectors(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """Those of the first member."""
        return self._members()[0].user_vectors(rows, ages, values, kinds)

    def scores(
        self,
        rows: torch.Tensor,
        ages: torch.Tensor,
        values: torch.Tensor,
        kinds: torch.Tensor,
        user_features: torch.Tensor,
    ) -> torch.Tensor:
        """See the base class."""
        weights = self.member_weights(rows, ages)  # (B, M)
        known = known_items(self.empty_bias)
        filled = (rows != self.n_items).to(known.dtype).amax(dim=1, keepdim=True)
        mixed = torch.zeros_like(filled)
        for at, member in enumerate(self._members()):
            standard = standardised_scores(member, rows, ages, values, kinds, user_features)
            mixed = mixed + weights[:, at : at + 1] * standard
        return torch.where(filled * known > 0, mixed, self.empty_bias)

    def served(self, flavour: str, exact: bool = False) -> RecallModel:
        """See the base class; all scores of a member are standardised together, so that they must be exact."""
        other = super().served(flavour, exact)
        other.members = nn.ModuleList([member.served(flavour, exact=True) for member in self._members()])
        return other

    def _members(self) -> list[RecallModel]:
        return cast(list[RecallModel], list(self.members))

    def member_weights(self, rows: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Each user's weights of the members, float32 ``(B, M)``, sum 1."""
        facts = (user_facts(rows, ages, self.n_items) - self.facts_mean) / self.facts_scale
        logits = torch.clamp(facts @ self.gate.T, -LARGEST_LOGIT, LARGEST_LOGIT)
        moved = self.weights * torch.exp(logits)
        return moved / moved.sum(dim=1, keepdim=True)

    def facts(self) -> dict[str, Any]:
        return {
            "members": [
                {"model": member.kind, "candidates": member.candidates, **member.facts()} for member in self._members()
            ]
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Self:
        from training.models.recall import build_model  # which knows this class

        members = []
        for at, member in enumerate(facts["members"]):
            prefix = f"members.{at}."
            own = {name.removeprefix(prefix): part for name, part in tensors.items() if name.startswith(prefix)}
            members.append(build_model(own, member))
        return cls(
            members,
            tensors["weights"],
            tensors["empty_bias"],
            gate=tensors["gate"],
            facts_mean=tensors["facts_mean"],
            facts_scale=tensors["facts_scale"],
            candidates=facts["candidates"],
        )


def standardised_scores(
    member: RecallModel,
    rows: torch.Tensor,
    ages: torch.Tensor,
    values: torch.Tensor,
    kinds: torch.Tensor,
    user_features: torch.Tensor,
) -> torch.Tensor:
    """One member's scores with mean 0 and deviation 1 over the items that each user could get, ``(B, I + 1)``.

    Those are the items that the member learned about, without the user's history. Items that it never saw get its
    lowest score: their own ones lie so far below that they would decide mean and deviation. Arguments as in
    ``RecallModel.scores``.
    """
    known = known_items(member.empty_bias)
    reachable = (known + torch.zeros_like(ages[:, :1])).scatter(1, rows, 0.0)  # (B, I + 1)
    count = reachable.sum(dim=1, keepdim=True).clamp(min=1.0)
    scores = torch.where(
        known > 0, member.scores(rows, ages, values, kinds, user_features), torch.zeros_like(reachable)
    )
    centred = scores - (scores * reachable).sum(dim=1, keepdim=True) / count
    deviation = ((centred * centred * reachable).sum(dim=1, keepdim=True) / count).sqrt()
    standard = centred / deviation.clamp(min=SMALLEST_DEVIATION)
    lowest = (standard * reachable).amin(dim=1, keepdim=True)  # unreachable ones count as the mean, 0
    return torch.where(known > 0, standard, lowest)


def known_items(empty_bias: torch.Tensor) -> torch.Tensor:
    """1 for items with training events, else 0, float32 ``(I + 1,)``."""
    return (empty_bias > UNSEEN / 2).to(empty_bias.dtype)


def user_facts(rows: torch.Tensor, ages: torch.Tensor, n_items: int) -> torch.Tensor:
    """What a user's weights may depend on, float32 ``(B, USER_FACTS)``, from a padded history ``(B, L)``."""
    length = (rows != n_items).to(ages.dtype).sum(dim=1)
    return torch.stack([torch.log1p(length), torch.log1p(ages.amax(dim=1))], dim=1)
