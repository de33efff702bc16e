"""The pages beside the dashboard, in a real browser: they load nothing from elsewhere, and `/docs` runs the calls."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests import warm
from tests.browser import Witness
from tests.running import ROOT, ServerProcess
from twincast.access.pairing import CODE_LIFE_S, digest_of_code, make_pairing
from twincast.core.audit import Actor
from twincast.core.rights import EVERY_RIGHT
from twincast.hub.hub import system_now_utc
from twincast.journal.sqlite.access_file import AccessFile
from twincast.testing import Server
from twincast.transports.rest.pairing import CODE

DEADLINE_MS = 20_000


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a page that must break neither its policy nor anything else, and must stay on its server."""
    expect.set_options(timeout=DEADLINE_MS)
    with browser.new_context() as context:
        page = context.new_page()
        witness = Witness(page)
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        yield page
        assert witness.wrongs == []
        assert [
            url for url in requested if not url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:"))
        ] == []


def test_docs_describe_and_execute_a_call(server: ServerProcess, page: Page) -> None:
    page.goto(f"{server.url}/docs")
    call = page.locator("#operations-State-post_data")
    call.locator(".opblock-summary-control").click()
    call.locator("textarea").fill('{"device_id": "lab/from the docs", "value": 7}')
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table")).to_contain_text('"stored": true')
    assert server.get("/api/data")["data"]["lab/from the docs"]["value"] == 7


def keep_code(path: str, code: str) -> None:
    """Have a code of the documents be one that is good."""
    made, _ = make_pairing("docs", EVERY_RIGHT, now_s=int(time.time()), rate_per_s=None, lives_s=None)
    with AccessFile(path, has_codes=True) as file:
        shown = msgspec.structs.replace(made, digest=digest_of_code(code))
        file.pair(shown, system_now_utc(), Actor("local:test", "test"), life_s=CODE_LIFE_S, waiting_max=1)


