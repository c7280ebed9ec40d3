"""The recall models of one fit, by source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from torch import Tensor

from core.dataset import Dataset, Events
from core.progress import Progress
from core.settings import Settings
from training.content.transfer import configured_start
from training.content.warm import warm_cold_items
from training.continuation import Continuation
from training.distributed.sharing import UNSHARED, Sharing
from training.models.fitters import SHARED, fitter
from training.models.recall_base import RecallModel

SIMILARITY = ("gat", "mf", "spectral")
"""Whose item vectors say how alike two items are, in order of preference."""


@dataclass(frozen=True)
class RecallSet:
    """All recall models of one fit.

    Attributes:
        models: By source, in the order of ``recall.sources``.
    """

    models: dict[str, RecallModel]

    @property
    def names(self) -> tuple[str, ...]:
        """The sources in order."""
        return tuple(self.models)

    @property
    def candidates(self) -> int:
        """K, the same for all."""
        return min(model.candidates for model in self.models.values())

    @property
    def item_vectors(self) -> Tensor:
        """``(I + 1, D)``, last row zero: the vectors by which the ranker compares items."""
        name = next((name for name in SIMILARITY if name in self.models), self.names[0])
        return self.models[name].similarity_vectors


def fit_recall_set(
    dataset: Dataset,
    events: Events,
    settings: Settings,
    seed: int,
    progress: Progress,
    sharing: Sharing = UNSHARED,
) -> RecallSet:
    """The models of ``settings.recall.sources``, all fitted on the same events, as they would be served.

    With ``content.enabled`` that means with vectors for their cold items: a ranker that never met such candidates
    would put them wherever their features happen to point. Workers share the work of those models that can be shared;
    the first one does the rest.
    """
    start = configured_start(settings.content)
    known = sha256(events.user_rows.tobytes() + events.item_rows.tobytes()).hexdigest()[:16]
    models = {}
    for name in settings.recall.sources:
        more: dict[str, Any] = {}
        if name in SHARED:
            checkpoints = sharing.part(f"{name}-{known}").checkpoints
            more = {"group": sharing.group, "continuation": Continuation(checkpoints=checkpoints)}
        fit: Any = partial(fitter(name), dataset, events, settings, seed=seed, progress=progress, **more)
        model = fit() if name in SHARED else sharing.group.agree(fit)
        warm = partial(warm_cold_items, model, dataset, events, settings, seed=seed, start=start, progress=progress)
        models[name] = sharing.group.agree(warm).model
    return RecallSet(models)
