"""The charts of the dashboard: history meets live without a point doubled or missing, in a real browser."""

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import PHONE, SCREEN, OpenPage, witnessed_pages
from tests.running import ServerProcess, eventually

FEW, MANY = 60, 2_600
"""Every one of few readings is drawn; many are added up by the server."""
MEANWHILE = 400
WATCHED = """
    import('/dashboard/series.js').then(({ Readings, Buckets }) => {
        for (const { prototype } of [Readings, Buckets]) {
            const { drawn } = prototype;
            prototype.drawn = function (breaks) {
                window.series = this;
                return (window.drawn = drawn.call(this, breaks));
            };
        }
    })
"""
ROWS = "() => (window.drawn?.x ?? []).map((x, index) => [x, window.drawn.y[index]]).filter(([, y]) => y !== null)"
SUMS = """() => (window.drawn?.x ?? []).flatMap((_, index) => {
    if (window.drawn.y[index] === null) return [];
    const { atMs, value, min, max, count } = window.series.at(window.drawn.x[index]);
    return [[atMs, value, min, max, count]];
})"""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open pages; the test fails if one of them raises, prints an error or violates its policy."""
    with witnessed_pages(browser) as pages:
        yield pages


@pytest.fixture
def served(server_process: Callable[..., ServerProcess]) -> ServerProcess:
    return server_process("memory:")


def push(server: ServerProcess, device_id: str, value: Any, **more: Any) -> None:
    assert server.post("/api/data", {"device_id": device_id, "value": value, **more}).status_code == 200


def push_past(
    server: ServerProcess, device_id: str, values: list[Any], *, step_s: float = 60, until_s: float = 60
) -> None:
    """Store readings that were measured one after the other, the last one some seconds ago."""
    last = datetime.now(UTC) - timedelta(seconds=until_s)
    times = [last - timedelta(seconds=step_s * (len(values) - 1 - index)) for index in range(len(values))]
    fleet = [
        {"device_id": device_id, "value": value, "measured_at_utc": at.isoformat()}
        for value, at in zip(values, times, strict=True)
    ]
    for begin in range(0, len(fleet), 1_000):
        assert server.post("/api/data", fleet[begin : begin + 1_000]).status_code == 200


def watched(served: ServerProcess, open_page: OpenPage, **how: Any) -> Page:
    """The page, connected, which notes what its chart draws."""
    page = open_page(f"{served.url}/dashboard", in_modules=True, **how)
    expect(page.locator("#link-phase")).to_have_text("Live")
    page.evaluate(WATCHED)
    return page


def show(page: Page, address: str) -> None:
    page.evaluate("address => { location.hash = address; }", address)


def address(page: Page) -> str:
    return str(page.evaluate("location.hash"))


def stored(served: ServerProcess, device_id: str) -> list[list[Any]]:
    """Return what the log has of a device: time in milliseconds and value, by time and position."""
    answer = served.get(f"/api/history?device_id={device_id}&order=asc&limit=10000")
    return [
        [at_ms(entry.get("measured_at_utc", entry["timestamp_utc"])), entry["value"]] for entry in answer["entries"]
    ]


def assert_same(found: list[list[Any]], expected: list[list[Any]]) -> None:
    """Compare rows of numbers, but for what a double rounds away."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-12, abs=1e-3)


def at_ms(text: str) -> float:
    at = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    return at / timedelta(microseconds=1) / 1_000


def note(page: Page) -> Any:
    return page.locator("#chart-note")


# History meets live


def test_a_chart_has_every_reading_of_the_log_once_also_those_stored_while_it_opens(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "d", list(range(FEW)))
    page = watched(served, open_page)
    has_begun = Event()

    def publish() -> None:
        for number in range(MEANWHILE):
            measured = (
                {} if number % 4 else {"measured_at_utc": (datetime.now(UTC) - timedelta(minutes=30)).isoformat()}
            )
            push(served, "d", FEW + number, **measured)
            if number == MEANWHILE // 8:
                has_begun.set()

    publisher = Thread(target=publish)
    publisher.start()
    has_begun.wait()
    show(page, "#d")
    publisher.join()
    push(served, "d", -1)
    expect(page.locator("#chart-now")).to_have_text("-1")
    eventually(lambda: len(page.evaluate(ROWS)) == FEW + MEANWHILE + 1, "the chart has all readings")
    assert_same(page.evaluate(ROWS), stored(served, "d"))


