"""The study on disk: best.toml for `conch train --config`, results.json, trials.csv, summary.md."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.artifacts import write_json
from training.tuning.outcome import Outcome
from training.tuning.picking import MEGABYTE, Candidate, ProfileRow, best, difference_error

BEST, RESULTS, TRIALS, SUMMARY = "best.toml", "results.json", "trials.csv", "summary.md"
FLATTERS = "The best of many trials flatters itself a little: measure it on later data."


def write_results(folder: Path, outcome: Outcome) -> None:
    """Writes the four files; an older best.toml goes where nothing keeps to the limits any more."""
    write_json(folder / RESULTS, as_tree(outcome))
    _write_csv(folder / TRIALS, outcome)
    (folder / SUMMARY).write_text(summary(outcome), encoding="utf-8")
    picked = folder / BEST
    if outcome.picked is None:
        picked.unlink(missing_ok=True)
    else:
        picked.write_text(settings_file(outcome, picked), encoding="utf-8")


def settings_file(outcome: Outcome, path: Path) -> str:
    """The picked settings as TOML: only the keys that were searched, under comments that say where they come from."""
    picked, before = outcome.picked, outcome.baseline
    assert picked is not None
    lines = [
        f"# Tuned by `conch tune {outcome.model}`: study {outcome.study}, {outcome.date:%Y-%m-%d %H:%M} UTC.",
        f"# {outcome.metric} {figure(picked)} ({picked.label}, picked by {outcome.rule} among "
        f"{outcome.count('complete')} complete of {len(outcome.trials)} trials)",
        f"# against {figure(before)} with the settings as they were; measured on: {outcome.scheme}, test never seen.",
        f"# {gain(outcome)}. {FLATTERS}",
        f"# Use it over the settings that were tuned: conch train --config {path}",
    ]
    sections: dict[str, list[str]] = {}
    for key, value in picked.values.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, []).append(f"{name} = {toml(value)}")
    for section, entries in sections.items():
        lines += ["", f"[{section}]", *entries]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A plain value as TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(entry) for entry in value)}]"
    return json.dumps(value, ensure_ascii=False)  # TOML's booleans, numbers and basic strings take JSON's form


def figure(candidate: Candidate) -> str:
    """Quality ± standard error."""
    return f"{candidate.quality:.4f} ± {candidate.standard_error:.4f}"


def gain(outcome: Outcome) -> str:
    """What the pick gains over the settings as they were, on the same users, and whether that is clear."""
    if outcome.picked is None or outcome.picked.number is None:
        return "no gain"
    error = difference_error(outcome.picked, outcome.baseline)
    found = outcome.picked.quality - outcome.baseline.quality
    unclear = ", less than two standard errors: may not hold" if abs(found) < 2 * error else ""
    return f"gain {found:+.4f} ± {error:.4f}{unclear}"


def cost(candidate: Candidate) -> str:
    """Size and latency, where known."""
    parts = []
    if candidate.size_bytes is not None:
        parts.append(f"{candidate.size_bytes / MEGABYTE:.2f} MB")
    if candidate.latency_ms is not None:
        parts.append(f"{candidate.latency_ms:.2f} ms")
    return ", ".join(parts)


def told(values: Mapping[str, Any]) -> str:
    """Settings in one line, floats at four digits; a section that all share is left out."""
    shared = {key.split(".")[0] for key in values}
    cut = f"{shared.pop()}." if len(shared) == 1 else ""
    return ", ".join(f"{key.removeprefix(cut)}={_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_tree(outcome: Outcome) -> dict[str, Any]:
    """Plain JSON values of everything."""
    return {
        "study": outcome.study,
        "model": outcome.model,
        "date": outcome.date.isoformat(),
        "dataset": outcome.data,
        "metric": outcome.metric,
        "measured_on": outcome.scheme,
        "sampler": outcome.sampler,
        "objectives": list(outcome.objectives),
        "space": dict(outcome.space),
        "trials": {state: outcome.count(state) for state in ("complete", "pruned", "failed")},
        "trial_seconds": outcome.seconds,
        "baseline": _tree(outcome.baseline),
        "best": _tree(outcome.best),
        "one_se": _tree(outcome.one_se),
        "one_se_paired": _tree(outcome.one_se_paired),
        "picked": None if outcome.picked is None else {**_tree(outcome.picked), "details": outcome.windows},
        "rule": outcome.rule,
        "limits": {"size_mb": outcome.limits.size_mb, "latency_ms": outcome.limits.latency_ms},
        "front": [_tree(found) for found in outcome.front],
        "importances": dict(outcome.importances),
        "importance_note": outcome.importance_note,
        "profiles": {
            key: [{"value": row.value, "trials": row.trials, **_tree(row.top), **_gap(rows, row)} for row in rows]
            for key, rows in outcome.profiles.items()
        },
    }


def summary(outcome: Outcome) -> str:
    """The study as Markdown."""
    states = ", ".join(f"{outcome.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    lines = [
        f"# Study {outcome.study}",
        "",
        f"`conch tune {outcome.model}`, {outcome.date:%Y-%m-%d %H:%M} UTC. {len(outcome.trials)} trials by "
        f"{outcome.sampler} ({states}), {outcome.seconds:.1f} s of trials. "
        f"{outcome.metric}, measured on: {outcome.scheme}; ± is the standard error over users. "
        f"Picked: {gain(outcome)}. {FLATTERS}",
        "",
        f"| | {outcome.metric} | cost | settings |",
        "|---|---|---|---|",
        _line("as it was", outcome.baseline),
        _line("best", outcome.best),
        _line("one standard error", outcome.one_se),
        _line("one standard error, paired", outcome.one_se_paired),
    ]
    lines.append(
        "| picked | nothing keeps to the limits | | |" if outcome.picked is None else _line("picked", outcome.picked)
    )
    if outcome.front:
        lines += ["", "## Pareto front", "", f"| trial | {outcome.metric} | cost | settings |", "|---|---|---|---|"]
        lines += [_line(str(found.number), found) for found in outcome.front]
    for key, rows in outcome.profiles.items():
        lines += ["", f"## By {key}", "", *profile_table(key, rows, outcome.metric)]
    lines += ["", "## Importance of each setting", "", f"{outcome.importance_note}."]
    if outcome.importances:
        lines += ["", "| setting | share |", "|---|---|"]
        lines += [f"| {key} | {share:.2f} |" for key, share in outcome.importances.items()]
    reasons = [trial for trial in outcome.trials if trial.state == "failed"]
    if reasons:
        lines += [
            "",
            "## Failed",
            "",
            *(f"- trial {trial.number} ({told(trial.values)}): {trial.reason}" for trial in reasons),
        ]
    return "\n".join(lines) + "\n"


def profile_table(key: str, rows: list[ProfileRow], metric: str) -> list[str]:
    """What each value of a setting reached, as a Markdown table."""
    return [
        f"| {key} | best {metric} | below the best | cost | trials |",
        "|---|---|---|---|---|",
        *(
            f"| {toml(row.value)} | {figure(row.top)} | {gap(rows, row)} | {cost(row.top)} | {row.trials} |"
            for row in rows
        ),
    ]


def gap(rows: list[ProfileRow], row: ProfileRow) -> str:
    """How far a value stays below the best one, ± the standard error of that difference on the same users."""
    found = _gap(rows, row)
    return f"{found['below_best']:.4f} ± {found['below_best_standard_error']:.4f}" if found["below_best"] else ""


def _gap(rows: list[ProfileRow], row: ProfileRow) -> dict[str, float]:
    top = best([other.top for other in rows])
    return {
        "below_best": top.quality - row.top.quality,
        "below_best_standard_error": 0.0 if top is row.top else difference_error(top, row.top),
    }


def _line(name: str, found: Candidate) -> str:
    return f"| {name} | {figure(found)} | {cost(found)} | {told(found.values) or 'unchanged'} |"


def _tree(found: Candidate) -> dict[str, Any]:
    return {
        "trial": found.number,
        "quality": found.quality,
        "standard_error": found.standard_error,
        "size_bytes": found.size_bytes,
        "latency_ms": found.latency_ms,
        "settings": dict(found.values),
    }


def _write_csv(path: Path, outcome: Outcome) -> None:
    keys = list(outcome.space)
    figures = ("quality", "standard_error", "size_bytes", "latency_ms")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["trial", "state", *figures, "seconds", "same_as", *keys, "reason"])
        for trial in outcome.trials:
            measured = ["" if trial.measured is None else _cell(getattr(trial.measured, name)) for name in figures]
            settings = [_cell(trial.values.get(key)) for key in keys]
            row = [trial.number, trial.state, *measured, _cell(trial.seconds), _cell(trial.same_as), *settings]
            writer.writerow([*row, trial.reason])


def _cell(value: Any) -> Any:
    return "" if value is None else value
