"""The demo page in a real browser, before a real gateway and a real Triton with two releases."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from core.artifacts import latest_artifact
from core.dataset import load_dataset
from core.feedback_users import user_ref
from core.settings import ROOT, Settings, load_settings
from core.tensors import RESPOND
from pipeline.events import feedback_keys, open_ends
from pipeline.gateway import OPERATOR_FILE
from pipeline.publish import publisher
from pipeline.release import assemble_release
from serving.pointer import pointer_file, read_pointer
from serving.release import live_repository
from serving.state import VOCABULARY_FILE, read_titles
from serving.sums import write_sums
from tests.conftest import REQUIRED
from tests.gateway_process import Running, running_gateway

SMOKE = ROOT / "config" / "smoke.toml"
WAIT_MS = 20_000
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Visit:
    """A page, what it asked for, and what it complained about.

    Attributes:
        page: The browser's.
        hosts: Hosts of all its requests.
        complaints: Console errors, uncaught exceptions, answers of 4xx and 5xx.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.hosts: set[str | None] = set()
        self.complaints: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))
        page.on("console", lambda told: self.complaints.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("response", lambda reply: self.complaints.append(reply.url) if reply.status >= 400 else None)

    @property
    def rows(self) -> Locator:
        """The slate, top first."""
        return self.page.locator("#slate li[data-item]")

    def items(self) -> list[str]:
        """Item ids of the slate."""
        return self.page.locator("#slate li").evaluate_all("rows => rows.map(row => row.dataset.item)")

    def ask(self, user: str) -> list[str]:
        """Recommends for a user and waits for the answer."""
        self.page.fill("#user", user)
        with self.page.expect_response("**/v1/demo/compare"):
            self.page.click("button.primary")
        return self.items()

    def like(self, place: int) -> str:
        """Likes one row and waits for the next slate; gives back which item that was."""
        item = self.items()[place]
        with self.page.expect_response("**/v1/demo/compare"):
            self.rows.nth(place).locator("button.like").click()
        expect(self.page.locator("#message")).to_contain_text("Liked ")
        return item


@pytest.fixture(scope="module")
def settings(smoke_var: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A copy of the trained chain with the same models as a second release, which is not live yet."""
    var = tmp_path_factory.mktemp("page") / "var"
    shutil.copytree(smoke_var, var, symlinks=True)
    copied = load_settings((SMOKE,), (f'paths.var="{var}"',))
    first = latest_artifact(var, "release").path
    publisher(copied, "test").activate(first, reason="first", unblessed=True)
    drop_titles(live_repository(var) / RESPOND.name / "1" / VOCABULARY_FILE)
    assemble_release(copied)
    return copied


def drop_titles(file: Path) -> None:
    """Takes every third item's title out of an installed release."""
    table = pq.read_table(file)
    titles = [title if row % 3 else None for row, title in enumerate(table["title"].to_pylist())]
    place = table.column_names.index("title")
    pq.write_table(table.set_column(place, "title", pa.array(titles, pa.string())), file.with_name("fewer.parquet"))
    file.with_name("fewer.parquet").replace(file)
    write_sums(file.parent)


@pytest.fixture(scope="module")
def gateway(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_gateway(settings, tmp_path_factory.mktemp("gateway"), ("--config", str(SMOKE))) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window; the playwright package brings no browser of its own."""
    found = shutil.which("chromium")
    if found is None:
        (pytest.fail if "chromium" in REQUIRED else pytest.skip)("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser, gateway: Running) -> Iterator[Visit]:
    """The page, opened; whatever a test does there, nothing leaves this machine and nothing complains."""
    page = browser.new_page()
    seen = Visit(page)
    page.goto(f"{gateway.url}/")
    expect(seen.rows).to_have_count(8, timeout=WAIT_MS)
    yield seen
    page.close()
    assert seen.hosts <= LOOPBACK
    assert seen.complaints == []


@pytest.fixture
def operator(visit: Visit, settings: Settings) -> Visit:
    """The page with the operator's key typed in."""
    key = (settings.paths.var / "keys" / OPERATOR_FILE).read_text(encoding="utf-8").strip()
    expect(visit.page.locator("#rollback")).to_be_disabled()
    visit.page.fill("#key", key)
    expect(visit.page.locator("#rollback")).to_be_enabled()
    expect(visit.page.locator("#retrain")).to_be_enabled()
    return visit


def known_user(settings: Settings, row: int) -> str:
    return str(load_dataset(latest_artifact(settings.paths.var, "dataset")).users.ids[row])


def test_slate_shows_titles_or_ids_reasons_release_and_latency_of_a_known_user(
    visit: Visit, settings: Settings
) -> None:
    items = visit.ask(known_user(settings, 3))
    titles = read_titles(live_repository(settings.paths.var) / RESPOND.name / "1")
    shown = visit.page.locator("#slate .title").all_inner_texts()
    assert shown == [titles.get(item, item) for item in items]
    assert {item in titles for item in items} == {True, False}  # titles, and ids where there are none
    assert all(why.startswith("because of ") for why in visit.page.locator("#slate .why").all_inner_texts())
    expect(visit.page.locator("#release")).to_have_text("r000001")
    expect(visit.page.locator("#arm")).to_have_text("stable")
    expect(visit.page.locator("#health")).to_have_text("models answer")
    stages = visit.page.locator("#latency meter").evaluate_all("all => all.map(one => one.ariaLabel)")
    assert {"history", "triton", "total"} <= set(stages)
    assert all(re.fullmatch(r"\d+\.\d ms", text) for text in visit.page.locator("#latency .ms").all_inner_texts())


def test_like_is_stored_and_the_next_slate_is_another_without_it(visit: Visit, settings: Settings) -> None:
    user = known_user(settings, 5)
    before = visit.ask(user)
    liked = visit.like(0)
    after = visit.items()
    assert liked == before[0]
    assert liked not in after
    assert after != before
    with ExitStack() as stack:
        recent = open_ends(settings, stack).recent
        (newest,) = recent.newest([user_ref(user, feedback_keys(settings).pseudonym)], 5)
    assert [(event.item, event.type) for event in newest] == [(liked, "like")]


def test_new_user_gets_a_list_of_their_own_after_three_likes(visit: Visit) -> None:
    with visit.page.expect_response("**/v1/demo/compare"):
        visit.page.click("#new-user")
    expect(visit.page.locator("#message")).to_contain_text("nobody has seen")
    first = visit.items()
    liked = {visit.like(place) for place in (6, 4, 2)}
    after = visit.items()
    assert not liked & set(after)
    assert after[:5] != [item for item in first if item not in liked]
    whys = " ".join(visit.page.locator("#slate .why").all_inner_texts())
    assert "because of " in whys


def test_canary_stands_beside_stable_and_rollback_returns_to_it(operator: Visit, settings: Settings) -> None:
    page, var = operator.page, settings.paths.var
    expect(page.locator("#canary-name")).to_have_text("canary · none")
    publisher(settings, "test").start_canary(
        latest_artifact(var, "release").path, weight=0.05, reason="look", unblessed=True
    )
    items = operator.ask(known_user(settings, 7))
    expect(page.locator("#stable-name")).to_have_text("stable · r000001")
    expect(page.locator("#canary-name")).to_have_text("canary · r000002")
    for side, version in (("stable", "1"), ("canary", "2")):  # the same models; the canary has every title
        titles = read_titles(live_repository(var) / RESPOND.name / version)
        assert page.locator(f"#{side} li").all_inner_texts() == [titles.get(item, item) for item in items]
    dataset = load_dataset(latest_artifact(var, "dataset"))
    assert titles == dict(zip(dataset.items.ids.tolist(), dataset.titles.tolist(), strict=True))
    publisher(settings, "test").move_canary(1.0, reason="all of it")
    operator.ask(known_user(settings, 7))
    expect(page.locator("#release")).to_have_text("r000002")
    page.click("#rollback")
    expect(page.locator("#run")).to_have_text("rollback: r000001", timeout=WAIT_MS)
    expect(page.locator("#release")).to_have_text("r000001", timeout=WAIT_MS)
    pointer = read_pointer(pointer_file(var))
    assert pointer is not None
    assert pointer.stable == "r000001"


def test_retrain_button_starts_a_run_and_shows_its_progress(operator: Visit) -> None:
    operator.page.click("#retrain")
    expect(operator.page.locator("#run")).to_contain_text("running", timeout=WAIT_MS)


def test_wrong_operator_key_is_answered_in_words(browser: Browser, gateway: Running) -> None:
    page = browser.new_page()
    seen = Visit(page)
    page.goto(f"{gateway.url}/")
    expect(seen.rows).to_have_count(8, timeout=WAIT_MS)
    page.fill("#key", "nonsense")
    expect(page.locator("#message")).to_have_class("bad")
    page.close()
    assert seen.hosts <= LOOPBACK
