"""The dashboard, open in a browser: what it costs the machine that shows it.

Counted is the processor time of all processes of the browser, in percent of one core. Without a graphics processor, as
here, it also paints on the processor.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.machine import python

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
DEVICES = 20
WARM_UP_S = 5.0
WIDTH_PX, HEIGHT_PX = 1440, 900
LEAST_SHARE = 0.9


class NothingToShow(Exception):
    """Fewer updates came than the page was to show. A figure of such a run would be worthless."""


def is_here() -> bool:
    """Whether there is a browser to measure with."""
    return shutil.which(CHROMIUM) is not None


@contextmanager
def opened(executable: str = CHROMIUM) -> Iterator[Browser]:
    """Run a browser without a window. Its sandbox is off, since containers have none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def simulated(url: str, updates_per_s: float, root: Path) -> Iterator[None]:
    """Publish from simulated devices, by the program of the server's own tree, for as long as the context lasts."""
    options = ["--devices", str(DEVICES), "--rate", str(updates_per_s), "--url", url]
    process = subprocess.Popen(
        python("-m", "twincast", "simulate", *options), cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def measure(url: str, seconds: float, *, updates_per_s: float, executable: str = CHROMIUM) -> float:
    """Return the percentage of one core that all processes of a browser use while the dashboard is in sight.

    Args:
        url: of the server.
        seconds: how long it is watched, after it has come to rest.
        updates_per_s: how many updates the server takes meanwhile, about.
        executable: the browser.

    Raises:
        NothingToShow: it took fewer.
    """
    with opened(executable) as browser:
        page = browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
        page.goto(f"{url}/dashboard")
        page.wait_for_timeout(1_000 * WARM_UP_S)
        before, began_s = _seq(url), time.monotonic()
        percent = used_percent(page, seconds)
        per_s = (_seq(url) - before) / (time.monotonic() - began_s)
    if per_s < LEAST_SHARE * updates_per_s:
        raise NothingToShow(f"{per_s:.1f} updates a second came, not {updates_per_s}")
    return percent


def _seq(url: str) -> int:
    with urlopen(f"{url}/api/status", timeout=10) as response:
        return int(json.load(response)["seq"])


def used_percent(page: Page, seconds: float) -> float:
    """Return the percentage of one core that the page's browser uses from now on."""
    before_s, from_s = _cpu_s(), time.monotonic()
    page.wait_for_timeout(1_000 * seconds)
    return 100 * (_cpu_s() - before_s) / (time.monotonic() - from_s)


def _cpu_s() -> float:
    """The processor time of all browsers that this process has started."""
    used_s = 0.0
    for process in psutil.Process().children(recursive=True):
        if "chrom" in process.name():
            times = process.cpu_times()
            used_s += times.user + times.system
    return used_s
