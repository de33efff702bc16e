"""What the dashboard draws, and how often: a page that is left open costs little, and one that nobody sees nothing."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import OpenPage, witnessed_pages
from tests.running import ServerProcess

FEW_UPDATES = 60
DRAWINGS_A_SECOND_MAX = 10
COUNTED = """
    window.drawings = 0;
    const { requestAnimationFrame } = window;
    window.requestAnimationFrame = (task) => requestAnimationFrame((now) => { window.drawings += 1; task(now); });
    window.isHidden = false;
    Object.defineProperty(Document.prototype, 'hidden', { get: () => window.isHidden });
    window.hide = (isHidden) => { window.isHidden = isHidden; document.dispatchEvent(new Event('visibilitychange')); };
"""

MARKS_NOTED = """() => {
    window.marks = [];
    const rows = document.getElementById('rows-body');
    const observer = new MutationObserver(() => {
        const flash = rows.querySelector('.row:not([hidden]) .flash');
        if (!flash) return;
        observer.disconnect();
        const moving = document.getAnimations().map((animation) => [
            animation.playState,
            ...new Set(animation.effect.getKeyframes().flatMap((frame) => Object.keys(frame))),
        ]);
        window.marks.push({ moving, opacity: Number(getComputedStyle(flash).opacity) });
    });
    observer.observe(rows, { subtree: true, childList: true, attributes: true, characterData: true });
}"""
"""Notes how the first row is marked when it is drawn: the mark may have faded before somebody looks from here."""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open pages; the test fails if one of them did what no page of ours does."""
    with witnessed_pages(browser) as pages:
        yield pages


@pytest.fixture
def served(server_process: Callable[..., ServerProcess]) -> ServerProcess:
    return server_process("memory:")


def counted(served: ServerProcess, open_page: OpenPage, **how: Any) -> Page:
    """The dashboard, connected, with its drawings counted."""
    page = open_page("about:blank", **how)
    page.add_init_script(COUNTED)
    page.goto(f"{served.url}/dashboard")
    expect(page.locator("#link-phase")).to_have_text("Live")
    return page


def push(server: ServerProcess, device_id: str, value: Any) -> None:
    assert server.post("/api/data", {"device_id": device_id, "value": value}).status_code == 200


def value_of(page: Page, device_id: str) -> Any:
    return page.locator(".row", has=page.locator(".device").get_by_text(device_id, exact=True)).locator(".value")


def test_few_updates_are_drawn_a_few_times_a_second_and_the_last_one_is_seen(
    served: ServerProcess, open_page: OpenPage
) -> None:
    page = counted(served, open_page)
    begin = page.evaluate("() => [performance.now(), window.drawings]")
    for number in range(FEW_UPDATES):
        push(served, f"lab/{number % 20}", number)
        page.wait_for_timeout(50)  # twenty a second, or fewer
    end = page.evaluate("() => [performance.now(), window.drawings]")
    assert end[1] - begin[1] <= DRAWINGS_A_SECOND_MAX * (end[0] - begin[0]) / 1_000 + 1
    expect(value_of(page, "lab/19")).to_have_text(str(FEW_UPDATES - 1))


def test_a_page_that_nobody_sees_draws_nothing_and_shows_the_newest_once_it_is_seen(
    served: ServerProcess, open_page: OpenPage
) -> None:
    page = counted(served, open_page)
    expect(page.locator("#journal")).to_be_visible()  # by now the page has been told what it asked for as it began
    push(served, "lab/lamp", 0)
    expect(value_of(page, "lab/lamp")).to_have_text("0")
    page.evaluate("() => window.hide(true)")
    page.evaluate("() => new Promise(requestAnimationFrame)")  # the one that was asked for before
    page.evaluate(
        """() => {
            window.drawings = window.changes = 0;
            const observer = new MutationObserver((records) => { window.changes += records.length; });
            observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
        }"""
    )
    for number in range(1, 11):
        push(served, "lab/lamp", number)
        page.wait_for_timeout(100)  # longer together than the slow timer of a hidden page
    assert page.evaluate("() => [window.drawings, window.changes]") == [0, 0]
    page.evaluate("() => window.hide(false)")
    expect(value_of(page, "lab/lamp")).to_have_text("10")
    expect(page.locator(".event", has_text="lab/lamp")).to_have_count(11)


def test_what_moves_is_opacity_and_nothing_moves_by_itself(served: ServerProcess, open_page: OpenPage) -> None:
    page = counted(served, open_page)
    page.evaluate(MARKS_NOTED)
    push(served, "lab/lamp", 1)
    expect(value_of(page, "lab/lamp")).to_have_text("1")
    timing = {"offset", "computedOffset", "easing", "composite"}
    [moving] = page.evaluate("() => window.marks.map(({ moving }) => moving)")
    assert [(state, set(names) - timing) for state, *names in moving] == [("paused", {"opacity"})]


