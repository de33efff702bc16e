"""A server whose log is long in coming, cannot be reached, or becomes another one: what is said meanwhile, and then."""

import asyncio
import json
import logging
import re
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.running import DEADLINE_S, eventually, eventually_async
from tests.shared_logs import REPLACED, URL, SharedLogs, ThreadedServer
from twincast.app import create_app
from twincast.cli.status import status
from twincast.client import Link, Rest
from twincast.client import connect as client_to
from twincast.client.events import Reading
from twincast.errors import (
    JournalUnavailable,
    JournalUnusable,
    NotReady,
)
from twincast.inside import Twincast
from twincast.settings import Settings


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> SharedLogs:
    return SharedLogs(monkeypatch)


@pytest.fixture(params=["picows", "portable"])
def server(request: pytest.FixtureRequest, logs: SharedLogs) -> Iterator[ThreadedServer]:
    running = ThreadedServer(request.param)
    yield running
    running.stop()


async def close_of(url: str, **options: Any) -> tuple[int, str]:
    """Return how a server ends a WebSocket that a client opens."""
    async with connect(url.replace("http", "ws") + "/ws", **options) as socket:
        await asyncio.wait_for(socket.wait_closed(), DEADLINE_S)
        assert socket.close_code is not None
        return socket.close_code, socket.close_reason or ""


async def test_a_server_that_reads_its_log_listens_and_says_how_far_it_is(
    server: ThreadedServer, logs: SharedLogs
) -> None:
    await eventually_async(lambda: bool(logs.openings), "it opens")
    logs.openings[0].at_seq, logs.openings[0].of_seq = 1_000, 25_000
    logs.openings[0].problem = "nats://10.0.0.1:4222 does not answer"
    async with httpx.AsyncClient(base_url=server.url) as http:
        for path in ("/api/data", "/api/events", "/api/audit", "/metrics", "/ws", "/nowhere"):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), path
            assert answer.json()["code"] == "not_ready"
            assert "1,000 of 25,000" in answer.json()["detail"]
            assert "10.0.0.1" not in answer.text
        answer = await http.post("/api/data", json={"device_id": "a", "value": 1})
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        for path in ("/", "/docs", "/dashboard", "/dashboard/app.js", "/openapi.json", "/healthz"):
            assert (await http.get(path)).status_code == 200, path
        assert (await http.get("/readyz")).status_code == 503
    assert await close_of(server.url) == (1013, "not_ready: " + server.app.parts.not_ready(logs.openings[0]).message)
    logs.words.append("go")
    async with httpx.AsyncClient(base_url=server.url) as http:
        await eventually_async(lambda: server.app.parts.is_running, "it is ready")
        assert (await http.get("/readyz")).status_code == 200
        answer = await http.post("/api/data", json={"device_id": "a", "value": 1})
        assert answer.json()["event"]["seq"] == 1


async def test_the_status_has_all_its_fields_before_the_server_is_ready(
    server: ThreadedServer, logs: SharedLogs
) -> None:
    await eventually_async(lambda: bool(logs.openings), "it opens")
    logs.openings[0].at_seq, logs.openings[0].of_seq = 7, 9
    logs.openings[0].problem = "nats://10.0.0.1:4222 does not answer"
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.get("/api/status")
        beside = answer.json()
        proxied = (await http.get("/api/status", headers={"x-forwarded-for": "203.0.113.5"})).json()
        assert not (await http.head("/api/status")).content
        assert (await http.get("/api/status", headers={"host": "evil.example"})).status_code == 403
        assert (await http.get("/api/status", headers={"origin": "https://evil.example"})).status_code == 403
        logs.words.append("go")
        await eventually_async(lambda: server.app.parts.is_running, "it is ready")
        ready = (await http.get("/api/status")).json()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert ready["ok"] and set(ready) - {"journal", "space"} <= set(beside)
    assert (beside["ok"], beside["at_seq"], beside["of_seq"], beside["code"]) == (False, 7, 9, "not_ready")
    assert "10.0.0.1" in beside["problem"], "who sits beside the server is told why"
    assert "10.0.0.1" not in str(proxied) and "cannot be reached" in proxied["problem"]


