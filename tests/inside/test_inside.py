"""Twincast in the process of an application: its verbs, its state, its watches, and how it starts and ends."""

import asyncio
import contextlib
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from twincast import Twincast
from twincast.client import Event, Gap, LateReading, Reading, Twin
from twincast.core.model import Position
from twincast.errors import (
    BadTime,
    JournalUnavailable,
    JournalUnusable,
    MalformedJson,
    NotFound,
    NotPermitted,
    NotStarted,
    SettingUnusable,
    StateFull,
    Stopping,
    TooLarge,
    TwincastError,
    ValidationFailed,
)
from twincast.inside.application import OF_THE_SERVER
from twincast.settings import Settings

HERE = "http://127.0.0.1"
DEADLINE_S = 20.0


@pytest.fixture
async def twin() -> AsyncIterator[Twincast]:
    twin = Twincast("memory:")
    async with twin.running():
        yield twin


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HERE)


async def first(watch: AsyncIterator[Event], count: int) -> list[Event]:
    """Return the next events of a watch that has begun."""
    async with asyncio.timeout(DEADLINE_S):
        return [await anext(watch) for _ in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # nobody sets an event for it
            await asyncio.sleep(0)


async def test_what_is_published_is_durable_in_the_state_and_on_every_wire(tmp_path: Path) -> None:
    twin = Twincast(f"sqlite:{tmp_path / 'lab.db'}")
    async with twin.running(), client(twin.app) as http:
        assert await twin.publish("lab/lamp", {"on": True}) == 1
        assert twin.state["lab/lamp"].value == {"on": True}
        told = (await http.get("/api/data/lab%2Flamp")).json()
        assert (told["value"], told["seq"], told["source"]) == ({"on": True}, 1, "application")
    again = Twincast(f"sqlite:{tmp_path / 'lab.db'}")
    async with again.running():
        assert again.state["lab/lamp"] == Twin({"on": True}, told["updated_at_utc"], 1, "application")


async def test_a_reading_may_say_when_it_was_measured(twin: Twincast) -> None:
    at = datetime(2026, 11, 27, 4, 16, 10, tzinfo=UTC)
    async with twin.watch("lamp", mode="every") as unasked, twin.watch("lamp", kinds=["late"]) as asked:
        await twin.publish("lamp", 1, measured_at=at)
        await twin.publish("lamp", 2, measured_at="2026-11-27T05:16:09+01:00")
        await twin.publish("lamp", 3, measured_at="9999-01-01T00:00:00Z")
        [late] = await first(aiter(asked), 1)
        assert isinstance(late, LateReading)
        assert (late.value, late.measured_at_utc, late.seq) == (2, "2026-11-27T04:16:09.000000+00:00", 2)
        readings = await first(aiter(unasked), 2)
    assert [(each.value, isinstance(each, Reading) and each.clock) for each in readings] == [(1, None), (3, "off")]
    now = twin.state["lamp"]
    assert (now.value, now.measured_at_utc, now.clock) == (3, "9999-01-01T00:00:00.000000+00:00", "off")
    for wrong in (at.replace(tzinfo=None), "yesterday"):
        with pytest.raises(BadTime):
            await twin.publish("lamp", 4, measured_at=wrong)


async def test_a_command_and_a_deletion_are_told_and_audited(twin: Twincast) -> None:
    await twin.publish("lab/fan", 1)
    async with twin.watch("lab/*") as watch:
        events = aiter(watch)
        await twin.command("lab/fan", "start", {"rpm": 900}, actor="alice")
        await twin.command("lab/fan", "stop")
        await twin.delete("lab/fan")
        started, stopped, deleted = await first(events, 3)
    assert (started.kind, started.command, started.args) == ("control", "start", {"rpm": 900})
    assert (stopped.command, stopped.args, stopped.source) == ("stop", {}, "application")
    assert (deleted.kind, deleted.device_id) == ("deleted", "lab/fan")
    assert "lab/fan" not in twin.state
    async with client(twin.app) as http:
        records = (await http.get("/api/audit")).json()["records"]
    assert [(each["who"], each["action"], each["target"]) for each in records] == [
        ("application", "delete", "lab/fan"),
        ("application", "command", "lab/fan"),
        ("application:alice", "command", "lab/fan"),
    ]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"bytes", ValidationFailed),
        (float("nan"), ValidationFailed),
        ({1: 2}, ValidationFailed),
        (1 << 64, MalformedJson),
        ("x" * 64 * 1024, TooLarge),
        ("x" * (63 * 1024 + 100), TooLarge),  # which a message holds, and a value may not have
        ({str(number): number for number in range(1_025)}, TooLarge),
        (msgspec.Raw(b'{"a":1,"a":2}'), MalformedJson),
        (msgspec.Raw(b"{"), MalformedJson),
        (msgspec.Raw(b'1,"device_id":"other"'), MalformedJson),
    ],
)
async def test_a_value_that_the_server_would_refuse_is_refused(
    twin: Twincast, value: object, error: type[TwincastError]
) -> None:
    with pytest.raises(error):
        await twin.publish("lab/lamp", value)
    assert (len(twin.state), twin.position.seq) == (0, 0)


