"""DeepFM (Guo et al. 2017) and other click models as RecBole trains them, on the MovieLens-100K inside its package.

Label rating >= 4, ratings cut 8:1:1 at random by the split seed, early stop on valid, one measurement on test.
``python -m bench.adapters.recbole_ranker REQUEST.json`` writes ``OUT/facts.json``.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

from bench.adapters.contract import peak_mb

PATIENCE = 10
"""Epochs without a better valid AUC after which training stops, RecBole's own number."""

PROTOCOL: dict[str, Any] = {
    "threshold": {"rating": 4},
    "load_col": {
        "inter": ["user_id", "item_id", "rating"],
        "user": ["user_id", "age", "gender", "occupation"],
        "item": ["item_id", "release_year", "class"],
    },
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None, "mode": "labeled"},
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
    "metric_decimal_place": 6,
    "train_neg_sample_args": None,
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
}


def measure(name: str, settings: dict[str, Any], split_seed: int, seed: int, most_epochs: int) -> dict[str, Any]:
    """Trains one model with one seed and measures it on test."""
    with tempfile.TemporaryDirectory() as folder:
        options = PROTOCOL | settings | {"seed": split_seed, "checkpoint_dir": folder, "epochs": most_epochs}
        config = Config(model=name, dataset="ml-100k", config_dict=options)
        init_seed(split_seed, True)
        dataset = create_dataset(config)
        train, valid, test = data_preparation(config, dataset)
        init_seed(seed, True)
        model = get_model(name)(config, train.dataset)
        trainer = Trainer(config, model)
        best, best_auc, at, seconds = copy.deepcopy(model.state_dict()), 0.0, 0, 0.0
        for epoch in range(1, most_epochs + 1):
            started = time.perf_counter()
            trainer._train_epoch(train, epoch, show_progress=False)
            seconds += time.perf_counter() - started
            auc = trainer.evaluate(valid, load_best_model=False)["auc"]
            if auc > best_auc:
                best, best_auc, at = copy.deepcopy(model.state_dict()), auc, epoch
            if epoch - at >= PATIENCE:
                break
        model.load_state_dict(best)
        found = trainer.evaluate(test, load_best_model=False)
        labels = test.dataset.inter_feat["label"].numpy()
    return {
        "seed": seed,
        "auc": float(found["auc"]),
        "logloss": float(found["logloss"]),
        "valid_auc": float(best_auc),
        "epochs": epoch,
        "best_epoch": at,
        "seconds": seconds,
        "rows_per_second": epoch * len(train.dataset) / seconds,
        "test_rows": len(labels),
        "test_positives": int(labels.sum()),
    }


def main(argv: list[str]) -> None:
    """Every asked model with every seed."""
    request = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    facts: dict[str, Any] = {"models": {}}
    for name, settings in request["models"].items():
        facts["models"][name] = [
            measure(name, settings, request["split_seed"], seed, request["most_epochs"]) for seed in request["seeds"]
        ]
    facts["versions"] = {name: metadata.version(name) for name in ("recbole", "torch", "numpy")}
    facts["peak_mb"] = peak_mb()
    (Path(request["out"]) / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
