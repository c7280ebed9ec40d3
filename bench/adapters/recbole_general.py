"""LightGCN (He et al. 2020) and BPR (Rendle et al. 2009) as RecBole trains them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataloader import TrainDataLoader
from recbole.sampler import Sampler
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

from bench.adapters.contract import Problem, Settings, Solved, serve


def solve(problem: Problem, settings: Sequence[Settings], seed: int) -> Iterator[Solved]:
    """Settings: ``model`` (LightGCN or BPR), ``epochs``, and any key of RecBole's configuration.

    Settings that differ in ``epochs`` alone share one training run, stopped and asked on the way.
    """
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(settings):
        groups.setdefault(repr(sorted((k, v) for k, v in one.items() if k != "epochs")), []).append(place)
    for places in groups.values():
        yield from _train(problem, {place: settings[place] for place in places}, seed)


def _train(problem: Problem, wanted: dict[int, Settings], seed: int) -> Iterator[Solved]:
    options = {key: value for key, value in next(iter(wanted.values())).items() if key not in ("model", "epochs")}
    name = next(iter(wanted.values()))["model"]
    stops = {int(one["epochs"]): place for place, one in wanted.items()}
    with tempfile.TemporaryDirectory() as folder:
        config, dataset = prepare(name, problem, Path(folder), options | {"seed": seed})
        sampler = Sampler(["train"], [dataset]).set_phase("train")
        loader = TrainDataLoader(config, dataset, sampler, shuffle=True)
        model = get_model(name)(config, dataset).to(config["device"])
        trainer = Trainer(config, model)
        seconds = 0.0
        for epoch in range(1, max(stops) + 1):
            started = time.perf_counter()
            trainer._train_epoch(loader, epoch, show_progress=False)
            seconds += time.perf_counter() - started
            if epoch in stops:
                facts = {
                    "epochs": epoch,
                    "seconds_per_epoch": seconds / epoch,
                    "samples_per_second": epoch * len(problem.user_rows) / seconds,
                }
                yield Solved(stops[epoch], Vectors(model, dataset, problem), seconds, facts)


def prepare(name: str, problem: Problem, folder: Path, options: dict[str, Any]) -> tuple[Config, Any]:
    """Writes the pairs as RecBole's atomic file and reads them back as its dataset."""
    (folder / "pairs").mkdir()
    lines = ["user_id:token\titem_id:token"]
    lines += [f"{user}\t{item}" for user, item in zip(problem.user_rows, problem.item_rows, strict=True)]
    (folder / "pairs" / "pairs.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    fixed = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id"]},
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "epochs": 1,
    }
    config = Config(model=name, dataset="pairs", config_dict=fixed | options)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    dataset._change_feat_format()  # what build() does before it splits; here everything is for training
    return config, dataset


class Vectors:
    """Scores by inner product of a snapshot of the model's user and item vectors."""

    def __init__(self, model: Any, dataset: Any, problem: Problem) -> None:
        model.eval()
        with torch.no_grad():
            if hasattr(model, "n_layers"):
                users, items = model.forward()
            else:
                users, items = model.user_embedding.weight, model.item_embedding.weight
        model.train()
        self._users, user_known = self._by_row(dataset, "user_id", users, problem.n_users)
        self._items, self._item_known = self._by_row(dataset, "item_id", items, problem.n_items)
        del user_known  # users without fitted events are answered by the contract

    def __call__(self, users: np.ndarray) -> np.ndarray:
        scores = self._users[users] @ self._items.T
        least = scores[:, self._item_known].min(1, keepdims=True)
        return np.where(self._item_known, scores, least - 1)

    @staticmethod
    def _by_row(dataset: Any, field: str, vectors: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = dataset.field2id_token[field][1:].astype(np.int64)  # 0 is RecBole's padding
        table = np.zeros((count, vectors.shape[1]), dtype=np.float32)
        table[tokens] = vectors.detach().numpy()[1:]
        known = np.zeros(count, dtype=bool)
        known[tokens] = True
        return table, known


if __name__ == "__main__":
    serve(solve, ("recbole", "torch", "numpy", "scipy"))
