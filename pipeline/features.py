"""`conch features`: what each feature contributes, and which ones to keep."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from core.artifacts import latest_artifact, write_json
from core.dataset import load_dataset
from core.sections import FeatureSettings
from core.settings import Settings
from pipeline.console import Terminal
from pipeline.settings_file import toml_value
from training.ranking.facts import FeatureFacts, feature_facts
from training.ranking.importance import Contribution, feature_importance
from training.stage import use_hardware

COLUMNS = ("feature", "missing", "values", "bits", "NDCG@10", "AUC", "keep")
SHOWN = ("feature", "NDCG@10", "AUC", "keep")
"""What fits on a terminal; the page has all."""
NOTE = (
    "Loss in NDCG@10 and AUC on held-out users when the feature is shuffled, ± standard error over users; bits: mutual "
    "information with the candidate coming true. Features that say the same stand in for each other. Suggested: those "
    "that contribute more than one standard error to either."
)


def report_features(settings: Settings, out: Path | None, repeats: int, terminal: Terminal) -> dict[str, Any]:
    """Measures on the newest dataset; writes features.json, features.md and features.toml.

    Raises:
        ArtifactError: No dataset yet.
        TrainingError: Too few users to measure on.
    """
    use_hardware(settings)
    data = latest_artifact(settings.paths.var, "dataset")
    dataset = load_dataset(data)
    importance = feature_importance(dataset, settings, seed=settings.train.seed, repeats=repeats, progress=terminal)
    facts = feature_facts(dataset, importance.examples)
    rows = [(found, facts[found.kind, found.name]) for found in importance.contributions]
    chosen = suggest(settings.features, importance.contributions)
    report = {
        "dataset": data.manifest.run_id,
        "users": importance.users,
        "ndcg@10": importance.ndcg,
        "auc": importance.auc,
        "network_strength": importance.strength,
        "repeats": repeats,
        "features": [
            {
                "kind": found.kind,
                "name": found.name,
                "ndcg@10_drop": asdict(found.ndcg),
                "auc_drop": asdict(found.auc),
                "keep": found.is_clear,
                **asdict(fact),
            }
            for found, fact in rows
        ],
        "suggested": chosen.model_dump(mode="json", include={"skip_items", "skip_users", "statistics"}),
    }
    folder = out or settings.paths.var / "reports" / "features"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "features.json", report)
    (folder / "features.md").write_text(as_markdown(report, rows), encoding="utf-8")
    (folder / "features.toml").write_text(as_toml(chosen), encoding="utf-8")
    terminal.console.print(as_table(report, rows))
    terminal.say(
        f"features: wrote {folder / 'features.json'}, features.md; suggestion: --config {folder}/features.toml"
    )
    return report


def suggest(now: FeatureSettings, contributions: tuple[Contribution, ...]) -> FeatureSettings:
    """The settings without the features whose contribution is not clear; what is skipped already stays so."""
    unclear = {kind: [c.name for c in contributions if c.kind == kind and not c.is_clear] for kind in ("item", "user")}
    kept = {c.name for c in contributions if c.kind == "statistic" and c.is_clear}
    return now.model_copy(
        update={
            "skip_items": (*now.skip_items, *unclear["item"]),
            "skip_users": (*now.skip_users, *unclear["user"]),
            "statistics": tuple(name for name in now.statistics if name in kept),
        }
    )


def as_toml(features: FeatureSettings) -> str:
    """The suggestion as a settings file."""
    lines = [f"{name} = {toml_value(getattr(features, name))}" for name in type(features).model_fields]
    return "\n".join(("# Suggested by `conch features`; take it with --config.", "[features]", *lines, ""))


def as_table(report: dict[str, Any], rows: list[tuple[Contribution, FeatureFacts]]) -> Table:
    """For the terminal."""
    table = Table(box=box.SIMPLE, title=_title(report))
    for name in SHOWN:
        table.add_column(name, justify="left" if name == "feature" else "right", no_wrap=True)
    for row in rows:
        cells = dict(zip(COLUMNS, _cells(*row), strict=True))
        table.add_row(*(cells[name] for name in SHOWN))
    return table


def as_markdown(report: dict[str, Any], rows: list[tuple[Contribution, FeatureFacts]]) -> str:
    """The same as a page."""
    lines = [
        "# Features",
        "",
        _title(report),
        "",
        NOTE,
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    lines += ["| " + " | ".join(_cells(*row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _title(report: dict[str, Any]) -> str:
    return f"{report['users']} held-out users, NDCG@10 {report['ndcg@10']:.4f}, AUC {report['auc']:.4f}"


def _cells(found: Contribution, fact: FeatureFacts) -> tuple[str, ...]:
    ndcg, auc = (f"{drop.mean:+.4f} ± {drop.standard_error:.4f}" for drop in (found.ndcg, found.auc))
    keep = "yes" if found.is_clear else "no"
    return (
        f"{found.kind} {found.name}",
        f"{fact.missing:.1%}",
        f"{fact.values:,}",
        f"{fact.information_bits:.4f}",
        ndcg,
        auc,
        keep,
    )
