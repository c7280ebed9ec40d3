"""`conch demo`: the shortest way to see everything work."""

from __future__ import annotations

import numpy as np
from rich.console import Console

from core.artifacts import latest_artifact, parent_artifact
from core.dataset import Dataset, load_dataset
from core.errors import CompressionError
from core.settings import Settings, change_settings
from pipeline.console import Terminal
from pipeline.recommend import show
from pipeline.stages import run_stages
from serving.server import TritonServer

USERS_SHOWN = 3
ITEMS_SHOWN = 10
WARM_UP_REQUESTS = 5
GOAL = "safe"
"""MovieLens-100K has 81 users to judge by: the tighter goals ask for an overlap that so few cannot show."""


def run_demo(settings: Settings, terminal: Terminal) -> None:
    """Trains, compresses, exports, releases, starts Triton on free ports, asks for three users, stops Triton."""
    _make_release(settings, terminal)
    release = latest_artifact(settings.paths.var, "release")
    dataset = load_dataset(parent_artifact(release, settings.paths.var, "dataset"))
    fit = tuple(release.manifest.tensors["fit"])
    users = users_to_show(dataset, fit)
    with TritonServer(settings, free_ports=True) as server, server.client() as client:
        terminal.say(f"serve: Triton answers for {server.release_id} at {server.address} (pid {server.pid})\n")
        for _ in range(WARM_UP_REQUESTS):
            client.recommend(users, k=ITEMS_SHOWN)
        for user in users:
            show(Console(highlight=False), dataset, client.recommend([user], k=ITEMS_SHOWN)[0], fit)
    terminal.say("demo: done, Triton is stopped. Next: `make serve`, `make evaluate`, `make help`")


def _make_release(settings: Settings, terminal: Terminal) -> None:
    """The whole chain with compressed models; with plain ones where the goal cannot be met, which is said."""
    run_stages(settings, terminal, ("dataset", "train"))
    chosen = change_settings(settings, {"compress.enabled": True, "compress.goal": GOAL})
    try:
        run_stages(chosen, terminal, ("compress",))
    except CompressionError as error:
        terminal.say(f"compress: {error.what}; the demo goes on with the models as they are")
        chosen = settings
    run_stages(chosen, terminal, ("export", "release"))


def users_to_show(dataset: Dataset, fit: tuple[str, ...]) -> list[str]:
    """Users with a short, a usual and a long history, for variety."""
    lengths = dataset.histories(fit).lengths
    known = np.flatnonzero(lengths)
    by_length = known[np.argsort(lengths[known], kind="stable")]
    places = np.linspace(0.1, 0.9, USERS_SHOWN) * (len(by_length) - 1)
    return [str(dataset.users.ids[row]) for row in by_length[places.astype(int)]]
