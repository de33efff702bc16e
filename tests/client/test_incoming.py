"""What the client receives, against real servers: the state, and the gaps in it."""

import asyncio
from pathlib import Path

import pytest

from tests.client.collecting import collecting, got
from twincast.client import Gap, Rest, connect
from twincast.errors import (
    NotFound,
)
from twincast.testing import Proxy, Server, assert_converged

pytestmark = pytest.mark.usefixtures("impatient")


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


async def test_the_state_keeps_itself_true_and_reads_what_was_written(server: Server) -> None:
    async with connect(server.url) as first, connect(server.url) as second:
        state = second.state
        seq = await first.publish("lamp", [1, 2])
        await second.reached(seq)
        assert state["lamp"].value == [1, 2]
        assert second.position and second.position.seq >= seq
        with pytest.raises(TypeError):
            state["lamp"] = state["lamp"]  # type: ignore[index]


async def test_a_snapshot_of_many_pages_is_the_whole_state(server: Server) -> None:
    with Rest(server.url) as rest:
        rest.publish_all([(f"d{number}", number) for number in range(2_500)])
    async with connect(server.url) as client:
        assert len(client.state) == 2_500
        await asyncio.to_thread(assert_converged, server, client)


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