def test_buckets_that_grow_live_are_those_that_the_server_makes_of_the_same_readings(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "d", [{"level": number % 97} for number in range(MANY)], step_s=30)
    page = watched(served, open_page)
    show(page, "#d?range=24h")
    expect(note(page)).to_contain_text(f"{MANY:,} readings in steps of")
    for number in range(40):
        measured = (
            {} if number % 4 else {"measured_at_utc": (datetime.now(UTC) - timedelta(minutes=30 + number)).isoformat()}
        )
        push(served, "d", {"level": 200 + number}, **measured)
    expect(note(page)).to_contain_text(f"{MANY + 40:,} readings in steps of")
    every = note(page).inner_text().split(" in steps of ")[1].split(",")[0]
    answer = served.get(f"/api/history?device_id=d&path=/level&every={every}&agg=avg,min,max,count")
    columns = [answer[name] for name in ("time_ms", "avg", "min", "max", "count")]
    eventually(lambda: len(page.evaluate(SUMS)) == len(columns[0]), "the chart has all buckets")
    assert_same(page.evaluate(SUMS), [list(row) for row in zip(*columns, strict=True)])


def test_a_chart_goes_on_where_it_was_when_the_server_comes_back(
    server_process: Callable[..., ServerProcess], open_page: OpenPage, tmp_path: Any
) -> None:
    served = server_process(f"sqlite:{tmp_path}/journal.db")
    push_past(served, "d", [1, 2, 3])
    page = watched(served, open_page)
    show(page, "#d")
    expect(note(page)).to_have_text("3 points, 1 to 3")
    served.kill()
    again = server_process(f"sqlite:{tmp_path}/journal.db", port=served.port)
    push(again, "d", 4)
    expect(note(page)).to_have_text("4 points, 1 to 4")
    assert_same(page.evaluate(ROWS), stored(again, "d"))


# What is drawn


def test_a_chart_draws_once_at_once_and_nothing_after_it_was_cleared(
    served: ServerProcess, open_page: OpenPage
) -> None:
    page = watched(served, open_page)
    push_past(served, "d", [{"n": 1, "s": "on"}, {"n": 2, "s": "off"}])
    drawings = page.evaluate(
        """async () => {
            const { Chart } = await import('/dashboard/chart.js');
            const { palette } = await import('/dashboard/palette.js');
            const x = [0, 1000, 2000];
            const number = { x, y: [1, null, 3], min: null, max: null, gaps: [[0, 1000]], usualMs: 1000 };
            const sums = { ...number, min: [1, null, 2], max: [2, null, 4] };
            const state = { ...number, y: ['on', null, 'off'] };
            const lines = [['number', number], ['number', sums], ['state', state]]
                .map(([kind, drawn], index) => ({ label: String(index), color: 'rgb(1, 2, 3)', kind, drawn }));
            const counts = [];
            const choices = lines.map((line) => [line]).concat([lines]);
            for (const more of ['', 'again', 'wider', 'sharper']) {
                for (const chosen of choices) {
                    let drawings = 0;
                    const host = document.body.appendChild(document.createElement('div'));
                    const chart = new Chart(host, { onSpan() {}, onPoint() {}, onDrawn() { drawings += 1; } });
                    const marks = [{ atMs: 500, type: 'control' }];
                    const picture = { lines: chosen, marks, fromMs: 0, toMs: 2000, nowMs: 2000 };
                    chart.draw(picture, { width: 300, height: 200 }, palette());
                    const first = drawings;
                    if (more === 'again') chart.draw(picture, { width: 300, height: 200 }, palette());
                    if (more === 'wider') chart.draw(picture, { width: 400, height: 200 }, palette());
                    if (more === 'sharper') dispatchEvent(new CustomEvent('dppxchange'));
                    chart.clear();
                    const shown = drawings;
                    await new Promise((soon) => setTimeout(() => requestAnimationFrame(soon), 20));
                    counts.push([more, first, shown, more === 'sharper' ? shown : drawings, host.childElementCount]);
                    host.remove();
                }
            }
            return counts;
        }"""
    )
    assert drawings == [
        [more, 1, shown, shown, 0]
        for more, shown in (("", 1), ("again", 2), ("wider", 2), ("sharper", 1))
        for _ in range(4)
    ]