def test_every_call_of_the_docs_executes_as_it_stands(server: ServerProcess, page: Page) -> None:
    for device in ("device-1", "device-2"):
        server.post("/api/data", {"device_id": device, "value": {"temperature": 21.5}})
    document = server.get("/openapi.json")
    calls = [
        (operation["operationId"], operation["tags"])
        for item in document["paths"].values()
        for operation in item.values()
    ]
    assert {tag for _, tags in calls for tag in tags} == {tag["name"] for tag in document["tags"]}
    # At last what has the devices gone for good; and behind that a key, for from the first one on a login is asked for.
    calls.sort(key=lambda call: (call[0] == "pair", call[0].startswith("erase_")))
    keep_code(server.journal.removeprefix("sqlite:"), CODE["example"]["code"])
    page.goto(f"{server.url}/docs")
    answers = {}
    for name, [tag] in calls:
        call = page.locator(f"#operations-{tag}-{name}")
        call.locator(".opblock-summary-control").click()
        call.get_by_role("button", name="Execute").click()
        answers[name] = call.locator(".live-responses-table tbody .response-col_status").first.inner_text().split()[0]
    assert answers == {name: "202" if name.startswith("erase_") else "200" for name, _ in calls}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_docs_are_as_dark_as_the_system_and_can_be_read(server: ServerProcess, page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{server.url}/docs")
    expect(page.locator("#operations-State-post_data")).to_be_visible()
    page.locator("#operations-State-post_data .opblock-summary-control").click()
    page.locator(".examples-select__section-label").first.wait_for()
    for place in (
        ".info .title",
        ".info p",
        ".opblock-tag",
        ".opblock-summary-description",
        ".examples-select__section-label",
        ".parameters-col_description p",
    ):
        assert contrast(page, place) >= 4.5, place


def test_the_docs_fit_a_phone(server: ServerProcess, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{server.url}/docs")
    call = page.locator("#operations-State-post_data")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table")).to_contain_text('"stored": true')
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def contrast(page: Page, selector: str) -> float:
    """Return the contrast of a text with what is behind it, as WCAG 2 defines it."""
    text, *layers = page.locator(selector).first.evaluate(
        """(element) => {
          const colors = [getComputedStyle(element).color];
          for (let e = element; e; e = e.parentElement) colors.push(getComputedStyle(e).backgroundColor);
          return colors;
        }"""
    )
    behind = [255.0, 255.0, 255.0]
    for layer in reversed(layers):
        *channels, alpha = [*(float(part) for part in re.findall(r"[\d.]+", layer)), 1.0][:4]
        behind = [alpha * over + (1 - alpha) * under for over, under in zip(channels, behind, strict=True)]
    lights = [luminance([float(part) for part in re.findall(r"[\d.]+", text)[:3]]), luminance(behind)]
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def luminance(channels: list[float]) -> float:
    linear = [(c / 255 / 12.92) if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_redoc_describes_every_call(server: ServerProcess, page: Page) -> None:
    page.goto(f"{server.url}/redoc")
    for path in ("/api/status", "/api/data", "/api/control"):
        expect(page.get_by_text(path).first).to_be_attached()


def test_the_first_page_leads_to_everything(server: ServerProcess, page: Page) -> None:
    page.goto(server.url)
    links = page.get_by_role("link").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert {"dashboard", "docs", "redoc", "api/status", "api/data", "openapi.json"} <= set(links)
    assert links[0] == "dashboard"
    assert len([link for link in links if link.startswith("guides/")]) == 11
    for link in links:
        response = page.request.get(f"{server.url}/{link}")
        assert response.ok, link


def test_the_lines_of_the_first_page_have_its_address_and_do_what_they_say(server: ServerProcess, page: Page) -> None:
    here = server.url.replace("127.0.0.1", "localhost")
    page.goto(here)
    lines = {name: page.locator(f"#{name}").inner_text() for name in ("curl", "python", "javascript", "stream")}
    assert all(here in text and "8000" not in text for text in lines.values())
    warm.run(["sh", "-c", lines["curl"]], check=True, timeout=30, capture_output=True)
    printed = warm.run([sys.executable, "-c", lines["python"]], check=True, timeout=30, capture_output=True)
    assert printed.stdout == b"21.5\n"
    module = re.sub(r"import (.*) from (.*);", r"const \1 = await import(\2);", lines["javascript"])
    assert page.evaluate(f"(async () => {{ {module}; client.close(); return client.messagesCount > 0; }})()")
    assert server.get("/api/status")["seq"] == 3


def test_a_line_is_copied_by_its_button(server: ServerProcess, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(server.url)
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curl").inner_text()


def test_the_first_page_counts_for_those_who_may_read(server: ServerProcess, page: Page) -> None:
    server.post("/api/data", [{"device_id": f"d{number}", "value": 1} for number in range(1_200)])
    page.goto(server.url)
    expect(page.locator("#counts")).to_have_text("1,200 devices, 0 events/s")
    expect(page.locator("#login")).to_be_hidden()


def test_the_first_page_tells_strangers_of_a_server_with_a_login_nothing_but_that(
    browser: Browser, tmp_path: Path
) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        server.add_key(read=["*"])
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(server.url)
            expect(page.locator("#login")).to_be_visible()
            expect(page.locator("#counts")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_page_fits_a_phone_and_can_be_read(server: ServerProcess, page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(server.url)
    expect(page.locator("#counts")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for place in (
        ".lead",
        "a.first b",
        "a.first span",
        "#counts",
        "figcaption",
        "figcaption button",
        "nav span",
        "pre",
    ):
        assert contrast(page, place) >= 4.5, place


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("client.md", 200),
        ("images/dashboard-light.png", 404),
        ("../pyproject.toml", 404),
        ("nothing.md", 404),
        ("", 404),
    ],
)
def test_guides_are_served_as_text_and_nothing_else_is(server: ServerProcess, path: str, status: int) -> None:
    response = requests.get(f"{server.url}/guides/{path}", timeout=10)
    assert response.status_code == status
    if status == 200:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.text == (ROOT / "docs" / path).read_text()
