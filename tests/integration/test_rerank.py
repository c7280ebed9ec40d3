"""Variety, rules and similar ones on a trained release: what the settings say is what the lists hold."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.errors import SettingsError
from core.sections import PathSettings, RerankSettings
from core.settings import Settings
from pipeline.cli import main
from pipeline.measure import evaluate
from pipeline.release import assemble_release
from pipeline.tradeoff import measure_tradeoff, read_strengths
from serving.local import LocalPipeline

RULES = """
[[exclude]]
items = ["{excluded}"]
[[cap]]
attribute = "genres"
at_most = 2
[[boost]]
items = ["{boosted}"]
by = 10
"""


@pytest.fixture(scope="module")
def dataset(smoke_var: Path) -> Dataset:
    return load_dataset(parent_artifact(latest_artifact(smoke_var, "release"), smoke_var, "dataset"))


@pytest.fixture(scope="module")
def tags(smoke_var: Path) -> dict[str, set[str]]:
    """Tags of each item, as the items table has them."""
    data = parent_artifact(latest_artifact(smoke_var, "release"), smoke_var, "dataset")
    table = pq.read_table(data.file("items.parquet"))
    cells = table["genres"].to_pylist()
    return {i: set((cell or "").split("|")) - {""} for i, cell in zip(table["item_id"].to_pylist(), cells, strict=True)}


@pytest.fixture(scope="module")
def curves(smoke_var: Path, dataset: Dataset) -> dict[str, Any]:
    with LocalPipeline(latest_artifact(smoke_var, "release").path, threads=1) as pipeline:
        return measure_tradeoff(
            pipeline, dataset, fit=("train", "valid"), split="test", target="any", k=10, strengths=(0.0, 0.3, 1.0)
        )


def with_rules(settings: Settings, smoke_var: Path, folder: Path, text: str) -> Path:
    """The newest graphs of a copy of ``var``, released again under the rules."""
    shutil.copytree(smoke_var / "artifacts", folder / "var" / "artifacts")
    (folder / "rules.toml").write_text(text, encoding="utf-8")
    changed = {"paths": PathSettings(var=folder / "var"), "rerank": RerankSettings(rules=folder / "rules.toml")}
    return assemble_release(settings.model_copy(update=changed)).path


def test_rules_hold_in_every_list(
    smoke_settings: Settings, smoke_var: Path, dataset: Dataset, tags: dict[str, set[str]], tmp_path: Path
) -> None:
    users = list(dataset.users.ids)
    with LocalPipeline(latest_artifact(smoke_var, "release").path, threads=1) as pipeline:
        before = pipeline.recommend(users, k=10)
    shown = Counter(item.item_id for answer in before for item in answer.items)
    (excluded, _), (boosted, _) = shown.most_common(2)
    assert any(max(Counter(t for i in a.items for t in tags[i.item_id]).values()) > 2 for a in before)

    path = with_rules(smoke_settings, smoke_var, tmp_path, RULES.format(excluded=excluded, boosted=boosted))
    with LocalPipeline(path, threads=1) as pipeline:
        for diversity in (0.0, 0.5):
            for answer in pipeline.recommend(users, k=10, diversity=diversity):
                names = [item.item_id for item in answer.items]
                assert excluded not in names
                assert len(set(names)) == len(names)
                assert max(Counter(tag for name in names for tag in tags[name]).values(), default=0) <= 2
        after = pipeline.recommend(users, k=10)
    assert sum(a.items[0].item_id == boosted for a in after if a.items) > sum(
        b.items[0].item_id == boosted for b in before if b.items
    )


def test_a_rule_about_an_unknown_item_stops_the_release(
    smoke_settings: Settings, smoke_var: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="unknown item"):
        with_rules(smoke_settings, smoke_var, tmp_path, '[[exclude]]\nitems = ["no such item"]')
    assert len(list((tmp_path / "var" / "artifacts" / "release").glob("[0-9]*"))) == 1


def test_diversity_zero_measures_as_the_pipeline_does(
    smoke_var: Path, dataset: Dataset, curves: dict[str, Any]
) -> None:
    with LocalPipeline(latest_artifact(smoke_var, "release").path, threads=1) as pipeline:
        report = evaluate(pipeline, dataset, fit=("train", "valid"), ks=(10,))
    for method in ("mmr", "dpp"):
        first = curves["curves"][method][0]
        assert first["ndcg@10"] == pytest.approx(report["models"]["pipeline"]["warm"]["ndcg@10"])
        assert first["ndcg@10_change"] == 0
        assert first["recall@10"] == pytest.approx(report["models"]["pipeline"]["warm"]["recall@10"])


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_lists_grow_more_varied_with_the_knob(curves: dict[str, Any], method: str) -> None:
    values = [entry["vector_diversity"] for entry in curves["curves"][method]]
    assert values[0] < values[1] < values[2]
    coverage = [entry["coverage"] for entry in curves["curves"][method]]
    assert coverage[2] > coverage[0]


@pytest.mark.parametrize("text", ["", "0,2", "a", "-0.1", "nan", "0;1"])
def test_strengths_that_are_no_numbers_from_0_to_1_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--diversity"):
        read_strengths(text)


def test_similar_items_share_tags_more_often_than_chance(
    smoke_var: Path, dataset: Dataset, tags: dict[str, set[str]]
) -> None:
    known = np.bincount(dataset.events.of_splits(("train", "valid")).item_rows, minlength=dataset.n_items) >= 20
    asked = list(dataset.items.ids[known])
    with LocalPipeline(latest_artifact(smoke_var, "release").path, threads=1) as pipeline:
        answers = pipeline.similar_items(asked, k=5)
    near = np.mean([bool(tags[a.asked[0]] & tags[item.item_id]) for a in answers for item in a.items])
    chance = np.mean([bool(tags[a] & tags[b]) for a in asked for b in asked if a != b])
    assert near > 1.5 * chance


def test_similar_users_like_the_same_items_more_often_than_chance(smoke_var: Path, dataset: Dataset) -> None:
    histories = dataset.histories(("train", "valid"))
    seen = [set(history.item_rows.tolist()) for history in histories]
    asked = [user for user in range(dataset.n_users) if len(seen[user]) >= 10]
    with LocalPipeline(latest_artifact(smoke_var, "release").path, threads=1) as pipeline:
        answers = pipeline.similar_users([str(dataset.users.ids[user]) for user in asked], k=5)

    def shared(one: int, other: int) -> float:
        return len(seen[one] & seen[other]) / len(seen[one] | seen[other])

    near = [
        shared(u, int(dataset.users.row(n.user_id) or 0)) for u, a in zip(asked, answers, strict=True) for n in a.users
    ]
    chance = [shared(one, other) for one in asked[:100] for other in asked if one != other]
    assert np.mean(near) > 1.3 * np.mean(chance)


def conch(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    told = capsys.readouterr()
    return int(stopped.value.code or 0), told.out + told.err


def test_commands_show_similar_ones_with_titles(
    smoke_var: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = ("--set", f'paths.var="{smoke_var}"')
    item, user = str(dataset.items.ids[0]), str(dataset.users.ids[0])
    code, told = conch(capsys, "similar", "item", item, "--k", "3", *setting)
    assert code == 0
    assert f"Like {dataset.titles[0]}" in told
    code, told = conch(capsys, "similar", "user", user, "--k", "3", *setting)
    assert code == 0
    assert f"Like user {user}" in told
    code, told = conch(capsys, "similar", "item", "no such item", *setting)
    assert code == 2
    assert "no such item" in told


def test_evaluate_writes_the_curves(
    smoke_var: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], curves: dict[str, Any]
) -> None:
    out = tmp_path / "diversity.json"
    options = ("--json", str(out), "--set", f'paths.var="{smoke_var}"', "--set", "evaluate.ks=[10]")
    code, told = conch(capsys, "evaluate", "--diversity", "0,0.3,1", *options)
    assert code == 0, told
    assert json.loads(out.read_text())["curves"] == curves["curves"]


def test_recommend_takes_the_knob_and_refuses_what_is_none(
    smoke_var: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = tmp_path / "users.txt"
    users.write_text("\n".join(dataset.users.ids[:50]), encoding="utf-8")
    lists = []
    for knob in ((), ("--diversity", "0"), ("--diversity", "0.8")):
        out = tmp_path / "out.csv"
        code, told = conch(
            capsys, "recommend", "--users", str(users), "--out", str(out), *knob, "--set", f'paths.var="{smoke_var}"'
        )
        assert code == 0, told
        lists.append(out.read_text())
    assert lists[0] == lists[1] != lists[2]
    code, told = conch(capsys, "recommend", "u1", "--diversity", "nan", "--set", f'paths.var="{smoke_var}"')
    assert code == 2
    assert "diversity is out of range" in told