def test_one_reading_is_a_point_with_its_time(served: ServerProcess, open_page: OpenPage) -> None:
    ahead = timedelta(hours=5, minutes=45)
    zone = "Asia/Kathmandu"
    if (datetime.now(UTC) + ahead).hour in {23, 0}:  # a time of yesterday is said with its day
        zone, ahead = "Pacific/Marquesas", -timedelta(hours=9, minutes=30)
    push_past(served, "d", [7])
    page = watched(served, open_page, timezone_id=zone)
    show(page, "#d")
    measured = datetime.fromisoformat(served.get("/api/data/d")["measured_at_utc"])
    there = measured + ahead
    expect(note(page)).to_have_text(f"One point, at {there:%H:%M:%S}.{there.microsecond // 1000:03}")


def test_times_on_the_axis_are_those_of_the_readers_zone(served: ServerProcess, open_page: OpenPage) -> None:
    page = watched(served, open_page, timezone_id="Asia/Kathmandu", locale="en-GB")
    label = (
        """([times, step]) => import('/dashboard/format.js').then((m) => m.axisTimes(times.map(Date.parse), step))"""
    )
    times = ["2026-11-27T17:15:00Z", "2026-11-27T18:15:00Z", "2026-11-27T19:15:00Z"]
    assert page.evaluate(label, [times, 3_600_000]) == ["23:00\n27 Nov", "00:00\n28 Nov", "01:00"]
    assert page.evaluate(label, [times[:1], 1_000]) == ["23:00:00\n27 Nov"]
    assert page.evaluate(label, [times[:1], 86_400_000]) == ["27 Nov\n2026"]
    assert page.evaluate(label, [times[:1], 366 * 86_400_000]) == ["2026"]


def test_silence_is_a_gap_in_the_line_and_so_is_a_deletion(served: ServerProcess, open_page: OpenPage) -> None:
    push_past(served, "d", [1, 2, 3, 4], until_s=7_200)
    push_past(served, "d", [5, 6, 7, 8])
    push(served, "e", 1)
    assert served.delete("/api/data?device_id=e").status_code == 200
    push(served, "e", 2)
    page = watched(served, open_page)
    show(page, "#d")
    expect(note(page)).to_have_text("8 points, 1 to 8")
    eventually(lambda: page.evaluate("window.drawn?.y") == [1, 2, 3, 4, None, 5, 6, 7, 8], "a gap")
    assert len(page.evaluate("window.drawn.gaps")) == 1
    show(page, "#e")
    expect(note(page)).to_have_text("2 points, 1 to 2")
    eventually(lambda: page.evaluate("window.drawn?.y") == [1, None, 2], "a gap")


@pytest.mark.parametrize("values", [[True, False, True], ["open", "<b>shut</b>", "open"]], ids=["booleans", "texts"])
def test_texts_and_booleans_are_bands_of_states(served: ServerProcess, open_page: OpenPage, values: list[Any]) -> None:
    push_past(served, "d", values)
    page = watched(served, open_page)
    show(page, "#d")
    expect(note(page)).to_have_text("3 points")
    said = [str(value).lower() if isinstance(value, bool) else value for value in values]
    eventually(lambda: page.evaluate("window.drawn?.y") == said, "the states")
    expect(page.locator("#chart-now")).to_have_text(said[-1])
    page.locator("#chart").press("ArrowLeft")
    expect(note(page)).to_contain_text("at ")


