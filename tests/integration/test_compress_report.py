"""The report of a compression: what was chosen is measured as it is served, and told on both pages."""

from __future__ import annotations

import json

from core.artifacts import latest_artifact
from core.settings import Settings
from pipeline.compressing.stage import REPORT


def test_chosen_models_are_measured_as_they_are_served(compressed_settings: Settings) -> None:
    folder = latest_artifact(compressed_settings.paths.var, "compressed").path
    report = json.loads((folder / REPORT).read_text())
    served = report["served"]
    assert list(served) == ["recall_mf", "recall_gat", "rank"]
    for step, one in served.items():
        assert sum(one["compressed"]["tensors"].values()) < one["compressed"]["file_bytes"], step
        assert one["compressed"]["operators"] != one["fp32"]["operators"], step
        assert max(one["worst"].values()) < 1e-2, step
        assert [at["batch"] for at in one["speed"]] == [1, 8, 32, 64]
        assert all(0 < at["low"] <= at["faster"] <= at["high"] for at in one["speed"])
    assert {"uint8", "int8"} & served["recall_mf"]["compressed"]["tensors"].keys()
    for page in ("report.md", "report.html"):
        text = (folder / page).read_text()
        assert "As served: files and memory" in text
        assert "As served: speed" in text
