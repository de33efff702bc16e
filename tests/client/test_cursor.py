"""A position that outlives the process: what was missed is told, in order; perhaps twice, never not at all."""

import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.conftest import JournalUrl
from tests.running import eventually, eventually_async
from twincast.client import Client, Event, Gap, Rest, connect
from twincast.client import sync as without_asyncio
from twincast.client.link import Socket, open_link
from twincast.core.model import Position
from twincast.errors import CursorUnusable, Unauthenticated, ValidationFailed
from twincast.testing import Proxy, Server

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def server(durable_kind: str, journal_url: JournalUrl) -> Iterator[Server]:
    with Server(journal_url(durable_kind)) as server:
        yield server


@pytest.fixture
def cursor(tmp_path: Path) -> Path:
    return tmp_path / "device.cursor"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs be done with their start at once, so that the file moves as soon as it may."""
    monkeypatch.setattr("twincast.client.resumption.STARTING_S", 0.3)
    monkeypatch.setattr("twincast.client.cursor.WRITE_INTERVAL_S", 0.05)


def command(server: Server, *commands: str, target: str = "fan") -> None:
    with Rest(server.url) as rest:
        for each in commands:
            rest.control(target, each)


async def commanded(server: Server, *commands: str, target: str = "fan") -> None:
    await asyncio.to_thread(command, server, *commands, target=target)


@contextlib.asynccontextmanager
async def device(server: Server, cursor: Path, **how: Any) -> AsyncIterator[tuple[Client, list[Event]]]:
    """Run a device that obeys commands, from its start to its orderly end."""
    heard: list[Event] = []
    async with connect(server.url, devices=(), cursor=cursor, **how) as client:
        await client.on_command("fan", heard.append)
        yield client, heard


async def hears(heard: list[Event], *commands: str) -> None:
    await eventually_async(lambda: len(heard) >= len(commands), f"{commands} are heard")
    assert [event.command for event in heard] == list(commands)


def put_back(folder: Path) -> None:
    for each in folder.glob("journal.db*"):
        each.unlink()
    shutil.copy(folder / "backup.db", folder / "journal.db")


async def until_in(cursor: Path, seq: int) -> None:
    await eventually_async(lambda: position_in(cursor).seq == seq, f"it comes to {seq}")


def position_in(cursor: Path) -> Position:
    return Position.parse(cursor.read_text().strip()) if cursor.exists() else Position("", -1)


async def test_a_device_that_restarts_hears_what_was_commanded_meanwhile(server: Server, cursor: Path) -> None:
    await commanded(server, "before its time")
    async with device(server, cursor) as (_, heard):
        await commanded(server, "a", "b")
        await hears(heard, "a", "b")
    for number in range(3):
        await commanded(server, f"c{number}", f"d{number}")
        async with device(server, cursor) as (_, heard):
            await hears(heard, f"c{number}", f"d{number}")
            await commanded(server, f"e{number}")
            await hears(heard, f"c{number}", f"d{number}", f"e{number}")
        assert all(event.gap is None for event in heard)


class SlowNetwork:
    """Holds back a second question for the head of the log until it may be sent, and lets no connection close."""

    def __init__(self) -> None:
        self.may_ask = asyncio.Event()
        self.both_are_there = asyncio.Event()
        """Set once a watch that reads back is on the client's connection too."""

    @contextlib.asynccontextmanager
    async def open_link(self, *args: Any, **how: Any) -> AsyncIterator[Socket]:
        async with open_link(*args, **how) as socket:
            yield SlowSocket(socket, self)
            await asyncio.Event().wait()


class SlowSocket:
    def __init__(self, socket: Socket, network: SlowNetwork) -> None:
        self._socket = socket
        self._network = network
        self._questions = 0

    async def send(self, text: str) -> None:
        self._questions += '"head"' in text
        if self._questions == 2:
            self._network.both_are_there.set()
            await self._network.may_ask.wait()
        await self._socket.send(text)

    async def recv(self) -> str | bytes:
        return await self._socket.recv()