def test_commands_are_marked_on_the_axis_of_time(served: ServerProcess, open_page: OpenPage) -> None:
    push_past(served, "lamp", [1, 2])
    command = {"target": "lamp", "command": "dim", "args": {"percent": 40}}
    assert served.post("/api/control", command).status_code == 200
    page = watched(served, open_page)
    show(page, "#lamp")
    expect(note(page)).to_have_text("2 points, 1 to 2")
    assert served.post("/api/control", {**command, "command": "reset", "args": {}}).status_code == 200
    page.locator("#chart").focus()
    for said in ("Command reset at ", "Command dim percent 40 at "):
        find(page, said)


def find(page: Page, said: str) -> None:
    """Point at the chart from right to left until its note says something."""
    box = page.locator("#chart .u-over").bounding_box()
    assert box is not None
    for left in range(int(box["width"]) - 1, 0, -3):
        page.mouse.move(box["x"] + left, box["y"] + box["height"] / 2)
        page.evaluate("() => new Promise(requestAnimationFrame)")  # what is pointed at is said in the next one
        if note(page).inner_text().startswith(said):
            return
    pytest.fail(f"no place of the chart says {said!r}")


# What is chosen


def test_a_part_of_the_value_is_drawn_by_a_click_on_it(served: ServerProcess, open_page: OpenPage) -> None:
    push_past(served, "d", [{"a": 1, "b": {"c/~": [5, 6], "on": True}}, {"a": 2, "b": {"c/~": [7, 8], "on": False}}])
    page = watched(served, open_page)
    show(page, "#d")
    expect(note(page)).to_have_text("2 points, 1 to 2")
    page.locator('#detail-value [data-pointer="/b/c~1~0/1"]').click()
    expect(note(page)).to_have_text("2 points, 6 to 8")
    expect(page.locator("#chart-path")).to_have_value("/b/c~1~0/1")
    expect(page.locator('#detail-value [aria-pressed="true"]')).to_have_text("8")
    page.locator('#detail-value [data-pointer="/b/on"]').click()
    expect(page.locator("#chart-now")).to_have_text("false")
    other = watched(served, open_page)
    other.goto("about:blank")
    other.goto(page.url)
    expect(other.locator("#chart-now")).to_have_text("false")  # the address has the part
    expect(other.locator("#chart-path")).to_have_value("/b/on")


