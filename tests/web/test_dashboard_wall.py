"""The charts of many devices on one page."""

import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser import PHONE, SCREEN, OpenPage, witnessed_pages
from tests.running import ServerProcess, eventually
from tests.web.test_dashboard_chart import address, assert_same, push, push_past, show, stored, watched

MANY = 30
TOGETHER = 25
"""So many devices one request asks for."""
WATCHED = """
    import('/dashboard/series.js').then(({ Readings }) => {
        window.walls = {};
        const { drawn } = Readings.prototype;
        Readings.prototype.drawn = function (breaks) {
            const found = drawn.call(this, breaks);
            const rows = found.x.map((x, index) => [x, found.y[index]]).filter(([, y]) => y !== null);
            if (rows.length) window.walls[Math.floor(rows[0][1] / 1000)] = rows;
            return found;
        };
    })
"""
"""Notes what is drawn, by the thousands of its values."""

PAINTED = """name => {
    const tile = [...document.querySelectorAll('.tile')].find((each) => each.textContent.startsWith(name));
    const box = tile.querySelector('.tile-plot').getBoundingClientRect();
    return [...document.querySelectorAll('.sheet')].some((sheet) => {
        const { left, top, bottom } = sheet.getBoundingClientRect();
        if (!sheet.width || box.top < top || box.bottom > bottom) return false;
        const copy = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        copy.drawImage(sheet, left - box.left, top - box.top);
        const { data } = copy.getImageData(0, 0, Math.min(300, box.width), Math.min(150, box.height));
        return data.some((byte) => byte > 0);
    });
}"""
"""Whether something is painted where a chart is."""
JUMPS_NOTED = """() => {
    const seen = [];
    const observer = new PerformanceObserver((list) => seen.push(...list.getEntries()));
    observer.observe({ type: 'layout-shift' });
    window.jumps = () => [...seen, ...observer.takeRecords()]
        .flatMap(({ sources }) => sources)
        .filter(({ previousRect, currentRect }) => previousRect.y !== currentRect.y)
        .map(({ node, previousRect, currentRect }) => [node?.id, previousRect.y, currentRect.y]);
}"""
"""Notes what moves up or down from now on, though nobody asked for it."""
CANVASES = "[...document.querySelectorAll('canvas')].filter((each) => each.checkVisibility() && each.width).length"


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    with witnessed_pages(browser) as pages:
        yield pages


@pytest.fixture
def served(server_process: Callable[..., ServerProcess]) -> ServerProcess:
    return server_process("memory:")


def tiles(page: Page) -> list[str]:
    return [str(text) for text in page.locator(".tile a").all_inner_texts()]


def is_drawn(page: Page, name: str) -> bool:
    return page.locator(".tile", has_text=name).locator("canvas").count() == 1


