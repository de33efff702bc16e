"""The pages beside the dashboard, in a real browser: they load nothing from elsewhere, and `/docs` runs the calls."""

import re
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
    call = page.locator("#operations-State-post_data")
    call.locator(".opblock-summary-control").click()
    call.locator("textarea").fill('{"device_id": "lab/from the docs", "value": 7}')
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table")).to_contain_text('"stored": true')
    assert server.get("/api/data")["data"]["lab/from the docs"]["value"] == 7


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
    page.goto(f"{server.url}/docs")
    answers = {}
    for name, [tag] in calls:
        call = page.locator(f"#operations-{tag}-{name}")
        call.locator(".opblock-summary-control").click()
        call.get_by_role("button", name="Execute").click()
        answers[name] = call.locator(".live-responses-table tbody .response-col_status").first.inner_text().split()[0]
    assert answers == {name: "200" for name, _ in calls}


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
    assert {"/dashboard", "/docs", "/redoc", "/api/status", "/api/data", "/openapi.json"} <= set(links)
    for link in links:
        response = page.request.get(server.url + link)
        assert response.ok, link