def test_ranges_and_spans_are_in_the_address_and_a_link_shows_the_same(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "d", list(range(120)))
    page = watched(served, open_page)
    show(page, "#d?x=1")
    expect(note(page)).to_have_text("120 points, 0 to 119")
    page.get_by_role("button", name="1h").click()
    expect(page.get_by_role("button", name="1h")).to_have_attribute("aria-pressed", "true")
    expect(note(page)).to_have_text(re.compile(r"^(59|60) points, \d+ to 119$"))  # until then the other range is drawn
    expect(page).to_have_url(f"{served.url}/dashboard#d?x=1&range=1h")
    box = page.locator("#chart .u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=5)
    page.mouse.up()
    eventually(lambda: "from=" in address(page) and "range" not in address(page), "the address has the span")
    eventually(lambda: 13 <= len(page.evaluate(ROWS)) <= 17, "a quarter of an hour is drawn")
    drawn = page.evaluate(ROWS)
    other = watched(served, open_page)
    show(other, address(page))
    eventually(lambda: other.evaluate(ROWS) == drawn, "the same")
    page.mouse.move(5, 5)
    page.locator("#chart").press("0")
    expect(note(page)).to_have_text("120 points, 0 to 119")
    expect(page).to_have_url(f"{served.url}/dashboard#d?x=1")
    page.locator("#chart").press("+")
    eventually(lambda: "from=" in address(page), "nearer by key")


def test_a_range_stays_when_another_device_is_opened(served: ServerProcess, open_page: OpenPage) -> None:
    for name in ("a", "b"):
        push_past(served, name, [1, 2])
    page = watched(served, open_page)
    show(page, "#a?range=7d")
    expect(note(page)).to_have_text("2 points, 1 to 2")
    page.locator(".row", has_text="b").click()
    expect(page).to_have_url(f"{served.url}/dashboard#b?range=7d")
    expect(page.get_by_role("button", name="7d")).to_have_attribute("aria-pressed", "true")


def test_a_device_that_was_silent_for_days_opens_with_the_range_that_has_it(
    served: ServerProcess, open_page: OpenPage
) -> None:
    page = watched(served, open_page)
    view = (
        """(hours) => import('/dashboard/view.js').then((m) => m.edgesOf({ range: '24h', isChosen: true }, hours, 0))"""
    )
    assert page.evaluate(view, 172_800_000) == {"fromMs": 86_400_000, "toMs": 172_800_000}
    push_past(served, "d", [1, 2], until_s=3 * 86_400)
    show(page, "#d?range=24h")
    expect(note(page)).to_have_text("Nothing in this range.")
    page.get_by_role("button", name="7d").click()
    expect(note(page)).to_have_text("2 points, 1 to 2")


@pytest.mark.parametrize("how", [SCREEN, PHONE], ids=["screen", "phone"])
def test_the_page_of_a_device_keeps_to_its_width(served: ServerProcess, open_page: OpenPage, how: Any) -> None:
    push_past(served, "d" * 100, [{"temperature" * 8: 1e-9, "b": 123_456_789_012_345}, {"temperature" * 8: 5, "b": 1}])
    page = watched(served, open_page, **how)
    show(page, "#" + "d" * 100)
    expect(note(page)).to_contain_text("2 points")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        """() => [...document.querySelectorAll('#chart-figure *')].every(
            (element) => element.closest('.u-wrap') || element.getBoundingClientRect().right <= innerWidth)"""
    )


