"""Other recall sources behind the real server: one step each, the same answers as in process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import load_dataset
from core.settings import Settings
from serving.local import LocalPipeline
from serving.server import TritonServer


def test_triton_answers_with_linear_sources_as_the_offline_pipeline_does(
    linear_settings: Settings, linear_var: Path
) -> None:
    release = latest_artifact(linear_var, "release")
    dataset = load_dataset(parent_artifact(release, linear_var, "dataset"))
    users = [*dataset.users.ids[np.linspace(0, dataset.n_users - 1, 30).astype(int)], "nobody"]
    with LocalPipeline(release.path, threads=1) as pipeline:
        expected = pipeline.recommend(users, k=10)
    with TritonServer(linear_settings, free_ports=True) as server, server.client() as client:
        served = client.recommend(users, k=10)
    for ours, theirs in zip(served, expected, strict=True):
        assert ours.release == release.manifest.tensors["release_id"]
        assert [item.score for item in ours.items] == pytest.approx([i.score for i in theirs.items], abs=1e-4, rel=1e-4)
        assert len({item.item_id for item in ours.items} & {item.item_id for item in theirs.items}) >= 9
