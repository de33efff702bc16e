"""The head of the dashboard says how full the journal is, to those whom the server tells."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser import PHONE, SCREEN, OpenPage, is_within_reach, witnessed_pages
from tests.credentials import add_key
from tests.web.test_dashboard_login import log_in
from twincast.testing import Server


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    with witnessed_pages(browser) as pages:
        yield lambda server, **how: pages(f"{server.url}/dashboard", **how)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:{tmp_path / 'journal.db'}", keep="30d", keep_bytes="2GB") as server:
        httpx.post(f"{server.url}/api/data", json={"device_id": "lamp", "value": 1}).raise_for_status()
        yield server


def with_space(page: Page, **changed: Any) -> None:
    """Have the page told of another disk than the machine's."""

    def answer(route: Route) -> None:
        status = route.fetch().json()
        status["space"] |= changed
        route.fulfill(body=json.dumps(status), content_type="application/json")

    page.route("**/api/status", answer)


def test_the_head_says_how_full_the_journal_is_and_for_how_long_the_disk_lasts(
    server: Server, open_page: OpenPage
) -> None:
    page = open_page(server, **SCREEN)
    expect(page.locator("#journal")).to_be_visible()
    expect(page.locator("#journal-bytes")).to_have_text(re.compile(r"^\d+\.\d [KM]B$"))
    expect(page.locator("#journal")).to_have_attribute("title", re.compile("^1 entry, since "))
    title = page.locator("#journal").get_attribute("title") or ""
    assert "Kept: 30 days, 2.0 GB at most" in title
    assert re.search(r"[\d.]+ [GT]B of the disk are free", title)
    with_space(page, disk_free_bytes=9e9, growth_bytes_per_s=100_000.0, full_in_s=90_000.0)
    page.evaluate("document.getElementById('journal').title = ''")
    page.reload()
    expect(page.locator("#journal")).to_have_attribute(
        "title", re.compile("9.0 GB .* for 25 h at this pace .100.0 KB/s")
    )
    expect(page.locator("#journal")).not_to_have_attribute("data-low", "")


def test_a_disk_that_is_full_soon_is_seen_on_a_phone_too(server: Server, open_page: OpenPage) -> None:
    page = open_page(server, **PHONE)
    expect(page.locator("#link-phase")).to_have_text("Live")
    expect(page.locator("#journal-bytes")).not_to_be_empty()
    expect(page.locator("#journal")).to_be_hidden()
    with_space(
        page, growth_bytes_per_s=1e6, full_in_s=3_600.0, problem="the oldest entries cannot be trimmed: it is full"
    )
    page.reload()
    journal = page.locator("#journal")
    expect(journal).to_be_visible()
    expect(journal).to_have_attribute("title", re.compile("cannot be trimmed: it is full"))
    assert is_within_reach(journal)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_who_may_not_know_is_not_shown_it(tmp_path: Path, open_page: OpenPage) -> None:
    path = tmp_path / "journal.db"
    reader = add_key(path, "reader", read=["*"])
    with Server(f"sqlite:{path}") as server:
        page = open_page(server, **SCREEN)
        log_in(page, reader)
        expect(page.locator("#account")).to_have_text("Log out")
        expect(page.locator("#journal")).to_be_hidden()
