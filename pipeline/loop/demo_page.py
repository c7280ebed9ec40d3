"""The demonstration's page: one HTML file and the same in Markdown."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.bootstrap import standard_error

if TYPE_CHECKING:
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
    gain = story.gain
    told = [
        f"Final release against the first: {gain.difference:+.4f} ± {gain.standard_error:.4f} NDCG@10 over "
        f"{gain.users} users ({gain.difference / max(gain.standard_error, 1e-12):.1f} standard errors).",
        f"Bad release: {story.refused.action}. {story.refused.reason}",
        f"Rollback from {story.rollback[0]}: {story.rollback[1]} answered after {story.rollback[2]:.0f} ms.",
    ]
    head = ("round", "decision", "held-out NDCG@10", "clicks per place", "why")
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


def _rows(story: Story) -> list[tuple[tuple[str, ...], float]]:
    """Cells of each round, and the length of its bar."""
    rows: list[tuple[tuple[str, ...], float]] = []
    for one in story.rounds:
        quality, rate, width = "", "", 0.0
        if one.quality is not None:
            values = one.quality[np.isfinite(one.quality)]
            quality = f"{values.mean():.4f} ± {standard_error(values):.4f}"
            width = 600 * float(values.mean())
            rate = f"{one.clicks / one.looked:.3f}" if one.looked else ""
        rows.append(((one.title, one.decision.action, quality, rate, one.decision.reason[:300]), width))
    return rows
