"""The report on a release: one page with everything inside."""

from __future__ import annotations

import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from core.errors import SettingsError
from core.sections import PathSettings
from core.settings import Settings
from feedback.store import EventStore, store_folder
from pipeline.console import Terminal
from pipeline.events import feedback_keys
from pipeline.ratings import evaluate_ratings
from pipeline.report.page import write_report
from tests.unit.feedback.worlds import impression

VOID = {"meta", "link", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Texts by tag, and whether tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data.strip())


@pytest.fixture(scope="module")
def page(smoke_settings: Settings, smoke_var: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    evaluate_ratings(smoke_settings, "test", None, Terminal())
    out = tmp_path_factory.mktemp("report") / "deep" / "page.html"
    assert write_report(smoke_settings, "test", out, Terminal()) == out
    return out.read_text(encoding="utf-8")


def test_page_is_well_formed(page: str) -> None:
    assert Page(page).open == []


def test_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert "@import" not in page
    assert "url(http" not in page


def test_page_has_every_part(page: str) -> None:
    titles = Page(page).texts["h2"]
    for wanted in ("Slices", "Learning curves", "Calibration", "Diversity trade-off", "Ratings", "Parity", "Lineage"):
        assert wanted in titles
    assert sum(title.startswith("Quality") for title in titles) == 2


def test_page_shows_each_stage_and_the_curves_of_each_model(page: str) -> None:
    cells = Page(page).texts["td"]
    assert {"popularity", "mf", "gat", "recall", "pipeline"} <= set(cells)
    for curve in ("mf loss", "gat loss", "ranker loss"):
        assert curve in page


def test_what_users_made_of_the_release_is_on_the_page(
    smoke_settings: Settings, smoke_var: Path, tmp_path: Path
) -> None:
    var = tmp_path / "var"
    shutil.copytree(smoke_var, var, symlinks=True)
    settings = smoke_settings.model_copy(update={"paths": PathSettings(var=var)})
    store = EventStore(store_folder(var), feedback_keys(settings), settings.feedback)
    now_ms = time.time_ns() // 1_000_000
    store.append([impression(f"q{n}", f"user{n}", at_ms=now_ms, release="r000077") for n in range(3)])
    store.close()
    page = Page(write_report(settings, "test", tmp_path / "page.html", Terminal()).read_text(encoding="utf-8"))
    assert "What users make of it" in page.texts["h2"]
    row = page.texts["td"][page.texts["td"].index("r000077") :]
    assert row[:4] == ["r000077", "3", "3", "0.00% (0.00% … 56.15%)"]


def test_a_split_that_was_learned_from_is_refused(smoke_settings: Settings, smoke_var: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="learned from the valid split"):
        write_report(smoke_settings, "valid", tmp_path / "no.html", Terminal())
    assert not (tmp_path / "no.html").exists()
