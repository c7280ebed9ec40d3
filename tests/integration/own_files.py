"""Own data as a user would bring it: CSV files, and an evaluator that shares no code with Conch."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class OwnFiles:
    """Paths of events, items and users tables."""

    events: Path
    items: Path
    users: Path

    def overrides(self, var: Path) -> list[str]:
        """The --set options that point Conch at these files."""
        return [
            "data.source=files",
            f'data.events="{self.events}"',
            f'data.items="{self.items}"',
            f'data.users="{self.users}"',
            f'paths.var="{var}"',
            "recall.candidates=40",
            "serving.max_k=30",
            "evaluate.ks=[5,10]",
        ]


def write_own_files(folder: Path, n_users: int = 150, n_items: int = 60, seed: int = 3) -> OwnFiles:
    """Users of four tastes like items of their taste; ids need quoting and leading zeros must survive."""
    rng = np.random.default_rng(seed)
    files = OwnFiles(folder / "events.csv", folder / "items.csv", folder / "users.csv")
    taste_of_user, taste_of_item = rng.integers(0, 4, n_users), rng.integers(0, 4, n_items)
    with files.events.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user_id", "item_id", "timestamp", "value"])
        rows = []
        for user in range(n_users):
            liking = np.where(taste_of_item == taste_of_user[user], 10.0, 1.0)
            count = int(rng.integers(5, 25))
            start = rng.uniform(0, 300)
            for item in rng.choice(n_items, count, replace=False, p=liking / liking.sum()):
                second = int(86_400 * (start + rng.uniform(0, 80)))
                rows.append([f"00{user}", item_name(int(item)), second, int(rng.integers(1, 6))])
        writer.writerows(rows)
    with files.items.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["item_id", "title", "kind", "tags"])
        writer.writerows([item_name(i), f"Title {i}", f"kind{taste_of_item[i]}", f"a|b{i % 3}"] for i in range(n_items))
    with files.users.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user_id", "age"])
        writer.writerows([f"00{u}", int(rng.integers(18, 70)) if u % 5 else ""] for u in range(n_users))
    return files


def item_name(row: int) -> str:
    """Ids with a comma, a quote and letters beyond ASCII."""
    return f'ïtem, "{row}"'


@dataclass(frozen=True)
class Truths:
    """What a split by time says: what each user has seen, and what came later."""

    seen: dict[str, set[str]]
    later: dict[str, set[str]]


def split_by_time(events: Path) -> Truths:
    """train and valid up to the 90 % quantile of time are seen; test items that were not seen are the truth."""
    with events.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    boundary = float(np.quantile([float(row["timestamp"]) for row in rows], 0.9))
    seen, later = defaultdict(set), defaultdict(set)
    for row in rows:
        (seen if float(row["timestamp"]) <= boundary else later)[row["user_id"]].add(row["item_id"])
    truth = {user: items - seen.get(user, set()) for user, items in later.items()}
    return Truths(dict(seen), {user: items for user, items in truth.items() if items})


def mean_ndcg(lists: dict[str, list[str]], truths: Truths, k: int) -> float:
    """NDCG over warm users, by walking the lists."""
    values = []
    for user, truth in truths.later.items():
        if user not in truths.seen:
            continue
        gain = sum(1 / math.log2(n + 2) for n, item in enumerate(lists.get(user, [])[:k]) if item in truth)
        values.append(gain / sum(1 / math.log2(n + 2) for n in range(min(k, len(truth)))))
    return sum(values) / len(values)


def read_lists(file: Path) -> dict[str, list[str]]:
    """Recommended items per user in rank order, from the CSV that `conch recommend --users` writes."""
    ranked: dict[str, dict[int, str]] = defaultdict(dict)
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            assert int(row["rank"]) not in ranked[row["user_id"]]
            ranked[row["user_id"]][int(row["rank"])] = row["item_id"]
    return {user: [items[rank] for rank in sorted(items)] for user, items in ranked.items()}
