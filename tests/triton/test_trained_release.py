"""The trained chain behind the real server: what Triton answers is what the offline pipeline computes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.settings import ROOT, Settings, change_settings
from pipeline.loop.challenger import as_live
from serving.client import ConchClient, Recommendation
from serving.local import LocalPipeline
from serving.server import TritonServer

N_USERS = 100
K = 20


@pytest.fixture(scope="module", params=["as trained", "compressed"])
def served(request: pytest.FixtureRequest, smoke_settings: Settings, smoke_var: Path) -> Settings:
    """Settings whose live release serves the models as trained, and compressed: both keep the same promises."""
    settings: Settings = (
        smoke_settings if request.param == "as trained" else request.getfixturevalue("compressed_settings")
    )
    return settings


@pytest.fixture(scope="module")
def var(served: Settings) -> Path:
    return served.paths.var


@pytest.fixture(scope="module")
def client(served: Settings) -> Iterator[ConchClient]:
    with TritonServer(served, free_ports=True) as server, server.client() as client:
        yield client


@pytest.fixture(scope="module")
def dataset(var: Path) -> Dataset:
    return load_dataset(parent_artifact(latest_artifact(var, "release"), var, "dataset"))


@pytest.fixture(scope="module")
def users(dataset: Dataset) -> list[str]:
    """Known users of every history length, and one that nobody knows."""
    rows = np.linspace(0, dataset.n_users - 1, N_USERS - 1).astype(int)
    return [*dataset.users.ids[rows], "nobody"]


@pytest.fixture(scope="module")
def offline(var: Path, users: list[str]) -> list[Recommendation]:
    with LocalPipeline(latest_artifact(var, "release").path, threads=1) as pipeline:
        return pipeline.recommend(users, k=K)


def assert_same(served: list[Recommendation], expected: list[Recommendation]) -> None:
    for ours, theirs in zip(served, expected, strict=True):
        assert ours.user_id == theirs.user_id
        a, b = ({item.item_id: item.score for item in answer.items} for answer in (ours, theirs))
        scores = [[item.score for item in answer.items] for answer in (ours, theirs)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-4, rtol=1e-4)
        for item_id in a.keys() ^ b.keys():  # only an item that ties with the last place may differ
            assert (a | b)[item_id] == pytest.approx(scores[1][-1], abs=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_triton_answers_as_the_offline_pipeline_does(
    batch: int, client: ConchClient, users: list[str], offline: list[Recommendation]
) -> None:
    answers = [
        answer for start in range(0, N_USERS, batch) for answer in client.recommend(users[start : start + batch], k=K)
    ]
    assert_same(answers, offline)


def test_every_response_carries_the_release(client: ConchClient, users: list[str], var: Path) -> None:
    release = latest_artifact(var, "release").manifest.tensors["release_id"]
    assert {answer.release for answer in client.recommend(users, k=3)} == {release}


def test_no_seen_item_comes_back_and_none_twice(client: ConchClient, users: list[str], dataset: Dataset) -> None:
    histories = dataset.histories(("train", "valid"))
    for answer in client.recommend(users, k=K):
        items = [item.item_id for item in answer.items]
        row = dataset.users.row(answer.user_id)
        seen = set() if row is None else set(dataset.items.ids[histories.of(row).item_rows])
        assert len(items) == len(set(items)) == K
        assert not seen & set(items)


def test_reasons_are_the_users_own_items(client: ConchClient, users: list[str], dataset: Dataset) -> None:
    histories = dataset.histories(("train", "valid"))
    explained = 0
    for answer in client.recommend(users, k=5):
        row = dataset.users.row(answer.user_id)
        seen = set() if row is None else set(dataset.items.ids[histories.of(row).item_rows])
        reasons = [reason for item in answer.items for reason in item.reasons]
        assert {reason.item_id for reason in reasons} <= seen
        assert all(0 < reason.share <= 1 for reason in reasons)
        explained += bool(reasons)
    assert explained >= N_USERS / 2


def test_a_session_item_changes_the_next_answer(client: ConchClient, dataset: Dataset) -> None:
    liked = str(dataset.items.ids[-1])
    before = client.recommend(["nobody"], k=K)[0]
    after = client.recommend(["nobody"], k=K, session_items=[[liked]])[0]
    assert [item.item_id for item in after.items] != [item.item_id for item in before.items]
    assert liked not in {item.item_id for item in after.items}


def test_attributes_of_a_new_user_travel_with_the_request(client: ConchClient, dataset: Dataset, var: Path) -> None:
    given = {entry.column.name: entry.values[0] for entry in dataset.user_codebook.columns if entry.values}
    attributes = [{**given, "a name that no release knows": "x"}, {}]
    with LocalPipeline(latest_artifact(var, "release").path, threads=1) as pipeline:
        expected = pipeline.recommend(["nobody", "nobody"], k=K, attributes=attributes)
    assert_same(client.recommend(["nobody", "nobody"], k=K, attributes=attributes), expected)


def test_demo_shows_three_users_and_leaves_no_server(tmp_path: Path) -> None:
    program = "from pipeline.cli import main; main()"
    smoke = ROOT / "config" / "smoke.toml"
    arguments = ["demo", "--config", str(smoke), "--set", f'paths.var="{tmp_path}"']
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("past items") == 3
    assert "Triton is stopped" in done.stderr
    assert not any(str(tmp_path) in line for line in running_commands())


def running_commands() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # ended meanwhile
            continue
    return found


def test_similar_ones_of_the_trained_release_equal_the_offline_pipeline(
    client: ConchClient, dataset: Dataset, users: list[str], var: Path
) -> None:
    items = list(dataset.items.ids[:40])
    with LocalPipeline(latest_artifact(var, "release").path, threads=1) as pipeline:
        by_item, by_user = pipeline.similar_items(items, k=5), pipeline.similar_users(users, k=5)
    for ours, theirs in zip(client.similar_items(items, k=5), by_item, strict=True):
        np.testing.assert_allclose([i.score for i in ours.items], [i.score for i in theirs.items], atol=1e-4)
        assert ours.items[:1] == () or ours.items[0].reasons[0].item_id == ours.asked[0]
    for one, other in zip(client.similar_users(users, k=5), by_user, strict=True):
        np.testing.assert_allclose([u.score for u in one.users], [u.score for u in other.users], atol=1e-4)


def test_challenger_of_a_compressed_release_is_compressed_under_its_goal(
    compressed_settings: Settings, smoke_settings: Settings
) -> None:
    var = compressed_settings.paths.var
    plain = change_settings(smoke_settings, {"paths.var": var})
    champion = latest_artifact(var, "release")
    chosen = as_live(plain, champion)
    assert (chosen.compress.enabled, chosen.compress.goal) == (True, compressed_settings.compress.goal)
    assert as_live(plain, None) == plain
    off = change_settings(plain, {"retrain.keep_compressed": False})
    assert as_live(off, champion) == off


def test_challenger_of_a_plain_release_stays_plain(smoke_settings: Settings, smoke_var: Path) -> None:
    assert as_live(smoke_settings, latest_artifact(smoke_var, "release")) == smoke_settings


def test_compressed_release_has_smaller_graphs(smoke_var: Path, compressed_settings: Settings) -> None:
    def graph_bytes(var: Path) -> dict[str, int]:
        files = (latest_artifact(var, "release").path / "repository").glob("*/*/model.onnx")
        return {file.parent.parent.name: file.stat().st_size for file in files}

    plain, compressed = graph_bytes(smoke_var), graph_bytes(compressed_settings.paths.var)
    assert plain.keys() == compressed.keys()
    # Not recall_gat: what unpacks its tables outweighs the vectors of so few items.
    assert all(compressed[step] < plain[step] for step in ("recall_mf", "rank"))
