"""A result file as Markdown for people."""

from __future__ import annotations

from typing import Any

COLUMNS = {
    "NDCG@10": "ndcg@10",
    "± se": "ndcg@10_se",
    "R@10": "recall@10",
    "R@20": "recall@20",
    "R@100": "recall@100",
    "NDCG@20": "ndcg@20",
}
PIPELINE = "conch pipeline"


def render(result: dict[str, Any]) -> str:
    """The whole page."""
    group = result["headline"]
    parts = [
        f"# {result['title']}",
        _facts(result),
        f"## {group.capitalize()} users: {result['users'][group]:,}",
        _metrics(result, group, costs=True),
        _published(result),
    ]
    for other in result["users"]:
        if other == group or (other != "liked" and result["users"][other] == result["users"][group]):
            continue  # the same users again
        parts += [f"## {_heading(other)}: {result['users'][other]:,} users", _metrics(result, other, costs=False)]
    parts += ["## Differences, paired over users", _differences(result, group), _speed(result)]
    parts += [_settings(result), _agreement(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"{result['date']}, {machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']:.0f} GiB memory, "
        f"{result['threads']} threads per process, commit `{result['commit'][:12]}"
        f"{'+dirty' if result['commit'].endswith('+dirty') else ''}`.\n"
        f"Learned from {' + '.join(result['fit'])}, masked {' + '.join(result['mask'])}, "
        f"seeds {', '.join(str(seed) for seed in result['seeds'])}; metrics are means over seeds, `± se` is the "
        f"standard error over users.\n"
        f"Seconds are training alone, one seed; peak MB is the largest process that trained.\n\n"
        f"```\n{result['command']}\n```{_when(result)}"
    )


def _when(result: dict[str, Any]) -> str:
    """When the runs were made and by which commits, where `--resume` mixed several."""
    runs = [run for row in result["rows"] for run in row.get("per_seed", [])]
    commits = sorted({run["commit"] for run in runs})
    if commits in ([], [result["commit"]]):
        return ""
    times = sorted(run["measured_at"] for run in runs)
    names = ", ".join(f"`{one[:12]}`" for one in commits)
    return (
        f"\n\nRuns were made from {times[0]} to {times[-1]} by commits {names}: "
        "`--resume` takes finished ones whose code, settings, data and threads are the same."
    )


def _heading(group: str) -> str:
    return {"warm": "Warm users", "all": "All users, cold ones included", "liked": "Only liked items are relevant"}[
        group
    ]


def _metrics(result: dict[str, Any], group: str, *, costs: bool) -> str:
    head = ["model", *COLUMNS, *(("seconds", "peak MB") if costs else ())]
    lines = [head, ["---"] * len(head)]
    for row in result["rows"]:
        if "not_run" in row:
            if costs:
                lines.append([row["name"], f"not run: {row['not_run']}".replace("|", "/"), *[""] * (len(head) - 2)])
            continue
        cells = [f"{row['metrics'][group][key]:.4f}" for key in COLUMNS.values()]
        lines.append([row["name"], *cells, *((f"{row['seconds']:.2f}", str(row["peak_mb"])) if costs else ())])
    return _table(lines)


def _published(result: dict[str, Any]) -> str:
    if not result["published"]:
        return ""
    names = sorted({name for one in result["published"] for name in one["metrics"]})
    lines = [["published, not measured here", *names, "source"], ["---"] * (len(names) + 2)]
    for one in result["published"]:
        cells = [f"{one['metrics'][name]:.4f}" if name in one["metrics"] else "" for name in names]
        lines.append([one["name"], *cells, one["source"]])
    return _table(lines)


def _differences(result: dict[str, Any], group: str) -> str:
    lines = [["", "users", "metric", "difference", "95 % interval", "standard error", ""], ["---"] * 7]
    wanted = {"warm": ("ndcg@10", "recall@20"), "all": ("ndcg@10", "recall@20", "ndcg@20"), "liked": ("ndcg@10",)}
    for users in dict.fromkeys((group, "liked")):
        for one in result["differences"]:
            if one["ours"] == PIPELINE and one["users"] == users and one["metric"] in wanted[users]:
                lines.append(
                    [
                        f"{one['ours']} − {one['other']}",
                        users,
                        one["metric"],
                        f"{one['mean']:+.4f}",
                        f"{one['low']:+.4f} to {one['high']:+.4f}",
                        f"{one['standard_error']:.4f}",
                        one["verdict"],
                    ]
                )
    note = "`wins` and `loses` are differences above two standard errors. All stages and metrics are in the JSON file."
    return f"{_table(lines)}\n\n{note}" if len(lines) > 2 else "Conch was not run."


def _speed(result: dict[str, Any]) -> str:
    """Training speed of the models that train in epochs, mean over seeds."""
    lines = [["model", "epochs", "seconds per epoch", "samples per second", "seconds"], ["---"] * 5]
    for row in result["rows"]:
        facts = [run["facts"] for run in row.get("per_seed", []) if "seconds_per_epoch" in run["facts"]]
        if facts:
            mean = {name: sum(one[name] for one in facts) / len(facts) for name in facts[0]}
            samples = f"{mean['samples_per_second']:,.0f}" if "samples_per_second" in mean else ""
            cells = [f"{mean['epochs']:.0f}", f"{mean['seconds_per_epoch']:.3f}", samples, f"{row['seconds']:.2f}"]
            lines.append([row["name"], *cells])
    note = "A stage of Conch counts its whole training, start and compilation included, over its epochs."
    return f"## Training speed\n\n{_table(lines)}\n\n{note}" if len(lines) > 2 else ""


def _settings(result: dict[str, Any]) -> str:
    lines = [["model", "settings", "tried", "versions"], ["---"] * 4]
    for row in result["rows"]:
        if "not_run" in row or row["ours"]:
            continue
        chosen = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
        versions = ", ".join(f"{name} {value}" for name, value in row["versions"].items())
        lines.append([row["name"], chosen, str(row["tuning"].get("tried", 1)), versions])
    ours = next((row for row in result["rows"] if row["ours"] and "settings" in row), None)
    files = f"\n\nConch: {', '.join(ours['settings']['config'])}" if ours and ours["settings"]["config"] else ""
    extra = f"; `--set {' --set '.join(ours['settings']['set'])}`" if ours and ours["settings"]["set"] else ""
    return f"## Settings, chosen on valid\n\n{_table(lines)}{files}{extra}"


def _agreement(result: dict[str, Any]) -> str:
    checks = result["independent_evaluator"]
    if not checks:
        return ""
    wrong = [f"{one['name']} ({one['widest_difference']}{one['note']})" for one in checks if not one["agrees"]]
    if wrong:
        return f"**The independent evaluator disagrees**: {', '.join(wrong)}."
    return (
        f"An independent evaluator that reads the events gives the same numbers for all {len(checks)} rows, first seed."
    )


def _table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