async def test_names_that_cannot_be_are_refused(twin: Twincast) -> None:
    for name in ("", "x" * 129, "a\nb", "\ud800"):
        with pytest.raises(ValidationFailed):
            await twin.publish(name, 1)
        with pytest.raises(ValidationFailed):
            await twin.command("lab/fan", name)
    with pytest.raises(ValidationFailed):
        await twin.command("lab/fan", "start", [1])  # type: ignore[arg-type]
    with pytest.raises(ValidationFailed):
        await twin.command("lab/fan", "start", actor="a\nb")
    with pytest.raises(NotFound):
        await twin.delete("lab/none")
    assert twin.position.seq == 0


async def test_the_bounds_of_the_state_hold() -> None:
    twin = Twincast("memory:", devices_max=1)
    async with twin.running():
        await twin.publish("a", 1)
        with pytest.raises(StateFull):
            await twin.publish("b", 1)
        await twin.publish("a", 2)


async def test_a_full_batch_holds_a_sender_back_and_loses_nothing() -> None:
    twin = Twincast("memory:", open_batch_max_bytes=64 * 1024)
    async with twin.running():
        seqs = await asyncio.gather(*(twin.publish(f"d{number}", "x" * 40_000) for number in range(20)))
        assert sorted(seqs) == list(range(1, 21))
        assert len(twin.state) == 20