@pytest.mark.parametrize(("readings", "looks"), [(FEW, 2), (5 * FEW, 4), (MANY, 3)])
def test_no_more_readings_are_asked_for_than_a_chart_draws(
    served: ServerProcess, open_page: OpenPage, readings: int, looks: int
) -> None:
    push_past(served, "d", list(range(readings)))
    page = watched(served, open_page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    show(page, "#d?range=30d")
    expect(note(page)).to_contain_text(f"{readings:,} {'points' if readings < MANY else 'readings'}")
    asked = [url for url in asked if "to=now" in url]
    assert len(asked) == looks
    assert [url for url in asked if "limit=2000" in url] == (asked[3:] if readings < MANY else [])


def test_a_key_that_is_held_asks_for_few_of_the_devices_that_it_passes(
    served: ServerProcess, open_page: OpenPage
) -> None:
    fleet = [{"device_id": f"fleet/{number:03}", "value": number} for number in range(100)]
    assert served.post("/api/data", fleet).status_code == 200
    page = watched(served, open_page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator(".row", has_text="fleet/000").click()
    begin = time.monotonic()
    for _ in range(90):
        page.keyboard.press("ArrowDown")
    passed_s = time.monotonic() - begin
    expect(page.locator("#detail-title")).to_have_text("fleet/090")
    expect(note(page)).to_contain_text("One point")
    charted = {parse_qs(urlsplit(url).query)["devices"][0] for url in asked if "to=now" in url}
    assert len(charted) <= 3 + passed_s / 0.2
    assert len([url for url in asked if "device_id=" in url]) <= 4 + 4 * passed_s / 0.5, "facts and timeline"


# Several lines, and what is taken away


def labels(page: Page) -> list[str]:
    return page.locator("#chart-legend li span").all_inner_texts()


def test_several_parts_and_devices_lie_over_one_another_and_a_link_shows_the_same(
    served: ServerProcess, open_page: OpenPage
) -> None:
    for name in ("a", "b*", "c"):
        push_past(served, name, [{"x": 1, "on": True}, {"x": 2, "on": False}])
    page = watched(served, open_page)
    show(page, "#a")
    expect(note(page)).to_have_text("2 points, 1 to 2")
    expect(page.locator("#chart-legend")).to_be_hidden()
    page.locator('#detail-value [data-pointer="/on"]').click(modifiers=["Shift"])
    eventually(lambda: labels(page) == ["x", "on"], "two parts")
    page.locator("#chart-with").fill("b*")
    page.locator("#chart-with").press("Enter")
    eventually(lambda: labels(page) == ["a · x", "a · on", "b* · x", "b* · on"], "two devices")
    push(served, "b*", {"x": 77, "on": True})
    expect(page.locator("#chart-legend li b")).to_have_text(["2", "false", "77", "true"])
    other = watched(served, open_page)
    show(other, address(page))
    eventually(lambda: labels(other) == labels(page), "the same lines")
    page.locator("#chart-legend button").nth(1).click()
    eventually(lambda: labels(page) == ["a", "b*"], "one part")
    page.locator("#chart-add").select_option("=/on")
    eventually(lambda: len(labels(page)) == 4, "both parts again")
    page.locator("#chart-legend button").nth(3).click()
    eventually(lambda: labels(page) == ["x", "on"], "one device")
    eventually(lambda: "with" not in address(page), "the address without it")


def test_a_plain_value_is_compared_with_the_first_part_of_one_that_has_parts(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "plain", [1, 2])
    push_past(served, "parts", [{"celsius": 20, "rh": 40}, {"celsius": 21, "rh": 41}])
    push_past(served, "empty", [{"of": {}}])
    page = watched(served, open_page)
    show(page, "#plain?with=parts")
    eventually(lambda: labels(page) == ["plain", "parts · celsius"], "the part that can be drawn")
    eventually(lambda: [value for _, value in page.evaluate(ROWS)] == [20, 21], "its line, which is drawn last")
    push(served, "parts", {"celsius": 22, "rh": 42})
    expect(page.locator("#chart-legend li b")).to_have_text(["2", "22"])
    show(page, "#plain?with=empty")
    expect(page.locator("#chart-legend li b")).to_have_text(["2", "of {}"])
    push_past(served, "turns", [{"rh": 60}, {"celsius": 30}])
    show(page, "#parts?path=%2Frh&with=turns")
    eventually(lambda: [value for _, value in page.evaluate(ROWS)] == [60], "the part that it sends in turns")
    show(page, "#parts?path=%2Frh&path=%2Fcelsius&with=plain")
    eventually(lambda: labels(page) == ["parts · rh", "parts · celsius", "plain · Value"], "one line of it")
    page.locator("#chart-legend button").nth(2).click()
    eventually(lambda: labels(page) == ["rh", "celsius"], "and none")


def test_what_is_seen_is_saved_as_a_table_and_as_a_picture(served: ServerProcess, open_page: OpenPage) -> None:
    push_past(served, "lab/d", [{"x": number} for number in range(FEW)], step_s=10)
    push_past(served, "many", list(range(MANY)), step_s=30)
    page = watched(served, open_page)
    show(page, "#lab%2Fd")
    expect(note(page)).to_contain_text(f"{FEW} points")
    saved = download(page, "#chart-csv", "lab-d.csv").decode().splitlines()
    assert saved[0] == "device_id,seq,time,stored_time,source,value,number"
    assert [line.rsplit(",", 1)[1] for line in saved[1:]] == [str(number) for number in range(FEW)]
    picture = download(page, "#chart-png", "lab-d.png")
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 2_000
    show(page, "#many?range=24h")
    expect(note(page)).to_contain_text(f"{MANY:,} readings")
    saved = download(page, "#chart-csv", "many.csv").decode().splitlines()
    assert saved[0] == "device_id,path,time,avg,min,max,count"
    assert sum(int(line.rsplit(",", 1)[1]) for line in saved[1:]) == MANY


def download(page: Page, button: str, name: str) -> bytes:
    with page.expect_download() as found:
        page.locator(button).click()
    assert found.value.suggested_filename == name
    return found.value.path().read_bytes()