async def test_a_page_elsewhere_is_turned_away_and_a_program_with_a_credential_is_told(
    server: ThreadedServer, logs: SharedLogs
) -> None:
    with pytest.raises(Exception, match="403"):
        await close_of(server.url, additional_headers={"Origin": "https://evil.example"})
    headers = {"Origin": "https://evil.example", "Authorization": "Bearer twc_x_y"}
    assert (await close_of(server.url, additional_headers=headers))[0] == 1013


async def test_who_is_elsewhere_is_told_to_come_again_before_it_is_known_whether_there_is_a_login(
    logs: SharedLogs,
) -> None:
    app = create_app(Settings(journal=URL), edge="portable")
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=("203.0.113.5", 4_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as stranger:
            refused = await stranger.get("/api/data")
            assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
            logs.words.append("go")
            await eventually_async(lambda: app.parts.is_running, "it is ready")
            assert (await stranger.get("/api/data")).status_code == 403, "and there is none"


async def test_a_log_that_cannot_be_reached_is_tried_again_and_that_is_said_once(
    logs: SharedLogs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "twincast")
    app = create_app(Settings(journal=URL), edge="portable")
    logs.words += [JournalUnavailable("nobody answers at nats://n1:4222")] * 3
    async with app.router.lifespan_context(app):
        await eventually_async(lambda: len(logs.openings) == 4, "it tries again")
        assert logs.openings[0].problem == "nobody answers at nats://n1:4222"
        logs.openings[-1].of_seq = 50
        await eventually_async(lambda: any("of 50 entries" in each.message for each in caplog.records), "it is told")
        logs.words.append("go")
        await eventually_async(lambda: app.parts.is_running, "it is ready")
    said = [each.message for each in caplog.records if each.name == "twincast"]
    assert said[0].startswith("the log is being opened")
    assert len([each for each in said if "is tried again: nobody answers" in each]) == 1
    assert said[-1] == "ready: the log is read, up to entry 0"


async def test_a_server_that_is_stopped_while_it_reads_its_log_stops_at_once(
    server: ThreadedServer, logs: SharedLogs
) -> None:
    await eventually_async(lambda: bool(logs.openings), "it opens")
    await asyncio.to_thread(server.stop)
    assert (logs.cancelled, server.app.startup_error) == (1, None)


async def test_a_log_that_cannot_serve_ends_the_server_with_the_reason(
    server: ThreadedServer, logs: SharedLogs
) -> None:
    error = JournalUnusable("this stream is somebody else's")
    logs.words.append(error)
    await asyncio.to_thread(server.thread.join, DEADLINE_S)
    assert not server.thread.is_alive()
    assert server.app.startup_error is error


async def test_an_application_elsewhere_is_ended_by_a_signal(logs: SharedLogs) -> None:
    app = create_app(Settings(journal=URL), edge="portable")
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, signalled.set)
    try:
        async with app.router.lifespan_context(app):
            logs.words.append(JournalUnusable("this stream is somebody else's"))
            await asyncio.wait_for(signalled.wait(), DEADLINE_S)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_a_log_that_is_replaced_ends_all_that_was_served_and_is_opened_anew(
    server: ThreadedServer, logs: SharedLogs, caplog: pytest.LogCaptureFixture
) -> None:
    logs.words.append("go")
    await eventually_async(lambda: server.app.parts.is_running, "it is ready")
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S) as http,
        connect(server.url.replace("http", "ws") + "/ws") as socket,
    ):
        await socket.recv()  # hello
        epoch = (await http.get("/api/status")).json()["epoch"]
        logs.logs[0].held = asyncio.Event()
        waiting = asyncio.create_task(http.post("/api/data", json={"device_id": "a", "value": 1}))
        polling = asyncio.create_task(http.get("/api/events", params={"since": f"{epoch}:0", "wait_s": 30}))
        async with http.stream("GET", "/api/events", headers={"accept": "text/event-stream"}) as stream:
            await eventually_async(
                lambda: server.app.parts.hub.intake.waiting_bytes or len(server.app.parts.open_responses) == 2,
                "they wait",
            )
            await eventually_async(lambda: len(server.app.parts.open_responses) == 2, "they wait")
            server.in_loop(logs.logs[0].is_replaced.set)
            async for _ in stream.aiter_lines():
                pass  # until it ends
        answer = await waiting
        assert (answer.status_code, answer.json()["code"]) == (503, "log_replaced")
        assert (await polling).status_code in {200, 503}
        await asyncio.wait_for(socket.wait_closed(), DEADLINE_S)
        assert (socket.close_code, socket.close_reason) == (1012, f"log_replaced: {REPLACED}")
        assert (await http.get("/api/data")).json()["code"] == "not_ready"
        assert logs.logs[0].is_closed
        assert f"the log is another one now, and is opened anew: {REPLACED}" in caplog.text
        logs.words.append("go")
        await eventually_async(lambda: server.app.parts.is_running, "it is ready again")
        assert (await http.get("/api/status")).json()["epoch"] != epoch
        stored = await http.post("/api/data", json={"device_id": "b", "value": 1})
        assert stored.json()["event"]["seq"] == 1
    assert not server.app.parts.sessions