def test_a_mark_fades_with_the_drawings_until_it_is_gone(served: ServerProcess, open_page: OpenPage) -> None:
    page = counted(served, open_page)
    opacity = "() => Number(getComputedStyle(document.querySelector('.row .flash')).opacity)"
    page.evaluate(MARKS_NOTED)
    push(served, "lab/lamp", 1)
    expect(value_of(page, "lab/lamp")).to_have_text("1")
    [at_first] = page.evaluate("() => window.marks.map(({ opacity }) => opacity)")
    assert 0 < at_first <= 1
    page.wait_for_function(f"() => ({opacity})() === 0")


def test_who_asked_for_no_motion_pays_for_none(served: ServerProcess, open_page: OpenPage) -> None:
    page = counted(served, open_page, reduced_motion="reduce")
    push(served, "lab/lamp", 1)
    expect(value_of(page, "lab/lamp")).to_have_text("1")
    assert page.evaluate("() => document.getAnimations().length") == 0


def test_an_event_fills_one_row_of_the_log_and_moves_the_others(served: ServerProcess, open_page: OpenPage) -> None:
    page = counted(served, open_page)
    for number in range(10):
        push(served, f"lab/{number}", number)
    expect(page.locator(".event:visible", has_text="lab/")).to_have_count(10)
    page.evaluate(
        """() => {
            window.filled = new Set();
            const rowOf = (node) => (node.parentElement ?? node).closest('.event') ?? node;
            const observer = new MutationObserver((records) => {
                for (const { target } of records) window.filled.add(rowOf(target));
            });
            const body = document.getElementById('log-body');
            observer.observe(body, { subtree: true, childList: true, characterData: true });
        }"""
    )
    push(served, "lab/newest", 1)
    expect(page.locator(".event", has_text="lab/newest")).to_have_count(1)
    assert page.evaluate("() => window.filled.size") == 1
    tops = page.evaluate(
        """() => [...document.querySelectorAll('.event:not([hidden])')].sort((a, b) => a.getBoundingClientRect().top
            - b.getBoundingClientRect().top).map((event) => event.querySelector('b').textContent)"""
    )
    assert tops == ["lab/newest", *(f"lab/{number}" for number in reversed(range(10))), "connected"]


def test_a_reading_of_the_same_members_changes_texts_and_makes_no_elements(
    served: ServerProcess, open_page: OpenPage
) -> None:
    page = counted(served, open_page)
    push(served, "lab/climate", {"celsius": 20, "state": "on"})
    expect(value_of(page, "lab/climate")).to_have_text("celsius 20 state on")
    page.evaluate(
        """() => {
            window.made = 0;
            const observer = new MutationObserver((records) => { window.made += records.length; });
            observer.observe(document.getElementById('rows-body'), { subtree: true, childList: true });
        }"""
    )
    push(served, "lab/climate", {"celsius": 21, "state": "on"})
    expect(value_of(page, "lab/climate")).to_have_text("celsius 21 state on")
    assert page.evaluate("() => window.made") == 0
    push(served, "lab/climate", {"celsius": 21})
    expect(value_of(page, "lab/climate")).to_have_text("celsius 21")
    push(served, "lab/climate", 5)
    expect(value_of(page, "lab/climate")).to_have_text("5")
    push(served, "lab/climate", {})
    expect(value_of(page, "lab/climate")).to_have_text("{}")


def test_a_loop_rests_after_a_drawing_unless_somebody_did_something(served: ServerProcess, open_page: OpenPage) -> None:
    page = counted(served, open_page)
    drawn = page.evaluate(
        """async () => {
            const { AnimationLoop } = await import('/dashboard/animation.js');
            const frames = async (count) => { for (; count; count -= 1) await new Promise(requestAnimationFrame); };
            const drawn = [];
            let count = 0;
            const loop = new AnimationLoop(() => { count += 1; }, () => 60_000);
            for (const ask of [() => loop.next(), () => loop.next(), () => loop.now()]) {
                ask();
                await frames(3);
                drawn.push(count);
            }
            return drawn;
        }"""
    )
    assert drawn == [1, 1, 2]


def test_a_loop_without_rest_draws_in_every_frame(served: ServerProcess, open_page: OpenPage) -> None:
    page = counted(served, open_page)
    frames = page.evaluate(
        """async () => {
            const { AnimationLoop } = await import('/dashboard/animation.js');
            const drawn = [];
            let frame = 0;
            await new Promise((done) => {
                const loop = new AnimationLoop(() => {
                    drawn.push(frame);
                    if (drawn.length < 5) loop.next();
                    else done();
                }, () => 0);
                loop.next();
                const count = () => { frame += 1; requestAnimationFrame(count); };
                requestAnimationFrame(count);
            });
            return drawn;
        }"""
    )
    assert sorted(set(frames)) == list(range(frames[-1] + 1))  # twice in one that takes long, and left out in none
