"""What the dashboard knows of the past beside its charts: trends of the table, facts and timeline of a device."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.browser import PHONE, OpenPage, is_within_reach, witnessed_pages
from tests.running import ServerProcess, eventually
from tests.web.test_dashboard_chart import push, push_past, show, watched

POINTS = 40
DRAWN = """Array.from(document.querySelectorAll('.row .trend'),
    (cell) => cell.shadowRoot.querySelector('polyline').points.length)"""
TRENDS = """
    import('/dashboard/trend.js').then(({ Trend }) => {
        const { bounds } = Trend.prototype;
        Trend.prototype.bounds = function () {
            window.trend = Array.from({ length: this.length }, (_, index) => this.value(index));
            return bounds.call(this);
        };
    })
"""

MADE = """
    window.made = [];
    const { abort } = AbortController.prototype;
    AbortController.prototype.abort = function (...reason) { made.push('abort'); return abort.apply(this, reason); };
    window.Error = new Proxy(Error, {
        construct(...how) { made.push(String(how[1])); return Reflect.construct(...how); },
    });
"""
"""Notes each error that is made, and each end of what was asked, which makes one: they take milliseconds."""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    with witnessed_pages(browser) as pages:
        yield pages


@pytest.fixture
def served(server_process: Callable[..., ServerProcess]) -> ServerProcess:
    return server_process("memory:")


def command(server: ServerProcess, name: str, **args: Any) -> None:
    assert server.post("/api/control", {"target": "lamp", "command": name, "args": args}).status_code == 200


def questions(page: Page) -> list[str]:
    """Note what the page asks of the past from now on."""
    asked: list[str] = []

    def note(request: Request) -> None:
        if "/api/history" in request.url:
            asked.append(request.url)

    page.on("request", note)
    return asked


def test_a_device_page_opens_without_making_an_error_of_anything(served: ServerProcess, open_page: OpenPage) -> None:
    push_past(served, "lamp", list(range(300)))
    page = open_page("about:blank")
    page.add_init_script(MADE)
    page.goto(f"{served.url}/dashboard#lamp?range=24h")
    expect(page.locator("#chart-note")).to_contain_text("300")
    expect(page.locator("#detail-rate")).not_to_be_empty()
    assert page.evaluate("made") == []


# Trends


def test_trends_begin_with_what_was_asked_for_all_devices_in_sight_at_once(
    served: ServerProcess, open_page: OpenPage
) -> None:
    for number in range(12):
        values = range(50) if number % 2 else [{"on": level % 3 == 0, "level": level} for level in range(50)]
        push_past(served, f"lab/{number:02}", list(values))
    push(served, "lab/text", "no number")
    page = open_page("about:blank")
    asked = questions(page)
    page.goto(f"{served.url}/dashboard")
    expect(page.locator("#link-phase")).to_have_text("Live")
    eventually(lambda: page.evaluate(DRAWN)[:12] == [POINTS] * 12, "every trend has its past")
    assert len(asked) == 1, asked
    assert len(re.findall("devices=", asked[0])) == 12


def test_a_trend_has_the_newest_readings_once_also_those_stored_while_it_begins(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "d", list(range(20)))
    stop, count = Event(), [20]

    def publish() -> None:
        while not stop.is_set():
            push(served, "d", count[0])
            count[0] += 1

    publisher = Thread(target=publish)
    publisher.start()
    page = open_page(f"{served.url}/dashboard", in_modules=True)
    page.evaluate(TRENDS)
    eventually(lambda: len(page.evaluate("window.trend ?? []")) == POINTS, "a trend")
    stop.set()
    publisher.join()
    push(served, "d", count[0])
    expected = list(range(count[0] - POINTS + 1, count[0] + 1))
    eventually(lambda: page.evaluate("window.trend") == expected, "the newest ones, each once")


def test_devices_that_are_scrolled_past_are_not_asked_for(served: ServerProcess, open_page: OpenPage) -> None:
    fleet = [{"device_id": f"d/{number:04}", "value": number} for number in range(1_000)]
    assert served.post("/api/data", fleet).status_code == 200
    page = open_page("about:blank")
    asked = questions(page)
    page.goto(f"{served.url}/dashboard")
    expect(page.locator("#devices-count")).to_have_text("1,000")  # said with the table, which has its height by then
    page.locator("#rows").evaluate("element => { element.scrollTop = element.scrollHeight; }")
    expect(page.locator(".row", has_text="d/0999")).to_be_visible()
    eventually(lambda: page.evaluate("1") and any("d%2F0999" in url for url in asked), "the last ones are asked for")
    assert not any("d%2F0500" in url for url in asked)


def test_trends_that_a_device_page_hides_are_asked_for_once_it_is_closed(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "d", list(range(50)))
    page = open_page("about:blank")
    asked = questions(page)
    page.goto(f"{served.url}/dashboard#d")
    expect(page.locator("#timeline li")).not_to_have_count(0)
    page.wait_for_timeout(500)
    assert not any("limit=40" in url for url in asked)
    page.locator("#detail-close").click()
    eventually(lambda: page.evaluate(DRAWN)[0] == POINTS, "the trend has its past")


# Facts


def test_a_device_says_since_when_how_often_and_how_much(served: ServerProcess, open_page: OpenPage) -> None:
    push_past(served, "d", [{"level": number} for number in range(3_000)], step_s=60)
    page = watched(served, open_page)
    show(page, "#d")
    first = served.get("/api/history?device_id=d&order=asc&limit=1")["entries"][0]["measured_at_utc"]
    said = page.evaluate(
        "text => import('/dashboard/format.js').then(({ dateTime }) => dateTime(Date.parse(text)))", first
    )
    expect(page.locator("#detail-first")).to_have_text(said)
    expect(page.locator("#detail-rate")).to_have_text("every 60 s")
    expect(page.locator("#detail-size")).to_have_text("14 bytes; 3,000 readings")
    push(served, "d", {"level": 12.5})
    expect(page.locator("#detail-size")).to_have_text("14 bytes; 3,001 readings")


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([], ""),
        ([5], ""),
        ([0, 100, 200, 300], "10 a second"),
        ([0, 1_000, 2_000, 900_000], "1.0 a second"),
        ([0, 2_500, 5_000], "every 2.5 s"),
        ([0, 3_600_000, 7_200_000], "every 60 min"),
    ],
)
def test_a_rate_is_the_interval_in_the_middle(live: Page, times: list[int], said: str) -> None:
    assert live.evaluate("times => import('/dashboard/facts.js').then((m) => m.sayRate(times))", times) == said


@pytest.fixture
def live(served: ServerProcess, open_page: OpenPage) -> Page:
    return watched(served, open_page)


# The timeline


def rows(page: Page) -> list[str]:
    return [str(text) for text in page.locator("#timeline li").all_inner_texts()]


def said(page: Page) -> list[list[str]]:
    """What each row says, but for its time."""
    return [[line for line in row.split("\n") if line.strip()][1:] for row in rows(page)]


def test_commands_stand_between_readings_with_what_followed_them(served: ServerProcess, open_page: OpenPage) -> None:
    push(served, "lamp", {"on": False, "level": 4})
    command(served, "dim", percent=40)
    push(served, "lamp", {"on": True, "level": 1.6})
    page = watched(served, open_page)
    show(page, "#lamp")
    expect(page.locator("#timeline li")).to_have_count(3)
    kinds = page.locator("#timeline b").all_inner_texts()
    assert kinds == ["Reading", "Command", "Reading"]
    dimmed = page.locator('#timeline [data-kind="control"]').first
    expect(dimmed.locator("span")).to_have_text("dim percent 40")
    expect(dimmed.locator("small")).to_have_text(re.compile(r"^[\d.]+ (ms|µs) later: on false → true, level 4 → 1.6$"))
    command(served, "reset")
    expect(page.locator("#timeline li")).to_have_count(4)
    reset = page.locator("#timeline li").first
    expect(reset.locator("small")).to_have_text("no reading since")
    push(served, "lamp", {"on": True, "level": 1.6})
    expect(reset.locator("small")).to_have_count(1)
    expect(page.locator('#timeline [data-kind="control"]').first.locator("small")).to_have_text(
        re.compile("later: as before$")
    )


def test_commands_alone_are_found_among_however_many_readings(served: ServerProcess, open_page: OpenPage) -> None:
    push(served, "lamp", 1)
    command(served, "first")
    for begin in range(2, 3_002, 1_000):
        fleet = [{"device_id": "lamp", "value": number} for number in range(begin, begin + 1_000)]
        assert served.post("/api/data", fleet).status_code == 200
    command(served, "second")
    page = watched(served, open_page)
    show(page, "#lamp")
    page.locator("#timeline-kind").select_option("commands")
    expect(page.locator("#timeline li")).to_have_count(2)
    first = page.locator("#timeline li").last
    expect(first.locator("span")).to_have_text("first")
    expect(first.locator("small")).to_have_text(re.compile(r"later: 1 → 2$"))
    push(served, "lamp", 7)
    expect(page.locator("#timeline li").first.locator("small")).to_have_text(re.compile(r"later: 3001 → 7$"))


def test_the_timeline_goes_back_page_by_page_and_on_live_without_one_missing_or_twice(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "lamp", list(range(250)))
    page = watched(served, open_page)
    show(page, "#lamp")
    expect(page.locator("#timeline li")).to_have_count(100)
    for count in (200, 250):
        page.locator("#timeline-older").click()
        expect(page.locator("#timeline li")).to_have_count(count)
    expect(page.locator("#timeline-older")).to_be_hidden()
    for number in range(250, 260):
        push(served, "lamp", number)
    late = datetime.now(UTC) - timedelta(minutes=30, seconds=30)
    push(served, "lamp", -1, measured_at_utc=late.isoformat())
    expect(page.locator("#timeline li")).to_have_count(261)
    values = [int(text) for text in page.locator("#timeline span").all_inner_texts()]
    there = served.get("/api/history?device_id=lamp&limit=1000")["entries"]
    assert values == [entry["value"] for entry in there]


def test_a_row_points_the_chart_at_its_time_by_click_and_by_key(served: ServerProcess, open_page: OpenPage) -> None:
    push_past(served, "lamp", [10, 20, 30])
    page = watched(served, open_page)
    show(page, "#lamp")
    expect(page.locator("#timeline li")).to_have_count(3)
    page.locator("#timeline li").nth(2).click()
    expect(page.locator("#chart-now")).to_have_text("10")
    page.locator("#timeline").press("ArrowUp")
    expect(page.locator("#chart-now")).to_have_text("20")
    expect(page.locator('#timeline [aria-selected="true"] span')).to_have_text("20")


def test_on_a_phone_the_timeline_is_within_reach(served: ServerProcess, open_page: OpenPage) -> None:
    push(served, "lamp", {"on": False, "a long name of a part": "and a long value " * 5})
    command(served, "dim", percent=40)
    push(served, "lamp", {"on": True, "a long name of a part": "another long value " * 5})
    page = watched(served, open_page, **PHONE)
    show(page, "#lamp")
    row = page.locator('#timeline [data-kind="control"]')
    expect(row).to_be_attached()
    expect(page.locator("#detail-first")).not_to_have_text("")  # all that stands above it is there
    row.scroll_into_view_if_needed()
    assert is_within_reach(row.locator("small"))
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["viewport"]["width"]
    assert page.locator("#detail-body").evaluate("element => element.scrollWidth <= element.clientWidth")


def test_what_devices_say_stays_text_in_the_timeline(served: ServerProcess, open_page: OpenPage) -> None:
    push(served, "lamp", "<img src=x onerror=alert(1)>")
    page = watched(served, open_page)
    show(page, "#lamp")
    expect(page.locator("#timeline span")).to_have_text("<img src=x onerror=alert(1)>")
    assert page.locator("#timeline img").count() == 0


def test_a_trend_takes_a_reading_once_whichever_way_it_comes_first(live: Page) -> None:
    values = """() => import('/dashboard/trend.js').then(({ Trend }) => {
        const trend = new Trend(5);
        for (const seq of [10, 11]) trend.push(seq, seq, seq);
        const points = [3, 5, 10, 12].map((seq) => ({ atMs: seq, value: seq, seq }));
        const joined = trend.joined(points, 13); // 12 is in the answer, and comes live behind it
        for (const seq of [12, 14]) joined.push(seq, seq, seq);
        return Array.from({ length: joined.length }, (_, index) => joined.value(index));
    })"""
    assert live.evaluate(values) == [5, 10, 11, 12, 14]
