"""Journals of one server with something of everything in them, and what is compared of two journals."""

import random
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
from msgspec import Raw

from twincast.core.audit import Actor
from twincast.core.batch import Batch
from twincast.core.idempotency import IdempotencyKey
from twincast.core.keys import Key, Pairing
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Late
from twincast.core.producers import NumberedLine, ProducerIndex
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.sqlite.file import SqliteFile

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ACTOR = Actor("local:me", "")
SELECTS = {
    "log": "select * from log order by seq",
    "twin": "select * from twin order by device_id",
    "deletion": "select * from deletion order by seq",
    "receipt": "select * from receipt order by first_seq",
    "fence": "select who, producer, line, max(seq), missing from fence group by who, producer",
    "access_key": "select * from access_key order by id",
    "pairing": "select * from pairing order by digest",
    "audit": "select at_utc, who, address, action, target, detail, seq, server from audit"
    " where action != 'move' order by id",
}


def fill(path: str, seed: int, batches: int = 60) -> None:
    """Make a journal, or go on with it: entries of all kinds, with keys, lines and actors; API keys and codes."""
    dice = random.Random(seed)
    with closing(SqliteFile(path)) as file:
        lines = {name: 0 for name in ("p", "q")}
        for number in range(batches):
            batch = Batch()
            for submission in range(dice.randint(1, 4)):
                entries = [_entry(dice, seed) for _ in range(dice.randint(1, 5))]
                key = line = None
                if dice.random() < 0.4:
                    key = IdempotencyKey(f"key-{seed}-{number}-{submission}", "0" * 32, lambda record: None)
                elif dice.random() < 0.4:
                    producer = dice.choice(sorted(lines))
                    lines[producer] += dice.randint(1, 3)
                    line = NumberedLine(f"key:{seed}", producer, lines[producer], lambda mark: None)
                is_audited = all(entry.audited_as for entry in entries)
                actor = Actor("key:k1", "10.0.0.1") if is_audited else None
                batch.add_all(entries, 0, lambda error, seq: None, key=key, actor=actor, line=line)
            batch.stamp((BEGAN + timedelta(seconds=number + dice.random())).isoformat(timespec="microseconds"))
            batch.mark(ProducerIndex(file.marks()).marks(batch.lines()))
            file.append(batch)
            if dice.random() < 0.1:
                file.checkpoint()
            if dice.random() < 0.1:
                _change_keys(path, f"{seed}-{number}")


def _entry(dice: random.Random, seed: int) -> Entry:
    source: Any = dice.choice(["rest", "rest", "websocket", "application"])
    device_id = f"device {dice.randint(1, 9)}"
    kind = dice.random()
    if kind < 0.2:
        measured_at_utc = (BEGAN + timedelta(seconds=dice.randint(-5, 200))).isoformat(timespec="microseconds")
        if kind < 0.1:
            return Late(device_id, Raw(b"2"), "", source, measured_at_utc)
        return DataUpdate(device_id, Raw(b"3"), "", source, measured_at_utc=measured_at_utc)
    if kind < 0.7:
        return DataUpdate(device_id, Raw(dice.choice([b"1", b'"\xc3\xa9"', b"[1,{}]", b"1e400"])), "", source)
    if kind < 0.9:
        return Control(device_id, "spin", Raw(b'{"rpm":900}'), "", source)
    return Deleted(device_id, "", source)


def _change_keys(path: str, name: str) -> None:
    at_utc = BEGAN.isoformat(timespec="microseconds")
    with AccessFile(path, has_codes=True) as access:
        access.add(Key(name, name, f"digest {name}", {"read": ["*"]}, at_utc, 5.5, 2_000_000_000), ACTOR)
        if len(access.keys()) % 2:
            access.revoke(name, at_utc, ACTOR)
        code = Pairing(f"code {name}", f"of {name}", {"publish": ["a"]}, None, 60, 2_000_000_000)
        access.pair(code, at_utc, ACTOR, life_s=600, waiting_max=1_000)


def trim(path: str, entries: int) -> None:
    """Take the oldest entries off a journal."""
    with closing(SqliteFile(path)) as file:
        file.trim(entries)


def tables(path: str, *, besides: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return what a journal's file holds, in an order that says nothing."""
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as db:
        return {name: db.execute(sql).fetchall() for name, sql in SELECTS.items() if name not in besides}
