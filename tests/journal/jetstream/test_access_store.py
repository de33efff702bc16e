"""The keys of a shared log as a server on it uses them, at a real NATS server."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from tests.fakes import LONG_S
from tests.journal.jetstream.conftest import OpenStores
from tests.journal.jetstream.test_key_changes import BEGAN_S, GRANTS, change, code, key
from twincast.core.audit import AuditRecord
from twincast.core.keys import AccessStore, Key, Pairing
from twincast.errors import CredentialExpired, JournalUnavailable, Unauthenticated, ValidationFailed
from twincast.journal.jetstream import access_store
from twincast.journal.jetstream.journal import JetStreamJournal
from twincast.journal.jetstream.key_changes import KeyChange
from twincast.journal.jetstream.key_log import KeyLog


class Server(NamedTuple):
    journal: JetStreamJournal
    access: AccessStore


@pytest.fixture
async def servers(opened: OpenStores) -> list[Server]:
    """Two servers on one log."""
    found = []
    for name in ("n1", "n2"):
        stores = await opened(name)
        assert stores.shared is not None
        found.append(Server(stores.shared, stores.access))
    return found


async def change_keys(servers: list[Server], made: KeyChange) -> None:
    """Change the keys as a command does; return when all servers know."""
    log = KeyLog(servers[0].journal.link, servers[0].journal.address)
    await log.change(lambda _: made)
    await known(servers, log.table.version)


async def known(servers: list[Server], version: int) -> None:
    async with asyncio.timeout(LONG_S):
        for server in servers:
            await server.journal.when_folded(version)


def made(pairing: Pairing, number: int = 1) -> Key:
    return key(number, pairing.name)


async def use(store: AccessStore, digest: str, number: int = 1, now_s: float = BEGAN_S) -> Key:
    return await store.pair(digest, now_s, lambda pairing: made(pairing, number), "192.0.2.1", life_s=300)


async def test_a_key_of_a_code_is_good_here_at_once_and_soon_everywhere(servers: list[Server]) -> None:
    (journal, store), (_, other) = servers
    await change_keys(servers, change(code=code(1)))
    before = await store.keyring()
    assert before is not None and before.keys == ()
    assert await store.keyring(before.version) is None
    added = await use(store, "code1")
    assert (added.id, added.name, added.grants) == ("id1", "a", GRANTS)
    now = await store.keyring()
    assert now is not None and list(now.keys) == [added]
    await known(servers, now.version)
    assert await other.keyring() == now
    log = KeyLog(journal.link, journal.address)
    (record,) = (await log.read())[-1].records
    assert (record.action, record.who, record.address, record.server) == ("paired", "key:id1", "192.0.2.1", "n1")
    assert record.detail == "a publish lab/*, by a code of local:me"


async def test_of_two_servers_that_are_given_one_code_at_once_one_makes_a_key(servers: list[Server]) -> None:
    for number in range(10):
        await change_keys(servers, change(code=code(number, f"name{number}")))
        ends = await asyncio.gather(
            *(use(server.access, f"code{number}", 2 * number + at) for at, server in enumerate(servers)),
            return_exceptions=True,
        )
        assert sorted(type(end).__name__ for end in ends) == ["CredentialExpired", "Key"]


async def test_codes_at_two_servers_at_once_all_make_keys(servers: list[Server]) -> None:
    for number in range(8):
        await change_keys(servers, change(code=code(number, f"name{number}")))
    keys = await asyncio.gather(*(use(servers[at % 2].access, f"code{at}", at) for at in range(8)))
    assert [each.id for each in keys] == [f"id{number}" for number in range(8)]


async def test_a_code_that_is_not_good_leaves_nothing(servers: list[Server]) -> None:
    store = servers[0].access
    await change_keys(servers, change(code=code(1)))
    await change_keys(servers, change(code=code(2, "b")))
    await use(store, "code1")
    for digest, now_s, error in (
        ("code9", BEGAN_S, Unauthenticated),
        ("code1", BEGAN_S, CredentialExpired),
        ("code2", BEGAN_S + 301, CredentialExpired),
        ("code2", BEGAN_S - 301, CredentialExpired),
    ):
        with pytest.raises(error):
            await use(store, digest, 2, now_s)
    await change_keys(servers, change(add=key(5, "b")))
    with pytest.raises(ValidationFailed, match="'b' already"):
        await use(store, "code2", 2)
    keyring = await store.keyring()
    assert keyring is not None and [each.id for each in keyring.keys] == ["id1", "id5"]


async def test_a_key_that_does_not_come_back_is_said_to_be_unknown(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, store = servers[0]
    await change_keys(servers, change(code=code(1)))
    monkeypatch.setattr(access_store, "CHANGE_S", 0.2)

    async def deaf(_: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(journal, "when_keys_change", deaf)
    with pytest.raises(JournalUnavailable, match="is not known"):
        await use(store, "code1")


async def test_the_audit_trail_comes_with_the_copy(servers: list[Server]) -> None:
    await change_keys(servers, change("n2", add=key(1)))
    for server in servers:
        records: Sequence[tuple[int, AuditRecord]] = ()
        async with asyncio.timeout(LONG_S):
            while not records:
                records = await server.access.audit(9)
        ((_, record),) = records
        assert (record.action, record.server) == ("keys add", "n2")
