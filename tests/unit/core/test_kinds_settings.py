"""Weights of kinds in settings: how they are given and refused."""

from __future__ import annotations

import pytest

from core.errors import SettingsError
from core.settings import load_settings


def test_kind_weights_come_one_by_one_or_as_a_table() -> None:
    table = load_settings((), ["events.kind_weights={purchase = 5.0, click = 0.5}"])
    single = load_settings((), ["events.kind_weights.purchase=5", "events.kind_weights.click=0.5"])
    assert table == single
    assert table.events.kind_weights == {"purchase": 5.0, "click": 0.5}


def test_kind_weights_must_be_positive() -> None:
    with pytest.raises(SettingsError, match=r"events\.kind_weights\.click"):
        load_settings((), ["events.kind_weights.click=0"])
