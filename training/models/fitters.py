"""The recall models by name: how each is fitted."""

from __future__ import annotations

from functools import partial

from core.errors import SettingsError
from training.combine.fit import fit_mix
from training.models.ease import fit_ease
from training.models.gat import fit_gat
from training.models.mf import fit_mf
from training.models.recall_base import Fitter
from training.models.spectral import fit_spectral

MEMBERS: dict[str, Fitter] = {"mf": fit_mf, "gat": fit_gat, "spectral": fit_spectral, "ease": fit_ease}
"""What a mix can hold."""
FITTERS: dict[str, Fitter] = {**MEMBERS, "mix": partial(fit_mix, fitters=MEMBERS)}

SHARED = ("mf", "gat")
"""Those that workers can fit together: they take a ``group`` and a ``continuation``. The others are closed forms."""


def fitter(name: str) -> Fitter:
    """The fitter of the recall model called ``name``. Raises SettingsError where there is none."""
    if name not in FITTERS:
        raise SettingsError("unknown recall model", where="recall.sources", expected=" | ".join(FITTERS), found=name)
    return FITTERS[name]
