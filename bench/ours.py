"""Ours: the real `conch` commands, one child process per verb, and the lists that `conch recommend` writes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from bench.cache import code_digest, digest, find, finish
from bench.process import environment, run_child
from bench.rows import Row, Run, Say, missing
from bench.scoring import LONGEST, BadListsError, Question, check_lists
from core.artifacts import Artifact, latest_artifact, sha256_of
from core.dataset import Dataset, event_files
from core.errors import ArtifactError
from core.settings import DEFAULT_FILE, ROOT, Settings, load_settings
from pipeline.measure import fuse

ROOMS = ("core", "training", "compression", "export", "serving", "pipeline")
RANKER, RECALL, PIPELINE = "ranker", "recall", "pipeline"
TIMEOUT_SECONDS = 3_600


class ChainFailedError(Exception):
    """A `conch` command that did not end well; its text is the reason."""


@dataclass(frozen=True)
class Chain:
    """How `conch` is run for a protocol.

    Attributes:
        config: Settings files over the default one.
        data: ``data.key=value`` of every command.
        options: Further ``section.key=value``.
        folder: Where ``paths.var``, lists and logs lie.
        threads: Limit for each process.
    """

    config: tuple[str, ...]
    data: tuple[str, ...]
    options: tuple[str, ...]
    folder: Path
    threads: int

    @property
    def var(self) -> Path:
        return self.folder / "var"

    def overrides(self, seed: int | None = None) -> list[str]:
        """All ``--set`` values."""
        own = [f'paths.var="{self.var}"', f"train.threads={self.threads}", f"serving.local_threads={self.threads}"]
        return [*self.data, *self.options, *own, *([] if seed is None else [f"train.seed={seed}"])]

    def settings(self) -> Settings:
        """The settings that its commands see."""
        return load_settings((DEFAULT_FILE, *(ROOT / file for file in self.config)), self.overrides())

    def key(self) -> str:
        """Hash of the code and settings, without data and seed."""
        return digest([code_digest(ROOMS), self.settings().model_dump(mode="json", exclude={"paths"})])

    def run(self, *verb: str, seed: int | None = None) -> tuple[float, float]:
        """Runs one verb; gives back seconds and peak MB.

        Raises:
            ChainFailedError: It failed.
        """
        command = [str(Path(sys.executable).with_name("conch")), *verb]
        for file in self.config:
            command += ["--config", file]
        for text in self.overrides(seed):
            command += ["--set", text]
        log = self.folder / "logs" / ("-".join(verb[:1] if seed is None else (verb[0], str(seed))) + ".txt")
        # numpy's BLAS as `conch` itself sets it: its spinning threads starve torch's
        env = {**environment(self.threads), "OPENBLAS_NUM_THREADS": "1"}
        done = run_child(command, env=env, timeout_seconds=TIMEOUT_SECONDS, log=log)
        if done.code:
            raise ChainFailedError(f"conch {verb[0]}: {done.reason} (see {log})")
        return done.seconds, done.peak_mb


def dataset_artifact(chain: Chain, resume: bool) -> Artifact:
    """The dataset, made by `conch dataset` unless the same settings made it before."""
    data = chain.settings().data
    files = [file.stat() for file in (data.events, data.items, data.users) if file is not None and file.is_file()]
    stamps = [[stat.st_size, stat.st_mtime_ns] for stat in files]
    key = digest([data.model_dump(mode="json"), stamps, code_digest(("core", "training/data"))])
    folder = chain.folder / f"dataset-{key}"
    done = find(folder) if resume else None
    if done is None or not _is_newest(chain, done["run_id"]):
        folder.mkdir(parents=True, exist_ok=True)
        chain.run("dataset")
        finish(folder, {"run_id": latest_artifact(chain.var, "dataset").manifest.run_id})
    return latest_artifact(chain.var, "dataset")


def _is_newest(chain: Chain, run_id: str) -> bool:
    """Whether training would take this dataset: the newest one."""
    try:
        return latest_artifact(chain.var, "dataset").manifest.run_id == run_id
    except ArtifactError:
        return False


def run_ours(
    chain: Chain, data: Artifact, dataset: Dataset, asked: Question, seeds: Sequence[int], resume: bool, say: Say
) -> list[Row]:
    """One row per recall source, one for the merged recall lists, one for the pipeline."""
    sources = tuple(chain.settings().recall.sources)
    stages = (*sources, RECALL, PIPELINE)
    runs: dict[str, list[Run]] = {stage: [] for stage in stages}
    base = digest([chain.key(), *event_files(data).values(), sha256_of(data.file("items.parquet"))])
    try:
        for seed in seeds:
            folder = chain.folder / f"seed-{seed}-{base}"
            facts = find(folder) if resume else None
            if facts is None:
                facts = _run_seed(chain, dataset, asked, sources, seed, folder)
            for stage in stages:
                runs[stage].append(
                    Run(
                        seed,
                        folder / f"{stage}.npz",
                        facts["seconds"][stage],
                        facts["peak_mb"],
                        facts["measured_at"],
                        facts["commit"],
                        {"chain_seconds": facts["chain_seconds"], **_per_epoch(chain, stage, facts["seconds"][stage])},
                    )
                )
            say(f"conch: seed {seed}, trained in {facts['seconds'][PIPELINE]:.1f} s, {facts['peak_mb']:.0f} MB")
    except (ChainFailedError, BadListsError) as error:
        return [missing(f"conch {stage}", str(error), ours=True) for stage in stages]
    settings = {"config": list(chain.config), "set": list(chain.options)}
    return [Row(f"conch {stage}", True, tuple(runs[stage]), settings) for stage in stages]


def _run_seed(
    chain: Chain, dataset: Dataset, asked: Question, sources: tuple[str, ...], seed: int, folder: Path
) -> dict[str, Any]:
    """Train, export, release, recommend; writes the lists and the facts."""
    folder.mkdir(parents=True, exist_ok=True)
    wall = {}
    wall["train"], peak_mb = chain.run("train", seed=seed)
    for verb in ("export", "release"):
        wall[verb], _ = chain.run(verb, seed=seed)
    seconds = {
        kind: float(latest_artifact(chain.var, kind).manifest.metrics["train_seconds"]) for kind in (*sources, RANKER)
    }
    seconds[RECALL] = sum(seconds[source] for source in sources)
    seconds[PIPELINE] = seconds[RECALL] + seconds[RANKER]
    users = folder / "users.csv"
    with users.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [("user_id",), *((str(user),) for user in dataset.users.ids[asked.problem.query_users])]
        )
    k = chain.settings().serving.max_k
    lists = {}
    for stage in (*sources, PIPELINE):
        out = folder / f"{stage}.csv"
        wall[f"recommend {stage}"], _ = chain.run(
            "recommend", "--users", str(users), "--k", str(k), "--stage", stage, "--out", str(out), seed=seed
        )
        lists[stage] = unmasked(read_lists(out, dataset, asked, k), asked)
        out.unlink()
    lists[RECALL] = fuse(tuple(lists[source] for source in sources), dataset.n_items, LONGEST)
    for stage, rows in lists.items():
        check_lists(asked.problem, rows[:, :LONGEST])
        np.savez_compressed(folder / f"{stage}.npz", lists=rows[:, :LONGEST].astype(np.int32))
    facts = {"seconds": seconds, "peak_mb": peak_mb, "chain_seconds": round(sum(wall.values()), 1), "wall": wall}
    return finish(folder, facts)


def _per_epoch(chain: Chain, stage: str, seconds: float) -> dict[str, float]:
    """The model's whole training, start included, over its epochs; empty for what has none."""
    epochs = getattr(getattr(chain.settings(), stage, None), "epochs", None)
    return {"epochs": epochs, "seconds_per_epoch": seconds / epochs} if epochs else {}


