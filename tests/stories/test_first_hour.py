"""What a new user does in the first hour, from the first page to a phone with a login, in one go."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests import warm
from tests.browser import PHONE, SCREEN, is_within_reach, witnessed_pages
from tests.running import DEADLINE_S, ROOT, ServerProcess, eventually

DEVICE = """
import asyncio, sys
from twincast.client import connect

async def main():
    url, boot = sys.argv[1:]
    async with connect(url, devices=(), cursor="fan.cursor") as client:
        async def obey(command):
            rpm = command.args.get("rpm", 0)
            await client.publish("lab/fan", {"boot": int(boot), "does": command.command, "rpm": rpm})
        async with client.on_command("lab/fan", obey):
            await client.publish("lab/fan", {"boot": int(boot), "does": "nothing", "rpm": 0})
            print("up", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""
"""A device: it says that it is there, does what it is told, and says so; also what it was told while it was off."""


class Desk:
    """A folder with a server, a shell and a device program in it, as their user has them."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        self.folder = folder
        self.server = server
        self.environment = {**os.environ, "TWINCAST_JOURNAL": server.journal, "TWINCAST_URL": server.url}
        self.device: subprocess.Popen[str] | None = None
        (folder / "device.py").write_text(DEVICE)

    def type(self, *words: str) -> str:
        """Run a command of twincast's, and return what it prints."""
        how: Any = {"cwd": self.folder, "env": self.environment, "capture_output": True, "text": True}
        ran = warm.run([sys.executable, "-m", "twincast", *words], timeout=DEADLINE_S, check=False, **how)
        assert ran.returncode == 0, ran.stderr
        return str(ran.stdout)

    def switch_on(self, boot: int) -> None:
        self.device = warm.Popen(
            [sys.executable, "device.py", self.server.url, str(boot)],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.device.stdout
        assert self.device.stdout.readline() == "up\n"

    def pull_the_plug(self) -> None:
        """Kill the device, if one runs."""
        if self.device:
            self.device.kill()
            self.device.communicate()


@pytest.mark.parametrize("screen", [SCREEN, PHONE], ids=["screen", "phone"])
def test_the_first_hour(
    tmp_path: Path, browser: Browser, server_process: Callable[..., ServerProcess], screen: Any
) -> None:
    journal = f"sqlite:{tmp_path / 'lab.db'}"
    desk = Desk(tmp_path, server_process(journal))
    with witnessed_pages(browser) as open_page:
        try:
            page = open_page(desk.server.url, may_be_refused=True, **screen)
            page.get_by_text("Open the dashboard").click()
            expect(page.locator("#link-phase")).to_have_text("Live")
            desk.switch_on(boot=1)
            expect(page.locator("#rows-body")).to_contain_text("lab/fan")
            secret = the_first_key(desk, page)
            a_command_is_heard(desk, page, is_phone=screen is PHONE)
            desk.environment["TWINCAST_TOKEN"] = secret
            for boot in (2, 3, 4):
                what_is_told_in_the_dark_is_done(desk, server_process, boot)
                expect(page.locator("#link-phase")).to_have_text("Live")
                expect(page.locator("#detail-value")).to_contain_text(f'"boot": {boot}')
            back_and_a_link(desk, page, secret)
        finally:
            desk.pull_the_plug()


def the_first_key(desk: Desk, page: Page) -> str:
    """Make it beside the server, which asks for it at once; log in on the page with a device open."""
    page.locator(".row", has_text="lab/fan").click()
    printed = desk.type("keys", "add", "me", "--may", "publish,read,command,admin")
    secret = next(word for word in printed.split() if word.startswith("twc_"))
    desk.pull_the_plug()
    desk.environment["TWINCAST_TOKEN"] = secret
    expect(page.locator("#login")).to_be_visible()
    for selector in ("#login-token", "#form-login .primary"):
        assert is_within_reach(page.locator(selector)), selector
    page.fill("#login-token", secret)
    page.click("#form-login .primary")
    expect(page.locator("#login")).to_be_hidden()
    expect(page.locator("#link-phase")).to_have_text("Live")
    desk.switch_on(boot=1)
    return secret


def a_command_is_heard(desk: Desk, page: Page, *, is_phone: bool) -> None:
    """Send one from the page; the device does it, and the page shows that."""
    page.click("#detail-control")
    expect(page.locator("#control-target")).to_have_value("lab/fan")
    page.fill("#control-command", "spin")
    page.fill("#control-args", '{"rpm": 900}')
    assert is_within_reach(page.locator("#form-control .primary"))
    page.click("#form-control .primary")
    eventually(lambda: '"rpm":900' in desk.type("get", "lab/fan").replace(" ", ""), "the fan spins")
    if is_phone:
        page.get_by_role("button", name="Devices").click()
    page.locator(".row", has_text="lab/fan").click()
    expect(page.locator("#detail-value")).to_contain_text('"does": "spin"')


def what_is_told_in_the_dark_is_done(desk: Desk, server_process: Callable[..., ServerProcess], boot: int) -> None:
    """Kill the device, command it, kill the server too, and start both: the command was not in vain."""
    desk.pull_the_plug()
    desk.type("control", "lab/fan", f"boot_{boot}", f"rpm={boot}")
    desk.server.kill()
    desk.server = server_process(desk.server.journal, port=desk.server.port)
    desk.switch_on(boot)
    done = f'"does":"boot_{boot}","rpm":{boot}'
    eventually(lambda: done in desk.type("get", "lab/fan").replace(" ", ""), "the command is carried out")


def back_and_a_link(desk: Desk, page: Page, secret: str) -> None:
    """Go back from the device, still logged in; then follow the link to it, which asks for the login first."""
    page.go_back()
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator("#link-phase")).to_have_text("Live")
    page.goto("about:blank")
    page.goto(f"{desk.server.url}/dashboard#lab%2Ffan")
    page.fill("#login-token", secret)
    page.click("#form-login .primary")
    expect(page.locator("#detail-title")).to_have_text("lab/fan")
    expect(page.locator("#detail-value")).to_contain_text('"boot": 4')