def history_held(page: Page) -> Callable[[], None]:
    """Keep what a page asks for of the past unanswered until the function that is returned is called."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    def is_asked() -> bool:
        page.wait_for_timeout(0)  # what the browser says is heard while it is talked to, and at no other time
        return bool(held)

    def answer() -> None:
        eventually(is_asked, "it was asked")
        page.unroute("**/history?**")
        for route in held:
            route.continue_()

    page.route("**/history?**", hold)
    return answer


def test_the_devices_of_an_address_have_a_chart_each_whatever_they_say(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "hall/a", [1, 2, 3])
    push_past(served, "hall/b", [{"state": "open", "rpm": 5}, {"state": "shut", "rpm": 6}])
    push_past(served, "hall/c", ["open", "shut"])
    push_past(served, "office/d", [4])
    push(served, "hall/nothing", None)
    page = watched(served, open_page)
    show(page, "#?devices=hall/*")
    expect(page.locator("#wall-title")).to_have_text("hall/*")
    expect(page.locator("#wall-count")).to_have_text("3 devices; 1 more has nothing to draw")
    assert tiles(page) == ["hall/a", "hall/b", "hall/c"]
    expect(page.locator("#wall-note")).to_have_text("")
    expect(page.locator(".tile b")).to_have_text(["3", "6", "shut"])  # each is said once it is in sight
    assert page.locator(".tile header span").all_inner_texts() == ["", "rpm", ""]
    eventually(lambda: all(is_drawn(page, name) for name in tiles(page)), "all are drawn")
    show(page, "#?devices=hall/a&devices=office/*")
    eventually(lambda: tiles(page) == ["hall/a", "office/d"], "the other devices")


def test_a_view_that_an_address_cannot_mean_is_said(served: ServerProcess, open_page: OpenPage) -> None:
    push_past(served, "hall/a", [1, 2, 3])
    page = watched(served, open_page)
    turned = "from=2026-11-26T10:00:00Z&to=2026-11-25T10:00:00Z"
    show(page, f"#?devices=hall/*&{turned}")
    note = page.locator("#wall-note")
    expect(note).to_have_text("The address's time span is not shown: its end is not after its beginning.")
    page.locator("#wall-ranges [data-range='7d']").click()
    expect(note).to_have_text("")
    show(page, "#?devices=hall/*&from=yesterday")
    expect(note).to_have_text("The address's time span is not shown: from and to must both be times.")
    show(page, "#?devices=hall/*&range=3h")
    expect(note).to_have_text("The address's range is not shown: it must be one of 1h, 24h, 7d, 30d, all.")
    show(page, f"#hall/a?{turned}")
    expect(page.locator("#chart-note")).to_contain_text("its end is not after its beginning")


def test_charts_that_wait_for_their_past_say_so_and_so_does_a_page_without_devices(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "hall/a", [1, 2, 3])
    page = watched(served, open_page)
    answer = history_held(page)
    show(page, "#?devices=hall/*")
    expect(page.locator("#wall-count")).to_have_text("Asking for the past")
    answer()
    expect(page.locator("#wall-count")).to_have_text("1 device")
    show(page, "#?devices=nobody/*")
    expect(page.locator("#wall-count")).to_have_text("No such device")


def test_history_meets_live_on_every_chart_by_one_connection_for_all(
    served: ServerProcess, open_page: OpenPage
) -> None:
    names = ["w/0", "w/1", "w/2"]
    for number, name in enumerate(names):
        push_past(served, name, [1_000 * number + value for value in range(30)])
    sockets: list[str] = []
    page = watched(served, open_page)
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.evaluate(WATCHED)

    def publish() -> None:
        for value in range(30, 230):
            for number, name in enumerate(names):
                push(served, name, 1_000 * number + value)

    publisher = Thread(target=publish)
    publisher.start()
    show(page, "#?devices=w/*")
    publisher.join()
    lengths = "['0', '1', '2'].map((key) => window.walls[key]?.length)"
    eventually(lambda: page.evaluate(lengths) == [230] * 3, "all readings are drawn")
    for number, name in enumerate(names):
        assert_same(page.evaluate("window.walls")[str(number)], stored(served, name))
    assert len(sockets) <= 2, "one for the state, and one that goes on behind the answer"
    assert all(url.count("devices=w%2F") == 3 for url in sockets)


def test_drawings_are_shown_on_few_canvases_where_their_charts_are(served: ServerProcess, open_page: OpenPage) -> None:
    for number in range(MANY):
        push_past(served, f"w/{number:02}", [number, number + 1])
    page = watched(served, open_page)
    show(page, "#?devices=w/*")
    eventually(lambda: page.evaluate(PAINTED, "w/00"), "the first drawing is there")
    page.locator("#wall-charts").evaluate("element => { element.scrollTop = element.scrollHeight; }")
    eventually(lambda: page.evaluate(PAINTED, f"w/{MANY - 1}"), "the last drawing is there")
    shown = (
        "[...document.querySelectorAll('canvas')].filter((canvas) => canvas.checkVisibility() && canvas.width).length"
    )
    assert page.evaluate(shown) <= 3
    page.set_viewport_size({"width": 900, "height": 700})
    page.locator("#wall-charts").evaluate("element => { element.scrollTop = 0; }")
    eventually(lambda: page.evaluate(PAINTED, "w/01"), "it is there at another width, too")


def test_what_is_asked_for_is_what_is_drawn_and_in_no_more_requests(served: ServerProcess, open_page: OpenPage) -> None:
    """Every second device also says what the others' charts draw."""
    for number in range(2 * TOGETHER):
        values: list[Any] = [{"t": n, "load": n} if number % 2 else {"load": n, "rpm": n} for n in range(3)]
        push_past(served, f"hall/{number:02}", values)
    page = watched(served, open_page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "agg=" in request.url else None)
    show(page, "#?devices=hall/*&range=24h")
    expect(page.locator("#wall-count")).to_have_text(f"{2 * TOGETHER} devices")
    assert len(asked) == 2
    answers = [httpx.get(url).json() for url in asked]
    drawn = [(each["device_id"], each["path"]) for answer in answers for each in answer["series"]]
    assert sorted(drawn) == [(f"hall/{n:02}", "/t" if n % 2 else "/load") for n in range(2 * TOGETHER)]
    eventually(lambda: is_drawn(page, "hall/00") and is_drawn(page, "hall/01"), "those in sight are drawn")


