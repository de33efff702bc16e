"""A real Chromium for the tests of the page, and what every page of theirs must keep."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.running import ROOT, eventually
from tests.tools import program

OpenPage = Callable[..., Page]
SCREEN: Any = {"viewport": {"width": 1440, "height": 900}}
PHONE: Any = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

PROGRAM = ROOT / "twincast" / "web" / "dashboard" / "app.js"
"""The page's program as it is written, which loads its other modules one by one."""

DEADLINE_MS = 20_000
CHROMIUM_ENV = "TWINCAST_CHROMIUM"
NETWORK_GONE = ("net::ERR_", "Connection closed before receiving a handshake response")
"""What Chromium notes by itself when a server is gone, or goes just then. No page can prevent it."""
REFUSED = "status of 401"
"""The same of a call for which a login is needed: a page that asks while the first key is made learns of it so."""


def chromium() -> str:
    """Return the path of the browser."""
    return program("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", env=CHROMIUM_ENV)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run one headless browser. The sandbox is off, since containers and root have none."""
    expect.set_options(timeout=DEADLINE_MS)  # by itself it looks for five seconds
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Witness:
    """Sees what a page does that it must not: violate its policy, print errors, raise, or open dialogs."""

    def __init__(self, page: Page, *, may_be_refused: bool = False) -> None:
        self.wrongs: list[str] = []
        self._expected = (*NETWORK_GONE, REFUSED) if may_be_refused else NETWORK_GONE
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.wrongs.append(f"raised: {error}"))
        page.on("dialog", self._dismiss)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(text in message.text for text in self._expected):
            self.wrongs.append(f"printed: {message.text}")

    def _dismiss(self, dialog: Any) -> None:
        self.wrongs.append(f"opened a dialog: {dialog.message}")
        dialog.dismiss()


@contextmanager
def witnessed_pages(browser: Browser) -> Iterator[OpenPage]:
    """Open pages, each in a profile of its own; fail at the end if one of them did what no page of ours does."""
    contexts: list[BrowserContext] = []
    witnesses: list[Witness] = []

    def open_one(
        url: str, *, has_own_clock: bool = False, may_be_refused: bool = False, in_modules: bool = False, **how: Any
    ) -> Page:
        context = browser.new_context(**{**SCREEN, **how})
        context.set_default_timeout(DEADLINE_MS)
        contexts.append(context)
        page = context.new_page()
        if has_own_clock:
            page.clock.install()
        if in_modules:  # as a program that comes in one file, it has nothing that a test could reach
            page.route("**/dashboard/app.js", lambda route: route.fulfill(path=PROGRAM, content_type="text/javascript"))
        witnesses.append(Witness(page, may_be_refused=may_be_refused))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    wrongs = [wrong for witness in witnesses for wrong in witness.wrongs]
    assert wrongs == [], wrongs


@contextmanager
def passing(page: Page, selector: str) -> Iterator[None]:
    """Expect an element that a selector finds, within the context or soon behind it, for however short it is there.

    What fades by itself may be over before somebody looks from here; the page sees each of its changes.
    """
    page.evaluate(
        """selector => {
            window.hasPassed = false;
            const look = () => { window.hasPassed ||= document.querySelector(selector) !== null; };
            new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true });
        }""",
        selector,
    )
    yield
    eventually(lambda: page.evaluate("() => window.hasPassed"), f"{selector} is there for a while")


def is_within_reach(locator: Locator) -> bool:
    """Tell whether a finger on the middle of an element would meet it: on the screen, and nothing over it."""
    return bool(
        locator.evaluate(
            """element => {
                const { left, top, right, bottom } = element.getBoundingClientRect();
                if (left === right || left < 0 || top < 0 || right > innerWidth || bottom > innerHeight) return false;
                return element.contains(document.elementFromPoint((left + right) / 2, (top + bottom) / 2));
            }"""
        )
    )
