"""The dashboard and the file that leads to it, in a real browser against a real server."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.browser import OpenPage, passing, witnessed_pages
from tests.running import ROOT, ServerProcess, eventually, free_port
from tests.shared_logs import SharedLogs, ThreadedServer

PHONE_WIDTHS_PX = (390, 360)
FLEET = 10_000
SECONDS = re.compile(r"^(now|\d+ s)$")
HOSTILE_ID = "<img src=x onerror=\"window.executed='id'\">"
HOSTILE_VALUES = [
    "<img src=x onerror=\"window.executed='text'\">",
    {"<script>window.executed='name'</script>": "</pre><svg onload=\"window.executed='member'\">"},
    ["javascript:window.executed='list'", "\u202eright to left\u2066", "\x00\x1b[2J"],
]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open pages; the test fails if one of them did what no page of ours does."""
    with witnessed_pages(browser) as pages:
        yield pages


@pytest.fixture
def served(server_process: Callable[..., ServerProcess]) -> ServerProcess:
    return server_process("memory:")


@pytest.fixture
def live(served: ServerProcess, open_page: OpenPage) -> Page:
    """The dashboard of an empty server, connected."""
    return connected(open_page(f"{served.url}/dashboard"))


def test_a_server_that_reads_its_log_is_said_to_be_not_ready_and_the_page_goes_on_by_itself(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = SharedLogs(monkeypatch)
    server = ThreadedServer("portable")
    try:
        eventually(lambda: bool(logs.openings), "it opens")
        logs.openings[0].at_seq, logs.openings[0].of_seq = 1_000, 25_000
        page = open_page(f"{server.url}/dashboard")
        expect(page.locator("#nothing")).to_contain_text("The server is not ready yet.")
        expect(page.locator("#nothing")).to_contain_text("it has read 1,000 of 25,000 entries")
        expect(page.locator("#link-phase")).to_have_text("Reconnecting")
        logs.words.append("go")
        connected(page)
    finally:
        server.stop()


def connected(page: Page) -> Page:
    expect(page.locator("#link-phase")).to_have_text("Live")
    return page


def push(server: ServerProcess, device_id: str, value: Any) -> None:
    assert server.post("/api/data", {"device_id": device_id, "value": value}).status_code == 200


def push_fleet(server: ServerProcess, count: int) -> None:
    fleet = [{"device_id": f"fleet/{number:05}", "value": {"level": number}} for number in range(count)]
    assert server.post("/api/data", fleet).json()["stored"] == count


def row(page: Page, device_id: str) -> Any:
    return page.locator(".row", has=page.locator(".device").get_by_text(device_id, exact=True))


def shown_ids(page: Page) -> list[str]:
    """Return the devices in sight, from the top."""
    ids: list[str] = page.evaluate(
        """() => [...document.querySelectorAll('.row:not([hidden])')]
        .sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map((row) => row.querySelector('.device').textContent)"""
    )
    return ids


def is_shown(page: Page, order: str) -> bool:
    return "".join(shown_ids(page)) == order


def call(page: Page, module: str, expression: str) -> Any:
    """Evaluate an expression with one of the page's own modules as `m`."""
    return page.evaluate(f"async () => {{ const m = await import('/dashboard/{module}'); return {expression}; }}")


# The page itself


def test_a_posted_reading_appears_as_a_row_with_its_value_and_is_counted(served: ServerProcess, live: Page) -> None:
    expect(live.locator("#nothing")).to_contain_text("twincast simulate --devices 20 --rate 50")
    expect(live.locator("#nothing")).to_contain_text(f"{served.url}/api/data")
    push(served, "lab/lamp", {"on": True, "level": 4})
    expect(row(live, "lab/lamp").locator(".value")).to_have_text("on true level 4")
    expect(live.locator("#devices-count")).to_have_text("1")
    expect(live.locator("#messages-count")).to_have_text("2")
    expect(live.locator(".event", has_text="lab/lamp")).to_have_count(1)
    expect(live.locator("#nothing")).to_be_hidden()


def test_a_change_shows_at_once_and_is_marked_as_new(served: ServerProcess, live: Page) -> None:
    live.evaluate(
        """() => {
            const { animate } = Element.prototype;
            window.flashes = 0;
            Element.prototype.animate = function (...how) { window.flashes += 1; return animate.apply(this, how); };
        }"""
    )
    with passing(live, ".row .cell.updated.fresh"):
        push(served, "lab/lamp", 1)
    expect(row(live, "lab/lamp").locator(".value")).to_have_text("1")
    assert live.evaluate("() => window.flashes") == 1
    push(served, "lab/lamp", 2)
    expect(row(live, "lab/lamp").locator(".value")).to_have_text("2")
    expect(row(live, "lab/lamp").locator(".changes")).to_have_text("2")


def test_what_devices_send_stays_text_everywhere(served: ServerProcess, open_page: OpenPage) -> None:
    push(served, HOSTILE_ID, HOSTILE_VALUES[0])
    page = connected(open_page(f"{served.url}/dashboard"))
    elements = "() => document.querySelectorAll('img, main script, .row svg, pre svg').length"
    for value in HOSTILE_VALUES:
        push(served, HOSTILE_ID, value)
        assert served.post("/api/control", {"target": HOSTILE_ID, "command": HOSTILE_ID}).status_code == 200
    expect(row(page, HOSTILE_ID)).to_have_count(1)
    row(page, HOSTILE_ID).click()
    expect(page.locator("#detail-title")).to_have_text(HOSTILE_ID)
    expect(page.locator("#detail-value")).to_contain_text("javascript:window.executed")
    page.reload()  # the address names the device now
    expect(page.locator("#detail-title")).to_have_text(HOSTILE_ID)
    page.locator("#detail-close").click()
    page.fill("#filter", "<img")
    page.focus("#telemetry-device")
    expect(page.locator("#known-devices option")).to_have_count(1)
    assert page.evaluate(elements) == 0
    assert page.evaluate("() => window.executed") is None


def test_ten_thousand_devices_scroll_filter_and_sort(served: ServerProcess, open_page: OpenPage) -> None:
    push_fleet(served, FLEET)
    page = connected(open_page(f"{served.url}/dashboard"))
    expect(page.locator("#devices-count")).to_have_text("10,000")
    assert page.locator(".row").count() < 60
    page.locator("#rows").evaluate("rows => { rows.scrollTop = rows.scrollHeight; }")
    expect(row(page, "fleet/09999")).to_be_visible()

    page.fill("#filter", "fleet/0123")
    expect(page.locator("#devices-shown")).to_have_text("10 of 10,000")
    expect(row(page, "fleet/01234")).to_be_visible()
    page.fill("#filter", "*/*77")
    expect(page.locator("#devices-shown")).to_have_text("100 of 10,000")
    page.fill("#filter", "no such device")
    page.get_by_role("button", name="Show all devices").click()
    expect(row(page, "fleet/00000")).to_be_visible()

    page.get_by_role("button", name="Value", exact=True).click()
    page.get_by_role("button", name="Value", exact=True).click()
    eventually(lambda: shown_ids(page)[0] == "fleet/09999", "the largest value first")
    assert shown_ids(page)[:2] == ["fleet/09999", "fleet/09998"]
    expect(page.locator(".cell.value[aria-sort]")).to_have_attribute("aria-sort", "descending")


def test_every_column_sorts_and_keeps_sorting_as_changes_come(served: ServerProcess, live: Page) -> None:
    readings = [("b", 2), ("a", 3), ("c", 1), ("a", 30), ("a", 31), ("b", 3)]
    for device_id, value in readings:
        push(served, device_id, value)
    expect(row(live, "b").locator(".changes")).to_have_text("2")
    orders = {"Device": "cba", "Value": "cba", "Trend": "abc", "Events": "abc", "Updated": "bac"}
    for column, order in orders.items():
        live.locator("#rows").get_by_role("button", name=column, exact=True).click()
        live.mouse.move(0, 0)
        eventually(partial(is_shown, live, order), f"{order} by {column}")
    push(served, "c", 1)
    eventually(partial(is_shown, live, "cba"), "the newest comes first")


def test_changes_at_speed_reach_the_page_completely(served: ServerProcess, live: Page) -> None:
    for base in range(0, 5_000, 500):
        batch = [{"device_id": f"d/{number % 50}", "value": number} for number in range(base, base + 500)]
        assert served.post("/api/data", batch).status_code == 200
    expect(live.locator("#messages-count")).to_have_text("5,001")
    live.fill("#filter", "d/49")
    expect(row(live, "d/49").locator(".value")).to_have_text("4999")
    expect(row(live, "d/49").locator(".changes")).to_have_text("100")
    assert live.locator(".event").count() < 60


# The connection


def test_the_page_reconnects_when_the_server_comes_back(
    server_process: Callable[..., ServerProcess], open_page: OpenPage, tmp_path: Any
) -> None:
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    first = server_process(journal)
    push(first, "lab/lamp", "before")
    page = connected(open_page(f"{first.url}/dashboard"))
    first.stop()
    expect(page.locator("#link-phase")).to_have_text("Reconnecting")
    expect(page.locator("#notice")).to_contain_text("Not connected")
    expect(row(page, "lab/lamp").locator(".value")).to_have_text("before")
    expect(page.locator("body")).to_have_attribute("data-stale", "")
    page.fill("#telemetry-device", "lab/lamp")
    page.fill("#telemetry-value", "1")
    page.get_by_role("button", name="Send reading").click()
    expect(page.locator("#form-telemetry output")).to_contain_text("not_connected")

    second = server_process(journal, port=first.port)
    connected(page)
    expect(page.locator("#notice")).to_be_hidden()
    push(second, "lab/lamp", "after")
    expect(row(page, "lab/lamp").locator(".value")).to_have_text("after")


def test_the_page_tries_at_once_when_asked_to_or_when_the_network_returns(
    server_process: Callable[..., ServerProcess], open_page: OpenPage
) -> None:
    first = server_process("memory:")
    push(first, "lab/lamp", 1)
    page = connected(open_page(f"{first.url}/dashboard"))
    page.evaluate("() => { Math.random = () => 1_000; }")  # by itself it would come again after eight minutes
    first.kill()
    expect(page.locator("#notice")).to_contain_text("Next attempt in")
    second = server_process("memory:", port=first.port)
    push(second, "lab/lamp", 2)
    page.evaluate("() => dispatchEvent(new Event('online'))")
    connected(page)
    second.kill()
    expect(page.locator("#notice")).to_contain_text("Next attempt in")
    server_process("memory:", port=first.port)
    page.get_by_role("button", name="Try now").click()
    connected(page)
    expect(page.locator("#devices-count")).to_have_text("0")  # another log: what was known is no longer true


def test_a_server_that_hangs_is_noticed(server_process: Callable[..., ServerProcess], open_page: OpenPage) -> None:
    server = server_process("memory:")
    page = connected(open_page(f"{server.url}/dashboard", has_own_clock=True))
    server.process.send_signal(signal.SIGSTOP)
    try:
        page.clock.run_for(20_000)
        expect(page.locator("#link-phase")).not_to_have_text("Live")
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_a_server_that_wants_no_more_of_the_page_is_left_alone_until_somebody_asks(
    served: ServerProcess, open_page: OpenPage
) -> None:
    page = connected(open_page(f"{served.url}/dashboard"))
    attempts: list[str] = []

    def refuse(socket: WebSocketRoute) -> None:
        attempts.append(socket.url)
        socket.close(code=4503, reason="this page is too old for the server")

    page.route_web_socket("**/ws?*", refuse)
    page.reload()
    expect(page.locator("#link-phase")).to_have_text("Refused")
    expect(page.locator("#nothing")).to_contain_text("This page is too old for the server.")
    assert len(attempts) == 1
    page.get_by_role("button", name="Try again").click()
    eventually(lambda: page.title() and len(attempts) == 2, "one more attempt")


def test_ages_follow_the_server_whatever_this_machine_thinks_the_time_is(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push(served, "lab/lamp", 1)
    page = open_page("about:blank", has_own_clock=True)
    page.clock.set_system_time("2031-01-01T00:00:00Z")
    page.goto(f"{served.url}/dashboard")
    expect(row(connected(page), "lab/lamp").locator(".updated")).to_have_text(SECONDS)


def test_back_off_is_full_jitter_and_bounded(live: Page) -> None:
    bounds = call(live, "client.js", "Array.from({ length: 8 }, (_, attempt) => m.backoffMs(attempt, () => 1))")
    assert bounds == [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]
    assert call(live, "client.js", "m.backoffMs(5, () => 0)") == 0


# Sending


def test_telemetry_is_sent_and_its_acknowledgement_shown(served: ServerProcess, live: Page) -> None:
    live.fill("#telemetry-device", "lab/scale")
    live.fill("#telemetry-value", '{"counter": 9007199254740993}')
    live.get_by_role("button", name="Send reading").click()
    expect(live.locator("#form-telemetry output")).to_contain_text("Stored at position 1")
    assert served.get("/api/data")["data"]["lab/scale"]["value"] == {"counter": 9007199254740993}
    expect(row(live, "lab/scale").locator(".value")).to_have_text("counter 9007199254740993")


def test_control_is_sent_with_and_without_arguments(live: Page) -> None:
    live.get_by_role("tab", name="Control").click()
    live.fill("#control-target", "lab/lamp")
    live.fill("#control-command", "set")
    live.get_by_role("button", name="Send command").click()
    expect(live.locator("#form-control output")).to_contain_text("Stored at position 1")
    live.fill("#control-args", '{"percent": 40}')
    live.locator("#control-args").press("Control+Enter")
    expect(live.locator("#form-control output")).to_contain_text("Stored at position 2")
    live.select_option("#log-kind", "control")
    expect(live.locator(".event", has_text="set percent 40")).to_have_count(1)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"type": "ping"}', "Pong"),
        ('{"type": "hm", "x": 1}', "Unrecognized message type"),
        ('{"type": "telemetry", "device_id": "d", "value": 1}', "Stored at position 1"),
        ('{"type": "telemetry", "device_id": "d", "value": 1, "id": 7}', "Stored at position 1"),
        ('{"type": "telemetry", "device_id": "d"}', "validation_failed"),
        ("[1, 2]", "validation_failed"),
    ],
)
def test_raw_messages_show_what_the_server_answers(live: Page, text: str, answer: str) -> None:
    live.get_by_role("tab", name="Raw JSON").click()
    live.fill("#raw-text", text)
    live.get_by_role("button", name="Send message").click()
    expect(live.locator("#form-raw output")).to_contain_text(answer)


