"""The JavaScript client on a page of its own, in a real browser, over a network that cuts."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser import open_browser
from tests.running import eventually
from twincast.client import Rest
from twincast.testing import Proxy, Server

ROOT = Path(__file__).parents[2]
START = """
async (options) => {
  const { Client } = await import("/dashboard/client.js");
  window.seen = [];
  window.snapshots = [];
  window.phases = [];
  window.client = new Client({
    url: location.origin.replace("http", "ws") + "/ws",
    onMessages: (batch) => seen.push(...batch),
    onLink: ({ phase }) => phases.push(phase),
    onSnapshot: (at, twins, gap) => snapshots.push({ seq: at.seq, size: twins.size, gap }),
    ...options,
  });
  client.open();
}
"""


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    with open_browser() as browser:
        yield browser.new_page()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:{tmp_path / 'journal.db'}", resume_max_entries=1_000) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def start(page: Page, proxy: Proxy, **options: Any) -> None:
    page.goto(proxy.url)
    page.evaluate(START, options)
    live(page)


def live(page: Page) -> None:
    until(page, 'client.link.phase === "live"')


def until(page: Page, condition: str) -> None:
    """Wait for a condition in the page; its policy forbids Playwright's own way."""
    eventually(lambda: page.evaluate(condition), condition)


def heard(page: Page) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = page.evaluate(
        'seen.filter((message) => "seq" in message && message.type !== "pong")'
    )
    return events


def publish(server: Server, *names: str) -> None:
    with Rest(server.url) as rest:
        rest.publish_all([(name, number) for number, name in enumerate(names)])


def test_it_loads_nothing_but_its_own_parts() -> None:
    folder = ROOT / "twincast" / "web" / "client"
    for path in folder.glob("*.js"):
        for name in re.findall(r'^(?:import|export) .*from "(.*)";$', path.read_text(), re.MULTILINE):
            assert (path.parent / name).resolve().is_relative_to(folder), (path.name, name)


def test_a_cut_is_resumed_without_loss_or_repetition(browser_page: Page, server: Server, proxy: Proxy) -> None:
    start(browser_page, proxy, mode="every")
    for _ in range(5):
        publish(server, *"abc")
        proxy.cut()
        publish(server, *"abc")
        live(browser_page)
    eventually(lambda: len(heard(browser_page)) >= 30, "all changes come")
    assert [event["seq"] for event in heard(browser_page)] == list(range(1, 31))
    assert browser_page.evaluate("snapshots.length") == 1, "the state came once"
    assert browser_page.evaluate("client.link.resumed") is True


def test_a_server_that_starts_anew_on_its_file_is_no_loss(browser_page: Page, server: Server, proxy: Proxy) -> None:
    start(browser_page, proxy, mode="every")
    for number in range(3):
        publish(server, *"abc")
        until(browser_page, f"seen.length >= {3 * number + 3}")
        epoch = browser_page.evaluate("client.position.epoch")
        server.restart()
        until(browser_page, f'client.link.phase === "live" && client.position.epoch !== "{epoch}"')
    assert [event["seq"] for event in heard(browser_page)] == list(range(1, 10))
    assert browser_page.evaluate("snapshots.length") == 1, "the state came once"


def test_a_log_that_is_another_one_is_told_with_its_state(browser_page: Page) -> None:
    with Server() as server, Proxy(server.port) as proxy:
        start(browser_page, proxy)
        for size, gap in ((2, {"from": 1, "to": 2, "reason": "epoch"}), (0, {"from": 0, "to": 0, "reason": "epoch"})):
            publish(server, *"abc")
            until(browser_page, "client.position.seq >= 3")
            proxy.refuse()
            server.restart()
            if size:
                publish(server, *"xy"[:size])
            proxy.refuse(False)
            until(browser_page, "snapshots.at(-1).gap !== null")
            assert browser_page.evaluate("snapshots.at(-1)") == {"seq": size, "size": size, "gap": gap}
            browser_page.evaluate("snapshots.push({gap: null})")


def test_what_may_be_missing_is_told_with_the_state(browser_page: Page, server: Server, proxy: Proxy) -> None:
    publish(server, "a")
    start(browser_page, proxy)
    proxy.refuse()
    proxy.cut()
    publish(server, *("b" for _ in range(1_500)))
    proxy.refuse(False)
    eventually(lambda: browser_page.evaluate("snapshots.length") == 2, "the state comes again")
    assert browser_page.evaluate("snapshots[1]") == {
        "seq": 1_501,
        "size": 2,
        "gap": {"from": 2, "to": 1_501, "reason": "too_old"},
    }
    assert browser_page.evaluate('client.twins.get("b").value') == 1_499


def test_an_update_whose_answer_was_lost_is_stored_once(browser_page: Page, server: Server, proxy: Proxy) -> None:
    start(browser_page, proxy)
    for number in range(5):
        proxy.stall("down")
        browser_page.evaluate("(n) => { window.done = client.publish('lamp', n); }", number)
        eventually(lambda n=number: len(server.log()) == n + 1, "it is stored")  # type: ignore[misc]
        proxy.cut()
        proxy.flow()
        ack = browser_page.evaluate("done")
        assert (ack["seq"], ack["replayed"]) == (number + 1, True)
    browser_page.evaluate("client.control('fan', 'start', { rpm: 900 })")
    assert [event.get("value", event["type"]) for event in server.log()] == [0, 1, 2, 3, 4, "control"]


