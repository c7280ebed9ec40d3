from __future__ import annotations

from core.progress import SILENT, Recorded


def test_recorded_keeps_the_curves_of_a_model_in_order() -> None:
    progress = Recorded(SILENT)
    for step, value in ((1, 3.0), (2, 2.123456789)):
        progress.record("mf loss", step, value)
    progress.record("ranker loss", 1, 9.0)
    assert progress.curves_of("mf") == {"mf loss": [(1, 3.0), (2, 2.12346)]}


def test_recorded_passes_everything_on() -> None:
    inner = Recorded(SILENT)
    Recorded(inner).record("gat loss", 1, 0.5)
    assert inner.curves_of("gat") == {"gat loss": [(1, 0.5)]}
