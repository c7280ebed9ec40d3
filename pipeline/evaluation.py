"""`conch evaluate`: measures the newest release and tells it as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from core.artifacts import latest_artifact, parent_artifact, write_json
from core.dataset import SPLITS, load_dataset
from core.errors import SettingsError
from core.sections import Target
from core.settings import Settings
from pipeline import tradeoff
from pipeline.console import Terminal
from pipeline.measure import evaluate
from serving.local import LocalPipeline


def evaluate_release(
    settings: Settings, split: str, json_file: Path | None, terminal: Terminal, target: Target = "any"
) -> dict[str, Any]:
    """Evaluates the newest release on a split of its own dataset.

    Raises:
        SettingsError: The split is unknown, was learned from, or is empty.
        ArtifactError: No release yet.
    """
    var = settings.paths.var
    release = latest_artifact(var, "release")
    dataset = load_dataset(parent_artifact(release, var, "dataset"))
    fit = tuple(release.manifest.tensors["fit"])
    check_split(split, fit, settings)
    with LocalPipeline(release.path, threads=settings.serving.local_threads) as pipeline:
        report = evaluate(
            pipeline,
            dataset,
            fit=fit,
            split=split,
            target=target,
            ks=settings.evaluate.ks,
            seed=settings.train.seed,
            progress=terminal,
        )
    report = {"release": release.manifest.tensors["release_id"], **report}
    if report["users"]["all"] == 0:
        raise SettingsError("nothing to measure", where=f"split {split}", found="no user has a new item there")
    terminal.console.print(as_table(report, settings.evaluate.ks))
    _write(report, json_file, terminal)
    return report


def evaluate_diversity(
    settings: Settings,
    split: str,
    strengths: tuple[float, ...],
    json_file: Path | None,
    terminal: Terminal,
    target: Target,
) -> dict[str, Any]:
    """Measures what variety costs in the newest release: lists of the first of ``evaluate.ks``.

    Raises:
        SettingsError: As ``evaluate_release``, or the release keeps no vectors.
        ArtifactError: No release yet.
    """
    var = settings.paths.var
    release = latest_artifact(var, "release")
    dataset = load_dataset(parent_artifact(release, var, "dataset"))
    fit = tuple(release.manifest.tensors["fit"])
    check_split(split, fit, settings)
    with LocalPipeline(release.path, threads=settings.serving.local_threads) as pipeline:
        report = tradeoff.measure_tradeoff(
            pipeline,
            dataset,
            fit=fit,
            split=split,
            target=target,
            k=settings.evaluate.ks[0],
            strengths=strengths,
            seed=settings.train.seed,
        )
    report = {"release": release.manifest.tensors["release_id"], **report}
    terminal.console.print(tradeoff.as_table(report))
    _write(report, json_file, terminal)
    return report


def _write(report: dict[str, Any], json_file: Path | None, terminal: Terminal) -> None:
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, report)
        terminal.say(f"evaluate: wrote {json_file}")


def as_table(report: dict[str, Any], ks: tuple[int, ...]) -> Table:
    """The report's main figures for warm users."""
    users = report["users"]
    asked = f"{report['target']} event of {report['split']}"
    table = Table(box=box.SIMPLE, title=f"{report['release']}, {asked}: {users['warm']} warm users of {users['all']}")
    columns = [f"ndcg@{ks[0]}", *(f"recall@{k}" for k in ks), f"hit@{ks[0]}"]
    table.add_column("stage", no_wrap=True)
    short = [name.replace("recall", "R").replace("ndcg", "NDCG") for name in columns]
    for name in (short[0], "± se", *short[1:], f"cover@{ks[0]}"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage, figures in report["models"].items():
        warm, beyond = figures["warm"], figures["beyond"]
        table.add_row(
            stage,
            f"{warm[columns[0]]:.4f}",
            f"{warm[f'{columns[0]}_se']:.4f}",
            *(f"{warm[name]:.4f}" for name in columns[1:]),
            f"{beyond[f'coverage@{ks[0]}']:.3f}",
        )
    return table


def check_split(split: str, fit: tuple[str, ...], settings: Settings) -> None:
    """Raises SettingsError where a split is unknown or was learned from, or ``evaluate.ks`` goes beyond an answer."""
    if split not in SPLITS:
        raise SettingsError("unknown split", where="--split", expected=" | ".join(SPLITS), found=split)
    if split in fit:
        raise SettingsError(
            f"the models of this release learned from the {split} split",
            where="train.fit",
            found=", ".join(fit),
            next_step="learn from fewer splits (`conch run --set train.fit=[...]`), or measure another split",
        )
    if max(settings.evaluate.ks) > settings.serving.max_k:
        raise SettingsError(
            "evaluate.ks goes beyond the longest answer",
            where="evaluate.ks",
            expected=f"at most serving.max_k = {settings.serving.max_k}",
            found=str(max(settings.evaluate.ks)),
        )
