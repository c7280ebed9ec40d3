"""The report of a search for people: Markdown and one HTML page with plots, both from the same JSON values."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

TEMPLATE = "page.html.j2"
SIZE_INCHES = (7.0, 3.4)
QUALITY = ("NDCG@10", "95 %", "recall@100", "overlap")
HEADER = ("candidate", "parent", "tables KB", "× fp32", "× fp16", *QUALITY, "front")


@dataclass(frozen=True)
class Table:
    """One part of the page.

    Attributes:
        title: Heading.
        header: Column names.
        rows: Cells as text.
        figure: SVG, or empty.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figure: str = ""


def write_pages(report: Mapping[str, Any], folder: Path) -> None:
    """Writes ``report.md`` and ``report.html`` into ``folder``."""
    tables = tables_of(report)
    (folder / "report.md").write_text(as_markdown(report, tables), encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("pipeline.compressing", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    shown = [
        {"title": one.title, "header": one.header, "rows": one.rows, "figure": Markup(one.figure)} for one in tables
    ]
    page = environment.get_template(TEMPLATE).render(report=report, tables=shown)
    (folder / "report.html").write_text(page, encoding="utf-8")


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """What was chosen, for groups of users and as it is served; then all combinations, and the candidates by step."""
    tables = [part for part in (_slices(report), _served(report), _speed(report)) if part.rows]
    tables.append(_combinations(report))
    for step, found in report["candidates"].items():
        tables.append(
            Table(step, HEADER, [_row(one) for one in found], pareto(found, report["chosen"]["steps"].get(step)))
        )
    return tables


def as_markdown(report: Mapping[str, Any], tables: Sequence[Table]) -> str:
    """The same tables as Markdown."""
    met = "all limits are met" if report["chosen"]["goals_met"] else "nothing meets all limits"
    lines = [f"# Compression: goal {report['goal']['name']}", "", f"{report['chosen']['why']} ({met})."]
    for table in tables:
        lines += ["", f"## {table.title}", "", "| " + " | ".join(table.header) + " |", "|---" * len(table.header) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    lines += ["", "## Not measured here", "", *(f"- {line}" for line in report["not_measured"]), ""]
    return "\n".join(lines)


def pareto(found: Sequence[Mapping[str, Any]], chosen: str | None) -> str:
    """Size against quality: what another candidate beats is grey, the chosen one is marked."""
    with mpl.rc_context({"svg.hashsalt": "conch", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        left, right = figure.subplots(1, 2)
        for one in found:
            kept = one["on_pareto_front"]
            colour = "C3" if one["name"] == chosen else "C0" if kept else "0.75"
            size, change = one["sizes"]["total"] / 1000, one["quality"]["ndcg@10_relative"]
            left.plot(size, one["quality"]["overlap"], "o", color=colour, markersize=4)
            bar = [[100 * (change["mean"] - change["low"])], [100 * (change["high"] - change["mean"])]]
            right.errorbar(size, 100 * change["mean"], yerr=bar, fmt="o", color=colour, markersize=4, linewidth=0.7)
        left.set(xlabel="KB stored", ylabel="overlap with fp32", xscale="log")
        right.set(xlabel="KB stored", ylabel="NDCG@10 change, %", xscale="log")
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()[stream.getvalue().index("<svg") :]


def _slices(report: Mapping[str, Any]) -> Table:
    rows = [[name, f"{one['users']:,}", *_quality(one)] for name, one in report["chosen"]["slices"].items()]
    return Table("The chosen chain, by groups of users", ("users", "number", *QUALITY), rows)


def _served(report: Mapping[str, Any]) -> Table:
    header = ("graph", "file KB", "fp32 KB", "× fp32", "in memory KB", "fp32 KB", "operators", "fp32", "bytes by dtype")
    rows = []
    for step, one in report["served"].items():
        ours, theirs = one["compressed"], one["fp32"]
        memory = [f"{g['loaded_bytes'] / 1000:,.0f}" if g["loaded_bytes"] is not None else "" for g in (ours, theirs)]
        rows.append([
            f"{step} {one['name']}", f"{ours['file_bytes'] / 1000:,.0f}", f"{theirs['file_bytes'] / 1000:,.0f}",
            f"{theirs['file_bytes'] / ours['file_bytes']:.1f}", *memory,
            *(str(sum(graph["operators"].values())) for graph in (ours, theirs)),
            ", ".join(f"{dtype} {size:,}" for dtype, size in ours["tensors"].items()),
        ])  # fmt: skip
    return Table("As served: files and memory", header, rows)


def _speed(report: Mapping[str, Any]) -> Table:
    header = ("graph", "users", "ms", "p95", "fp32 ms", "p95", "× faster", "95 %", "pairs")
    rows = [
        [
            f"{step} {one['name']}", str(at["batch"]), f"{at['ms']:.2f}", f"{at['p95_ms']:.2f}", f"{at['fp32_ms']:.2f}",
            f"{at['fp32_p95_ms']:.2f}", f"{at['faster']:.2f}", f"{at['low']:.2f} … {at['high']:.2f}", str(at["rounds"]),
        ]
        for step, one in report["served"].items()
        for at in one["speed"]
    ]  # fmt: skip
    return Table("As served: speed in ONNX Runtime on one thread, in turns", header, rows)


def _combinations(report: Mapping[str, Any]) -> Table:
    header = ("combination", "× fp32", *QUALITY, "misses")
    rows = []
    for one in report["combinations"]:
        name = ", ".join(f"{step.removeprefix('recall_')} {which}" for step, which in one["steps"].items())
        quality = _quality(one["together"])
        rows.append([name, f"{one['ratio_tables']:.1f}", *quality, "; ".join(one["missed"]) or "none"])
    return Table("Recall → rank, end to end", header, rows)


def _row(one: Mapping[str, Any]) -> list[str]:
    tables = one["sizes"]["tables"] + one["sizes"]["scales"] + one["sizes"]["codebooks"]
    ratio = one["ratio_tables"]
    front = "yes" if one["on_pareto_front"] else ""
    return [
        one["name"],
        one["parent"],
        f"{tables / 1000:,.1f}",
        f"{ratio['fp32']:.1f}",
        f"{ratio['fp16']:.1f}",
        *_quality(one["quality"]),
        front,
    ]


def _quality(verdict: Mapping[str, Any]) -> list[str]:
    change, found = verdict["ndcg@10_relative"], verdict["recall@100_relative"]
    interval = f"{change['low']:+.2%} … {change['high']:+.2%}"
    return [f"{change['mean']:+.2%}", interval, f"{found['mean']:+.2%}", f"{verdict['overlap']:.3f}"]
