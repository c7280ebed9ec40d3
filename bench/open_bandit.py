"""The gate's off-policy estimates on logs of a real shop, where both policies ran side by side.

    .venv/bin/python -m bench.open_bandit --folder open-bandit

Open Bandit Dataset, small version (Saito et al. 2020, arXiv 2008.07146): campaigns men and women, each with logs of a
uniformly random policy and of Thompson sampling. From the logs of one policy the other one's click rate is estimated;
its own logs say what it really was. Thompson sampling there looks at no context: its probability of an item at a
position is the mean propensity in its own logs. DR and DM use the click rate by item and position, fitted on the other
half of the logs.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.csv as pa_csv
import typer

from bench.machine import measured_commit, shown, this_machine
from core.artifacts import write_json
from feedback.estimates import LoggedChoices, Support, judge
from pipeline.cli import guarded

CAMPAIGNS, POLICIES = ("men", "women"), ("random", "bts")
PRIOR_CLICKS, PRIOR_SHOWN = 1.0, 200.0
"""Of an item at a position, before any was shown: clicks are rare."""
SUPPORT = Support(least_choices=1_000, effective_share=0.1, overlap=0.8, largest_weight_share=0.05)

app = typer.Typer(add_completion=False)


def read_log(file: Path) -> dict[str, np.ndarray]:
    """Columns item, place, click, propensity and user (rows of equal features are one user)."""
    table = pa_csv.read_csv(file)
    features = [table[f"user_feature_{number}"].to_pylist() for number in range(4)]
    users = np.unique(np.array(["/".join(row) for row in zip(*features, strict=True)]), return_inverse=True)[1]
    return {
        "item": table["item_id"].to_numpy(),
        "place": table["position"].to_numpy() - 1,
        "click": table["click"].to_numpy().astype(np.float64),
        "propensity": table["propensity_score"].to_numpy(),
        "user": users,
    }


def policy_table(log: dict[str, np.ndarray], items: int, places: int) -> np.ndarray:
    """Probability of an item at a position ``(I, P)``: mean propensity of its own log; unseen pairs share the rest."""
    total, count = np.zeros((items, places)), np.zeros((items, places))
    np.add.at(total, (log["item"], log["place"]), log["propensity"])
    np.add.at(count, (log["item"], log["place"]), 1)
    table = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    left, unseen = np.maximum(1 - table.sum(0), 0), (count == 0).sum(0)
    table += np.where(count == 0, np.divide(left, np.maximum(unseen, 1)), 0)
    return table / table.sum(0)


def click_table(log: dict[str, np.ndarray], rows: np.ndarray, items: int, places: int) -> np.ndarray:
    """Click rate of an item at a position ``(I, P)``, shrunk."""
    clicks, count = np.full((items, places), PRIOR_CLICKS), np.full((items, places), PRIOR_SHOWN)
    np.add.at(clicks, (log["item"][rows], log["place"][rows]), log["click"][rows])
    np.add.at(count, (log["item"][rows], log["place"][rows]), 1)
    return clicks / count


def estimate(logged: dict[str, np.ndarray], other: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """The other policy minus the logging one: estimated from the logs of the latter, and what it really was."""
    items = int(max(logged["item"].max(), other["item"].max())) + 1
    places = int(max(logged["place"].max(), other["place"].max())) + 1
    own, theirs = policy_table(logged, items, places), policy_table(other, items, places)
    rng = np.random.default_rng(seed)
    half = rng.random(len(logged["item"])) < 0.5
    predicted, own_value, their_value = np.zeros(len(half)), np.zeros(len(half)), np.zeros(len(half))
    for part in (half, ~half):
        clicks = click_table(logged, np.flatnonzero(~part), items, places)
        at = logged["place"][part]
        predicted[part] = clicks[logged["item"][part], at]
        own_value[part], their_value[part] = (own * clicks).sum(0)[at], (theirs * clicks).sum(0)[at]
    chosen = logged["item"], logged["place"]
    choices = LoggedChoices(
        users=logged["user"], rewards=logged["click"], logged=logged["propensity"], champion=logged["propensity"],
        challenger=theirs[chosen], supported=np.ones(len(half)), predicted=predicted, champion_value=own_value,
        challenger_value=their_value,
    )  # fmt: skip
    found = judge(choices, SUPPORT, margin=0.002, rng=rng, by_champion=np.ones(len(half), dtype=bool))
    truth = float(other["click"].mean() - logged["click"].mean())
    error = float(np.sqrt(other["click"].var() / len(other["click"]) + logged["click"].var() / len(logged["click"])))
    return {
        "truth": truth,
        "truth_standard_error": error,
        "snips": asdict(found.snips) if found.snips else None,
        "doubly_robust": asdict(found.doubly_robust) if found.doubly_robust else None,
        "direct": asdict(found.direct) if found.direct else None,
        "holds truth": {
            name: bool(one.low - 1.96 * error <= truth <= one.high + 1.96 * error)
            for name, one in (("snips", found.snips), ("doubly_robust", found.doubly_robust))
            if one is not None
        },
        "mean_weight": asdict(found.mean_weight) if found.mean_weight else None,
        "effective_size": found.effective_size,
        "choices": found.choices,
        "verdict": found.verdict,
        "reason": found.reason,
    }


@app.command()
def open_bandit(
    folder: Annotated[Path, typer.Option(help="With {random,bts}_{men,women}.csv.gz.")],
    out: Annotated[Path, typer.Option(help="Result file.")] = Path("bench/results/open-bandit.json"),
) -> None:
    """Estimate in both directions on both campaigns."""
    rows = []
    for campaign in CAMPAIGNS:
        logs = {policy: read_log(folder / f"{policy}_{campaign}.csv.gz") for policy in POLICIES}
        for logging, other in (POLICIES, POLICIES[::-1]):
            found = estimate(logs[logging], logs[other], seed=0)
            rows.append({"name": f"{campaign}, logs of {logging}: {other} minus {logging}"} | found)
            typer.echo(f"{rows[-1]['name']}: truth {found['truth']:+.5f} ± {found['truth_standard_error']:.5f}, "
                       f"SNIPS {found['snips']}, DR {found['doubly_robust']}, {found['verdict']}")  # fmt: skip
    write_json(
        out,
        {
            "command": shlex.join(["python", "-m", "bench.open_bandit", *shown(sys.argv[1:])]),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": asdict(this_machine()),
            "commit": measured_commit(),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    sys.exit(guarded(app))