@pytest.mark.parametrize(
    ("device_id", "value", "complaint"),
    [
        ("", "1", "The device is missing."),
        ("d" * 129, "1", "takes up to 128 characters; these are 129"),
        ("d", "", "A value is missing"),
        ("d", "open", 'a text takes quotes: "open"'),
        ("d", "{'on': true}", "double quotes"),
        ("d", '{"on": true,}', "comma before a closing bracket"),
        ("d", "[1, 2", "Not JSON"),
        ("d", "NaN", "Not JSON"),
        ("d", f'"{"x" * 66_000}"', "A message takes up to 64 KiB"),
    ],
)
def test_what_cannot_be_sent_is_said_beside_the_form(live: Page, device_id: str, value: str, complaint: str) -> None:
    live.fill("#telemetry-device", device_id)
    live.fill("#telemetry-value", value)
    live.get_by_role("button", name="Send reading").click()
    expect(live.locator("#form-telemetry output")).to_contain_text(complaint)
    expect(live.locator("#form-telemetry [aria-invalid=true]")).to_be_focused()
    expect(live.locator("#devices-count")).to_have_text("0")


def test_what_only_the_server_knows_to_be_wrong_is_shown_with_its_code(live: Page) -> None:
    live.fill("#telemetry-device", "d")
    live.fill("#telemetry-value", "[" * 40 + "]" * 40)
    live.get_by_role("button", name="Send reading").click()
    expect(live.locator("#form-telemetry output code")).to_be_visible()
    expect(live.locator("#form-telemetry output")).to_contain_text("32")


