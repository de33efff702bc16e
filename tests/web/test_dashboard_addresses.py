"""The addresses of devices on the dashboard, and what going back and forward does, by what can be seen."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import PHONE, SCREEN, OpenPage, is_within_reach, witnessed_pages
from tests.credentials import add_key, bearer, revoke_key, until_known
from tests.running import ServerProcess, eventually
from twincast.testing import Server

NAMES = ["a?b", "a#b", "50%", "a%2Fb", "a&b=c d+e", "..", ".", " ", "😀/é", "<b>'\"\\", "x" * 128, "rows"]
NAMELESS = [
    ("#%", "“%” is cut off or mistyped."),
    ("#lab%2", "“lab%2” is cut off or mistyped."),
    ("#%FF?range=1h", "“%FF” is cut off or mistyped."),
    ("#?", "The name of a device is missing."),
    ("#?range=1h&%", "The name of a device is missing."),
    ("#a%00b", "no control characters"),
    ("#" + "x" * 60_000, "up to 128 characters; these are 60000."),
    ("#" + "%F0%9F%98%80" * 129, "up to 128 characters; these are 129."),
]
"""What stands behind the `#`, and what the page says of it."""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open pages; the test fails if one of them raises, prints an error or violates its policy."""
    with witnessed_pages(browser) as pages:
        yield pages


@pytest.fixture(params=[SCREEN, PHONE], ids=["screen", "phone"])
def device(request: pytest.FixtureRequest) -> Any:
    """What the page is seen on."""
    return request.param


@pytest.fixture
def served(server_process: Callable[..., ServerProcess]) -> ServerProcess:
    return server_process("memory:")


@pytest.fixture
def live(served: ServerProcess, open_page: OpenPage, device: Any) -> Page:
    """The page, connected, with the devices `a` and `b`."""
    push(served, "a", 1)
    push(served, "b", {"secret": "of b"})
    return connected(open_page(f"{served.url}/dashboard", **device))


def push(server: ServerProcess, device_id: str, value: Any) -> None:
    assert server.post("/api/data", {"device_id": device_id, "value": value}).status_code == 200


def connected(page: Page) -> Page:
    expect(page.locator("#link-phase")).to_have_text("Live")
    page.evaluate("window.isTheSame = true")
    return page


def row(page: Page, device_id: str) -> Locator:
    return page.locator(".row", has=page.locator(".device").get_by_text(device_id, exact=True))


def written(device_id: str) -> str:
    """Return the address of a device, as `encodeURIComponent` has it."""
    return "#" + quote(device_id, safe="!~*'()")


def expect_open(page: Page, device_id: str, address: str | None = None) -> None:
    expect(page.locator("#detail-title")).to_have_text(device_id)
    expect(page.locator("#detail-foot")).to_be_visible()
    eventually(lambda: is_at(page, address or written(device_id)), "the address of the device")
    assert page.title() == f"{device_id} · twincast".strip()


def expect_closed(page: Page) -> None:
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator("#rows")).to_be_visible()
    eventually(lambda: is_at(page, ""), "the page's own address")
    assert page.title() == "twincast"
    assert page.evaluate("window.isTheSame"), "the page was left"


def expect_absent(page: Page, *texts: str) -> None:
    for text in texts:
        expect(page.locator("#detail-absent")).to_contain_text(text)
    for selector in ("#detail-close", "#absent-close"):
        assert is_within_reach(page.locator(selector))
    for selector in ("#detail-body", "#detail-foot", "#detail-copy"):
        expect(page.locator(selector)).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def is_at(page: Page, address: str) -> bool:
    return bool(page.evaluate("location.hash") == address and page.evaluate("location.pathname") == "/dashboard")


# Back and forward