def test_what_the_server_refuses_is_an_error_with_its_code(browser_page: Page, proxy: Proxy) -> None:
    start(browser_page, proxy)
    refused = "client.publish('', 1).then(() => 'stored', (error) => error.code)"
    assert browser_page.evaluate(refused) == "validation_failed"


@pytest.mark.parametrize("token", [None, "twc_00000000_wrong"])
def test_every_promise_is_settled_when_the_login_is_refused_and_taken_again_after_a_good_one(
    browser_page: Page, server: Server, proxy: Proxy, token: str | None
) -> None:
    good = server.add_key(publish=["*"], read=["*"])
    browser_page.goto(proxy.url)
    browser_page.evaluate(START, {"token": token} if token else {})
    code = "client.publish('lamp', 1).then(() => 'stored', (error) => error.code)"
    assert [browser_page.evaluate(code) for _ in range(2)] == ["unauthenticated"] * 2
    assert browser_page.evaluate("client.link.needsLogin")
    browser_page.evaluate("(token) => client.logIn(token)", good)
    assert browser_page.evaluate(code) == "stored"
    browser_page.evaluate("client.close()")


def test_updates_wait_for_a_connection_within_a_bound(browser_page: Page, server: Server, proxy: Proxy) -> None:
    start(browser_page, proxy, devices=[])
    proxy.refuse()
    proxy.cut()
    until(browser_page, 'client.link.phase === "waiting"')
    browser_page.evaluate("window.all = []; for (let n = 0; n < 1000; n++) all.push(client.publish('n', n))")
    assert browser_page.evaluate("client.publish('n', 1000).catch((error) => error.code)") == "buffer_full"
    proxy.refuse(False)
    assert browser_page.evaluate("Promise.all(all).then((acks) => acks.length)") == 1_000
    assert [event["value"] for event in server.log()] == list(range(1_000))


def test_it_is_told_of_what_it_subscribed_to_and_remembers_it(browser_page: Page, server: Server, proxy: Proxy) -> None:
    publish(server, "lab/a", "x", "y")
    start(browser_page, proxy, devices=["lab/*"], mode="every")
    assert browser_page.evaluate("[...client.twins.keys()]") == ["lab/a"]
    browser_page.evaluate("client.subscribe({ devices: ['x'] })")
    assert browser_page.evaluate("[...client.twins.keys()]") == ["lab/a", "x"]
    so_far = browser_page.evaluate("phases.length")
    proxy.cut()
    until(browser_page, f'phases.slice({so_far}).includes("live")')  # it may be back before somebody sees it gone

    def changed() -> list[str]:
        return [event["device_id"] for event in heard(browser_page) if "device_id" in event]

    publish(server, "y", "x", "lab/b")
    eventually(lambda: len(changed()) >= 2, "its changes come")
    browser_page.evaluate("client.unsubscribe(['lab/*'])")
    publish(server, "lab/c", "x")
    eventually(lambda: len(changed()) >= 3, "its change comes")
    assert changed() == ["x", "lab/b", "x"]


def test_a_state_in_pages_is_whole(browser_page: Page, server: Server, proxy: Proxy) -> None:
    publish(server, *(f"d{number}" for number in range(2_300)))
    start(browser_page, proxy)
    assert browser_page.evaluate("snapshots") == [{"seq": 2_300, "size": 2_300, "gap": None}]


def test_a_slow_page_counts_what_was_merged(browser_page: Page, server: Server, proxy: Proxy) -> None:
    start(browser_page, proxy, maxHz=2)
    for _ in range(10):
        publish(server, *"ab")
    eventually(lambda: browser_page.evaluate("client.position.seq") == 20, "the newest changes come")
    counted = sum(event.get("merged", 1) for event in heard(browser_page))
    assert counted == 20 > len(heard(browser_page))


def test_an_event_source_resumes_by_itself(browser_page: Page, server: Server, proxy: Proxy) -> None:
    browser_page.goto(proxy.url)
    browser_page.evaluate(
        """() => {
          window.seqs = [];
          window.source = new EventSource("/api/events?devices=a&mode=every");
          source.onmessage = ({ data }) => {
            const message = JSON.parse(data);
            if (message.type === "data_update") seqs.push(message.seq);
            else if (message.type === "hello") window.resumed = message.resumed;
          };
        }"""
    )
    until(browser_page, "window.resumed === false")
    publish(server, *"aba")
    until(browser_page, "seqs.length === 2")
    proxy.cut()
    publish(server, *"aba")
    until(browser_page, "seqs.length === 4")
    assert browser_page.evaluate("[seqs, resumed]") == [[1, 3, 4, 6], True]
    browser_page.evaluate("source.close()")


