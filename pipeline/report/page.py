"""`conch report`: collects, draws, and writes the page in one step."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from core.settings import Settings
from pipeline.console import Terminal
from pipeline.report.collect import ReportData, collect
from pipeline.report.sections import all_parts

TEMPLATE = "page.html.j2"


def write_report(settings: Settings, split: str, out: Path | None, terminal: Terminal) -> Path:
    """Writes the report on the newest release.

    Args:
        settings: Where the release lies and what is measured.
        split: The split to predict.
        out: The page; ``<var>/report.html`` by default.
        terminal: Gets one line.

    Raises:
        ArtifactError: No release yet.
    """
    target = out or settings.paths.var / "report.html"
    page = render(collect(settings, split, terminal))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")  # a page that is being read is never half written
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)
    terminal.say(f"report: wrote {target} ({len(page) / 1e6:.1f} MB)")
    return target


def render(data: ReportData) -> str:
    """The page as HTML: styles and figures inside, no script, nothing fetched."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    manifest = data.release.manifest
    return environment.get_template(TEMPLATE).render(
        release=manifest.tensors["release_id"],
        created=manifest.created,
        commit=manifest.code_commit,
        dataset=data.artifact("dataset").manifest.tensors,
        parts=[(part, [Markup(figure) for figure in part.figures]) for part in all_parts(data)],
    )
