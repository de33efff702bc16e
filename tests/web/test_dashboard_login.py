"""The dashboard on a server that asks for a login."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import PHONE, SCREEN, OpenPage, is_within_reach, witnessed_pages
from tests.credentials import AUDIENCE, ISSUER, Issuer, add_key, bearer, revoke_key, set_ahead, until_known
from twincast.testing import Server

EVERYTHING: Any = {"publish": ["*"], "read": ["*"], "command": ["*"]}
HOSTILE_ID = "<img src=x onerror=\"document.title='executed'\">"


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    with witnessed_pages(browser) as pages:
        yield lambda server, **how: pages(f"{server.url}/dashboard", **how)


def log_in(page: Page, secret: str) -> None:
    page.fill("#login-token", secret)
    page.click("#form-login .primary")


def traces_of(page: Page, secret: str) -> list[Any]:
    """Return where a page keeps a secret that a later visitor of the machine could find."""
    places = {
        "address": page.url,
        "localStorage": page.evaluate("JSON.stringify(localStorage)"),
        "sessionStorage": page.evaluate("JSON.stringify(sessionStorage)"),
        "cookies": str(page.context.cookies()),
        "text": page.content(),
        "field": page.input_value("#login-token"),
    }
    return [place for place, text in places.items() if secret in text]


def test_a_page_logs_in_sees_what_its_key_may_read_and_logs_out(tmp_path: Path, open_page: OpenPage) -> None:
    path = tmp_path / "journal.db"
    full, lab = add_key(path, "full", **EVERYTHING), add_key(path, "lab", read=["lab/*"])
    addresses: list[str] = []
    with Server(f"sqlite:{path}") as server:
        for device_id in ("lab/kettle", "home/door", HOSTILE_ID):
            body = {"device_id": device_id, "value": "<script>document.title='executed'</script>"}
            httpx.post(f"{server.url}/api/data", json=body, headers=bearer(full)).raise_for_status()
        page = open_page(server)
        page.on("request", lambda request: addresses.append(request.url))
        page.on("websocket", lambda socket: addresses.append(socket.url))
        expect(page.locator("#login")).to_be_visible()
        log_in(page, "twc_00000000_wrong")
        expect(page.locator("#form-login output")).to_contain_text("not known")
        log_in(page, lab)
        expect(page.locator("#link-phase")).to_have_text("Live")
        expect(page.locator("#login")).to_be_hidden()
        expect(page.locator("#devices-count")).to_have_text("1")
        expect(page.locator("#rows-body")).to_contain_text("lab/kettle")
        assert "home/door" not in page.content()
        expect(page.locator("#account")).to_have_text("Log out")
        assert traces_of(page, lab) == []
        page.click("#account")
        expect(page.locator("#login")).to_be_visible()
        expect(page.locator("#devices-count")).to_have_text("0")
        assert "lab/kettle" not in page.content()
        log_in(page, full)
        expect(page.locator("#devices-count")).to_have_text("3")
        expect(page.locator("#rows-body")).to_contain_text(HOSTILE_ID)
        assert page.title() == "twincast"
        page.reload()
        expect(page.locator("#login")).to_be_visible()
        assert not [address for address in addresses if full in address or lab in address]


def test_a_page_whose_key_is_revoked_asks_for_another(tmp_path: Path, open_page: OpenPage) -> None:
    path = tmp_path / "journal.db"
    secret = add_key(path, **EVERYTHING)
    with Server(f"sqlite:{path}") as server:
        page = open_page(server)
        log_in(page, secret)
        expect(page.locator("#link-phase")).to_have_text("Live")
        expect(page.locator("#account")).to_have_text("Log out")  # all that it asked for with the key is answered
        revoke_key(path)
        expect(page.locator("#form-login output")).to_contain_text("revoked")
        other = add_key(path, "other", **EVERYTHING)
        until_known(server, other)
        log_in(page, other)
        expect(page.locator("#link-phase")).to_have_text("Live")


def test_a_page_whose_token_expires_while_it_is_open_asks_for_another(tmp_path: Path, open_page: OpenPage) -> None:
    issuer, pem = Issuer(), tmp_path / "issuer.pem"
    pem.write_text(issuer.pem())
    with Server("memory:", jwt_key=str(pem), jwt_issuer=ISSUER, jwt_audience=AUDIENCE) as server:
        page = open_page(server)
        log_in(page, issuer.token(lives_s=600, twincast=EVERYTHING))
        expect(page.locator("#link-phase")).to_have_text("Live")
        expect(page.locator("#account")).to_have_text("Log out")
        set_ahead(server, 700)
        expect(page.locator("#form-login output")).to_contain_text("expired")
        log_in(page, issuer.token(lives_s=6_000, twincast=EVERYTHING))
        expect(page.locator("#link-phase")).to_have_text("Live")


def test_where_reading_is_open_a_page_may_log_in_to_do_more(tmp_path: Path, open_page: OpenPage) -> None:
    path = tmp_path / "journal.db"
    secret = add_key(path, **EVERYTHING)
    with Server(f"sqlite:{path}", anonymous="read") as server:
        page = open_page(server)
        expect(page.locator("#link-phase")).to_have_text("Live")
        expect(page.locator("#account")).to_have_text("Log in")
        page.fill("#telemetry-device", "lamp")
        page.fill("#telemetry-value", "1")
        page.click("#form-telemetry .primary")
        expect(page.locator("#form-telemetry output")).to_contain_text("not_permitted")
        page.click("#account")
        log_in(page, secret)
        expect(page.locator("#account")).to_have_text("Log out")
        page.click("#form-telemetry .primary")
        expect(page.locator("#form-telemetry output")).to_contain_text("Stored at position 1")


@pytest.mark.parametrize("device", [SCREEN, PHONE], ids=["screen", "phone"])
def test_a_login_is_within_reach_also_when_the_key_ends_while_a_device_is_open(
    tmp_path: Path, open_page: OpenPage, device: Any
) -> None:
    path = tmp_path / "journal.db"
    secret = add_key(path, "full", **EVERYTHING)
    with Server(f"sqlite:{path}") as server:
        body = {"device_id": "lamp", "value": 1}
        httpx.post(f"{server.url}/api/data", json=body, headers=bearer(secret)).raise_for_status()
        page = open_page(server, **device)
        expect_dialog(page, "#login", "API key or token", "Kept in this page's memory")
        log_in(page, secret)
        page.locator(".row", has_text="lamp").click()
        expect(page.locator("#chart-note")).to_contain_text("One point")  # nothing is asked that would be refused
        expect(page.locator("#timeline li")).to_have_count(1)
        expect(page.locator("#detail-size")).to_have_text("1 byte; 1 reading")
        revoke_key(path, "full")
        expect(page.locator("#form-login output")).to_contain_text("revoked")
        expect_dialog(page, "#login", "API key or token", "revoked")
        other = add_key(path, "other", **EVERYTHING)
        until_known(server, other)
        log_in(page, other)
        expect(page.locator("#link-phase")).to_have_text("Live")
        expect(page.locator("#detail-title")).to_have_text("lamp")
        assert is_within_reach(page.locator("#account"))
        expect(page.locator("#link-note")).to_contain_text("s")  # the round trip
        head = page.locator(".bar").bounding_box()
        assert head and head["height"] < 110  # two lines at most, also with the button
        page.locator("#detail-delete").click()
        expect_dialog(page, "#delete", "Delete lamp?", "It goes for everyone")


def expect_dialog(page: Page, selector: str, *texts: str) -> None:
    """Expect a dialog of which every field, button and given text can be seen, and touched where it is for that."""
    dialog = page.locator(selector)
    expect(dialog).to_be_visible()
    for text in texts:
        expect(dialog.get_by_text(text)).to_be_visible()
    controls = dialog.locator("button, input:not([hidden])").all()
    assert len(controls) >= 2
    assert [control.get_attribute("id") for control in controls if not is_within_reach(control)] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@contextmanager
def asked_about_the_kettle(path: Path, open_page: OpenPage, **rights: Any) -> Iterator[Page]:
    """Have a page ask whether `lab/kettle` is to be deleted, by a key that reads everything and has these rights.

    It offers nothing of the kind for `home/door`.
    """
    full, some = add_key(path, "full", **EVERYTHING), add_key(path, "some", read=["*"], **rights)
    with Server(f"sqlite:{path}") as server:
        for device_id in ("lab/kettle", "home/door"):
            body = {"device_id": device_id, "value": 1}
            httpx.post(f"{server.url}/api/data", json=body, headers=bearer(full)).raise_for_status()
        page = open_page(server)
        log_in(page, some)
        expect(page.locator("#account")).to_have_text("Log out")
        page.locator(".row", has_text="home/door").click()
        expect(page.locator("#detail-title")).to_have_text("home/door")
        expect(page.locator("#detail-delete")).to_be_hidden()
        page.locator(".row", has_text="lab/kettle").click()
        page.locator("#detail-delete").click()
        yield page


def test_a_device_may_be_deleted_by_those_alone_who_may_publish_to_it(tmp_path: Path, open_page: OpenPage) -> None:
    with asked_about_the_kettle(tmp_path / "journal.db", open_page, publish=["lab/*"]) as page:
        expect(page.locator("#delete-history")).to_be_hidden()
        page.locator("#form-delete .danger").click()
        expect(page.locator("#devices-count")).to_have_text("1")


def test_a_history_may_be_deleted_by_administrators_of_the_device_who_need_not_publish_to_it(
    tmp_path: Path, open_page: OpenPage
) -> None:
    with asked_about_the_kettle(tmp_path / "journal.db", open_page, admin=["lab/*"]) as page:
        expect(page.locator("#delete-history")).to_be_checked()
        expect(page.locator("#delete-history")).to_be_disabled()
        page.locator("#form-delete .danger").click()
        expect(page.locator("#delete-title")).to_have_text("Deleted lab/kettle, with its history")
        page.locator("#delete-cancel").click()
        expect(page.locator("#devices-count")).to_have_text("1")


def test_a_server_without_a_login_shows_none(open_page: OpenPage) -> None:
    with Server("memory:") as server:
        page = open_page(server)
        expect(page.locator("#link-phase")).to_have_text("Live")
        expect(page.locator("#account")).to_be_hidden()
        expect(page.locator("#login")).to_be_hidden()
