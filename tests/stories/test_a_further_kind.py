"""A kind of entry that twincast does not have goes all its ways, with no more said of it than ARCHITECTURE.md asks for.

`Presence` is what a real kind would be: one class, and one row for the columns of SQLite. That it is in the union of
the kinds is said here in its stead; the fold has no line for it, as it changes no twin.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from msgspec import Raw

from tests.conftest import JournalUrl
from tests.fakes import AnyonesVisit, StallingConnection, batch_of
from twincast.core import subscription
from twincast.core.audit import Actor
from twincast.core.idempotency import digest_of
from twincast.core.model import KINDS, DataUpdate, Entry, EntryKind, Snapshot, Source, known_also_as
from twincast.core.rights import Principal, Rights
from twincast.core.state import State
from twincast.delivery.session import Session
from twincast.errors import NotPermitted, TwincastError
from twincast.hub.hub import Hub
from twincast.journal.sqlite import entries
from twincast.journal.stores import Stores, open_stores
from twincast.wire.checks import check_value_sizes
from twincast.wire.messages import encode_all

ROOT = Path(__file__).parents[2]


@known_also_as(subject="device_id", payload="presence")
class Presence(EntryKind, tag_field="type", tag="presence", gc=False):
    """Whether a device is there."""

    kind = cast("Any", "presence")
    right = "publish"
    changes_twin = False
    conflates = True
    audited_as = "presence"

    device_id: str
    presence: Raw
    timestamp_utc: str
    source: Source
    seq: int = 0
    epoch: str = ""


def _presence_of(row: entries.Row, epoch: str) -> Entry:
    seq, _, device_id, value, _, at_utc, source, _ = row
    return cast("Entry", Presence(device_id, Raw(value.encode()), at_utc, source, seq, epoch))


def presence(device_id: str, text: bytes) -> Entry:
    return cast("Entry", Presence(device_id, Raw(text), "now", "rest"))


def reading(device_id: str, value: bytes) -> Entry:
    return DataUpdate(device_id, Raw(value), "now", "rest")


@pytest.fixture(params=["memory", "sqlite", "jetstream"])
async def stores(
    request: pytest.FixtureRequest, journal_url: JournalUrl, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stores]:
    columns = entries.Columns(Presence, _presence_of, subject="device_id", payload="presence")
    monkeypatch.setitem(entries.COLUMNS, "presence", columns)
    monkeypatch.setattr(subscription, "KINDS", KINDS | {"presence"})
    stores = await open_stores(journal_url(request.param), memory_max_bytes=1 << 20)
    yield stores
    await stores.close()


async def test_it_is_stored_and_read_back_and_leaves_the_twins_alone(stores: Stores) -> None:
    batch = [reading("fan", b"1"), presence("fan", b'"away"'), presence("lamp", b'"here"')]
    await stores.journal.append(batch_of(batch))
    log = await stores.journal.read(0, 10)
    assert encode_all(log) == encode_all(batch)
    assert encode_all((await anext(stores.journal.follow(0))).entries) == encode_all(batch)
    assert set((await stores.journal.snapshot()).twins) == {"fan"}
    state = State(Snapshot(stores.journal.lineage.epoch, 0, {}))
    state.apply_all(log)
    assert (state.seq, set(state.twins)) == (3, {"fan"})


async def test_it_goes_to_those_who_want_it_and_merges_by_itself_for_who_is_slow(stores: Stores) -> None:
    hub = Hub(stores.journal, State(await stores.journal.snapshot()), open_batch_max_bytes=1 << 20)
    driver = asyncio.create_task(hub.run())
    connection = StallingConnection(1)
    session = Session(connection, hub, AnyonesVisit, outbox_max_bytes=1 << 20)
    connection.pause = session.pause
    session.begin("kinds=presence&kinds=data_update")
    session.resume()
    for number in range(4):
        for entry in (presence("fan", b"%d" % number), reading("fan", b"%d" % number)):
            await stored(hub, entry)
    hello, *events = map(json.loads, connection.taken())
    assert hello["subscription"]["devices"] == {"*": ["data_update", "presence"]}
    for _ in range(4):
        session.resume()
        events.extend(map(json.loads, connection.taken()))
    told = [(event["type"], event.get("presence", event.get("value")), event.get("merged", 1)) for event in events]
    assert told[0] == ("presence", 0, 1)
    assert sorted(told[1:]) == [("data_update", 3, 4), ("presence", 3, 3)]
    driver.cancel()
    await asyncio.wait([driver])


async def stored(hub: Hub, entry: Entry) -> int:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(error: TwincastError | None, seq: int) -> None:
        answer.set_result(seq) if error is None else answer.set_exception(error)

    hub.submit(entry, len(entry.payload), done, None, Actor("key:1", "192.0.2.1") if entry.audited_as else None)
    return await asyncio.wait_for(answer, 10)


async def test_who_sent_it_is_in_the_audit_trail(stores: Stores) -> None:
    hub = Hub(stores.journal, State(await stores.journal.snapshot()), open_batch_max_bytes=1 << 20)
    driver = asyncio.create_task(hub.run())
    seq = await stored(hub, presence("fan", b'"here"'))
    [(_, record)] = await stores.access.audit(10)
    assert (record.action, record.target, record.who, record.seq) == ("presence", "fan", "key:1", seq)
    driver.cancel()
    await asyncio.wait([driver])


def test_rights_sizes_and_retries_ask_the_entry() -> None:
    entry = presence("fan", b'"here"')
    only_commands = Principal("key:1", Rights.of({"command": ["*"]}))
    with pytest.raises(NotPermitted):
        only_commands.require(entry.right, entry.subject)
    with pytest.raises(TwincastError, match="'fan' has 6"):
        check_value_sizes([entry], 5)
    assert digest_of([entry]) == digest_of([presence("fan", b'"here"')]) != digest_of([presence("fan", b'"away"')])
    assert msgspec.json.decode(encode_all([entry])[0]) == {
        "type": "presence", "device_id": "fan", "presence": "here",
        "timestamp_utc": "now", "source": "rest", "seq": 0, "epoch": "",
    }  # fmt: skip


def test_the_architecture_page_names_at_most_five_files_for_it_and_they_exist() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    part = page.split("## Adding a kind of entry")[1].split("\n## ")[0]
    files = re.findall(r"^\| `([\w/]+\.py)`", part, re.MULTILINE)
    assert 0 < len(files) <= 5
    assert all((ROOT / "twincast" / file).is_file() for file in files)
