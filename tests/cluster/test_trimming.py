"""The stream is trimmed as the copies are, of commits alone, and only of what two of them have."""

from pathlib import Path

import pytest
from msgspec import Raw
from msgspec.structs import replace

from tests.fakes import batch_of
from twincast.cluster.engine import Engine
from twincast.cluster.trimming import StreamTrim, stored_by
from twincast.core.model import DataUpdate, Deleted
from twincast.core.peers import Heartbeat, Member
from twincast.core.space import Space
from twincast.journal.jetstream.stream import stream_facts
from twincast.journal.stores import open_stores


def members(*stored: int) -> list[Member]:
    return [
        Member(Heartbeat(id=str(n), name="", since_utc="", stored_stream_seq=each), 0.0)
        for n, each in enumerate(stored)
    ]


def kept(space: Space, oldest_seq: int, oldest_at_utc: str) -> Space:
    return replace(space, oldest_seq=oldest_seq, oldest_at_utc=oldest_at_utc)


@pytest.mark.parametrize(("stored", "place"), [((), 0), ((7,), 7), ((7, 3), 3), ((3, 9, 5), 5), ((0, 9), 0)])
def test_what_two_copies_have_may_go_and_of_one_server_what_it_has(stored: tuple[int, ...], place: int) -> None:
    assert stored_by(members(*stored), 2) == place


async def test_commits_go_that_are_older_than_what_copies_keep_and_are_stored_twice(
    nats: Engine, tmp_path: Path
) -> None:
    stores = await open_stores(f"{nats.url}/trimmed?copy={tmp_path}/one.db", memory_max_bytes=0)
    try:
        one = stores.shared
        assert one is not None
        for number in range(20):
            await one.append(batch_of([DataUpdate("a", Raw(b"%d" % number), "", "rest")]))
        times = [entry.timestamp_utc for entry in await one.read(0, 100)]
        space, is_first, stored = kept(one.space(), 1, times[0]), True, [20, 20]
        trim = StreamTrim(
            one.link, one.address, space=lambda: space, members=lambda: members(*stored), is_first=lambda: is_first
        )

        async def begins() -> int:
            return (await stream_facts(one.link, one.address)).first_seq

        for _ in range(2):
            assert await trim.round() is None, "nothing was trimmed of the copies"
        space, is_first = kept(space, 11, times[10]), False
        assert await trim.round() is None, "another server does it"
        is_first, stored = True, [20, 5]
        trim = StreamTrim(
            one.link, one.address, space=lambda: space, members=lambda: members(*stored), is_first=lambda: is_first
        )
        assert await trim.round() is None, "it is stored since this very moment"
        assert await trim.round() == await begins() == 5
        stored = [20, 20]
        assert await trim.round() is None
        assert await trim.round() == await begins() == 11
        assert await trim.round() is None
        await one._check()
    finally:
        await stores.close()


class Erased:
    """What a shared journal says of histories that were deleted."""

    def __init__(self, stream_seq: int) -> None:
        self.stream_seq, self.begins = stream_seq, 0

    async def erased_in_stream(self) -> int:
        return self.stream_seq

    async def stream_begins(self, first_stream_seq: int) -> None:
        self.begins = first_stream_seq
        if first_stream_seq > self.stream_seq:
            self.stream_seq = 0


async def test_what_came_up_to_an_erased_history_goes_once_two_have_more_than_that(
    nats: Engine, tmp_path: Path
) -> None:
    stores = await open_stores(f"{nats.url}/erased?copy={tmp_path}/one.db", memory_max_bytes=0)
    try:
        one = stores.shared
        assert one is not None
        for number in range(10):
            await one.append(batch_of([DataUpdate("a", Raw(b"%d" % number), "", "rest")]))
        stored, is_first, erased = [10, 3], True, Erased(5)
        trim = StreamTrim(
            *(one.link, one.address),
            space=one.space,
            members=lambda: members(*stored),
            is_first=lambda: is_first,
            erasing=erased,
            keeps_all=True,
        )
        assert await trim.round() is None, "it is stored since this very moment"
        assert await trim.round() == 3, "one of two has no more"
        assert erased.stream_seq == 5
        stored, is_first = [10, 10], False
        assert await trim.round() is None
        assert await trim.round() is None, "another server does it"
        is_first = True
        assert await trim.round() == 6
        assert (erased.stream_seq, erased.begins) == (0, 6)
        assert (await stream_facts(one.link, one.address)).first_seq == 6
        erased.stream_seq, is_first = 5, False
        assert await trim.round() is None
        assert (erased.stream_seq, erased.begins) == (0, 6), "whoever did it, each server learns of it"
        await one._check()
    finally:
        await stores.close()


async def test_the_newest_message_stays_by_which_a_copy_knows_the_stream(nats: Engine, tmp_path: Path) -> None:
    url = f"{nats.url}/newest?copy={tmp_path}/one.db"
    stores = await open_stores(url, memory_max_bytes=0)
    try:
        one = stores.shared
        assert one is not None
        await one.append(batch_of([DataUpdate("a", Raw(b'"salty"'), "", "rest")]))
        await one.append(batch_of([Deleted("a", "", "rest", scope="history")]))
        await one.when_stored()
        await one.erased()
        (held,) = await one.erasures()
        assert held.held_by == ("stream",)
        last = (await stream_facts(one.link, one.address)).last_seq
        trim = StreamTrim(
            *(one.link, one.address),
            space=one.space,
            members=lambda: members(one.stored_stream_seq),
            is_first=lambda: True,
            erasing=one,
            keeps_all=True,
        )
        await trim.round()
        assert await trim.round() == last
        assert await one.erasures() == [held], "the deletion's own message may have something of it, too"
        await one.append(batch_of([DataUpdate("b", Raw(b"1"), "", "rest")]))
        await one.when_stored()
        await trim.round()
        assert await trim.round() == last + 1
        assert await one.erasures() == []
    finally:
        await stores.close()
    stores = await open_stores(url, memory_max_bytes=0)
    try:
        assert set((await stores.journal.snapshot()).twins) == {"b"}
    finally:
        await stores.close()
