"""A phone that scans the QR code: the page takes the code out of its address, and is logged in by it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import PHONE, SCREEN, OpenPage, witnessed_pages
from tests.credentials import add_key, bearer
from tests.transports.rest.test_pairing import make_code
from tests.web.test_dashboard_login import traces_of
from twincast.testing import Server

EVERYTHING: Any = {"publish": ["*"], "read": ["*"], "command": ["*"]}
REFUSED = "the server responded with a status of 40"
"""What Chromium notes by itself of a code that is not good. No page can prevent it."""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    with witnessed_pages(browser) as pages:
        yield lambda server, hash="", **how: pages(f"{server.url}/dashboard{hash}", **how)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    add_key(path, "owner", **EVERYTHING)
    return path


@pytest.mark.parametrize("screen", [PHONE, SCREEN], ids=["phone", "desktop"])
def test_a_scanned_code_logs_a_page_in_and_is_gone_from_its_address(
    path: Path, open_page: OpenPage, screen: Any
) -> None:
    addresses: list[str] = []
    with Server(f"sqlite:{path}") as server:
        owner = server.add_key("other", **EVERYTHING)
        for name in ("lab/kettle", "home/door"):
            body = {"device_id": name, "value": 1}
            httpx.post(f"{server.url}/api/data", json=body, headers=bearer(owner)).raise_for_status()
        code = make_code(path, "lan/phone", read=["lab/*"])
        page = open_page(server, f"#pair={code}", **screen)
        page.on("request", lambda request: addresses.append(request.url))
        page.on("websocket", lambda socket: addresses.append(socket.url))
        expect(page.locator("#link-phase")).to_have_text("Live")
        expect(page.locator("#login")).to_be_hidden()
        expect(page.locator("#rows-body")).to_contain_text("lab/kettle")
        expect(page.locator("#devices-count")).to_have_text("1")
        expect(page.locator("#account")).to_have_text("Log out")
        assert page.url == f"{server.url}/dashboard"
        assert traces_of(page, code) == []
        assert not [address for address in addresses if code in address]
        page.reload()  # as after every login: the key was in the page's memory alone
        expect(page.locator("#login")).to_be_visible()
        assert page.url == f"{server.url}/dashboard"


def failing(page: Page, words: str) -> None:
    expect(page.locator("#form-login output")).to_contain_text(words)
    expect(page.locator("#login")).to_be_visible()
    expect(page.locator("#login-token")).to_be_visible()


def test_a_code_that_is_not_good_is_said_and_another_way_in_is_open(path: Path, browser: Browser) -> None:
    with Server(f"sqlite:{path}") as server:
        other = server.add_key("other", **EVERYTHING)
        context = browser.new_context(**PHONE)
        page = context.new_page()
        page.goto(f"{server.url}/dashboard#pair=0000-0000")
        failing(page, "not known here")
        assert "0000-0000" not in page.url
        page.goto(f"{server.url}/dashboard#pair={make_code(path, 'late', age_s=400)}")
        failing(page, "good for 5 minutes")
        page.goto(f"{server.url}/dashboard#pair=%3Cimg%20src=x%3E")
        failing(page, "8 letters and digits")
        page.fill("#login-token", other)
        page.click("#form-login .primary")
        expect(page.locator("#link-phase")).to_have_text("Live")
        context.close()


def test_a_link_with_a_code_in_a_page_that_is_open_logs_it_in_anew(path: Path, open_page: OpenPage) -> None:
    with Server(f"sqlite:{path}") as server:
        owner = server.add_key("other", **EVERYTHING)
        body = {"device_id": "lab/kettle", "value": 1}
        httpx.post(f"{server.url}/api/data", json=body, headers=bearer(owner)).raise_for_status()
        page = open_page(server, **PHONE)
        expect(page.locator("#login")).to_be_visible()
        code = make_code(path, "lan/phone", read=["lab/*"])
        page.evaluate("code => { location.hash = `pair=${code}`; }", code)
        expect(page.locator("#link-phase")).to_have_text("Live")
        expect(page.locator("#rows-body")).to_contain_text("lab/kettle")
        assert code not in page.url
        page.go_back()
        assert code not in page.url


def test_a_device_may_be_called_as_a_code_is_given(path: Path, open_page: OpenPage) -> None:
    with Server(f"sqlite:{path.with_name('open.db')}") as server:
        body = {"device_id": "pair=7KQ4-9XTM", "value": 1}
        httpx.post(f"{server.url}/api/data", json=body).raise_for_status()
        page = open_page(server, "#pair%3D7KQ4-9XTM")
        expect(page.locator("#detail")).to_be_visible()
        assert page.url.endswith("#pair%3D7KQ4-9XTM")
