"""How much one event says about its user: by its value, its age, and whether the user had come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from core.histories import SECONDS_PER_DAY, Histories
from core.sections import EventWeightSettings


@dataclass(frozen=True)
class EventWeighting:
    """Weight of an event, the same in training (numpy) and in the served graph (torch).

    ``scale * max(1 + value_slope * value, least) * decay_days / (decay_days + age)``, times the weight of the event's
    kind, times ``return_boost`` where the user had returned.

    ``returned``: the event came more than ``return_after_days`` after the user's first one. Most events of a rating
    site fall into the first hour of a user, while recommendations are asked for by users who come back.

    Attributes:
        value_slope: Gain per standard deviation of the value.
        least: Floor of the value's factor, so that no weight is negative.
        decay_days: Age at which an event counts half; 0 for no decay.
        return_after_days: See above.
        return_boost: See above.
        scale: Makes the mean weight of the training events 1.
        kinds: Weight of each kind of event by code; empty where all count alike.
    """

    value_slope: float
    least: float
    decay_days: float
    return_after_days: float
    return_boost: float
    scale: float = 1.0
    kinds: tuple[float, ...] = ()

    @classmethod
    def from_settings(cls, settings: EventWeightSettings, kinds: Sequence[float] | np.ndarray = ()) -> EventWeighting:
        """The unscaled weighting that the settings describe.

        Args:
            settings: The section of the model.
            kinds: Weight of each kind by code, see :func:`core.kinds.kind_weights`.
        """
        weights = tuple(float(weight) for weight in kinds)
        return cls(
            settings.value_slope,
            settings.least_value_weight,
            settings.decay_days,
            settings.return_after_days,
            settings.return_boost,
            kinds=() if all(weight == 1 for weight in weights) else weights,
        )

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> EventWeighting:
        """The weighting that :meth:`as_facts` was taken from, JSON in between or not."""
        return cls(**{**facts, "kinds": tuple(facts["kinds"])})

    def scaled_to(self, histories: Histories) -> EventWeighting:
        """The same weighting with mean 1 over all events of ``histories``."""
        mean = float(self.of_histories(histories).mean(dtype=np.float64))
        return replace(self, scale=self.scale / mean)

    def of_histories(self, histories: Histories) -> np.ndarray:
        """Weights of all events of ``histories``, float32 ``(events,)``."""
        lengths = histories.lengths
        filled = np.flatnonzero(lengths)
        newest = np.repeat(histories.timestamps[histories.starts[filled]], lengths[filled])
        oldest = np.repeat(histories.timestamps[histories.starts[filled + 1] - 1], lengths[filled])
        ages = (newest - histories.timestamps) / SECONDS_PER_DAY
        since_first = (histories.timestamps - oldest) / SECONDS_PER_DAY
        return self.of_arrays(ages, histories.values, since_first, histories.kinds)

    def of_arrays(self, ages: np.ndarray, values: np.ndarray, since_first: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        """Weights float32, same shape as each argument; ages in days before the user's newest event,
        ``since_first`` in days after the user's first event."""
        weights = self.scale * np.maximum(1 + self.value_slope * values, self.least)
        if self.decay_days:
            weights = weights * (self.decay_days / (self.decay_days + ages))
        if self.kinds:
            weights = weights * np.array(self.kinds)[kinds]
        boost = np.where(since_first > self.return_after_days, self.return_boost, 1.0)
        return (weights * boost).astype(np.float32)

    def of_tensors(self, ages: torch.Tensor, values: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        """Weights float32 ``(B, L)`` of padded histories ``(B, L)``; what padding gets means nothing.

        The user's first event is the oldest one in the history.
        """
        since_first = ages.amax(dim=1, keepdim=True) - ages
        weights = self.scale * torch.clamp(1 + self.value_slope * values, min=self.least)
        if self.decay_days:
            weights = weights * (self.decay_days / (self.decay_days + ages))
        if self.kinds:
            table = torch.tensor(self.kinds, dtype=ages.dtype, device=ages.device)
            weights = weights * F.embedding(kinds, table[:, None]).squeeze(-1)
        returned = (since_first > self.return_after_days).to(ages.dtype)
        return weights * (1 + (self.return_boost - 1) * returned)

    def as_facts(self) -> dict[str, Any]:
        """JSON-able form; :meth:`from_facts` restores it."""
        return asdict(self)