# The log


def test_the_log_pauses_goes_on_and_clears(served: ServerProcess, live: Page) -> None:
    push(served, "lab/a", 1)
    expect(live.locator(".event", has_text="lab/a")).to_have_count(1)
    live.get_by_role("button", name="Pause").click()
    push(served, "lab/b", 1)
    expect(row(live, "lab/b")).to_have_count(1)
    expect(live.locator("#log-newer")).to_have_text("1 newer")
    expect(live.locator(".event:visible", has_text="lab/b")).to_have_count(0)
    live.get_by_role("button", name="Go on").click()
    expect(live.locator(".event", has_text="lab/b")).to_have_count(1)
    live.get_by_role("button", name="Clear events").click()
    expect(live.locator(".event:visible")).to_have_count(0)
    push(served, "lab/c", 1)
    expect(live.locator(".event:visible")).to_have_count(1)


def test_the_log_filters_and_copies_what_is_shown(served: ServerProcess, live: Page) -> None:
    live.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for number in range(3):
        push(served, "lab/a", number)
        push(served, "lab/b", number)
    live.fill("#log-filter", "LAB/B")
    expect(live.locator(".event:visible")).to_have_count(3)
    with passing(live, "#log-copy[data-done=true]"):
        live.get_by_role("button", name="Copy events").click()
    copied = [json.loads(line) for line in live.evaluate("() => navigator.clipboard.readText()").splitlines()]
    assert [(event["device_id"], event["value"]) for event in copied] == [("lab/b", 0), ("lab/b", 1), ("lab/b", 2)]