async def test_a_disk_that_takes_nothing_is_said(twin: Twincast, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = twin.app.parts.hub._journal

    async def full(*_: object) -> range:
        raise JournalUnavailable("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", full)
        with pytest.raises(JournalUnavailable, match="no space left"):
            await twin.publish("a", 1)
    assert await twin.publish("a", 2) == 1


# -- users


async def test_a_user_may_do_what_the_application_decides(twin: Twincast) -> None:
    alice = twin.user("alice", publish="lab/*", read=["lab/*"], command=["lab/fan"])
    await twin.publish("office/door", "open")
    await alice.publish("lab/fan", 1)
    await alice.command("lab/fan", "start")
    for refused in (
        alice.publish("office/door", "shut"),
        alice.delete("office/door"),
        alice.command("lab/lamp", "on"),
    ):
        with pytest.raises(NotPermitted, match="application:alice has no right"):
            await refused
    assert list(alice.state) == ["lab/fan"]
    assert (len(alice.state), "office/door" in alice.state, alice.state.get("office/door")) == (1, False, None)
    assert set(twin.state) == {"lab/fan", "office/door"}


async def test_a_user_watches_what_it_may_read(twin: Twincast) -> None:
    alice = twin.user("alice", read="lab/*")
    with pytest.raises(NotPermitted):
        twin.user("bob", publish="*").watch()
    await twin.publish("office/door", "open")
    async with alice.watch(initial=True) as watch:
        await twin.publish("office/door", "shut")
        await twin.publish("lab/lamp", 1)
        assert [event.device_id for event in await first(aiter(watch), 1)] == ["lab/lamp"]


@pytest.mark.parametrize("grants", [{"fly": "*"}, {"read": ""}])
async def test_rights_that_cannot_be_are_refused(twin: Twincast, grants: dict[str, str]) -> None:
    with pytest.raises(ValidationFailed):
        twin.user("alice", **grants)


async def test_the_share_of_a_user_is_bounded_and_the_applications_is_not() -> None:
    twin = Twincast("memory:", identity_state_max_bytes=1_024)
    async with twin.running():
        alice = twin.user("alice", publish="*")
        with pytest.raises(StateFull):
            for number in range(3):
                await alice.publish(f"alice/{number}", 1)
        for number in range(10):
            await twin.publish(f"app/{number}", 1)


# -- the state


async def test_the_state_is_a_mapping_that_nobody_writes(twin: Twincast) -> None:
    state = twin.state
    assert (dict(state), len(state)) == ({}, 0)
    await twin.publish("a", [1])
    assert (list(state), state["a"].value, state.get("b")) == (["a"], [1], None)
    with pytest.raises(KeyError):
        state["b"]
    assert not hasattr(state, "__setitem__")
    state["a"].value.append(2)
    assert state["a"].value == [1], "what is handed out is nobody's but its reader's"


# -- watches


async def test_a_watch_that_has_begun_misses_nothing(twin: Twincast) -> None:
    async with twin.watch(mode="every") as watch:
        for number in range(100):
            await twin.publish("a", number)
        events = await first(aiter(watch), 100)
    assert [event.value for event in events] == list(range(100))
    assert events[0] == Reading("a", 1, events[0].epoch, events[0].timestamp_utc, "application", 0)


async def test_a_watch_begins_with_the_newest_state_if_asked(twin: Twincast) -> None:
    for device in ("b", "a", "c"):
        await twin.publish(device, device)
    async with twin.watch("a", "b", initial=True) as watch:
        await twin.publish("a", "newer")
        told = await first(aiter(watch), 2)
    assert [(event.device_id, event.value) for event in told] == [("b", "b"), ("a", "newer")]


async def test_a_watch_goes_on_behind_a_position(twin: Twincast) -> None:
    await twin.publish("a", 1)
    position = twin.position
    await twin.publish("a", 2)
    await twin.command("a", "blink")
    for since in (position, str(position)):
        events = await first(aiter(twin.watch(mode="every", since=since)), 2)
        assert [(event.seq, event.kind, event.gap) for event in events] == [
            (2, "data_update", None),
            (3, "control", None),
        ]
    with pytest.raises(ValidationFailed):
        twin.watch(since="nonsense")


async def test_a_position_of_another_log_is_told_as_a_gap_and_the_state_follows(twin: Twincast) -> None:
    await twin.publish("a", 1)
    for since, reason in ((Position("0" * 32 + "-1", 1), "epoch"), (Position(twin.position.epoch, 99), "ahead")):
        (event,) = await first(aiter(twin.watch(since=since)), 1)
        assert (event.value, event.gap) == (1, Gap(None, None, reason))  # type: ignore[arg-type]


async def test_a_position_that_is_too_old_is_told_as_a_gap_and_the_state_follows() -> None:
    twin = Twincast("memory:", resume_max_entries=2)
    async with twin.running():
        for number in range(5):
            await twin.publish(f"d{number % 2}", number)
        events = await first(aiter(twin.watch(mode="every", since=f"{twin.position.epoch}:1")), 2)
    assert [(event.value, event.gap) for event in events] == [(3, Gap(2, 5, "too_old")), (4, None)]


async def test_a_slow_watch_in_mode_every_gets_all_and_costs_nobody_else(twin: Twincast) -> None:
    value = "x" * 1_000
    async with twin.watch(mode="every") as slow, twin.watch(mode="every") as quick:
        told, seen = aiter(slow), aiter(quick)
        for number in range(30):  # far more than a watch, its feed and its outbox hold
            await asyncio.gather(*(twin.publish(f"d{each}", [number, value]) for each in range(100)))
            await first(seen, 100)
        events = await first(told, 3_000)
    assert [event.seq for event in events] == list(range(1, 3_001))
    assert {event.gap for event in events} == {None}


async def test_a_slow_watch_in_mode_latest_gets_the_newest_and_how_many_that_stands_for(twin: Twincast) -> None:
    value = "x" * 1_000
    async with twin.watch("a") as slow:
        for number in range(2_000):
            await twin.publish("a", [number, value])
        seen = []
        async for event in slow:
            seen.append(event)
            if event.value[0] == 1_999:
                break
    assert sum(event.merged for event in seen) == 2_000
    assert len(seen) < 2_000


async def test_commands_are_never_merged_however_slow_a_watch_is(twin: Twincast) -> None:
    args = {"text": "x" * 4_000}
    async with twin.watch("fan") as slow:
        for number in range(600):  # more than a feed keeps: it is cut off, and comes back where it was
            await twin.command("fan", f"c{number}", args)
        events = await first(aiter(slow), 600)
    assert [event.command for event in events] == [f"c{number}" for number in range(600)]
    assert {event.gap for event in events} == {None}


async def test_what_a_journal_in_memory_has_forgotten_is_told_as_a_gap() -> None:
    twin = Twincast("memory:", memory_journal_max_bytes=64 * 1024)
    value = "x" * 1_000
    async with twin.running(), twin.watch(mode="every") as slow:
        for number in range(4_000):
            await twin.publish("a", [number, value])
        seen = []
        async for event in slow:
            seen.append(event)
            if event.value[0] == 3_999:
                break
    gaps = [event.gap for event in seen if event.gap is not None]
    assert len(seen) < 4_000
    assert [gap.reason for gap in gaps] == ["too_old"]
    before = next(index for index, event in enumerate(seen) if event.gap is not None)
    assert gaps[0].from_seq == seen[before - 1].seq + 1


async def test_max_hz_merges(twin: Twincast) -> None:
    async with twin.watch("a", max_hz=20) as watch:
        events = aiter(watch)
        for number in range(50):
            await twin.publish("a", number)
        total, last = 0, None
        while last != 49:
            (event,) = await first(events, 1)
            total, last = total + event.merged, event.value
    assert total == 50


async def test_a_watch_may_begin_again_with_what_comes_then(twin: Twincast) -> None:
    watch = twin.watch("a", since=twin.position)
    await twin.publish("a", 1)
    for number in (1, 2):
        async with watch:
            if number == 2:
                await twin.publish("a", 2)
            assert [event.value for event in await first(aiter(watch), 1)] == [number]


async def test_a_watch_that_is_left_or_cancelled_leaves_nothing_behind(twin: Twincast) -> None:
    hub = twin.app.parts.hub
    before = asyncio.all_tasks()

    async def forever() -> None:
        async for _ in twin.watch(mode="every"):
            pass

    watching = [asyncio.create_task(forever()) for _ in range(20)]
    await twin.publish("a", 1)
    async for _ in twin.watch(initial=True):
        break
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)
    gc.collect()
    await until(lambda: asyncio.all_tasks() == before and not twin._running_it._ends)
    assert len(hub.router) == 0


