"""Matrix factorisation as it is served: item vectors, and the user's vector solved from the history."""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch

from training.models.event_weights import EventWeighting
from training.models.recall_base import RecallModel
from training.models.turning import turned, turned_back

TURN = ("turn_left", "turn_right")
"""Names of the rotation's two sides."""

CG_STEPS = 5
"""Steps of conjugate gradients at request time; three already give the same lists as the exact solve."""
TINY = 1e-20
"""Keeps 0 / 0 of an empty or solved row at 0; a clamp, since the exporter removes an addition this small."""

Lengths = TypeVar("Lengths", np.ndarray, torch.Tensor)


def length_factor(lengths: Lengths, mean_length: float, power: float) -> Lengths:
    """``(length / mean_length)^-power``: with a power above 0, each event of a long history weighs less.

    Long histories hold most of the events while every user is asked for once; the factor lies between weighting
    events alike (0) and weighting users alike (1).

    Args:
        lengths: Events of each user, at least 1, any shape.
        mean_length: Mean over the training users.
        power: Not negative.
    """
    factor: Lengths = (lengths / mean_length) ** -power
    return factor


class MfRecall(RecallModel):
    """iALS with fold-in (Hu et al. 2008; Rendle et al. 2022).

    The user's vector minimises ``sum_l w_l (1 - x.y_l)^2 + a0 sum_i (x.y_i)^2 + reg (sum_l w_l + a0 I)^nu |x|^2``
    for the history's items ``l`` by preconditioned conjugate gradients from zero. Item vectors are stored in the
    basis where ``a0 Y'Y`` is diagonal, so that its product is elementwise and its inverse a free preconditioner.

    Args:
        item_vectors: float32 ``(I + 1, D)`` in the eigenbasis, last row zero.
        item_bias: float32 ``(I + 1,)``.
        empty_bias: float32 ``(I + 1,)``.
        spectrum: float32 ``(D,)``, the diagonal of ``a0 Y'Y``.
        weighting: How events are weighted.
        regularisation: ``reg``.
        frequency_power: ``nu``.
        all_items_mass: ``a0 I``.
        user_power: How much less each event of a long history weighs, see :func:`length_factor`.
        mean_length: Mean number of events of a training user.
        candidates: K.
        turn: Orthonormal ``(a, a)`` and ``(b, b)`` with ``a b = D``: item vectors are stored times their Kronecker
            product (see :mod:`training.models.turning`), which spreads a row's energy evenly over its columns. Users'
            vectors come turned as well, the solve happens in the eigenbasis.
    """

    kind: ClassVar[str] = "mf"
    spectrum: torch.Tensor
    turn_left: torch.Tensor
    turn_right: torch.Tensor

    def __init__(
        self,
        item_vectors: torch.Tensor,
        item_bias: torch.Tensor,
        empty_bias: torch.Tensor,
        spectrum: torch.Tensor,
        *,
        weighting: EventWeighting,
        regularisation: float,
        frequency_power: float,
        all_items_mass: float,
        user_power: float,
        mean_length: float,
        candidates: int,
        turn: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        super().__init__(item_vectors, item_bias, empty_bias, candidates)
        self.register_buffer("spectrum", spectrum.float().contiguous())
        self.is_turned = turn is not None
        if turn is not None:
            for name, side in zip(TURN, turn, strict=True):
                self.register_buffer(name, side.float().contiguous())
        self.weighting = weighting
        self.regularisation = regularisation
        self.frequency_power = frequency_power
        self.all_items_mass = all_items_mass
        self.user_power = user_power
        self.mean_length = mean_length

    def user_vectors(
        self, rows: torch.Tensor, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """See the base class; the exact minimiser up to ``CG_STEPS`` steps."""
        present = (rows != self.n_items).to(ages.dtype)
        weights = self.weighting.of_tensors(ages, values, kinds) * present  # (B, L)
        if self.user_power:
            lengths = torch.clamp(present.sum(dim=1, keepdim=True), min=1.0)  # (B, 1)
            weights = weights * length_factor(lengths, self.mean_length, self.user_power)
        vectors = self.rows_of("item_vectors", rows)  # (B, L, D), zero where padded
        if self.is_turned:
            vectors = turned_back(vectors, self.turn_left, self.turn_right)
        mass = weights.sum(dim=1, keepdim=True) + self.all_items_mass  # (B, 1)
        diagonal = self.spectrum + self.regularisation * mass**self.frequency_power  # (B, D)
        residual = (weights.unsqueeze(1) @ vectors).squeeze(1)  # (B, D)
        preconditioned = residual / diagonal
        direction = preconditioned
        energy = (residual * preconditioned).sum(dim=1, keepdim=True)
        solution = torch.zeros_like(residual)
        for _ in range(CG_STEPS):
            fit = (vectors @ direction.unsqueeze(2)).squeeze(2) * weights  # (B, L)
            product = diagonal * direction + (fit.unsqueeze(1) @ vectors).squeeze(1)
            step = energy / torch.clamp((direction * product).sum(dim=1, keepdim=True), min=TINY)
            solution = solution + step * direction
            residual = residual - step * product
            preconditioned = residual / diagonal
            previous, energy = energy, (residual * preconditioned).sum(dim=1, keepdim=True)
            direction = preconditioned + energy / torch.clamp(previous, min=TINY) * direction
        return turned(solution, self.turn_left, self.turn_right) if self.is_turned else solution

    def facts(self) -> dict[str, Any]:
        return {
            "weighting": self.weighting.as_facts(),
            "regularisation": self.regularisation,
            "frequency_power": self.frequency_power,
            "all_items_mass": self.all_items_mass,
            "user_power": self.user_power,
            "mean_length": self.mean_length,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> Self:
        return cls(
            tensors["item_vectors"],
            tensors["item_bias"],
            tensors["empty_bias"],
            tensors["spectrum"],
            weighting=EventWeighting.from_facts(facts["weighting"]),
            regularisation=facts["regularisation"],
            frequency_power=facts["frequency_power"],
            all_items_mass=facts["all_items_mass"],
            user_power=facts["user_power"],
            mean_length=facts["mean_length"],
            candidates=facts["candidates"],
            turn=(tensors[TURN[0]], tensors[TURN[1]]) if TURN[0] in tensors else None,
        )
