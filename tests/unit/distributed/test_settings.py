"""Settings of training by workers that contradict each other are refused."""

from __future__ import annotations

import pytest

from core.errors import SettingsError
from core.settings import load_settings


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("train.workers=0",), "greater than or equal to 1"),
        (("train.workers=2", "train.backend=nccl"), "needs train.device=cuda"),
        (("train.synchronisation=periodic",), "needs train.workers above 1"),
        (("train.accumulate=0",), "greater than or equal to 1"),
    ],
)
def test_contradicting_settings_are_refused(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings((), overrides)
