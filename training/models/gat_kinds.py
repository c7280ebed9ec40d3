"""How the graph model takes the kinds of events: as edges of different weight, and as targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.dataset import Dataset, Events
from core.errors import TrainingError
from core.kinds import UNKNOWN, check_kinds, kind_weights
from core.sections import EventSettings


@dataclass(frozen=True)
class GatKinds:
    """Weights by the code of the kind, each float64 ``(kinds,)``.

    Attributes:
        edge_weights: Of an event as an edge of the user-item graph, and the start of its attention.
        target_weights: Of an event as something to predict; 0 for kinds that are not asked for.
    """

    edge_weights: np.ndarray
    target_weights: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, events: Events, settings: EventSettings) -> GatKinds:
        """The weights that the settings describe.

        Raises:
            SettingsError: A kind that the data does not have.
            TrainingError: No event of the target kinds.
        """
        weights = kind_weights(dataset.kinds, settings.kind_weights)
        check_kinds(dataset.kinds, settings.target_kinds, "events.target_kinds")
        asked = np.array([(kind or UNKNOWN) in settings.target_kinds for kind in dataset.kinds])
        if not settings.target_kinds:
            asked[:] = True
        targets = np.where(asked, weights, 0.0)
        if not asked[events.kinds].any():
            raise TrainingError(
                "nothing to predict",
                where="events.target_kinds",
                expected=f"events of {', '.join(settings.target_kinds)} in the fitted splits",
                found="none",
            )
        return cls(weights, targets)
