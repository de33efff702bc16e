"""A real Chromium for the tests of the page, and what every page of theirs must keep."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

CHROMIUM_ENV = "TWINCAST_CHROMIUM"
NETWORK_GONE = "net::ERR_"
"""What Chromium notes by itself when a server is gone. No page can prevent it."""


def chromium() -> str:
    """Return the path of the browser; without one the test fails, for a page that nobody opened is not tested."""
    path = os.environ.get(CHROMIUM_ENV) or shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.fail(f"no Chromium: install the package `chromium`, or set {CHROMIUM_ENV} to a browser's path")
    return path


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Run one headless browser. The sandbox is off, since containers and root have none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Witness:
    """Sees what a page does that it must not: violate its policy, print errors, raise, or open dialogs."""

    def __init__(self, page: Page) -> None:
        self.wrongs: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.wrongs.append(f"raised: {error}"))
        page.on("dialog", self._dismiss)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and NETWORK_GONE not in message.text:
            self.wrongs.append(f"printed: {message.text}")

    def _dismiss(self, dialog: Any) -> None:
        self.wrongs.append(f"opened a dialog: {dialog.message}")
        dialog.dismiss()