async def test_a_publish_that_is_cancelled_harms_nobody(twin: Twincast) -> None:
    publishing = asyncio.create_task(twin.publish("a", 1))
    await asyncio.sleep(0)
    publishing.cancel()
    await asyncio.wait([publishing])
    assert await twin.publish("a", 2) == 2


async def test_a_journal_that_cannot_be_read_for_a_moment_is_read_again(
    twin: Twincast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twincast.inside.feeding.AGAIN_S", 0.0)
    hub, tries = twin.app.parts.hub, []
    await twin.publish("a", 1)
    read_back = hub.read_back

    def failing(since: int, until: int, took: Any) -> Any:
        tries.append(since)
        if len(tries) < 3:
            asyncio.get_running_loop().call_soon(took, JournalUnavailable("the disk does not answer"))
            return None
        return read_back(since, until, took)

    monkeypatch.setattr(hub, "read_back", failing)
    (event,) = await first(aiter(twin.watch(since=f"{twin.position.epoch}:0")), 1)
    assert (event.value, event.gap, len(tries)) == (1, None, 3)


# -- how it starts and ends


@pytest.mark.parametrize("is_over", [False, True])
async def test_without_its_lifespan_everything_says_which_line_is_missing(is_over: bool) -> None:
    twin, app = Twincast("memory:"), FastAPI()
    app.mount("/twin", twin.app)
    if is_over:
        async with twin.running():
            pass
    async with client(app) as http:
        for answer in (
            await http.get("/twin/api/data"),
            await http.get("/twin/api/data/lamp"),
            await http.post("/twin/api/data", json={"device_id": "lamp", "value": 1}),
            await http.get("/twin/api/events", headers={"Accept": "text/event-stream"}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "not_started")
            assert "FastAPI(lifespan=twin.lifespan)" in answer.json()["detail"]
        assert (await http.get("/twin/readyz")).status_code == 503
        assert (await http.get("/twin/dashboard")).status_code == 200
    for call in (twin.publish("a", 1), twin.command("a", "b"), twin.delete("a"), first(aiter(twin.watch()), 1)):
        with pytest.raises(NotStarted, match=r"FastAPI\(lifespan=twin.lifespan\)"):
            await call
    with pytest.raises(NotStarted):
        len(twin.state)


async def test_the_line_that_is_missing_stands_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    async with client(Twincast("memory:").app) as http:
        await http.get("/api/data")
        await http.get("/api/data")
    assert [record.message for record in caplog.records if "twin.lifespan" in record.message] != []
    assert len([record for record in caplog.records if "twin.lifespan" in record.message]) == 1


async def test_at_the_end_watches_end_and_what_was_accepted_has_its_answer() -> None:
    twin = Twincast("memory:")
    ended: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    async def watch() -> None:
        seen: list[Any] = []
        try:
            async for event in twin.watch(mode="every"):
                seen.append(event.value)
        except Stopping as error:
            ended.set_result([*seen, error.message])

    async with twin.running():
        watching = asyncio.create_task(watch())
        stuck = twin.watch(mode="every")
        await stuck.__aenter__()  # somebody who takes nothing holds up no end
        await until(lambda: len(twin._running_it._ends) == 2)
        publishing = [asyncio.create_task(twin.publish("a", number)) for number in range(1_000)]
        await asyncio.sleep(0)
    assert [await each for each in publishing] == list(range(1, 1_001))
    *seen, words = await ended  # it says itself up to where it came, and may go on from there
    assert (seen, words) == ([*range(len(seen))], "this twincast has ended")
    await watching
    with pytest.raises(NotStarted):
        await twin.publish("a", 1)


async def test_it_runs_again_after_its_end(tmp_path: Path) -> None:
    twin = Twincast(f"sqlite:{tmp_path / 'lab.db'}")
    for seq in (1, 2):
        async with twin.running():
            assert await twin.publish("a", seq) == seq


async def test_whoever_starts_it_need_not_be_the_task_that_ends_it() -> None:
    twin = Twincast("memory:")
    running = twin.running()
    await asyncio.create_task(running.__aenter__())
    assert await twin.publish("a", 1) == 1
    await asyncio.create_task(running.__aexit__(None, None, None))


def test_it_runs_on_one_event_loop_after_another() -> None:
    twin, app = Twincast("memory:"), FastAPI()
    app.mount("/twin", twin.app)

    async def use() -> int:
        async with twin.running(), client(app) as http, twin.watch() as watch:
            await http.post("/twin/api/data", json={"device_id": "a", "value": 1})
            return (await first(aiter(watch), 1))[0].seq

    assert [asyncio.run(use()) for _ in range(2)] == [1, 1]


@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_starlettes_own_test_client_reaches_everything_websockets_too() -> None:
    from fastapi.testclient import TestClient  # noqa: PLC0415  # it warns of what it is made with

    twin = Twincast("memory:")
    app = FastAPI(lifespan=twin.lifespan)
    app.mount("/twin", twin.app)
    with TestClient(app, base_url=HERE) as http, http.websocket_connect("ws://127.0.0.1/twin/ws") as socket:
        assert socket.receive_json()["type"] == "hello"
        assert http.portal is not None
        assert http.portal.call(twin.publish, "lab/lamp", 1) == 1
        assert socket.receive_json()["source"] == "application"
        assert http.get("/twin/api/data").json()["data"]["lab/lamp"]["value"] == 1


async def test_it_is_run_once_at_a_time(twin: Twincast) -> None:
    with pytest.raises(RuntimeError, match="running already"):
        async with twin.running():
            raise AssertionError
    assert await twin.publish("a", 1) == 1


async def test_two_applications_on_one_journal_are_told(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'lab.db'}"
    async with Twincast(url).running():
        other = Twincast(url)
        with pytest.raises(JournalUnusable, match="in use by another server"):
            async with other.running():
                raise AssertionError
    async with other.running():
        assert await other.publish("a", 1) == 1


async def test_one_that_is_cancelled_closes_its_journal(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'lab.db'}"
    twin, is_up, handler = Twincast(url), asyncio.Event(), signal.getsignal(signal.SIGINT)

    async def run() -> None:
        async with twin.running():
            is_up.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await is_up.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    async with Twincast(url).running():
        pass
    assert signal.getsignal(signal.SIGINT) is handler


async def test_another_threads_event_loop_is_told_how_to_call(twin: Twincast) -> None:
    refused: list[str] = []

    def publish() -> None:
        try:
            asyncio.run(twin.publish("a", 1))
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=publish)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "anyio.from_thread.run" in refused[0]
    assert twin.position.seq == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 8000}, "`port` is of the server that runs the application"),
        ({"devices_mx": 1}, "there is no setting `devices_mx`"),
        ({"devices_max": 0}, "^`devices_max`: must be at least 1"),
        ({"allow_host": ("http://x",)}, "^`allow_host`"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingUnusable, match=words):
        Twincast("memory:", **settings)


def test_a_client_loads_no_server() -> None:
    program = """
import sys, twincast
from twincast.client import connect
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"fastapi", "starlette", "uvicorn", "apsw", "pydantic", "picows"}, loaded
assert not [name for name in sys.modules if name.startswith(("twincast.app", "twincast.inside"))]
assert twincast.Twincast.__module__ == "twincast.inside.application"
try:
    twincast.Twin
except AttributeError as error:
    print(error)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (printed.stderr, printed.stdout) == ("", "module 'twincast' has no attribute 'Twin'\n")


def test_each_setting_is_taken_here_or_is_the_servers() -> None:
    assert set(Settings.model_fields) >= OF_THE_SERVER
    assert {"lan", "self_signed", "tls_key"} <= OF_THE_SERVER
    twin = Twincast("memory:", devices_max=7, allow_host=("lab.example.org",))
    assert (twin.app.settings.devices_max, twin.app.settings.allow_host) == (7, ("lab.example.org",))
