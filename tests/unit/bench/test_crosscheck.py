from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.crosscheck import Agreement, check, write_events
from bench.scoring import per_user, question
from tests.unit.bench.test_scoring import unseen_lists
from tests.unit.bench.worlds import two_tastes

FIT = ("train", "valid")
EVALUATOR = """
import argparse, csv, json, math
p = argparse.ArgumentParser()
for name in ("events", "recommendations", "fit", "mask", "ks"):
    p.add_argument("--" + name)
a = p.parse_args()
fit, mask, seen, later, lists = set(), {}, {}, {}, {}
for row in csv.DictReader(open(a.events)):
    user, item, split = row["user_id"], row["item_id"], row["split"]
    if split in a.fit.split(","):
        fit.add(user)
    target = later if split == "test" else seen
    target.setdefault(user, set()).add(item)
for row in csv.DictReader(open(a.recommendations)):
    lists.setdefault(row["user_id"], []).append(row["item_id"])
out = {"warm": {"users": 0}, "all": {"users": 0}}
for user, truth in later.items():
    truth -= seen.get(user, set())
    for group in ("warm", "all") if user in fit else ("all",):
        out[group]["users"] += 1
        for k in map(int, a.ks.split(",")):
            hits = [item in truth for item in lists.get(user, [])[:k]]
            ideal = sum(1 / math.log2(n + 2) for n in range(min(k, len(truth))))
            gain = sum(hit / math.log2(n + 2) for n, hit in enumerate(hits)) / ideal
            for name, value in (("ndcg", gain), ("recall", sum(hits) / len(truth))):
                out[group][f"{name}@{k}"] = out[group].get(f"{name}@{k}", 0) + value
for values in out.values():
    for name in values:
        if name != "users":
            values[name] = values[name] / values["users"]BONUS
print(json.dumps(out))
"""


def agreement(folder: Path, bonus: str) -> Agreement:
    """Our scores of some lists beside those of another program."""
    data = two_tastes()
    asked = question(data, FIT, FIT, "test")
    lists = unseen_lists(asked)
    means = {
        group: {name: float(value.mean()) for name, value in values.items()}
        for group, values in per_user(asked, lists).items()
    }
    evaluator = folder / "evaluator.py"
    evaluator.write_text(EVALUATOR.replace("BONUS", bonus), encoding="utf-8")
    events = write_events(folder / "events.csv", data)
    return check(
        "made", lists, means, asked=asked, dataset=data, evaluator=evaluator, events=events, fit=FIT, mask=FIT,
        folder=folder,
    )  # fmt: skip


def test_another_programs_numbers_are_the_same(tmp_path: Path) -> None:
    assert agreement(tmp_path, "").agrees


def test_a_difference_in_the_fourth_decimal_is_found(tmp_path: Path) -> None:
    found = agreement(tmp_path, " + 1e-4")
    assert not found.agrees
    assert found.widest == pytest.approx(1e-4)


def test_an_evaluator_that_fails_does_not_agree(tmp_path: Path) -> None:
    found = agreement(tmp_path, " +")
    assert not found.agrees
    assert np.isnan(found.widest)
    assert "SyntaxError" in found.note
