"""The dashboard's charts in a browser: when a device's month is seen, and how evenly many charts move.

Times are the browser's own. Without a graphics processor, as here, it also paints on the processor, which it shares
with the server.
"""

import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from itertools import count
from statistics import median, quantiles
from threading import Event, Thread
from typing import NamedTuple
from urllib.request import Request, urlopen

from benchmarks.loads.page import CHROMIUM, HEIGHT_PX, WIDTH_PX, opened
from benchmarks.machine import python

DEADLINE_MS = 30_000
VISITS = 7
"""So often a page is opened, each time in a profile of its own, which has nothing of it yet."""
WINDOW_MS = 3_000
"""How long a window is there before: a browser's own parts load as it opens, and would take half of the processor."""
CHARTS, READINGS = 50, 10_000
BATCH = 1_000
STEP_PX, STEP_MS = 40, 50
"""How far the wheel turns at once, and how often."""

_NOTE_PAINTED = """
window.paintedMs = new Promise((painted) => {
    const look = () => {
        const note = document.getElementById('chart-note')?.textContent;
        if (document.querySelector('#chart canvas') && /\\d/.test(note)) setTimeout(() => painted(performance.now()));
        else requestAnimationFrame(look);
    };
    look();
});
"""
"""Notes when a frame has been made that has the chart with its readings, from the beginning of the navigation on."""
_NOTE_FRAMES = """
(() => {
    window.frames_ms = [];
    let lastMs = performance.now();
    const note = (nowMs) => { window.frames_ms.push(nowMs - lastMs); lastMs = nowMs; requestAnimationFrame(note); };
    requestAnimationFrame((nowMs) => { lastMs = nowMs; requestAnimationFrame(note); });
})()
"""


class Frames(NamedTuple):
    """How long frames took, in milliseconds."""

    median_ms: float
    p95_ms: float
    longest_ms: float


class Missing(Exception):
    """Not all was there that was to be shown. A figure of such a run would be worthless."""


def fill_month(url: str) -> str:
    """Give a server the month of a fleet, one reading a device and minute; return the name of a device."""
    command = python("-m", "twincast", "simulate", "--backfill", "30d", "--seconds", "0.1", "--url", url)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
    with urlopen(f"{url}/api/data", timeout=30) as response:
        return str(min(json.load(response)["data"]))


def first_paint_ms(url: str, device: str, executable: str = CHROMIUM) -> float:
    """Return how long it takes until somebody who opens a device's page sees its month: the median of some visits."""
    visits_ms = []
    with opened(executable) as browser:
        for _ in range(VISITS):
            context = browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
            page = context.new_page()
            page.add_init_script(_NOTE_PAINTED)
            page.wait_for_timeout(WINDOW_MS)
            page.goto(f"{url}/dashboard#{device}?range=30d", wait_until="commit")
            visits_ms.append(float(page.evaluate("window.paintedMs")))
            context.close()
    return median(visits_ms)


def fill_wall(url: str) -> None:
    """Give a server fifty devices that have reported each second, up to now."""
    first = datetime.now(UTC) - timedelta(seconds=READINGS)
    for begin in range(0, READINGS, BATCH // CHARTS):
        batch = [
            _reading(device, number, first + timedelta(seconds=number))
            for number in range(begin, begin + BATCH // CHARTS)
            for device in range(CHARTS)
        ]
        _post(url, batch)


def frames_of_wall(url: str, seconds: float, executable: str = CHROMIUM) -> Frames:
    """Return how long frames take while somebody scrolls through fifty charts, each of which grows each second.

    Raises:
        Missing: not all charts came, or not all readings.
    """
    is_over = Event()
    publisher = Thread(target=_publish, args=(url, is_over), daemon=True)
    publisher.start()
    try:
        with opened(executable) as browser:
            page = browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
            page.goto(f"{url}/dashboard#?devices=wall/*&range=24h")
            page.locator(".tile").nth(CHARTS - 1).wait_for(state="attached", timeout=DEADLINE_MS)
            page.wait_for_timeout(2_000)
            tile = page.locator(".tile").first.bounding_box()
            if tile is None or not publisher.is_alive():
                raise Missing("the charts are not to be seen, or nothing is published")
            page.mouse.move(tile["x"] + 20, tile["y"] + 20)
            page.evaluate(_NOTE_FRAMES)
            until_s = time.monotonic() + seconds
            for turn in count():
                page.mouse.wheel(0, STEP_PX if turn // 60 % 2 == 0 else -STEP_PX)
                page.wait_for_timeout(STEP_MS)
                if time.monotonic() > until_s:
                    break
            frames_ms = [float(each) for each in page.evaluate("window.frames_ms")]
    finally:
        is_over.set()
        publisher.join()
    return Frames(median(frames_ms), quantiles(frames_ms, n=20)[-1], max(frames_ms))


def _publish(url: str, is_over: Event) -> None:
    for number in count(READINGS):
        if is_over.wait(1.0):
            return
        _post(url, [_reading(device, number) for device in range(CHARTS)])


def _reading(device: int, number: int, at: datetime | None = None) -> dict[str, object]:
    measured = {} if at is None else {"measured_at_utc": at.isoformat()}
    return {"device_id": f"wall/{device:02}", "value": (number * (device + 7)) % 1_009 / 10, **measured}


def _post(url: str, readings: list[dict[str, object]]) -> None:
    head = {"content-type": "application/json"}
    with urlopen(Request(f"{url}/api/data", json.dumps(readings).encode(), head), timeout=30) as response:
        if json.load(response).get("ok") is not True:
            raise Missing("readings were not taken")
