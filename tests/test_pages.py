"""The pages beside the dashboard, in a real browser: they load nothing from elsewhere, and `/docs` runs the calls."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Witness, open_browser
from tests.running import ServerProcess

DEADLINE_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


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
        assert [url for url in requested if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []


def test_docs_describe_and_execute_a_call(server: ServerProcess, page: Page) -> None:
    page.goto(f"{server.url}/docs")
    call = page.locator("#operations-default-post_data")
    call.locator(".opblock-summary-control").click()
    call.locator("textarea").fill('{"device_id": "lab/from the docs", "value": 7}')
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table")).to_contain_text('"stored": true')
    assert server.get("/api/data")["data"]["lab/from the docs"]["value"] == 7


def test_redoc_describes_every_call(server: ServerProcess, page: Page) -> None:
    page.goto(f"{server.url}/redoc")
    for path in ("/api/status", "/api/data", "/api/control"):
        expect(page.get_by_text(path).first).to_be_attached()


def test_the_first_page_leads_to_everything(server: ServerProcess, page: Page) -> None:
    page.goto(server.url)
    links = page.get_by_role("link").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert {"/dashboard", "/docs", "/redoc", "/api/status", "/api/data", "/openapi.json"} <= set(links)
    for link in links:
        response = page.request.get(server.url + link)
        assert response.ok, link
