"""The model ``rate`` on the real server: what it answers is what the release answers in process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import load_dataset
from core.settings import Settings
from serving.rate import LocalRater, RateClient
from serving.server import TritonServer


def test_triton_rates_as_the_release_in_process(smoke_settings: Settings, smoke_var: Path) -> None:
    release = latest_artifact(smoke_var, "release")
    dataset = load_dataset(parent_artifact(release, smoke_var, "dataset"))
    users = [*dataset.users.ids[:70], "nobody"]
    items = [[str(dataset.items.ids[(at + place) % 100]) for place in range(at % 5)] + ["nothing"] for at in range(71)]
    sessions = [[str(dataset.items.ids[at])] if at % 3 == 0 else [] for at in range(71)]
    with LocalRater(release.path) as rater:
        expected = rater.rate(users, items, sessions)
    with TritonServer(smoke_settings, free_ports=True) as server, RateClient(server.settings.serving) as client:
        served = client.rate(users, items, sessions)
        alone = [client.rate([users[at]], [items[at]], [sessions[at]])[0] for at in (0, 1, 70)]
    for answers, wanted in ((served, expected), (alone, [expected[at] for at in (0, 1, 70)])):
        for found, want in zip(answers, wanted, strict=True):
            assert (found.user_id, found.release) == (want.user_id, want.release)
            assert [(i.item_id, i.known) for i in found.items] == [(i.item_id, i.known) for i in want.items]
            for name in ("rating", "like_probability"):
                np.testing.assert_allclose(
                    [getattr(i, name) for i in found.items], [getattr(i, name) for i in want.items], atol=1e-4
                )