def test_copying_works_where_the_browser_denies_the_clipboard(served: ServerProcess, live: Page) -> None:
    push(served, "lab/a", 1)
    live.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')); }")
    live.evaluate("() => { document.execCommand = (command) => { window.executed = command; }; }")
    with passing(live, "#log-copy[data-done=true]"):
        live.get_by_role("button", name="Copy events").click()
    assert live.evaluate("window.executed") == "copy"


def test_who_reads_further_down_is_not_disturbed(served: ServerProcess, live: Page) -> None:
    for number in range(100):
        push(served, "lab/a", number)
    expect(live.locator(".event", has_text="lab/a99")).to_have_count(1)
    live.locator("#log").evaluate("log => { log.scrollTop = 500; }")
    expect(live.locator("#events-shown")).to_have_text("Held while you read")
    push(served, "lab/late", 1)
    expect(live.locator("#log-newer")).to_have_text("1 newer")
    live.locator("#log-newer").click()
    expect(live.locator(".event:visible", has_text="lab/late")).to_have_count(1)


def test_the_log_is_bounded_and_keeps_rare_events_that_a_filter_asks_for(live: Page) -> None:
    kept = call(
        live,
        "log.js",
        """(() => {
            const log = new m.Log();
            const event = (device_id) => m.eventOf({ type: 'data_update', device_id, value: 1 }, 0);
            log.filter({ text: 'rare' });
            for (let i = 0; i < 3 * m.CAPACITY; i += 1) log.push(event(i % 1000 ? 'common' : 'rare'));
            const rare = log.length;
            log.filter({ text: '' });
            return [rare, log.length, m.CAPACITY];
        })()""",
    )
    assert kept == [6, 2_000, 2_000]