def read_lists(file: Path, dataset: Dataset, asked: Question, k: int) -> np.ndarray:
    """The CSV of `conch recommend --users` as item rows int64 ``(Q, k)``, -1 where a list is short.

    Raises:
        BadListsError: An id that is not in the data.
    """
    text = pa_csv.ConvertOptions(column_types={"user_id": pa.string(), "item_id": pa.string()})
    table = pa_csv.read_csv(file, convert_options=text)
    users = pc.index_in(table["user_id"], value_set=_text(dataset.users.ids[asked.problem.query_users]))
    items = pc.index_in(table["item_id"], value_set=_text(dataset.items.ids))
    if users.null_count or items.null_count:
        raise BadListsError(f"{file.name} names users or items that are not in the data")
    lists = np.full((len(asked.problem.query_users), k), -1, dtype=np.int64)
    lists[users.to_numpy(), table["rank"].to_numpy() - 1] = items.to_numpy()
    return lists


def unmasked(lists: np.ndarray, asked: Question) -> np.ndarray:
    """The lists without masked items, moved up; same shape, -1 at the end.

    Conch leaves out what its users have in the splits it learned from; a protocol may mask more than that.
    """
    users = np.repeat(asked.problem.query_users, lists.shape[1])
    masked = np.asarray(asked.problem.seen[users, np.maximum(lists, 0).ravel()]).reshape(lists.shape)
    kept = (lists >= 0) & ~masked
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.where(np.take_along_axis(kept, order, 1), np.take_along_axis(lists, order, 1), -1)


def _text(ids: np.ndarray) -> pa.Array:
    return pa.array([str(one) for one in ids], type=pa.string())