async def test_an_end_while_the_two_connections_meet_brings_nothing_again(
    server: Server, cursor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with device(server, cursor):
        pass
    await commanded(server, "a")
    with monkeypatch.context() as patch:
        network = SlowNetwork()
        patch.setattr("twincast.client.client.open_link", network.open_link)
        async with device(server, cursor) as (client, heard):
            await network.both_are_there.wait()
            await commanded(server, "b")
            await client.reached(2)  # it came on the client's connection, and is now read back as well
            network.may_ask.set()
            await hears(heard, "a", "b")
    assert position_in(cursor).seq == 2
    async with device(server, cursor) as (_, heard):
        await commanded(server, "c")
        await hears(heard, "c")


async def test_what_is_read_back_and_not_taken_comes_again(
    server: Server, cursor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with device(server, cursor):
        pass
    await commanded(server, "a")
    with monkeypatch.context() as patch:
        network = SlowNetwork()
        patch.setattr("twincast.client.client.open_link", network.open_link)
        async with (
            connect(server.url, devices=(), cursor=cursor) as client,
            client.watch("fan", mode="every") as events,
        ):
            await network.both_are_there.wait()
            await commanded(server, "b", "c")
            await client.reached(3)
            network.may_ask.set()
            iterating = events.__aiter__()
            assert [(await anext(iterating)).command for _ in range(2)] == ["a", "b"]
    assert position_in(cursor).seq == 2, "the context has ended without an error, so b is finished"
    async with device(server, cursor) as (_, heard):
        await hears(heard, "c")


async def test_until_there_is_a_position_it_begins_now_and_keeps_that_at_once(server: Server, cursor: Path) -> None:
    await commanded(server, "before")
    async with device(server, cursor) as (client, heard):
        assert position_in(cursor) == client.position, "it is kept, though nothing was commanded"
    await commanded(server, "meanwhile")
    async with device(server, cursor) as (_, heard):
        await hears(heard, "meanwhile")


async def test_the_state_is_whole_from_the_start_whatever_is_resumed(server: Server, cursor: Path) -> None:
    async with device(server, cursor):
        pass
    with Rest(server.url) as rest:
        await asyncio.to_thread(rest.publish_all, [("lamp", number) for number in range(5)])
    async with connect(server.url, cursor=cursor) as client:
        assert client.state["lamp"].value == 4
        async with client.watch("lamp", mode="every") as events:
            iterating = events.__aiter__()
            assert [(await anext(iterating)).value for _ in range(5)] == list(range(5))
            assert client.state["lamp"].value == 4


@pytest.mark.usefixtures("started")
async def test_the_position_passes_a_change_when_the_callback_has_come_back(server: Server, cursor: Path) -> None:
    may_return = asyncio.Event()
    begun: list[int] = []

    async def obey(event: Event) -> None:
        begun.append(event.seq)
        await may_return.wait()

    async with connect(server.url, devices=(), cursor=cursor) as client:
        await client.on_command("fan", obey)
        await commanded(server, "a", "b")
        await eventually_async(lambda: len(begun) == 1, "it is called")
        await asyncio.sleep(0.3)
        assert position_in(cursor).seq < begun[0]
        may_return.set()
        await eventually_async(lambda: position_in(cursor).seq == begun[-1] == 2, "it has moved")


@pytest.mark.usefixtures("started")
async def test_the_slowest_watch_decides(server: Server, cursor: Path) -> None:
    async with connect(server.url, devices=(), cursor=cursor) as client:
        fast: list[Event] = []
        await client.on_command("fan", fast.append)
        async with client.watch("fan", mode="every") as slow:
            iterating = slow.__aiter__()
            await commanded(server, "a", "b", "c")
            await hears(fast, "a", "b", "c")
            for seq in (1, 2, 3):
                assert (await anext(iterating)).seq == seq
                await until_in(cursor, seq - 1)  # it waits for the slow one
            asking = asyncio.ensure_future(anext(iterating))
            await eventually_async(lambda: position_in(cursor).seq == 3, "both are done")
            asking.cancel()


DEVICE = """
import asyncio, sys
from twincast.client import connect
async def main():
    async def obey(event):
        print("begins", event.command, flush=True)
        if event.command == "hang":
            await asyncio.Event().wait()
        print("is done with", event.command, flush=True)
    async with connect(sys.argv[1], devices=(), cursor=sys.argv[2]) as client:
        await client.on_command("fan", obey)
        print("is live", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


class Process:
    """A device as a process of its own."""

    def __init__(self, server: Server, cursor: Path, program: str = DEVICE) -> None:
        self.process = warm.Popen(
            [sys.executable, "-c", textwrap.dedent(program), server.url, str(cursor)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def says(self, *lines: str) -> None:
        assert self.process.stdout is not None
        assert [self.process.stdout.readline().strip() for _ in lines] == list(lines)

    def comes_to(self, line: str) -> None:
        assert self.process.stdout is not None
        assert line in (each.strip() for each in self.process.stdout), "it comes to that before it ends"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def test_a_process_that_is_killed_amid_a_callback_hears_the_command_again(server: Server, cursor: Path) -> None:
    device = Process(server, cursor)
    device.says("is live")
    command(server, "a", "hang", "b")
    device.says("begins a", "is done with a", "begins hang")
    device.kill()
    command(server, "c")
    again = Process(server, cursor)
    again.comes_to("begins hang")
    again.kill()


def test_a_process_that_is_killed_behind_a_callback_and_before_the_file_hears_it_twice(
    server: Server, cursor: Path
) -> None:
    first = Process(server, cursor)
    first.says("is live")
    first.kill()
    command(server, "a")
    for _ in range(2):  # in its first seconds the file does not move
        device = Process(server, cursor)
        assert device.process.stdout is not None
        said = {device.process.stdout.readline().strip() for _ in range(3)}
        assert said == {"is live", "begins a", "is done with a"}
        device.kill()
    lock = cursor.with_name(cursor.name + ".lock")
    assert lock.exists(), "a lock that a dead process had keeps nobody out"


async def test_a_restart_of_the_server_loses_nothing(server: Server, cursor: Path) -> None:
    async with device(server, cursor) as (_, heard):
        await commanded(server, "a")
        await hears(heard, "a")
    await commanded(server, "b")
    await asyncio.to_thread(server.restart)
    await commanded(server, "c")
    async with device(server, cursor) as (_, heard):
        await hears(heard, "b", "c")
        await asyncio.to_thread(server.restart)
        await commanded(server, "d")
        await hears(heard, "b", "c", "d")
    assert all(event.gap is None for event in heard)
    await asyncio.to_thread(server.restart)
    await commanded(server, "e")
    async with device(server, cursor) as (_, heard):
        await hears(heard, "e")


@pytest.mark.parametrize("durable_kind", ["sqlite"], indirect=True)  # a shared log's copy is not what is restored
async def test_a_server_that_was_restored_from_an_older_backup_goes_on_from_now_and_that_is_logged(
    server: Server, cursor: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await commanded(server, "in the backup")
    await asyncio.to_thread(server.stop)
    shutil.copy(tmp_path / "journal.db", tmp_path / "backup.db")
    await asyncio.to_thread(server.start)
    async with device(server, cursor) as (_, heard):
        await commanded(server, "a", "b", "c")
        await hears(heard, "a", "b", "c")
    await asyncio.to_thread(server.stop)
    put_back(tmp_path)
    await asyncio.to_thread(server.start)
    await commanded(server, "of another past")
    async with device(server, cursor) as (_, heard):
        await commanded(server, "d")
        await hears(heard, "d")
        assert heard[0].gap == Gap(None, None, "epoch")
    assert "the watch continues from now on" in caplog.text
    caplog.clear()
    await commanded(server, "e")
    async with device(server, cursor) as (_, heard):
        await hears(heard, "e")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_what_is_too_old_is_a_gap(cursor: Path, tmp_path: Path) -> None:
    async with Server(f"sqlite:{tmp_path / 'other.db'}", resume_max_entries=10) as server:
        async with device(server, cursor):
            pass
        await commanded(server, *(f"lost {number}" for number in range(15)))
        with Rest(server.url) as rest:
            await asyncio.to_thread(rest.publish, "lamp", 1)
        async with connect(server.url, devices=(), cursor=cursor) as client, client.watch(mode="every") as events:
            iterating = events.__aiter__()
            first = await anext(iterating)
            assert (first.device_id, first.value, first.gap) == ("lamp", 1, Gap(1, 16))
            await commanded(server, "heard")
            second = await anext(iterating)
            assert (second.command, second.gap) == ("heard", None)


@pytest.mark.parametrize("text", ["", "nonsense", "5f0c9a1e-0b7d3c28:42", ":::\n", "x" * 10_000, "\ud800"])
async def test_a_torn_file_begins_now_and_is_logged(
    server: Server, cursor: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(cursor.write_bytes, text.encode(errors="surrogatepass"))
    await commanded(server, "before")
    async with device(server, cursor) as (_, heard):
        assert "torn" in caplog.text
        await commanded(server, "a")
        await hears(heard, "a")
    assert position_in(cursor).seq == 2


async def test_a_file_of_another_server_begins_now_and_is_logged(
    server: Server, twincast_server: Server, cursor: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with device(twincast_server, cursor) as (_, heard):
        await commanded(twincast_server, "a")
        await hears(heard, "a")
    await commanded(server, "before")
    async with device(server, cursor) as (_, heard):
        await commanded(server, "b")
        await hears(heard, "b")
    assert "of another log" in caplog.text


async def test_a_second_program_is_refused_and_the_file_is_free_behind_the_first(server: Server, cursor: Path) -> None:
    async with device(server, cursor):
        with pytest.raises(CursorUnusable, match="in use by another program"):
            async with connect(server.url, cursor=cursor):
                raise AssertionError("there are two")
        second = Process(server, cursor)
        assert second.process.stdout is not None
        assert "CursorUnusable" in await asyncio.to_thread(second.process.stdout.read)
        second.kill()
    async with device(server, cursor):
        pass


@pytest.mark.parametrize("where", ["no folder/device.cursor", "."])
async def test_where_there_can_be_no_file_it_says_so(server: Server, tmp_path: Path, where: str) -> None:
    with pytest.raises(CursorUnusable, match="cannot be used"):
        async with connect(server.url, cursor=tmp_path / where):
            raise AssertionError("there can be no such file")


@pytest.mark.usefixtures("started")
async def test_the_file_is_its_owners_alone_and_replaced_as_a_whole(server: Server, cursor: Path) -> None:
    before = os.umask(0)
    try:
        async with device(server, cursor):
            await eventually_async(cursor.exists, "it is there")
            first = os.stat(cursor)
            await commanded(server, "a")
            await eventually_async(lambda: position_in(cursor).seq == 1, "it moves")
            assert os.stat(cursor).st_ino != first.st_ino, "who reads sees the old one or the new one"
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(cursor).st_mode) == 0o600
    assert {path.name for path in await asyncio.to_thread(lambda: list(cursor.parent.glob("device*")))} == {
        cursor.name,
        f"{cursor.name}.lock",
    }


async def test_the_file_is_written_at_most_once_a_second(
    server: Server, cursor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[float] = []
    replace = os.replace

    def counted(*paths: Any) -> None:
        writes.append(time.monotonic())
        replace(*paths)

    monkeypatch.setattr("twincast.client.cursor.os.replace", counted)
    async with device(server, cursor):
        for number in range(25):
            await commanded(server, str(number))
            await asyncio.sleep(0.1)
        inside = len(writes)
    assert inside >= 2
    assert all(later - earlier >= 0.99 for earlier, later in pairwise(writes[:inside]))
    assert position_in(cursor).seq == 25, "at the end it is written in any case"


async def test_a_disk_that_takes_nothing_is_logged_and_ends_nothing(
    server: Server, cursor: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("twincast.client.cursor.os.replace", full)
    async with device(server, cursor) as (_, heard):
        await eventually_async(lambda: "the cursor could not be written" in caplog.text, "it is logged")
        await commanded(server, "a")
        await hears(heard, "a")


async def test_a_body_that_fails_is_told_again_and_what_a_context_was_left_with_is_done(
    server: Server, cursor: Path
) -> None:
    async with device(server, cursor):
        pass
    await commanded(server, "a", "b", "c")
    with pytest.raises(ZeroDivisionError):
        async with connect(server.url, devices=(), cursor=cursor) as client:
            async for event in client.watch("fan", mode="every"):
                if event.command == "b":
                    raise ZeroDivisionError
    for expected in ("b", "c"):
        async with (
            connect(server.url, devices=(), cursor=cursor) as client,
            client.watch("fan", mode="every") as events,
        ):
            async for event in events:
                assert event.command == expected
                break
    async with device(server, cursor) as (_, heard):
        await commanded(server, "d")
        await hears(heard, "d")


@pytest.mark.usefixtures("started")
async def test_a_watch_that_was_left_holds_the_position_no_longer_than_until_others_go_on(
    server: Server, cursor: Path
) -> None:
    async with device(server, cursor) as (client, heard):
        async with client.watch("lamp", mode="every") as events:
            with Rest(server.url) as rest:
                await asyncio.to_thread(rest.publish_all, [("lamp", number) for number in range(5)])
            async for _ in events:
                break
        await commanded(server, "a")
        await hears(heard, "a")
        await eventually_async(lambda: position_in(cursor).seq == 6, "what nobody waits for any more is passed")


async def test_what_begins_later_begins_now(server: Server, cursor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with device(server, cursor):
        pass
    monkeypatch.setattr("twincast.client.resumption.STARTING_S", 0.05)
    await commanded(server, "a")
    async with device(server, cursor) as (client, heard):
        await hears(heard, "a")
        await asyncio.sleep(0.1)
        async with client.watch("fan") as events:
            await commanded(server, "b")
            assert (await anext(events.__aiter__())).command == "b"


async def test_all_that_begins_at_the_start_goes_on_at_the_same_place(server: Server, cursor: Path) -> None:
    async with device(server, cursor):
        pass
    await commanded(server, "a", "b")
    async with device(server, cursor) as (client, heard):
        await hears(heard, "a", "b")
        later: list[Event] = []
        await client.on_command("*", later.append)
        await hears(later, "a", "b")


@pytest.mark.parametrize("mode", ["every", "latest"])
@pytest.mark.parametrize("seed", range(3))
async def test_what_is_read_back_and_what_comes_live_meet_in_order(
    server: Server, cursor: Path, mode: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twincast.client.event_queue.UNMERGED_MAX", 20)
    chance = random.Random(seed)
    async with device(server, cursor):
        pass
    with Rest(server.url) as rest:
        await asyncio.to_thread(rest.publish_all, [(f"d{number % 7}", number) for number in range(300)])
    is_over = asyncio.Event()

    async def go_on() -> None:
        async with connect(server.url, devices=()) as other:
            for number in range(300, 600):
                await other.publish(f"d{number % 7}", number)
                if number % 10 == 0:
                    await other.control("d0", str(number))
        is_over.set()

    with Proxy(server.port) as proxy:
        going = asyncio.create_task(go_on())
        async with connect(proxy.url, devices=(), cursor=cursor) as client, client.watch(mode=mode) as events:
            told: list[Event] = []
            async for event in events:
                told.append(event)
                if chance.random() < 0.03:
                    await asyncio.sleep(0.02)
                if chance.random() < 0.01:
                    proxy.cut()
                if event.value == 599:
                    break
        await going
    seqs = [event.seq for event in told]
    assert seqs == sorted(set(seqs))
    assert all(event.gap is None for event in told)
    assert [event.command for event in told if event.command] == [str(number) for number in range(300, 600, 10)]
    if mode == "every":
        assert seqs == list(range(1, seqs[-1] + 1))
    assert position_in(cursor).seq <= seqs[-1]  # behind it if the line was cut last: then some of them come again


async def test_a_position_may_be_given_and_read_by_the_program_itself(server: Server) -> None:
    async with connect(server.url, devices=()) as client:
        assert client.cursor is None
        async with client.watch("fan") as events:
            await commanded(server, "a", "b")
            iterating = events.__aiter__()
            assert [(await anext(iterating)).command for _ in range(2)] == ["a", "b"]
            kept = client.cursor
    assert kept is not None and kept.seq == 1
    async with connect(server.url, devices=(), since=str(kept)) as client:
        assert client.cursor == kept
        async with client.watch("fan", initial=True) as events:
            assert (await anext(events.__aiter__())).command == "b"
    with pytest.raises(ValidationFailed, match="a position is EPOCH:SEQ"):
        async with connect(server.url, since="yesterday"):
            raise AssertionError("that is no position")


async def test_with_initial_each_device_is_told_once_or_as_often_as_it_changed(server: Server) -> None:
    with Rest(server.url) as rest:
        await asyncio.to_thread(rest.publish_all, [("old", 1), ("new", 2)])
        since = rest.publish("new", 3)
        await asyncio.to_thread(rest.publish_all, [("new", 4), ("new", 5)])
    async with connect(server.url, since=f"{since['epoch']}:{since['seq']}") as client:
        told = []
        async for event in client.watch(mode="every", initial=True):
            told.append((event.device_id, event.value))
            if len(told) == 3:
                break
    assert told == [("new", 4), ("new", 5), ("old", 1)]


async def test_a_key_that_ends_while_it_reads_back_ends_the_watch(server: Server) -> None:
    secret = await asyncio.to_thread(lambda: server.add_key("me", publish=["*"], read=["*"], command=["*"]))
    async with connect(server.url, token=secret) as client:
        seq = await client.publish("lamp", 1)
        position = client.position
    assert seq == 1 and position is not None
    async with connect(server.url, token=secret, since=Position(position.epoch, 0)) as client:
        await asyncio.to_thread(server.revoke_key, "me")
        with pytest.raises(Unauthenticated):
            async for _ in client.watch():
                pass


def test_without_asyncio_a_device_goes_on_too(server: Server, cursor: Path) -> None:
    with without_asyncio.connect(server.url, devices=(), cursor=cursor) as client, client.watch("fan"):
        assert client.cursor is not None
    for number in range(3):
        command(server, f"a{number}", f"b{number}")
        with without_asyncio.connect(server.url, devices=(), cursor=cursor) as client, client.watch("fan") as events:
            assert [next(events).command for _ in range(2)] == [f"a{number}", f"b{number}"]
    command(server, "c", "d")
    with pytest.raises(ZeroDivisionError), without_asyncio.connect(server.url, devices=(), cursor=cursor) as client:
        for event in client.watch("fan"):
            if event.command == "d":
                raise ZeroDivisionError
    heard: list[str] = []
    with without_asyncio.connect(server.url, devices=(), cursor=cursor) as client:
        client.on_command("fan", lambda event: heard.append(event.command))
        eventually(lambda: heard == ["d"], "what was not done comes again")
    with without_asyncio.connect(server.url, since="1:5", devices=()) as client:
        assert str(client.cursor) == "1:5"