# One device


def test_a_device_opens_with_its_value_and_its_chart_follows(served: ServerProcess, live: Page) -> None:
    push(served, "lab/climate", {"celsius": 21, "air": {"humidity": 40}})
    row(live, "lab/climate").click()
    expect(live.locator("#detail-title")).to_have_text("lab/climate")
    expect(live.locator("#detail-value")).to_contain_text('"celsius": 21')
    push(served, "lab/climate", {"celsius": 22.5, "air": {"humidity": 41}})
    expect(live.locator("#chart-now")).to_have_text("22.5")
    expect(live.locator("#chart-note")).to_have_text("2 points, 21 to 22.5")
    live.select_option("#chart-path", value="/air/humidity")
    expect(live.locator("#chart-now")).to_have_text("41")
    painted = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
    assert live.locator("#chart canvas").evaluate(painted)
    expect(live).to_have_url(f"{served.url}/dashboard#lab%2Fclimate?path=%2Fair%2Fhumidity")
    live.get_by_role("button", name="Send a command").click()
    expect(live.locator("#control-target")).to_have_value("lab/climate")
    expect(live.locator("#control-command")).to_be_focused()


def open_device(page: Page, device_id: str) -> None:
    row(page, device_id).click()
    expect(page.locator("#detail-title")).to_have_text(device_id)


SIZES = [{"width": 1440, "height": 900}, {"width": 390, "height": 700}]


