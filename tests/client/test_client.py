"""The client against real servers: what it sends, what it hears, and how it takes a server's end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.running import DEADLINE_S, free_port
from twincast.client import Client, Event, Gap, Link, Rest, connect, error_of, http_url
from twincast.errors import (
    BufferFull,
    CredentialExpired,
    JournalUnavailable,
    MalformedJson,
    NotFound,
    ServerUnreachable,
    TooLarge,
    TwincastError,
    ValidationFailed,
)
from twincast.testing import Proxy, Server, assert_converged, eventually_async

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def collecting(client: Client, *devices: str, **how: Any) -> AsyncIterator[list[Event]]:
    """Collect what a watch yields, from the moment at which it is live."""
    events: list[Event] = []

    async def collect() -> None:
        async for event in watch:
            events.append(event)

    async with client.watch(*devices, **how) as watch:
        task = asyncio.create_task(collect())
        yield events
        task.cancel()


async def got(events: list[Event], count: int) -> list[Event]:
    await eventually_async(lambda: len(events) >= count, f"{count} events come")
    return events


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("ws://127.0.0.1:8000/ws", "http://127.0.0.1:8000"),
        ("wss://twin.example", "https://twin.example"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://host/below/a/prefix/", "https://host/below/a/prefix"),
        ("wss://host/twin/ws", "https://host/twin"),
    ],
)
def test_an_address_may_be_written_in_several_ways(written: str, meant: str) -> None:
    assert http_url(written) == meant


@pytest.mark.parametrize("written", ["", "ftp://x", "http://", "///", "http://a..b", "http://x:port", "http://x:99999"])
def test_what_is_no_address_is_refused_in_words(written: str) -> None:
    with pytest.raises(ValueError, match="expected a server's address"):
        http_url(written)


# What it sends.


async def test_publish_returns_the_position_and_the_change_comes_back(server: Server) -> None:
    async with connect(server.url) as client, collecting(client) as events:
        assert await client.publish("lamp", {"on": True}) == 1
        assert await client.control("lamp", "dim", {"percent": 30}) == 2
        data, command = await got(events, 2)
    assert (data.kind, data.device_id, data.value, data.seq) == ("data_update", "lamp", {"on": True}, 1)
    assert (command.kind, command.device_id, command.command, command.args) == (
        "control",
        "lamp",
        "dim",
        {"percent": 30},
    )


async def test_many_readings_travel_ahead_of_their_answers_and_keep_their_order(server: Server) -> None:
    async with connect(server.url, devices=()) as client:
        futures = [await client.submit("counter", number) for number in range(5_000)]
        await client.settle()
        assert [await future for future in futures] == list(range(1, 5_001))
        assert await client.publish_many([("counter", -1), ("counter", -2)]) == [5_001, 5_002]
        assert client.state == {}, "who only publishes is told nothing"
    assert server.state["counter"].value == -2


async def test_a_refusal_is_raised_in_the_servers_words_and_the_next_reading_goes_on(server: Server) -> None:
    async with connect(server.url) as client:
        with pytest.raises(ValidationFailed, match="1 to 128 characters"):
            await client.publish("", 1)
        assert await client.publish("lamp", 1) == 1


async def test_what_was_not_acknowledged_before_a_cut_is_stored_once(server: Server, proxy: Proxy) -> None:
    async with connect(proxy.url, devices=()) as client:
        for number in range(20):
            proxy.stall("down")  # the server hears and stores, its answers do not come
            futures = [await client.submit("counter", [number, part]) for part in range(3)]
            await eventually_async(lambda n=number: len(server.log()) >= 3 * n + 1, "some are stored")  # type: ignore[misc]
            proxy.cut()
            proxy.flow()
            assert [await future for future in futures] == [3 * number + 1, 3 * number + 2, 3 * number + 3]
    assert [event["value"] for event in server.log()] == [[n, part] for n in range(20) for part in range(3)]


async def test_what_is_published_offline_waits_within_a_bound_and_goes_out_in_order(
    server: Server, proxy: Proxy
) -> None:
    offline = asyncio.Event()

    def on_link(link: Link) -> None:
        if link.phase == "waiting":
            offline.set()

    async with connect(proxy.url, devices=(), buffer_max_bytes=2_000, on_link=on_link) as client:
        proxy.refuse()
        proxy.cut()
        await offline.wait()
        futures: list[asyncio.Future[int]] = []
        with pytest.raises(BufferFull, match="no connection"):
            while True:
                futures.append(await client.submit("counter", len(futures)))
        assert 10 < len(futures) < 30
        proxy.refuse(False)
        await asyncio.wait_for(client.settle(), DEADLINE_S)
    assert [event["value"] for event in server.log()] == list(range(len(futures)))


async def test_who_waits_when_the_hub_is_closed_learns_it(server: Server, proxy: Proxy) -> None:
    async with connect(proxy.url) as client:
        proxy.stall("up")
        waiting = asyncio.create_task(client.publish("lamp", 1))
        await asyncio.sleep(0)
    with pytest.raises(ServerUnreachable, match="closed"):
        await waiting


# What it hears.


async def test_a_cut_connection_resumes_without_a_gap(server: Server, proxy: Proxy) -> None:
    with Rest(server.url) as rest:
        async with connect(proxy.url) as client, collecting(client, "n", mode="every") as events:
            for number in range(30):
                if number % 10 == 5:
                    proxy.cut()
                await asyncio.to_thread(rest.publish, "n", number)
            await got(events, 30)
            await asyncio.to_thread(assert_converged, server, client)
    assert [event.value for event in events] == list(range(30))
    assert [event.gap for event in events] == [None] * 30


async def test_a_server_that_starts_anew_on_its_file_is_no_loss(tmp_path: Path) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server, Rest(server.url) as rest:
        async with connect(server.url) as client, collecting(client, mode="every") as events:
            epochs = set()
            for number in range(4):
                await asyncio.to_thread(rest.publish, "lamp", number)
                await got(events, number + 1)
                assert client.position is not None
                epochs.add(client.position.epoch)
                await asyncio.to_thread(server.restart)
            await asyncio.to_thread(assert_converged, server, client)
    assert [(event.value, event.gap) for event in events] == [(number, None) for number in range(4)]
    assert len(epochs) == 4, "each run has its own"


async def test_a_log_that_is_another_one_is_told_as_a_gap_and_the_state_is_the_new_one() -> None:
    with Server() as server, Rest(server.url) as rest:
        async with connect(server.url) as client, collecting(client, mode="every") as events:
            await client.publish_many([("old", 1), ("old", 2)])
            await got(events, 2)
            before = client.position
            await asyncio.to_thread(server.restart)
            await asyncio.to_thread(rest.publish, "new", 1)
            await got(events, 4)
            told = {(event.kind, event.device_id) for event in events[2:]}
            assert told == {("deleted", "old"), ("data_update", "new")}, "what is not in it is no more"
            gaps = [event.gap for event in events[2:]]
            assert gaps == [Gap(None, None, "epoch"), None], "no numbers say what of another log is missing"
            assert list(client.state) == ["new"]
            assert before and client.position and before.epoch != client.position.epoch


async def test_a_position_that_is_too_old_is_told_as_a_gap() -> None:
    with Server(resume_max_entries=3) as server, Rest(server.url) as rest, Proxy(server.port) as proxy:
        async with connect(proxy.url) as client, collecting(client, "a", "b") as events:
            await client.publish("a", 0)
            await got(events, 1)
            proxy.refuse()
            proxy.cut()
            await asyncio.to_thread(rest.publish_all, [("a", n) for n in range(1, 6)] + [("b", 6)])
            proxy.refuse(False)
            await got(events, 3)
    assert [(event.device_id, event.value, event.gap) for event in events[1:]] == [
        ("a", 5, Gap(2, 7)),
        ("b", 6, None),
    ]


async def test_watches_share_a_connection_and_each_gets_its_part(server: Server) -> None:
    async with (
        connect(server.url, devices="lab/*") as client,
        collecting(client, "lab/*", kinds=["data_update"]) as lab,
        collecting(client, "hall/fan", mode="every") as fan,
        collecting(client, kinds=["control"]) as commands,
    ):
        await client.publish_many([("lab/a", 1), ("hall/fan", 2), ("hall/door", 3)])
        await client.control("lab/a", "blink")
        await client.control("hall/fan", "stop")
        await got(commands, 2)
        assert [event.device_id for event in lab] == ["lab/a"]
        assert [(event.device_id, event.kind) for event in fan] == [
            ("hall/fan", "data_update"),
            ("hall/fan", "control"),
        ]
        assert list(client.state) == ["lab/a"], "the state has what it follows, whatever else is watched"
    with Rest(server.url) as rest:
        assert rest.status()["devices_known"] == 3


async def test_a_watch_begins_with_the_state_if_asked_and_ends_with_its_loop(server: Server) -> None:
    async with connect(server.url, devices=()) as client:
        await client.publish_many([("a", 1), ("b", 2), ("a", 3)])
        seen = []
        async for event in client.watch("a", "b", initial=True):
            seen.append((event.device_id, event.value))
            if len(seen) == 2:
                break
        assert seen == [("b", 2), ("a", 3)]
        async with collecting(client, "a") as events:
            await client.publish_many([("b", 4), ("a", 5)])
            assert [event.value for event in await got(events, 1)] == [5]


async def test_a_slow_reader_gets_the_newest_of_each_device_and_how_many_they_were(server: Server) -> None:
    async with connect(server.url) as client, client.watch(mode="latest") as watch:
        await client.publish_many([("a", n) for n in range(100)] + [("b", 1)])
        await client.reached(101)
        seen = []
        async for event in watch:
            seen.append((event.device_id, event.value, event.merged))
            if len(seen) == 2:
                break
    assert seen == [("a", 99, 100), ("b", 1, 1)]


async def test_a_watch_with_a_frequency_is_told_less_often(server: Server) -> None:
    async with connect(server.url) as client, collecting(client, max_hz=5) as events:
        for number in range(40):
            await client.publish("a", number)
        await eventually_async(lambda: bool(events) and events[-1].value == 39, "the newest value comes")
    assert len(events) < 40
    assert sum(event.merged for event in events) == 40


async def test_a_watch_that_asks_for_what_cannot_be_is_refused_at_once(server: Server) -> None:
    async with connect(server.url) as client:
        with pytest.raises(ValidationFailed, match="max_hz"):
            client.watch(mode="every", max_hz=5)
        with pytest.raises(ValidationFailed, match="kinds"):
            client.watch(kinds=["news"])


async def test_the_state_keeps_itself_true_and_reads_what_was_written(server: Server) -> None:
    async with connect(server.url) as first, connect(server.url) as second:
        state = second.state
        seq = await first.publish("lamp", [1, 2])
        await second.reached(seq)
        assert state["lamp"].value == [1, 2]
        assert second.position and second.position.seq >= seq
        with pytest.raises(TypeError):
            state["lamp"] = state["lamp"]  # type: ignore[index]


async def test_commands_call_back_in_order_and_an_error_does_not_end_it(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []
    async with connect(server.url, devices=()) as client:

        @client.on_command("fan")
        async def obey(event: Event) -> None:
            called.append(event.command)
            if event.command == "explode":
                raise RuntimeError("boom")

        @client.on_command("*")
        def note(event: Event) -> None:
            called.append(f"any {event.command}")

        await client.listening()
        for target, command in (("fan", "explode"), ("other", "on"), ("fan", "stop")):
            await client.control(target, command)
        await eventually_async(lambda: len(called) == 5, "the callbacks are called")
    assert [command for command in called if command[:3] != "any"] == ["explode", "stop"]
    assert [command for command in called if command[:3] == "any"] == ["any explode", "any on", "any stop"]
    assert "the callback for commands to fan failed" in caplog.text


async def test_a_snapshot_of_many_pages_is_the_whole_state(server: Server) -> None:
    with Rest(server.url) as rest:
        rest.publish_all([(f"d{number}", number) for number in range(2_500)])
    async with connect(server.url) as client:
        assert len(client.state) == 2_500
        await asyncio.to_thread(assert_converged, server, client)


async def test_so_many_patterns_that_no_address_holds_them_are_followed_all_the_same(server: Server) -> None:
    names = [f"device/with/a/long/name/{number}" for number in range(200)]
    async with connect(server.url, devices=names) as client, collecting(client, "x") as events:
        await client.publish_many([(names[150], 1), ("x", 2), ("other", 3)])
        await got(events, 1)
        assert [event.value for event in events] == [2]
        assert list(client.state) == [names[150]]


# How it takes a server's end, or another's beginning.


async def test_a_server_that_is_not_there_yet_is_waited_for(server_process: StartServer) -> None:
    port = free_port()
    links: list[Link] = []
    waiting = asyncio.Event()

    def on_link(link: Link) -> None:
        links.append(link)
        waiting.set()

    async def client() -> int:
        async with connect(f"http://127.0.0.1:{port}", timeout_s=None, on_link=on_link) as client:
            return await client.publish("lamp", 1)

    task = asyncio.create_task(client())
    await waiting.wait()
    server = await asyncio.to_thread(server_process, port=port)
    assert await asyncio.wait_for(task, DEADLINE_S) == 1
    assert "nobody answers" in links[0].reason
    assert [link.phase for link in links][-1] == "live"
    assert server.get("/api/status")["seq"] == 1


async def test_nobody_there_is_said_in_one_sentence_that_helps() -> None:
    port = free_port()
    with pytest.raises(ServerUnreachable, match=f"nobody answers at http://127.0.0.1:{port}; `twincast serve`"):
        async with connect(f"http://127.0.0.1:{port}", timeout_s=0):
            raise AssertionError("nobody could have answered")
    with Rest(f"http://127.0.0.1:{port}") as rest, pytest.raises(ServerUnreachable, match="nobody answers"):
        rest.status()


async def test_another_kind_of_server_is_told_apart() -> None:
    async def teapot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 418 I'm a teapot\r\ncontent-length: 3\r\n\r\ntea")
        await writer.drain()

    async with await asyncio.start_server(teapot, "127.0.0.1", 0) as other:
        url = "http://127.0.0.1:{1}".format(*other.sockets[0].getsockname())
        with pytest.raises(ServerUnreachable, match="does not speak like a twincast server"):
            async with connect(url, timeout_s=0):
                raise AssertionError("a teapot is no server")
        with Rest(url) as rest, pytest.raises(ServerUnreachable, match="does not speak like"):
            await asyncio.to_thread(rest.status)


def test_rest_stores_reads_and_commands(server: Server) -> None:
    with Rest(server.url) as rest:
        assert rest.publish("lamp", "on")["seq"] == 1
        assert rest.publish_all([("lamp", "off"), ("door", None)]) == range(2, 4)
        assert rest.control("lamp", "dim")["args"] == {}
        assert {name: twin["value"] for name, twin in rest.data()["data"].items()} == {"lamp": "off", "door": None}
        assert rest.status()["seq"] == 4
        with pytest.raises(ValidationFailed):
            rest.publish("", 1)


@pytest.mark.parametrize("kind", [MalformedJson, JournalUnavailable, ValidationFailed])
def test_a_code_on_the_wire_becomes_its_error_again(kind: type[TwincastError]) -> None:
    error = error_of(kind.code, "words")
    assert type(error) is kind
    assert error.message == "words"


def test_a_code_from_a_newer_server_is_still_an_error_with_its_words() -> None:
    assert "brand_new: words" in str(error_of("brand_new", "words"))


# One message's refusal, and those who wait.


@pytest.mark.parametrize("size", [65_000, 66_000, 140_000, 5_000_000])
async def test_a_reading_that_is_too_large_is_refused_by_itself(server: Server, size: int) -> None:
    links: list[Link] = []
    async with connect(server.url, devices=(), on_link=links.append) as client:
        large = await client.submit("large", "x" * size)
        behind = await client.submit("behind", 1)
        with pytest.raises(TooLarge, match=f"{size + 2}"):
            await large
        assert await behind == 1
        with pytest.raises(TooLarge):
            await client.publish_many([("a", 1), ("large", "x" * size), ("b", 2)])
        with pytest.raises(TooLarge):
            await client.control("large", "set", {"to": "x" * size})
        assert await client.publish("last", 3) == 4
    assert [link.phase for link in links] == ["live"], "nothing of this is an accident of the network"
    assert [event["device_id"] for event in server.log()] == ["behind", "a", "b", "last"]


def test_a_request_that_is_too_large_is_refused_in_the_servers_words(server: Server, edge: str) -> None:
    with Server("memory:", edge=edge) as other, Rest(other.url) as rest:
        with pytest.raises(TooLarge):
            rest.publish("a", "x" * 65_000)
        with pytest.raises(TooLarge):
            rest.publish_all([("a", "x" * 60_000)] * 200)
        with pytest.raises(TooLarge):
            rest.publish_all([("a", 1)] * 10_001)
        assert rest.publish("a", 1)["seq"] == 1


async def test_who_waits_learns_that_the_key_was_revoked(tmp_path: Path) -> None:
    async with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        token = await asyncio.to_thread(lambda: server.add_key("me", publish=["*"]))
        parts = server._app.parts
        parts.limits = replace(parts.limits, close_timeout_s=0.05)  # the client's close frame cannot reach the server
        with Proxy(server.port) as proxy:
            async with connect(proxy.url, devices=(), token=token, close_timeout_s=0.05) as client:
                proxy.stall("up")
                waiting = [asyncio.create_task(client.publish("d", number)) for number in range(3_000)]
                seen = asyncio.create_task(client.reached(1_000_000))
                await eventually_async(
                    lambda: len(client._outgoing._unanswered) == 1_024, "as many as may are under way"
                )
                await asyncio.to_thread(server.revoke_key, "me")
                results = await asyncio.wait_for(asyncio.gather(*waiting, seen, return_exceptions=True), DEADLINE_S)
                assert {type(result) for result in results} == {CredentialExpired}
                with pytest.raises(CredentialExpired):
                    await client.publish("d", 1)
                with pytest.raises(CredentialExpired):
                    await client.reached(1_000_000)
                with pytest.raises(CredentialExpired):
                    await client.watch("d").__aenter__()


async def test_leaving_over_a_dead_network_takes_a_moment(proxy: Proxy) -> None:
    async def lease() -> None:
        async with connect(proxy.url, close_timeout_s=0.05) as client:
            await client.publish("lamp", 1)
            proxy.stall()

    await asyncio.wait_for(lease(), 8)  # the library alone waits for ten seconds


async def test_a_watch_may_be_looped_over_again_and_begins_again_after_its_end(server: Server) -> None:
    async with connect(server.url, devices=()) as client:
        async with client.watch("lamp", mode="every") as watch:
            await client.publish_many([("lamp", 1), ("lamp", 2)])
            for value in (1, 2):
                async for event in watch:
                    assert event.value == value
                    break
        await client.publish("lamp", 3)
        async with watch:
            await client.publish("lamp", 4)
            async for event in watch:
                assert event.value == 4
                break


async def test_a_rate_of_one_watch_does_not_slow_down_another(server: Server) -> None:
    async with (
        connect(server.url, devices=()) as client,
        client.watch("slow", max_hz=0.01),
        collecting(client, "fast") as fast,
    ):
        for number in range(3):
            await client.publish("fast", number)
        await got(fast, 3)
    assert [event.merged for event in fast] == [1, 1, 1]


async def test_commands_that_nobody_takes_are_bounded_and_their_loss_is_told(server: Server) -> None:
    async with (
        connect(server.url, devices=()) as client,
        connect(server.url, devices=()) as other,
        client.watch("*") as watch,
    ):
        await asyncio.gather(*[other.control("fan", f"c{number}") for number in range(5_000)])
        await other.publish("lamp", 1)
        await client.reached(5_001)
        seen = []
        async for event in watch:
            seen.append(event)
            if event.kind == "data_update":
                break
    assert len(seen) == 4_096 + 1
    assert (seen[0].seq, seen[0].gap) == (905, Gap(1, 904, "slow"))
    assert [event.gap for event in seen[1:]] == [None] * 4_096


async def test_a_deleted_device_leaves_the_state_and_the_watches_are_told(server: Server, proxy: Proxy) -> None:
    async with connect(proxy.url) as client, collecting(client, "a", "b", mode="every") as events:
        await client.publish_many([("a", 1), ("b", 2)])
        await client.reached(await client.delete("a"))
        assert list(client.state) == ["b"]
        with pytest.raises(NotFound):
            await client.delete("a")
        await client.publish("a", 3)
        await got(events, 4)
        assert [(event.kind, event.device_id) for event in events[2:]] == [("deleted", "a"), ("data_update", "a")]
        await asyncio.to_thread(assert_converged, server, client)


async def test_a_deletion_whose_refusal_was_lost_takes_nothing_away_that_came_later(
    server: Server, proxy: Proxy
) -> None:
    async with connect(proxy.url) as client:
        await client.publish("door", 1)
        proxy.stall("down")
        deleting = asyncio.create_task(client.delete("lamp"))
        await asyncio.sleep(0)
        publishing = asyncio.create_task(client.publish("lamp", 1))
        await asyncio.sleep(0.3)  # until the server has all that comes; nothing tells, for no answer passes
        proxy.cut()
        proxy.flow()
        with pytest.raises(NotFound):
            await deleting
        await client.reached(await publishing)
        assert client.state["lamp"].value == server.state["lamp"].value == 1


async def test_a_device_that_was_deleted_while_nobody_could_tell_is_gone_behind_the_gap() -> None:
    with Server(resume_max_entries=3) as server, Rest(server.url) as rest, Proxy(server.port) as proxy:
        async with connect(proxy.url) as client, collecting(client, kinds=["deleted"]) as deleted:
            await client.publish_many([("a", 1), ("b", 1)])
            proxy.refuse()
            proxy.cut()
            await asyncio.to_thread(rest.delete, "a")
            await asyncio.to_thread(rest.publish_all, [("b", number) for number in range(6)])
            proxy.refuse(False)
            await got(deleted, 1)
            await asyncio.to_thread(assert_converged, server, client)
    assert [(event.device_id, event.gap) for event in deleted] == [("a", Gap(3, 9))]


async def test_more_patterns_than_a_subscription_takes_are_refused_to_their_watch_alone(server: Server) -> None:
    nearly_all = [f"device/{number}" for number in range(900)]
    async with connect(server.url, devices=()) as client, client.watch(*nearly_all, mode="every"):
        with pytest.raises(ValidationFailed, match="1000 patterns"):
            await client.watch(*(f"other/{number}" for number in range(200))).__aenter__()
        async with collecting(client, "lamp") as events:
            await client.publish("lamp", 1)
            await got(events, 1)


async def test_what_a_callback_raises_ends_nothing(
    server: Server, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    def on_link(link: Link) -> None:
        raise ValueError("a fault of the program")

    async with connect(proxy.url, devices=(), on_link=on_link) as client:

        @client.on_command("fan")
        async def obey(event: Event) -> None:
            called.append(event.command)
            raise asyncio.CancelledError if event.command == "first" else KeyError(event.command)

        await client.listening()
        await client.control("fan", "first")
        proxy.cut()
        await client.control("fan", "second")
        await eventually_async(lambda: called == ["first", "second"], "both are called")
    assert "the callback for the state of the connection failed" in caplog.text
