"""The report's part about federated training, of the committed study."""

from __future__ import annotations

import json

from core.sections import FederatedSettings
from core.settings import ROOT
from pipeline.report.federated import federated_part


def test_part_shows_rounds_budgets_and_attacks_of_the_study() -> None:
    study = json.loads((ROOT / "bench" / "results" / "federated-ml-100k.json").read_text(encoding="utf-8"))
    part = federated_part(study)
    assert [figure.count("<svg") for figure in part.figures] == [1, 1, 1]
    rows = {row[0]: row for row in part.tables[0].rows}
    assert list(rows) == ["central", "popularity alone", *(run["name"] for run in (*study["runs"], *study["private"]))]
    assert all(len(row) == len(part.tables[0].header) for row in rows.values())
    assert rows["epsilon 10"][-1] == f"{study['private'][2]['membership']['auc']:.3f}"


def test_even_clients_with_the_default_strategy_reach_95_percent_of_central() -> None:
    study = json.loads((ROOT / "bench" / "results" / "federated-ml-100k.json").read_text(encoding="utf-8"))
    even = next(run for run in study["runs"] if run["strategy"] == FederatedSettings().strategy)
    assert (even["clients"], even["partition"], even["secure_aggregation"]) == (10, "even", True)
    assert even["ndcg"] >= 0.95 * study["central"]["ndcg"]