@pytest.mark.parametrize("size", SIZES, ids=["screen", "phone"])
@pytest.mark.parametrize("device_id", ["lab/lamp", "..", "a/b%2F#?", HOSTILE_ID, "long/" + "x" * 123])
def test_a_device_is_deleted_after_a_question_that_names_it_and_is_gone_everywhere(
    served: ServerProcess, open_page: OpenPage, size: Any, device_id: str
) -> None:
    for name in (device_id, "lab/other"):
        push(served, name, 1)
    page, other = (connected(open_page(f"{served.url}/dashboard", viewport=each)) for each in (size, SIZES[0]))
    open_device(other, device_id)
    open_device(page, device_id)
    page.locator("#detail-delete").press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.locator("#delete-title")).to_have_text(f"Delete {device_id}?")
    expect(page.locator("#delete-cancel")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#detail-title")).to_have_text(device_id)  # the key closed the question alone
    assert list(served.get("/api/data")["data"]) == [device_id, "lab/other"]

    page.locator("#detail-delete").click()
    page.locator("#form-delete .danger").click()
    expect(page.locator("#detail")).to_be_hidden()
    expect(row(page, device_id)).to_be_hidden()
    expect(page.locator("#devices-count")).to_have_text("1")
    expect(other.locator("#detail-gone")).to_contain_text("Deleted at")
    expect(other.locator("#detail-foot")).to_be_hidden()
    expect(row(other, device_id)).to_be_hidden()
    assert list(served.get("/api/data")["data"]) == ["lab/other"]
    for seer in (page, other):
        expect(seer.locator('.event[data-kind="deleted"] b')).to_have_text(device_id)

    push(served, device_id, 2)
    expect(row(page, device_id).locator(".changes")).to_have_text("1")  # a new one, without a past
    expect(other.locator("#detail-gone")).to_be_hidden()
    expect(other.locator("#chart-note")).to_have_text("2 points, 1 to 2")  # the log has both


@pytest.mark.parametrize("size", SIZES, ids=["screen", "phone"])
def test_a_device_is_deleted_with_its_history_by_keyboard_and_what_still_has_some_is_said(
    server_process: Callable[..., ServerProcess], open_page: OpenPage, tmp_path: Path, size: Any
) -> None:
    served = server_process(f"sqlite:{tmp_path / 'journal.db'}")
    for value in range(3):
        push(served, "lab/lamp", value)
    page, other = (connected(open_page(f"{served.url}/dashboard", viewport=each)) for each in (size, SIZES[0]))
    for seer in (page, other):
        open_device(seer, "lab/lamp")
    page.locator("#detail-delete").press("Enter")
    expect(page.locator("#delete-hint")).to_contain_text("What it said stays in the log")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("And its history, for good")).to_be_focused()
    page.keyboard.press("Space")
    for words in ("cannot be undone", "Backups from before still have it: twincast journal info"):
        expect(page.locator("#delete-hint")).to_contain_text(words)
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.locator("#detail-delete").click()
    expect(page.locator("#delete-history")).not_to_be_checked()  # chosen anew each time
    page.get_by_text("And its history, for good").click()
    page.locator("#form-delete .danger").press("Enter")

    expect(page.locator("#delete-title")).to_have_text("Deleted lab/lamp, with its history")
    for words in ("No answer has anything of it any more", "twincast journal info"):
        expect(page.locator("#delete-hint")).to_contain_text(words)
    for name in ("#delete-history", "#form-delete .danger"):
        expect(page.locator(name)).to_be_hidden()
    assert served.get("/api/history?device_id=lab/lamp")["entries"] == []
    expect(page.locator("#delete-cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#detail")).to_be_hidden()

    expect(other.locator("#detail-gone")).to_contain_text("with its history")
    expect(other.locator('.event[data-kind="deleted"]')).to_contain_text("deleted, with its history")
    push(served, "lab/lamp", 7)
    expect(other.locator("#detail-gone")).to_be_hidden()
    expect(other.locator("#chart-note")).to_contain_text("One point")
    expect(other.locator("#timeline li")).to_have_count(2)
    expect(other.locator('#timeline [data-kind="deleted"]')).to_contain_text("with all that was known of it")


def test_a_history_whose_deletion_fails_is_said_to_be_there_still(served: ServerProcess, open_page: OpenPage) -> None:
    push(served, "lamp", 1)
    page = connected(open_page(f"{served.url}/dashboard"))
    open_device(page, "lamp")
    page.locator("#detail-delete").click()
    page.get_by_text("And its history, for good").click()
    served.kill()
    page.locator("#form-delete .danger").click()
    expect(page.locator("#form-delete output")).to_contain_text("no_answer")
    expect(page.locator("#delete-title")).to_have_text("Delete lamp?")
    page.locator("#delete-cancel").click()
    expect(page.locator("#detail-title")).to_have_text("lamp")