def test_charts_are_drawn_once_they_come_into_sight(served: ServerProcess, open_page: OpenPage) -> None:
    for number in range(MANY):
        push_past(served, f"w/{number:02}", [number, number + 1])
    page = watched(served, open_page)
    show(page, "#?devices=w/*")
    expect(page.locator(".tile")).to_have_count(MANY)
    eventually(lambda: is_drawn(page, "w/00"), "the first one is drawn")
    time.sleep(0.5)
    assert not is_drawn(page, f"w/{MANY - 1}")
    page.locator("#wall-charts").evaluate("element => { element.scrollTop = element.scrollHeight; }")
    eventually(lambda: is_drawn(page, f"w/{MANY - 1}"), "the last one is drawn")


def test_a_device_that_comes_gets_a_chart_and_one_that_goes_loses_it(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push(served, "w/a", 1)
    page = watched(served, open_page)
    show(page, "#?devices=w/*")
    eventually(lambda: tiles(page) == ["w/a"], "one")
    push(served, "w/b", 1)
    eventually(lambda: tiles(page) == ["w/a", "w/b"], "two")
    assert served.delete("/api/data?device_id=w/a").status_code == 200
    eventually(lambda: tiles(page) == ["w/b"], "the other one")


def test_a_range_is_in_the_address_and_goes_along_to_a_device_from_which_back_leads_here(
    served: ServerProcess, open_page: OpenPage
) -> None:
    push_past(served, "hall/a", [1, 2, 3])
    push(served, "office/d", 4)
    page = watched(served, open_page)
    page.locator("#filter").fill("hall")
    page.locator("#wall-open").click()
    expect(page).to_have_url(f"{served.url}/dashboard#?devices=hall")
    assert tiles(page) == ["hall/a"]
    page.locator("#wall-ranges").get_by_role("button", name="7d").click()
    expect(page).to_have_url(f"{served.url}/dashboard#?devices=hall&range=7d")
    page.locator(".tile a").click()
    expect(page.locator("#detail-title")).to_have_text("hall/a")
    expect(page).to_have_url(f"{served.url}/dashboard#hall%2Fa?range=7d")
    expect(page.locator("#wall")).to_be_hidden()
    page.go_back()
    expect(page.locator("#wall")).to_be_visible()
    expect(page.locator("#detail")).to_be_hidden()
    assert tiles(page) == ["hall/a"]
    page.keyboard.press("Escape")
    expect(page.locator("#wall")).to_be_hidden()
    expect(page).to_have_url(f"{served.url}/dashboard")
    expect(page.locator("#rows")).to_be_visible()


def test_keys_open_the_charts_and_close_them(served: ServerProcess, open_page: OpenPage) -> None:
    push(served, "a", 1)
    page = watched(served, open_page)
    page.keyboard.press("c")
    expect(page.locator("#wall-title")).to_have_text("*")
    page.keyboard.press("/")
    expect(page.locator("#wall")).to_be_hidden()
    expect(page.locator("#filter")).to_be_focused()


def test_a_span_that_is_drawn_on_one_chart_is_that_of_all(served: ServerProcess, open_page: OpenPage) -> None:
    for name in ("w/a", "w/b"):
        push_past(served, name, list(range(120)))
    page = watched(served, open_page)
    show(page, "#?devices=w/*&range=1h")
    eventually(lambda: is_drawn(page, "w/b"), "drawn")
    box = page.locator(".tile .u-over").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=5)
    page.mouse.up()
    eventually(lambda: "from=" in address(page), "the address has the span")


@pytest.mark.parametrize("screen", [PHONE, SCREEN], ids=["phone", "desk"])
@pytest.mark.parametrize("shown", ["#?devices=*", "#d"])
def test_nothing_jumps_when_the_past_arrives(
    served: ServerProcess, open_page: OpenPage, shown: str, screen: dict[str, Any]
) -> None:
    push_past(served, "d", [1, 2])
    page = watched(served, open_page, **screen)
    answer = history_held(page)
    show(page, shown)
    expect(page.get_by_text("Asking for the past").first).to_be_visible()
    page.evaluate(JUMPS_NOTED)
    answer()
    said = {"#d": ("#chart-note", "2 points, 1 to 2"), "#?devices=*": ("#wall-count", "1 device")}[shown]
    expect(page.locator(said[0])).to_have_text(said[1])
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("window.jumps()") == []


def test_on_a_phone_charts_stand_one_below_the_other(served: ServerProcess, open_page: OpenPage) -> None:
    for name in ("a", "b"):
        push_past(served, f"a rather long name of a device/{name}", [1, 2])
    page = watched(served, open_page, **PHONE)
    show(page, "#?devices=*")
    expect(page.locator(".tile")).to_have_count(2)
    first, second = page.locator(".tile").evaluate_all("all => all.map((one) => one.getBoundingClientRect().toJSON())")
    assert second["top"] >= first["bottom"]
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["viewport"]["width"]
    page.locator("#wall-close").click()
    expect(page.locator("#wall")).to_be_hidden()