@contextmanager
def page_of_the_docs(number: int, folder: Path, journal: str = "memory:") -> Iterator[tuple[str, Server]]:
    """Serve one of the guide's pages from an origin that a server lets in; give its address, and the server."""
    guide = (ROOT / "docs" / "dashboard.md").read_text()
    example = re.findall(r"^```html\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)[number]
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder)) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{elsewhere.server_port}"
        with Server(journal, allow_origin=(origin,), resume_max_entries=100) as server:
            (folder / "index.html").write_text(example.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}"))
            yield origin, server
        elsewhere.shutdown()


def test_the_page_of_the_docs_works_from_an_origin_that_is_let_in(browser_page: Page, tmp_path: Path) -> None:
    with page_of_the_docs(0, tmp_path) as (origin, server):
        publish(server, "lab/door", "other")
        browser_page.goto(origin)
        browser_page.get_by_text("lab/door: 0").wait_for()
        browser_page.get_by_role("button", name="Lamp on").click()
        browser_page.get_by_text('lab/lamp: "on"').wait_for()
        assert server.state["lab/lamp"].value == "on"
        assert browser_page.locator("li").count() == 2
        browser_page.goto("about:blank")


def test_the_page_that_keeps_its_position_hears_every_command_over_reloads_and_restarts(
    browser_page: Page, tmp_path: Path
) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    with page_of_the_docs(1, folder, f"sqlite:{tmp_path / 'journal.db'}") as (origin, server), Rest(server.url) as rest:
        heard: list[str] = []

        def look(count: int) -> None:
            browser_page.goto(origin)
            eventually(lambda: browser_page.locator("li").count() == count, f"{count} lines")
            heard.extend(browser_page.locator("li").all_inner_texts())

        def leave(*commands: str) -> None:
            browser_page.goto("about:blank")
            for command in commands:
                rest.control("lab/fan", command)
                rest.publish("lab/fan", command)

        browser_page.goto(origin)
        eventually(lambda: browser_page.evaluate("sessionStorage.length") == 1, "it is live")
        leave("one", "two")
        look(2)
        rest.control("lab/fan", "three")
        eventually(lambda: browser_page.locator("li").count() == 3, "it goes on live")
        heard.append("lab/fan: three")
        leave("four")
        server.restart()
        leave("five")
        look(2)
        assert heard == [f"lab/fan: {name}" for name in ("one", "two", "three", "four", "five")]
        leave(*(str(number) for number in range(60)))
        heard.clear()
        look(1)
        assert heard[0].endswith("may be missing: too_old")
        browser_page.evaluate("window.onpagehide = () => sessionStorage.setItem('commands', 'torn')")
        leave("lost")
        heard.clear()
        look(1)
        assert heard[0].endswith("may be missing: unreadable")
        browser_page.goto("about:blank")


def test_a_page_that_goes_on_has_the_newest_state_and_is_told_what_led_there(
    browser_page: Page, server: Server, proxy: Proxy
) -> None:
    publish(server, *"abc")
    start(browser_page, proxy, mode="every")
    at = browser_page.evaluate("client.position")
    publish(server, *"xab")
    with Rest(server.url) as rest:
        rest.delete("c")
    start(browser_page, proxy, mode="every", since=at)
    assert browser_page.evaluate("snapshots") == [{"seq": 3, "size": 3, "gap": None}]
    eventually(lambda: len(heard(browser_page)) >= 4, "what came since is told")
    assert [event["seq"] for event in heard(browser_page)] == [4, 5, 6, 7]
    assert browser_page.evaluate("[...client.twins].map(([id, { value }]) => [id, value]).sort()") == [
        ["a", 1],
        ["b", 2],
        ["x", 0],
    ]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_history_is_of_one_device_or_of_several_and_a_signal_ends_it(
    browser_page: Page, server: Server, proxy: Proxy
) -> None:
    publish(server, "lab/a", "lab/b", "lab/a", "hall/c")
    start(browser_page, proxy)
    one = browser_page.evaluate('client.history("lab/a", { limit: 1 })')
    assert (one["device_id"], [entry["value"] for entry in one["entries"]]) == ("lab/a", [2])
    assert one["cursor"]
    several = browser_page.evaluate('client.history(["lab/*"], { order: "asc" })')
    assert {each["device_id"]: [entry["value"] for entry in each["entries"]] for each in several["devices"]} == {
        "lab/a": [0, 2],
        "lab/b": [1],
    }
    assert several["seq"] == 4
    buckets = browser_page.evaluate('client.history(["lab/b", "hall/*"], { points: 10, agg: "count", path: "" })')
    assert [(each["device_id"], each["count"]) for each in buckets["series"]] == [("hall/c", [1]), ("lab/b", [1])]
    ended = """async () => {
        const ending = new AbortController();
        const { signal } = ending;
        const asked = [client.history("lab/a", { signal }), client.stateAt("now", [], { signal })];
        ending.abort(new Error("nobody looks any more"));
        const late = client.history("lab/a", { signal });
        return (await Promise.allSettled([...asked, late])).map(({ reason }) => reason?.message);
    }"""
    assert browser_page.evaluate(ended) == ["nobody looks any more"] * 3
    unended = browser_page.evaluate('client.history("lab/a", { signal: new AbortController().signal })')
    assert len(unended["entries"]) == 2
