"""Changes of the keys, written into the stream of a real NATS server by several at once, over answers that are lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.journal.jetstream.test_key_changes import change, key
from twincast.cluster.engine import Engine
from twincast.core.keys import Key
from twincast.errors import JournalUnavailable, JournalUnusable, ValidationFailed
from twincast.journal.jetstream import key_log
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.key_changes import KeyChange, KeyTable
from twincast.journal.jetstream.key_log import KeyLog
from twincast.journal.jetstream.link import ApiError, Link
from twincast.journal.jetstream.stream import open_stream
from twincast.journal.key_rules import refuse_name_in_use


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("nats"), asks_token=False) as engine:
        yield engine


@pytest.fixture
async def link(engine: Engine) -> AsyncIterator[Link]:
    link = await Link.connect(NatsAddress.parse(f"{engine.url}/lab"))
    yield link
    await link.close()


@pytest.fixture
async def address(engine: Engine, link: Link, request: pytest.FixtureRequest) -> NatsAddress:
    address = NatsAddress.parse(f"{engine.url}/{abs(hash(request.node.name))}")
    await open_stream(link, address)
    return address


def adding(added: Key) -> Callable[[KeyTable], KeyChange]:
    def make(table: KeyTable) -> KeyChange:
        refuse_name_in_use(table.keyring().keys, added.name)
        return change(add=added)

    return make


class LosingLink:
    """A connection that stores what it is given, or not, and loses the answer, a few times."""

    def __init__(self, link: Link, *, loses: int, stores: bool) -> None:
        self._link, self._loses, self._stores = link, loses, stores
        self.is_connected = True

    async def store(self, subject: str, payload: bytes, *, headers: dict[str, str]) -> int:
        if self._loses:
            self._loses -= 1
            if self._stores:
                await self._link.store(subject, payload, headers=headers)
            raise JournalUnavailable("no answer")
        return await self._link.store(subject, payload, headers=headers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


async def test_what_one_writes_another_reads_with_the_times_of_the_stream(link: Link, address: NatsAddress) -> None:
    ours, theirs = KeyLog(link, address), KeyLog(link, address)
    record = await ours.change(adding(key(1)))
    await ours.change(lambda _: change("n1", revoke="id1"))
    assert [record for stored in await theirs.read() for record in stored.records] == ours.records == theirs.records
    assert theirs.table.rows() == ours.table.rows()
    (ended,) = theirs.table.keyring().keys
    assert ended.created_at_utc == record.at_utc < (ended.revoked_at_utc or "")
    assert [each.server for each in theirs.records] == ["", "n1"]
    assert await theirs.read() == []


async def test_of_many_who_add_one_name_at_once_one_does(link: Link, address: NatsAddress) -> None:
    logs = [KeyLog(link, address) for _ in range(10)]
    ends = await asyncio.gather(
        *(log.change(adding(key(number))) for number, log in enumerate(logs)), return_exceptions=True
    )
    assert [type(end) for end in ends if isinstance(end, BaseException)] == [ValidationFailed] * 9
    log = KeyLog(link, address)
    await log.read()
    assert len(log.table.keyring().keys) == len(log.records) == 1


async def test_many_who_add_different_names_at_once_all_do(link: Link, address: NatsAddress) -> None:
    logs = [KeyLog(link, address) for _ in range(10)]
    await asyncio.gather(*(log.change(adding(key(number, f"name{number}"))) for number, log in enumerate(logs)))
    log = KeyLog(link, address)
    await log.read()
    assert [each.name for each in log.table.keyring().keys] == sorted(f"name{number}" for number in range(10))


@pytest.mark.parametrize("stores", [True, False])
async def test_an_answer_that_is_lost_neither_loses_nor_doubles_a_change(
    link: Link, address: NatsAddress, stores: bool
) -> None:
    log = KeyLog(LosingLink(link, loses=2, stores=stores), address)  # type: ignore[arg-type]
    await log.change(adding(key(1)))
    assert len(log.records) == 1
    (added,) = log.table.keyring().keys
    assert added.id == "id1"


async def test_what_becomes_of_a_change_that_gets_no_answer_is_said_to_be_unknown(
    link: Link, address: NatsAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_log, "CHANGE_S", 0.0)
    log = KeyLog(LosingLink(link, loses=1, stores=True), address)  # type: ignore[arg-type]
    with pytest.raises(JournalUnavailable, match="is not known"):
        await log.change(adding(key(1)))


async def test_a_message_of_a_newer_version_ends_the_reading(link: Link, address: NatsAddress) -> None:
    await link.store(address.keys_subject, b'{"who":"a","fly":1}')
    log = KeyLog(link, address)
    for _ in range(2):
        with pytest.raises(JournalUnusable, match="newer"):
            await log.read()


async def test_a_log_that_is_not_there_is_named(link: Link, engine: Engine) -> None:
    with pytest.raises(JournalUnusable, match="there is no log 'nothing' at nats://"):
        await KeyLog(link, NatsAddress.parse(f"{engine.url}/nothing")).read()


async def test_a_change_is_stored_only_behind_what_it_was_made_for(link: Link, address: NatsAddress) -> None:
    until_s = asyncio.get_running_loop().time() + 5
    for number in range(2):  # the second is for keys that are no more as they were
        await key_log.store_change(link, address, change(add=key(number)).encoded(), 0, until_s)
    log = KeyLog(link, address)
    assert len(await log.read()) == 1
    with pytest.raises(ApiError):
        await link.store(address.keys_subject, b"{}", headers={"Nats-Expected-Last-Subject-Sequence": "0"})


async def test_many_changes_are_read_in_bulk_and_none_is_left_out(
    link: Link, address: NatsAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_log, "BULK", 10)
    asked: list[str] = []

    class CountingLink(LosingLink):
        async def ask(self, what: str, body: object) -> dict[str, Any]:
            asked.append(what)
            return await link.ask(what, body)

    for count in (0, 9, 1, 11):
        for number in range(count):
            await link.store(address.log_subject, b"another message")
            await link.store(address.keys_subject, change(add=key(len(asked) * 100 + number)).encoded())
        whole, log = KeyLog(link, address), KeyLog(CountingLink(link, loses=0, stores=True), address)  # type: ignore[arg-type]
        monkeypatch.setattr(key_log, "many_after", none_after)
        await whole.read()
        monkeypatch.undo()
        monkeypatch.setattr(key_log, "BULK", 10)
        await log.read()
        assert log.table.rows() == whole.table.rows() and log.records == whole.records
    assert len(asked) == 4, "all but the last question of each is asked in bulk"


async def none_after(*_: object) -> list[key_log.Found]:
    return []
