"""The world of the demonstration: what really happened, cut in time into known, simulated and final."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import Artifact
from core.dataset import Events, load_dataset
from core.metrics import hits, ndcg
from core.progress import Progress
from core.settings import Settings, change_settings
from pipeline.gate.window import Window, ask, later_window
from pipeline.loop.retrain import BASE_FILE
from pipeline.loop.simulate import Users, own_pace, simulated_users
from serving.local import LocalPipeline
from training.data.stage import build_dataset

KNOWN_UNTIL, SIMULATED_UNTIL = 0.1, 0.8
"""Quantiles of time. Early, since a release that is told what users did since it was trained ages slowly."""


@dataclass(frozen=True)
class World:
    """Where the simulation takes place.

    Attributes:
        users: The simulated users.
        window: The final window, which no release learns from and no user can click.
        periods: Start and end of each simulated period, seconds since the epoch.
    """

    users: Users
    window: Window
    periods: tuple[tuple[float, float], ...]


def make_world(settings: Settings, periods: int, progress: Progress) -> tuple[Settings, World]:
    """Builds the world, and the dataset that the first release may know; gives back settings with that data.

    Args:
        settings: Where the data comes from; ``paths.var`` is the demonstration's own.
        periods: Into how many parts the simulated time is cut; what has happened grows by the same factor in each.
        progress: Where lines go.
    """
    folder = settings.paths.var / "world"
    aside = change_settings(settings, {"paths.var": folder})
    real = build_dataset(aside, progress)
    dataset = load_dataset(real)
    sides = {f"data.{noun}": real.file(f"{noun}.parquet") for noun in ("users", "items")}
    times = own_pace(dataset.events.user_rows, dataset.events.timestamps)
    _write(folder / "all.parquet", dataset.users.ids, dataset.items.ids, dataset.events, times)
    cut = {
        "data.source": "files", "data.events": folder / "all.parquet", **sides,
        "data.train_until": KNOWN_UNTIL, "data.valid_until": SIMULATED_UNTIL,
    }  # fmt: skip
    world = load_dataset(build_dataset(change_settings(aside, cut), progress))
    known = world.events.of_splits(("train",))
    _write(folder / "known.parquet", world.users.ids, world.items.ids, known, known.timestamps)
    own = change_settings(settings, {"data.source": "files", "data.events": folder / "known.parquet", **sides})
    file = settings.paths.var / "loop" / BASE_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(build_dataset(own, progress).manifest.run_id, encoding="utf-8")
    rng = np.random.default_rng(settings.gate.seed)
    window = later_window(world, ("train", "valid"), settings.gate.max_users, rng)
    quantiles = KNOWN_UNTIL * (SIMULATED_UNTIL / KNOWN_UNTIL) ** np.linspace(0, 1, periods + 1)
    edges = np.quantile(world.events.timestamps, quantiles)
    edges[-1] = window.start
    spans = tuple(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    return own, World(simulated_users(world), window, spans)


def _write(file: Path, users: np.ndarray, items: np.ndarray, events: Events, times: np.ndarray) -> None:
    table = pa.table(
        {
            "user_id": pa.array(users[events.user_rows], pa.string()),
            "item_id": pa.array(items[events.item_rows], pa.string()),
            "timestamp": times,
        }
    )
    pq.write_table(table, file)


def per_user_ndcg(release: Artifact, window: Window, since: float, k: int) -> np.ndarray:
    """NDCG@k float64 ``(U,)`` of a release on a window, asked in process as the gate asks.

    Args:
        release: Its artefact.
        window: Whom to ask about; what they did before it is in nobody's list.
        since: What users did after this is told to the release; infinite tells nothing.
        k: Length of the lists.
    """
    with LocalPipeline(release.path, threads=1) as pipeline:
        rows, _ = ask(pipeline, window, since, k)
    return ndcg(hits(rows, window.truth), window.truth.sizes, k)
