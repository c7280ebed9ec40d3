"""The part of the page about training over clients who keep their events."""

from __future__ import annotations

import math
from typing import Any

from pipeline.report.figures import line_chart
from pipeline.report.parts import Part, Table


def federated_part(report: dict[str, Any]) -> Part:
    """Quality over rounds, and what privacy costs and brings; ``report`` is what `conch federate --study` wrote."""
    k, central, private = report["k"], report["central"], report["private"]
    lines = {
        run["name"]: [(at + 1.0, value) for at, value in enumerate(run["valid_over_rounds"])] for run in report["runs"]
    }
    lines["central"] = [(1.0, central["valid_ndcg"]), (float(report["runs"][0]["rounds"]), central["valid_ndcg"])]
    utility = {f"NDCG@{k}": [(math.log10(run["epsilon"]), run["ndcg"]) for run in private]}
    attack = {"AUC": [(math.log10(run["epsilon"]), run["membership"]["auc"]) for run in private]}
    rows = [["central", "", "", f"{central['ndcg']:.4f} ± {central['ndcg_se']:.4f}", "1.000",
             f"{central['membership']['auc']:.3f}"]]  # fmt: skip
    popular = report["popularity"]
    rows.append(["popularity alone", "", "", f"{popular['ndcg']:.4f} ± {popular['ndcg_se']:.4f}",
                 f"{popular['of_central']:.3f}", ""])  # fmt: skip
    without = f"{report['without_noise']['membership']['auc']:.3f}"
    for run in (*report["runs"], *private):
        attacked = f"{run['membership']['auc']:.3f}" if "membership" in run else ""
        rows.append([
            run["name"], f"{run['clients']} {run['partition']}", str(run["rounds"]),
            f"{run['ndcg']:.4f} ± {run['ndcg_se']:.4f}", f"{run['of_central']:.3f}",
            attacked or (without if run is report["runs"][0] else ""),
        ])  # fmt: skip
    return Part(
        "Federated training",
        "The mf model trained by Flower over clients who keep their users' events; the server sees sums by secure "
        "aggregation. First: quality on the valid split after each round. Then, by privacy budget (user-level epsilon, "
        "logarithm to base 10): quality on the test split, and the AUC of telling whose events were learned from, "
        "0.5 is blind.",
        (
            line_chart(lines, "round", f"NDCG@{k}, valid"),
            line_chart(utility, "log10 epsilon", f"NDCG@{k}, test"),
            line_chart(attack, "log10 epsilon", "membership AUC"),
        ),
        (Table(("training", "clients", "rounds", f"NDCG@{k}", "of central", "membership AUC"), rows),),
    )