@pytest.mark.parametrize("way", ["back", "Escape", "button"])
def test_a_device_that_is_open_is_closed_by_going_back_however_and_opens_again_forward(live: Page, way: str) -> None:
    for _ in range(2):
        row(live, "a").click()
        expect_open(live, "a")
        if way == "back":
            live.go_back()
        elif way == "Escape":
            live.keyboard.press("Escape")
        else:
            live.locator("#detail-close").click()
        expect_closed(live)
        live.go_forward()
        expect_open(live, "a")
        live.go_back()
        expect_closed(live)
    length = live.evaluate("history.length")
    row(live, "b").click()
    expect_open(live, "b")
    assert live.evaluate("history.length") == length


def test_going_from_device_to_device_is_one_step_of_the_history(served: ServerProcess, open_page: OpenPage) -> None:
    fleet = [{"device_id": f"fleet/{number:03}", "value": number} for number in range(400)]
    assert served.post("/api/data", fleet).status_code == 200
    page = connected(open_page(f"{served.url}/dashboard"))
    row(page, "fleet/000").click()
    row(page, "fleet/003").click()
    expect_open(page, "fleet/003")
    for _ in range(300):  # a held key; browsers refuse so many changes of an address
        page.keyboard.press("ArrowDown")
    expect_open(page, "fleet/303")
    page.go_back()
    expect_closed(page)
    page.go_forward()
    expect_open(page, "fleet/303")


def test_an_address_that_is_typed_or_clicked_while_a_device_is_open_opens_the_other(live: Page) -> None:
    row(live, "a").click()
    live.evaluate("location.hash = '#b'")
    expect_open(live, "b")
    live.go_back()
    expect_open(live, "a")
    live.go_forward()
    expect_open(live, "b")
    live.keyboard.press("Escape")
    expect_closed(live)  # closed is closed; the other is not what comes then
    live.evaluate("location.hash = '#a'")
    expect_open(live, "a")
    live.evaluate("location.hash = ''")
    expect(live.locator("#detail")).to_be_hidden()


def test_a_device_that_opens_while_another_one_closes_stays_open(live: Page) -> None:
    row(live, "a").click()
    expect_open(live, "a")
    live.evaluate(
        """() => {
            document.getElementById('detail-close').click();
            [...document.querySelectorAll('.row')].find((row) => row.textContent.includes('of b')).click();
        }"""
    )
    expect_open(live, "b")
    live.go_back()
    expect_closed(live)


def test_a_command_to_the_device_closes_it_and_leaves_the_cursor_in_the_form(live: Page) -> None:
    row(live, "a").click()
    live.locator("#detail-control").click()
    expect_closed(live) if live.viewport_size == SCREEN["viewport"] else expect(live.locator("#detail")).to_be_hidden()
    eventually(lambda: is_at(live, ""), "the page's own address")
    expect(live.locator("#control-command")).to_be_focused()
    live.go_forward()
    expect_open(live, "a")


def test_a_deleted_device_leaves_no_address_behind(live: Page) -> None:
    row(live, "a").click()
    live.locator("#detail-delete").click()
    live.locator("#form-delete .danger").click()
    expect_closed(live)
    live.go_forward()
    expect_absent(live, "There is no device a.", "It was deleted at ", "When it comes, it opens here.")


@pytest.mark.parametrize("device_id", ["lab/lamp", "a*\\b", ".."])
def test_the_page_of_a_device_whose_history_was_deleted_says_so_and_when(
    served: ServerProcess, open_page: OpenPage, device_id: str
) -> None:
    assert served.post("/api/data", {"device_id": device_id, "value": 1}).status_code == 200
    httpx.delete(f"{served.url}/api/history", params={"device_id": device_id}).raise_for_status()
    page = connected(open_page(f"{served.url}/dashboard#{quote(device_id, safe='')}"))
    expect_absent(page, f"There is no device {device_id}.", "It was deleted at ", ", with its history.")
    page.evaluate("location.hash = '#nobody'")
    expect_absent(page, "There is no device nobody.", "It has not sent anything yet, was deleted, or has another name.")


# Links


