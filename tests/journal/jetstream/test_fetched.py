"""A server begins with the copy of another one, where the stream was trimmed; what is not the log's is refused."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.jetstream import moved
from tests.journal.jetstream.conftest import OpenStores
from tests.journal.jetstream.test_journal import has_folded, log_of, names_in, shared, stored
from twincast.core.keys import Key
from twincast.core.model import DataUpdate
from twincast.errors import JournalUnusable
from twincast.journal.jetstream.fetched import check_fetched, receiving
from twincast.journal.jetstream.key_log import KeyLog
from twincast.journal.jetstream.key_verbs import adding
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.stores import Stores


def reading(number: int) -> DataUpdate:
    return DataUpdate(f"device {number % 3}", Raw(b"%d" % number), "", "rest")


async def fill(stores: Stores) -> None:
    """Write commits, and changes of the keys between them: the first message, and the last, are of the keys."""
    keys = KeyLog(shared(stores).link, shared(stores).address)
    for number in range(5):
        key = Key(f"id{number}", f"n{number}", f"digest{number}", {"read": ["*"]}, "")
        change = await keys.change(lambda table, key=key: adding(table, key, moved.ACTOR))  # type: ignore[misc]
        assert change.action == "keys add"
        if number < 4:
            for _ in range(3):
                await stores.journal.append(batch_of([reading(number)]))
    await stores.journal.append(batch_of([reading(9)]))
    await stored(stores)


async def trim(stores: Stores, stream_seq: int) -> None:
    """Take the commits before a message off the stream."""
    one = shared(stores)
    body = {"seq": stream_seq, "filter": one.address.log_subject}
    await one.link.ask(f"STREAM.PURGE.{one.address.stream}", body)


async def fetched(peer: Stores, path: Path, alter: Callable[[str], None] = lambda file: None) -> int:
    """Make a peer's copy the beginning of another one, altered on the way."""
    with receiving(str(path)) as file:
        with await shared(peer).copied() as source, open(file, "wb") as target:  # noqa: ASYNC230
            shutil.copyfileobj(source, target)
        alter(file)
        return await check_fetched(shared(peer).address, file)


async def test_a_new_server_on_a_trimmed_stream_fetches_and_has_everything(opened: OpenStores, tmp_path: Path) -> None:
    one = await opened("one")
    await fill(one)
    await trim(one, shared(one).place.stream_seq - 3)
    with pytest.raises(JournalUnusable, match="`twincast journal fetch` brings"):
        await opened("two")
    assert await fetched(one, tmp_path / "two.db") == 13
    two = await opened("two")
    assert await log_of(two) == await log_of(one)
    assert moved.tables(str(tmp_path / "two.db")) == moved.tables(str(tmp_path / "one.db"))
    await two.journal.append(batch_of([reading(10)]))
    await has_folded(one, two)
    assert shared(one).place == shared(two).place
    assert await one.access.keyring() == await two.access.keyring()
    assert not {name for name in names_in(tmp_path) if "fetching" in name or "-copy-" in name}


async def test_a_server_goes_on_wherever_the_stream_was_trimmed_up_to_its_place(opened: OpenStores) -> None:
    """Its own message may be gone, and those before it: that is no other log, and nothing lacks."""
    one = await opened("one")
    await fill(one)
    epoch = one.journal.lineage.epoch
    for stream_seq in range(2, shared(one).place.stream_seq + 2):
        await trim(one, stream_seq)
        await shared(one)._check()
        await one.close()
        one = await opened("one")
        assert one.journal.lineage.epoch == epoch
    await one.journal.append(batch_of([reading(11)]))


async def test_every_place_that_lacks_something_is_refused_and_no_other(opened: OpenStores, tmp_path: Path) -> None:
    one = await opened("one")
    for number in range(3):
        await one.journal.append(batch_of([reading(number)]))
    await stored(one)
    early = await opened("two")
    await stored(early)
    await early.close()
    await fill(one)
    await trim(one, shared(one).place.stream_seq)
    with pytest.raises(JournalUnusable, match="`twincast journal fetch` brings"):
        await opened("two")
    await fetched(one, tmp_path / "two.db")
    assert await log_of(await opened("two")) == await log_of(one)


def sql(statement: str) -> Callable[[str], None]:
    def alter(file: str) -> None:
        with closing(apsw.Connection(file)) as db:
            db.execute(statement)

    return alter


def torn(file: str) -> None:
    with open(file, "r+b") as opened:
        opened.truncate(20_000)


def of_zeros(file: str) -> None:
    with open(file, "r+b") as opened:
        opened.seek(8_192)
        opened.write(bytes(4_096))


@pytest.mark.parametrize(
    "alter",
    [
        torn,
        of_zeros,
        sql("update meta set value = 'elsewhere' where name = 'copy_of'"),
        sql("update meta set value = '01234567' where name = 'epoch'"),
        sql("update meta set value = '3 1 1 1' where name = 'stream_place'"),
        sql("update meta set value = '999 1 1 1' where name = 'stream_place'"),
        sql("update meta set value = 'x' where name = 'stream_place'"),
        sql("delete from meta where name = 'stream_place'"),
        sql("pragma user_version = 99"),
        sql("delete from log where seq = 2"),
        sql("update access_key set grants = '{\"admin\":[\"*\"]}' where id = 'id1'"),
        sql("update access_key set revoked_at_utc = '2026-01-01' where id = 'id1'"),
        sql("insert into access_key select 'x', 'x', 'x', grants, '', null, null, null from access_key limit 1"),
        sql("delete from audit where id = 1"),
    ],
)
async def test_a_bad_file_is_refused_in_words_and_removed(
    alter: Callable[[str], None], opened: OpenStores, tmp_path: Path
) -> None:
    one = await opened("one")
    await fill(one)
    with pytest.raises(JournalUnusable):
        await fetched(one, tmp_path / "two.db", alter)
    assert not {name for name in names_in(tmp_path) if name.startswith("two.db") and name != "two.db-lock"}


async def test_a_journal_of_its_own_and_a_copy_in_use_are_not_replaced(opened: OpenStores, tmp_path: Path) -> None:
    one = await opened("one")
    await fill(one)
    SqliteFile(str(tmp_path / "own.db")).close()
    with pytest.raises(JournalUnusable, match="no copy of a shared log"):
        await fetched(one, tmp_path / "own.db")
    with pytest.raises(JournalUnusable, match="in use by another server"):
        await fetched(one, tmp_path / "one.db")
