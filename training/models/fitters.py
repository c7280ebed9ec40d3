"""The recall models by name: how each is fitted."""

from __future__ import annotations

from typing import Protocol

from core.dataset import Dataset, Events
from core.errors import SettingsError
from core.progress import Progress
from core.settings import Settings
from training.models.gat import fit_gat
from training.models.mf import fit_mf
from training.models.recall_base import RecallModel


class Fitter(Protocol):
    """Fits one recall model on ``events``; see ``fit_mf``."""

    def __call__(
        self, dataset: Dataset, events: Events, settings: Settings, *, seed: int, progress: Progress
    ) -> RecallModel: ...


FITTERS: dict[str, Fitter] = {"mf": fit_mf, "gat": fit_gat}


def fitter(name: str) -> Fitter:
    """The fitter of the recall model called ``name``. Raises SettingsError where there is none."""
    if name not in FITTERS:
        raise SettingsError("unknown recall model", where="recall.sources", expected=" | ".join(FITTERS), found=name)
    return FITTERS[name]
