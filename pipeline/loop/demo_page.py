"""The demonstration's page: one HTML file and the same in Markdown."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.bootstrap import standard_error

if TYPE_CHECKING:
    from pipeline.gate.statistics import Paired
    from pipeline.loop.demo import Story

STYLE = (
    "body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "td,th{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #ccc}"
    ".bar{background:#2b6cb0;height:.8rem;display:inline-block}"
)


def write_page(story: Story, folder: Path) -> Path:
    """Writes demo-loop.html and demo-loop.md; gives back the first."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = _rows(story)
    told = [
        "Every release is asked about the same final window of time: nothing of it was learned from or could be "
        f"clicked. Final release against the first: {_told(story.gain)}. Where both are also told, as the gateway "
        f"does, what users did since they were trained: {_told(story.gain_as_live)}.",
        f"A release made {story.loss:.1%} worse on purpose: {story.refused.action}. {story.refused.reason}",
        f"Rollback with models and data of training moved away: {story.rollback.before} was live, "
        f"{story.rollback.after} answered after {story.rollback.milliseconds:.0f} ms.",
        "Users and data are small: the gate reads config/gate/demo.toml, whose comments say what differs from the "
        "rules for real use.",
    ]
    head = ("release", "decision", "NDCG@10, 95 % interval", "told what is new", "clicks per place", "why")
    lines = ["# The loop, release by release", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row, _ in rows]
    (folder / "demo-loop.md").write_text("\n".join([*lines, "", *told]) + "\n", encoding="utf-8")
    cells = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + f'<td><span class="bar" style="width:{width:.0f}px"></span></td></tr>'
        for row, width in rows
    )  # fmt: skip
    titles = "".join(f"<th>{name}</th>" for name in (*head, ""))
    body = "".join(f"<p>{html.escape(line)}</p>" for line in told)
    page = folder / "demo-loop.html"
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>The loop</title><style>{STYLE}</style>'
        f"<h1>The loop, release by release</h1><table><tr>{titles}</tr>{cells}</table>{body}</html>\n",
        encoding="utf-8",
    )
    return page


def _told(gain: Paired) -> str:
    errors = gain.difference / max(gain.standard_error, 1e-12)
    return (
        f"{gain.difference:+.4f} NDCG@10, interval {gain.low:+.4f} to {gain.high:+.4f}, standard error "
        f"{gain.standard_error:.4f} ({errors:.1f} of them), {gain.users} users"
    )


def _rows(story: Story) -> list[tuple[tuple[str, ...], float]]:
    """Cells of each release, and the length of its bar."""
    rows: list[tuple[tuple[str, ...], float]] = []
    for one in story.rounds:
        width = 0.0 if one.quality is None else 1_500 * float(one.quality.mean())
        traffic = one.traffic
        rate = f"{traffic.clicks / traffic.looked:.3f}" if traffic and traffic.looked else ""
        title = f"{one.title}: {one.decision.release or 'none'}"
        cells = title, one.decision.action, _interval(one.quality), _interval(one.as_live), rate, one.decision.reason
        rows.append((cells, width))
    return rows


def _interval(values: np.ndarray | None) -> str:
    if values is None:
        return ""
    mean, reach = float(values.mean()), 1.96 * standard_error(values)
    return f"{mean:.4f} ({mean - reach:.4f} to {mean + reach:.4f})"