def test_a_question_about_a_device_that_goes_meanwhile_is_withdrawn_and_a_failed_deletion_says_why(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push(served, "lamp", 1)
    page, other = (connected(open_page(f"{served.url}/dashboard")) for _ in range(2))
    for seer in (page, other):
        open_device(seer, "lamp")
        seer.locator("#detail-delete").click()
    other.locator("#form-delete .danger").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    push(served, "lamp", 2)
    page.locator("#detail-delete").click()
    served.kill()
    expect(page.locator("#link-phase")).to_have_text("Reconnecting")
    page.locator("#form-delete .danger").click()
    expect(page.locator("#form-delete output")).to_contain_text("not_connected")
    page.locator("#delete-cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def devices_in_memory(page: Page) -> Callable[[], int]:
    """Return a function that counts the devices which a page holds, after all garbage is collected."""
    session = page.context.new_cdp_session(page)
    kind = session.send(
        "Runtime.evaluate",
        {"expression": "import('/dashboard/store.js').then((m) => m.Device.prototype)", "awaitPromise": True},
    )
    prototype = {"prototypeObjectId": kind["result"]["objectId"]}
    length = {"functionDeclaration": "function () { return this.length; }", "returnByValue": True}

    def counted() -> int:
        found = {"objectId": session.send("Runtime.queryObjects", prototype)["objects"]["objectId"]}
        number = int(session.send("Runtime.callFunctionOn", {**length, **found})["result"]["value"])
        session.send("Runtime.releaseObject", found)  # it holds what was found
        return number

    return counted


@pytest.mark.parametrize("place", ["", "#?devices=*"], ids=["the table", "the charts"])
def test_the_page_keeps_nothing_of_devices_that_are_gone(
    served: ServerProcess, open_page: OpenPage, place: str
) -> None:
    live = connected(open_page(f"{served.url}/dashboard", in_modules=True))
    kept = devices_in_memory(live)
    for number in range(300):
        push(served, f"d/{number}", {"level": number})
    expect(live.locator("#devices-count")).to_have_text("300")
    if place:
        live.evaluate("place => { location.hash = place; }", place)
        expect(live.locator(".tile")).to_have_count(100)
        live.evaluate("location.hash = ''")
        expect(live.locator(".tile")).to_have_count(0)
    for number in range(300):
        assert served.delete(f"/api/data?device_id=d/{number}").status_code == 200
    expect(live.locator("#devices-count")).to_have_text("0")
    expect(live.locator("#nothing")).to_contain_text("No devices yet")
    eventually(lambda: kept() == 0, "nothing is kept")


def test_devices_that_come_and_go_while_nobody_looks_do_not_pile_up(live: Page) -> None:
    kept = devices_in_memory(live)
    live.evaluate(
        """() => import('/dashboard/store.js').then(({ Store }) => {
            window.store = new Store();
            for (let number = 0; number < 20_000; number += 1) {
                const id = `d/${number}`;
                const reading = { device_id: id, value: number, timestamp_utc: '2026-11-27T00:00:00Z', seq: number };
                store.apply(reading, 0);
                if (number >= 10) store.remove(id);
            }
        })"""
    )
    assert kept() < 2_000
    assert live.evaluate("store.rows(0, false).map(({ id }) => id)") == [f"d/{number}" for number in range(10)]


@pytest.mark.parametrize("text", ["9007199254740993", "-18446744073709551615", '{"n":[1e400,12345678901234567]}'])
def test_numbers_keep_their_digits(live: Page, text: str) -> None:
    through = call(live, "json.js", f"m.stringify(m.parse({json.dumps(text)}))")
    assert through == text.replace("1e400", "null")  # no double holds it, and the server refuses it


# For everybody


def test_the_table_works_by_keyboard_alone(served: ServerProcess, live: Page) -> None:
    for name in "abc":
        push(served, f"lab/{name}", 1)
    expect(row(live, "lab/c")).to_have_count(1)
    live.keyboard.press("Tab")
    expect(live.locator("#skip")).to_be_focused()
    live.keyboard.press("Enter")
    expect(live.locator("#rows")).to_be_focused()
    for key in ("ArrowDown", "End", "k"):
        live.keyboard.press(key)
    expect(live.locator(".row.active .device")).to_have_text("lab/b")
    active = live.locator(".row.active").get_attribute("id") or ""
    expect(live.locator("#rows")).to_have_attribute("aria-activedescendant", active)
    live.keyboard.press("Enter")
    expect(live.locator("#detail-title")).to_have_text("lab/b")
    live.keyboard.press("j")
    expect(live.locator("#detail-title")).to_have_text("lab/c")
    live.keyboard.press("Escape")
    expect(live.locator("#detail")).to_be_hidden()
    live.keyboard.press("ArrowRight")
    live.keyboard.press("Enter")
    expect(live.locator(".cell.device[aria-sort]")).to_have_attribute("aria-sort", "descending")


def test_shortcuts_reach_the_filter_the_form_the_log_the_theme_and_their_own_list(live: Page) -> None:
    live.keyboard.press("/")
    expect(live.locator("#filter")).to_be_focused()
    live.keyboard.type("s?")  # letters in a field are letters
    expect(live.locator("#filter")).to_have_value("s?")
    live.keyboard.press("Escape")
    expect(live.locator("#filter")).to_have_value("")
    live.keyboard.press("p")
    expect(live.locator("#log-pause")).to_have_attribute("aria-pressed", "true")
    live.keyboard.press("?")
    expect(live.get_by_role("dialog")).to_be_visible()
    live.keyboard.press("Escape")
    expect(live.get_by_role("dialog")).to_be_hidden()
    live.keyboard.press("s")
    expect(live.locator("#telemetry-device")).to_be_focused()


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_follows_the_system_until_somebody_chooses(
    served: ServerProcess, open_page: OpenPage, system: Any
) -> None:
    page = connected(open_page(f"{served.url}/dashboard", color_scheme=system))
    background = "() => getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(238, 242, 243)", "rgb(10, 17, 22)"
    assert page.evaluate(background) == {"light": light, "dark": dark}[system]
    page.keyboard.press("t")
    assert page.evaluate(background) == light
    page.keyboard.press("t")
    assert page.evaluate(background) == dark
    page.reload()
    assert page.evaluate(background) == dark


@pytest.mark.parametrize("width", PHONE_WIDTHS_PX)
def test_nothing_scrolls_sideways_on_a_phone(served: ServerProcess, open_page: OpenPage, width: int) -> None:
    push(served, "a/very/long/name/of/a/device/" + "x" * 90, {"text": "y" * 300})
    page = connected(open_page(f"{served.url}/dashboard", viewport={"width": width, "height": 700}, has_touch=True))
    wide = """() => [...document.querySelectorAll('body, main, section, aside, form, .rows, .log, .detail-body')]
        .filter((element) => element.scrollWidth > element.clientWidth + 1 && element.offsetParent !== null)
        .map((element) => element.id || element.className || element.tagName)"""
    assert page.evaluate(wide) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    for view in ("events", "send", "devices"):
        page.locator(f".views [data-view={view}]").click()
        expect(page.locator(f"#{view}")).to_be_visible()
        assert page.evaluate(wide) == []
    page.locator(".row").first.click()
    expect(page.locator("#detail")).to_be_visible()
    assert page.evaluate(wide) == []
    page.get_by_role("button", name="Send a reading").click()
    expect(page.locator("#telemetry-value")).to_be_focused()


def test_nothing_moves_for_who_asked_for_that(served: ServerProcess, open_page: OpenPage) -> None:
    page = connected(open_page(f"{served.url}/dashboard", reduced_motion="reduce"))
    push(served, "lab/lamp", 1)
    expect(row(page, "lab/lamp").locator(".updated")).to_have_text(SECONDS)
    expect(row(page, "lab/lamp").locator(".flash")).to_be_hidden()


# The file in the root


def test_the_file_on_disk_says_how_to_start_the_server_and_then_leads_to_it(
    server_process: Callable[..., ServerProcess], open_page: OpenPage
) -> None:
    port = free_port()
    page = open_page((ROOT / "dashboard.html").as_uri())
    page.fill("#port", str(port))
    expect(page.locator("#state")).to_have_text(f"No twincast server answers on port {port}")
    expect(page.locator("#start")).to_contain_text(f"scripts/serve --port {port}")
    expect(page.locator("#start")).to_contain_text(f"uvicorn main:app --reload --host 127.0.0.1 --port {port}")
    server = server_process("memory:", port=port)
    page.wait_for_url(f"{server.url}/dashboard")
    connected(page)