async def test_a_program_with_a_server_inside_waits_for_its_log(logs: SharedLogs) -> None:
    twin = Twincast(URL)
    logs.words.append(JournalUnavailable("nobody answers"))
    starting = asyncio.create_task(twin.running().__aenter__())
    await eventually_async(lambda: len(logs.openings) == 2, "it tries again")
    assert not starting.done()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert logs.cancelled == 1
    logs.words += [JournalUnusable("unused"), JournalUnusable("it is somebody else's")]
    with pytest.raises(JournalUnusable, match="somebody"):
        async with Twincast(URL).running():
            raise AssertionError("it has no log")


async def test_watches_of_a_program_go_on_with_the_log_that_took_the_place_of_theirs(
    logs: SharedLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twincast.inside.feeding.AGAIN_S", 0.01)
    twin = Twincast(URL)
    logs.words.append("go")
    async with twin.running(), twin.watch() as watch:
        events = aiter(watch)
        await twin.publish("a", 1)
        assert (await anext(events)).seq == 1
        logs.logs[0].is_replaced.set()
        await eventually_async(lambda: not twin.app.parts.is_running, "it is noticed")
        with pytest.raises(NotReady):
            await twin.publish("b", 1)
        with pytest.raises(NotReady):
            len(twin.state)
        logs.words.append("go")
        await eventually_async(lambda: twin.app.parts.is_running, "it is ready")
        assert dict(twin.state) == {}
        await twin.publish("c", 3)
        event = await asyncio.wait_for(anext(events), DEADLINE_S)
        assert isinstance(event, Reading) and event.device_id == "c"
        assert event.gap is not None and event.gap.reason == "epoch"
    assert not twin.app.parts.watches_inside


def test_the_rest_client_says_that_the_server_is_not_ready(server: ThreadedServer, logs: SharedLogs) -> None:
    with Rest(server.url) as rest:
        with pytest.raises(NotReady) as raised:
            rest.data()
        assert raised.value.retryable
        status = rest.status()
        assert (status["ok"], status["at_seq"], status["code"]) == (False, 0, "not_ready")


async def test_a_client_comes_again_until_the_server_is_ready(server: ThreadedServer, logs: SharedLogs) -> None:
    reasons: list[str] = []

    def on_link(link: Link) -> None:
        if link.phase == "waiting":
            reasons.append(link.reason)

    async def publish() -> None:
        async with client_to(server.url, timeout_s=None, on_link=on_link) as client:
            await client.publish("a", 1)

    published = asyncio.create_task(publish())
    await eventually_async(lambda: len(reasons) > 1, "it comes again")
    assert all("its log is being opened" in reason for reason in reasons)
    logs.words.append("go")
    await asyncio.wait_for(published, DEADLINE_S)


def test_the_command_line_says_plainly_that_a_server_is_not_ready(
    server: ThreadedServer, logs: SharedLogs, capsys: pytest.CaptureFixture[str]
) -> None:
    eventually(lambda: bool(logs.openings), "it opens")
    logs.openings[0].at_seq, logs.openings[0].of_seq = 1_000, 25_000
    assert not status(server.url, as_json=False)
    printed = capsys.readouterr().out
    assert re.search(r"^ok +no$", printed, re.MULTILINE)
    assert "the server is not ready: it has read 1,000 of 25,000 entries of its log" in printed
    assert "about:blank" not in printed and "Retry" not in printed
    assert not status(server.url, as_json=True)
    assert json.loads(capsys.readouterr().out)["of_seq"] == 25_000
