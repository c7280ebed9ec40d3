"""`conch evaluate --ratings`: measures the newest rating model on held-out events, beside simple baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from core.artifacts import latest_artifact, parent_artifact, write_json
from core.dataset import SPLITS, Dataset, Events, load_dataset
from core.errors import SettingsError
from core.rating_metrics import calibration_curve, curve_as_json, mae, rating_metrics, rmse
from core.settings import Settings
from pipeline.console import Terminal
from pipeline.plots import draw_ratings
from training.ratings.baselines import fit_baselines
from training.ratings.model import RatingModel
from training.ratings.predict import predict_pairs
from training.ratings.store import KIND, load_rating

MODEL = "rating"
MOST_ACTUAL_VALUES = 20
"""Data with more distinct values is shown by bins of equal count."""
QUANTILES = (10, 25, 75, 90)


def evaluate_ratings(settings: Settings, split: str, json_file: Path | None, terminal: Terminal) -> dict[str, Any]:
    """Evaluates the newest rating model; writes plots and numbers below ``var/reports/ratings/``.

    Raises:
        SettingsError: The split is unknown, was learned from, or has no values.
        ArtifactError: No rating model yet.
    """
    var = settings.paths.var
    artifact = latest_artifact(var, KIND)
    dataset = load_dataset(parent_artifact(artifact, var, "dataset"))
    fit = tuple(artifact.manifest.settings["train"]["fit"])
    report = measure_ratings(load_rating(artifact), dataset, fit, split, float(artifact.manifest.tensors["cut"]))
    folder = var / "reports" / "ratings"
    plots = draw_ratings(report, folder)
    report = {"run": artifact.manifest.run_id, **report, "plots": [plot.name for plot in plots]}
    target = json_file or folder / "ratings.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(target, report)
    terminal.console.print(as_table(report))
    said = report["models"][MODEL]["all"]
    parts = ", ".join(f"{name} {said[name]:.4f}" for name in ("accuracy", "precision", "recall", "f1"))
    terminal.say(f'"liked" from probability {said["cut"]:.3f} on: {parts}')
    terminal.say(f"evaluate: wrote {target} and {', '.join(str(plot) for plot in plots)}")
    return report


def measure_ratings(
    model: RatingModel, dataset: Dataset, fit: tuple[str, ...], split: str, cut: float
) -> dict[str, Any]:
    """All figures as plain values.

    Args:
        model: The rating model.
        dataset: Its dataset.
        fit: Splits that it has learned from, and that histories are made of.
        split: Split whose values are predicted, cold users and items included.
        cut: Probability from which on "liked" is said.

    Raises:
        SettingsError: The split is unknown, was learned from, or has no values.
    """
    asked = _asked(dataset, fit, split)
    known = dataset.events.of_splits(fit)
    histories = dataset.histories(fit)
    ratings, probabilities = predict_pairs(model, dataset, histories, asked.user_rows, asked.item_rows)
    actual, liked = asked.raw_values.astype(np.float64), asked.raw_values >= model.facts.like_at
    warm = histories.lengths[asked.user_rows] > 0
    models: dict[str, Any] = {MODEL: {}}
    slices = {"all": np.ones(len(asked), dtype=bool), "warm": warm}
    for name, chosen in slices.items():
        if chosen.any():
            models[MODEL][name] = rating_metrics(
                actual[chosen], ratings[chosen], probabilities[chosen], liked[chosen], asked.user_rows[chosen], cut
            )
    predictions = fit_baselines(known, dataset.n_users, dataset.n_items).predict(asked.user_rows, asked.item_rows)
    for name, predicted in predictions.items():
        models[name] = {
            part: {"pairs": int(chosen.sum()), "rmse": rmse(actual[chosen], predicted[chosen]),
                   "mae": mae(actual[chosen], predicted[chosen])}
            for part, chosen in slices.items() if chosen.any()
        }  # fmt: skip
    return {
        "split": split,
        "fit": list(fit),
        "like_at": model.facts.like_at,
        "liked_share": float(liked.mean()),
        "pairs": {"all": len(asked), "warm": int(warm.sum())},
        "models": models,
        "predicted_actual": predicted_against_actual(actual, ratings),
        "calibration": curve_as_json(calibration_curve(liked, probabilities)),
    }


def predicted_against_actual(actual: np.ndarray, predicted: np.ndarray) -> dict[str, list[float]]:
    """Mean and quantiles of the predictions for each actual value, or for bins of it where there are many."""
    values = np.unique(actual)
    place = np.searchsorted(values, actual)
    if len(values) > MOST_ACTUAL_VALUES:
        edges = np.unique(np.quantile(actual, np.arange(1, MOST_ACTUAL_VALUES) / MOST_ACTUAL_VALUES))
        place = np.searchsorted(edges, actual, side="right")
    curve: dict[str, list[float]] = {name: [] for name in ("actual", "pairs", "mean", *(f"p{q}" for q in QUANTILES))}
    for at in np.unique(place):
        chosen = place == at
        curve["actual"].append(float(actual[chosen].mean()))
        curve["pairs"].append(int(chosen.sum()))
        curve["mean"].append(float(predicted[chosen].mean()))
        for quantile, value in zip(QUANTILES, np.percentile(predicted[chosen], QUANTILES), strict=True):
            curve[f"p{quantile}"].append(float(value))
    return curve


def as_table(report: dict[str, Any]) -> Table:
    """The report's main figures over all pairs."""
    title = f"ratings of {report['split']}: {report['pairs']['all']:,} pairs, liked from {report['like_at']:.3g} on"
    table = Table(box=box.SIMPLE, title=title)
    columns = ("rmse", "mae", "auc", "gauc", "log_loss", "ece")
    table.add_column("model", no_wrap=True)
    for name in columns:
        table.add_column(name.upper() if len(name) < 5 else "logloss", justify="right", no_wrap=True)
    for model, figures in report["models"].items():
        table.add_row(model, *(f"{figures['all'][name]:.4f}" if name in figures["all"] else "" for name in columns))
    return table


def _asked(dataset: Dataset, fit: tuple[str, ...], split: str) -> Events:
    if split not in SPLITS or split in fit:
        raise SettingsError(
            "this split cannot be measured",
            where="--split",
            expected=" or ".join(name for name in SPLITS if name not in fit) or "a split outside train.fit",
            found=f"{split}, which was learned from" if split in fit else split,
        )
    events = dataset.events.of_splits((split,))
    events = events.where(np.isfinite(events.raw_values))
    if len(events) == 0:
        raise SettingsError("nothing to measure", where=f"split {split}", found="no event with a value")
    return events
