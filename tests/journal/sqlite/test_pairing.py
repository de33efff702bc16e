"""Codes in an SQLite journal: who brings one is answered, whoever else writes."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import pytest

from twincast.access.keys import make_key
from twincast.access.pairing import CODE_LIFE_S, CODES_MAX, digest_of_code, make_pairing
from twincast.core.audit import Actor
from twincast.core.keys import AccessStore, Key, Pairing
from twincast.core.rights import Rights
from twincast.errors import CredentialExpired, Unauthenticated
from twincast.hub.hub import system_now_utc
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.stores import open_stores

NOW_S = int(time.time())
DEADLINE_S = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def access(path: Path) -> AsyncIterator[AccessStore]:
    stores = await open_stores(f"sqlite:{path}", memory_max_bytes=0)
    yield stores.access
    await stores.close()


@pytest.fixture
def writer(access: AccessStore, path: Path) -> Iterator[apsw.Connection]:
    """Another program that is about to write, for as long as it likes."""
    db = apsw.Connection(str(path))
    db.execute("begin immediate")
    yield db
    db.close(True)


def put_code(path: Path, name: str, *, age_s: int = 0) -> str:
    made, code = make_pairing(name, Rights.of({"read": ["*"]}), now_s=NOW_S - age_s, rate_per_s=None, lives_s=None)
    with AccessFile(str(path), make=True, has_codes=True) as file:
        file.pair(made, system_now_utc(), Actor("local:me", "here"), life_s=CODE_LIFE_S, waiting_max=CODES_MAX)
    return digest_of_code(code)


def made(pairing: Pairing) -> Key:
    rights = Rights.of(pairing.grants)
    key, _ = make_key(pairing.name, rights, now_utc=system_now_utc(), rate_per_s=None, expires_s=None)
    return key


async def bring(access: AccessStore, digest: str) -> Key:
    return await access.pair(digest, NOW_S, made, "127.0.0.1", life_s=CODE_LIFE_S)


@pytest.mark.parametrize("kind", ["wrong", "late", "used"])
async def test_a_code_that_is_not_good_waits_for_nobody_who_writes(path: Path, kind: str) -> None:
    digest = "0" * 64 if kind == "wrong" else put_code(path, "lab/fan", age_s=CODE_LIFE_S if kind == "late" else 0)
    stores = await open_stores(f"sqlite:{path}", memory_max_bytes=0)
    access = stores.access
    try:
        if kind == "used":
            await bring(access, digest)
        db = apsw.Connection(str(path))
        db.execute("begin immediate")  # and it does not end before the answer
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(Unauthenticated if kind == "wrong" else CredentialExpired):
                await bring(access, digest)
        db.close(True)
    finally:
        await stores.close()


async def test_a_good_code_that_waits_holds_up_no_look_at_the_keys(
    path: Path, access: AccessStore, writer: apsw.Connection
) -> None:
    writer.execute("rollback")
    digest = put_code(path, "lab/fan")
    writer.execute("begin immediate")
    bringing = asyncio.create_task(bring(access, digest))
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert await access.keyring() is not None
        assert not bringing.done()
        writer.execute("rollback")
        key = await bringing
        keyring = await access.keyring()
    assert keyring is not None
    assert [known.name for known in keyring.keys] == [key.name] == ["lab/fan"]