def test_every_name_has_an_address_that_leads_to_it(served: ServerProcess, open_page: OpenPage) -> None:
    fleet = [{"device_id": name, "value": 1} for name in NAMES]
    assert served.post("/api/data", fleet).status_code == 200
    page = connected(open_page(f"{served.url}/dashboard"))
    expect(page.locator(".row:not([hidden])")).to_have_count(len(NAMES))
    other = open_page("about:blank")
    for name in NAMES:
        page.evaluate(
            """name => [...document.querySelectorAll('.row:not([hidden])')]
            .find((row) => row.querySelector('.device').textContent === name).click()""",
            name,
        )
        expect_open(page, name)
        other.goto("about:blank")
        other.goto(page.url)
        expect_open(connected(other), name)
        other.go_back()
        expect_closed(other)


def test_a_link_brings_the_row_of_its_device_into_sight_and_marks_it(
    served: ServerProcess, open_page: OpenPage, device: Any
) -> None:
    fleet = [{"device_id": f"fleet/{number:03}", "value": number} for number in range(400)]
    assert served.post("/api/data", fleet).status_code == 200
    page = connected(open_page(f"{served.url}/dashboard#fleet%2F250", **device))
    for number in (250, 390, 3):
        page.evaluate(f"location.hash = '#fleet%2F{number:03}'")
        expect_open(page, f"fleet/{number:03}")
        expect(row(page, f"fleet/{number:03}")).to_have_attribute("aria-selected", "true")
        expect(page.locator('.row[aria-selected="true"]')).to_have_count(1)
        if device is SCREEN:
            eventually(partial(is_within_reach, row(page, f"fleet/{number:03}")), "the row is in sight")
    page.evaluate("location.hash = '#fleet%2F250'")
    expect_open(page, "fleet/250")
    page.locator("#detail-close").click()
    expect_closed(page)
    eventually(lambda: is_within_reach(row(page, "fleet/250")), "the row is in sight")


def test_a_row_that_a_filter_left_out_comes_into_sight_with_the_filter_gone(
    served: ServerProcess, open_page: OpenPage
) -> None:
    fleet = [{"device_id": f"fleet/{number:03}", "value": number} for number in range(400)]
    assert served.post("/api/data", fleet).status_code == 200
    page = connected(open_page(f"{served.url}/dashboard"))
    page.fill("#filter", "fleet/00*")
    page.evaluate("location.hash = '#fleet%2F250'")
    expect_open(page, "fleet/250")
    expect(row(page, "fleet/250")).to_be_hidden()
    page.fill("#filter", "")
    expect(row(page, "fleet/250")).to_be_visible()
    eventually(lambda: is_within_reach(row(page, "fleet/250")), "the row is in sight")


def test_what_nobody_knows_behind_the_name_is_kept(served: ServerProcess, open_page: OpenPage) -> None:
    push(served, "lab/lamp", 1)
    page = connected(open_page(f"{served.url}/dashboard#lab%2Flamp?range=1h&x=%&&y"))
    expect_open(page, "lab/lamp", "#lab%2Flamp?range=1h&x=%&&y")
    row(page, "lab/lamp").click()
    expect_open(page, "lab/lamp", "#lab%2Flamp?range=1h&x=%&&y")
    page.go_back()
    expect_closed(page)
    read = "(async () => { const m = await import('/dashboard/address.js'); return %s; })()"
    assert page.evaluate(read % "m.readAddress('#lab%2Flamp?range=1h').parameters.get('range')") == "1h"
    address = page.evaluate(read % "m.writeAddress('a?b#%', new URLSearchParams({ at: '1 &2' }))")
    assert address == "#a%3Fb%23%25?at=1+%262"
    again = f"(({{ id, parameters }}) => [id, parameters.get('at')])(m.readAddress('{address}'))"
    assert page.evaluate(read % again) == ["a?b#%", "1 &2"]


# What is not there


def test_an_unknown_device_is_said_to_be_none_and_opens_when_it_comes(
    served: ServerProcess, open_page: OpenPage, device: Any
) -> None:
    page = connected(open_page(f"{served.url}/dashboard#lab%2Flamp", **device))
    expect_absent(page, "There is no device lab/lamp.", "When it comes, it opens here.")
    page.locator("#absent-close").click()
    expect_closed(page)
    page.go_forward()
    expect_absent(page, "There is no device lab/lamp.")
    push(served, "lab/other", 1)
    expect(page.locator("#devices-count")).to_have_text("1")
    expect_absent(page, "There is no device lab/lamp.")
    push(served, "lab/lamp", {"level": 4})
    expect_open(page, "lab/lamp")
    expect(page.locator("#detail-value")).to_contain_text('"level": 4')
    expect(row(page, "lab/lamp")).to_have_attribute("aria-selected", "true")
    page.go_back()
    expect_closed(page)


def test_an_address_that_names_no_device_says_what_is_wrong_with_it(
    served: ServerProcess, open_page: OpenPage, device: Any
) -> None:
    push(served, "a", 1)
    page = open_page("about:blank", **device)
    for address, said in NAMELESS:
        page.goto("about:blank")
        page.goto(f"{served.url}/dashboard{address}")
        expect_absent(connected(page), "This address names no device.", said)
        assert len(page.inner_text("#detail")) < 600
        page.go_back()
        expect_closed(page)
        row(page, "a").click()
        expect_open(page, "a")
        page.evaluate("address => { location.hash = address; }", address)
        expect_absent(page, "This address names no device.", said)
        page.keyboard.press("Escape")
        expect_closed(page)


# With a login


EVERYTHING: Any = {"publish": ["*"], "read": ["*"], "command": ["*"]}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Server, Path, str]]:
    """Run a server that asks for a login and has two devices, and give its file and a key for everything."""
    path = tmp_path / "journal.db"
    secret = add_key(path, "full", **EVERYTHING)
    with Server(f"sqlite:{path}") as server:
        fleet = [{"device_id": "lab/lamp", "value": 1}, {"device_id": "home/door", "value": "of the door"}]
        httpx.post(f"{server.url}/api/data", json=fleet, headers=bearer(secret)).raise_for_status()
        yield server, path, secret


def log_in(page: Page, secret: str) -> Page:
    page.fill("#login-token", secret)
    page.click("#form-login .primary")
    return connected(page)


def test_back_logs_nobody_out_while_a_device_is_open(
    guarded: tuple[Server, Path, str], open_page: OpenPage, device: Any
) -> None:
    server, _, secret = guarded
    page = log_in(open_page(f"{server.url}/dashboard#lab%2Flamp", **device), secret)
    expect_open(page, "lab/lamp")
    page.go_back()
    expect_closed(page)
    expect(page.locator("#account")).to_have_text("Log out")
    page.go_forward()
    expect_open(page, "lab/lamp")
    page.reload()
    log_in(page, secret)
    expect_open(page, "lab/lamp")
    page.go_back()
    expect_closed(page)
    expect(page.locator("#link-phase")).to_have_text("Live")


def test_a_device_that_may_not_be_seen_is_said_to_be_that(
    guarded: tuple[Server, Path, str], open_page: OpenPage, device: Any
) -> None:
    server, path, secret = guarded
    page = log_in(open_page(f"{server.url}/dashboard", **device), secret)
    row(page, "home/door").click()
    expect_open(page, "home/door")
    expect(page.locator("#detail-value")).to_contain_text("of the door")
    expect(page.locator("#timeline li")).not_to_have_count(0)  # nothing is asked that would be refused
    expect(page.locator("#detail-first")).not_to_have_text("")
    revoke_key(path, "full")
    expect(page.locator("#form-login output")).to_contain_text("revoked")
    lab = add_key(path, "lab", read=["lab/*"])
    until_known(server, lab)
    log_in(page, lab)
    expect_absent(page, "This page may not see home/door.", "no right to read")
    assert "of the door" not in page.content()
    page.evaluate("location.hash = '#lab%2Fnone'")
    expect_absent(page, "There is no device lab/none.")
    page.evaluate("location.hash = '#lab%2Flamp'")
    expect(page.locator("#detail-title")).to_have_text("lab/lamp")
    expect(page.locator("#detail-body")).to_be_visible()
