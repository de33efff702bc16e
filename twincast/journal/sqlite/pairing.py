"""The pairing codes in an SQLite journal, each exchanged once for a key: a command stores them, a server uses them.

A code that was used or has expired stays for a day, so that the error says so, and not that the code is wrong.
"""

from collections.abc import Callable
from typing import Any

import apsw
import msgspec

from twincast.core.audit import Actor
from twincast.core.keys import Key, Pairing
from twincast.journal.key_rules import refuse_code, refuse_many_codes
from twincast.wire.messages import encode

KEPT_S = 86_400
_NO_ROW: Any = (None,) * 7
_decode_grants = msgspec.json.Decoder(dict[str, list[str]]).decode


def put(db: apsw.Connection, pairing: Pairing, actor: Actor, *, life_s: int, waiting_max: int) -> None:
    """Store a code, within a transaction. An unused one for the same name is no longer good.

    Args:
        db: the connection.
        pairing: what is stored.
        actor: who made it.
        life_s: for how long it is good.
        waiting_max: how many may wait.

    Raises:
        ValidationFailed: as many wait already.
    """
    now_s = pairing.until_s - life_s
    db.execute("delete from pairing where until_s < ? or (name = ? and not is_used)", (now_s - KEPT_S, pairing.name))
    waiting = db.execute("select count(*) from pairing where not is_used and until_s > ?", (now_s,)).get
    refuse_many_codes(waiting, waiting_max=waiting_max, life_s=life_s)
    insert(db, pairing, actor.who)


def insert(db: apsw.Connection, pairing: Pairing, who: str) -> None:
    """Store a code that somebody made."""
    terms = (pairing.rate_per_s, pairing.lives_s, pairing.until_s)
    values = (pairing.digest, pairing.name, encode(pairing.grants).decode(), *terms, who)
    db.execute("insert into pairing values (?, ?, ?, ?, ?, ?, ?, 0)", values)


def find(db: apsw.Connection, digest: str, now_s: float, *, life_s: int) -> tuple[Pairing, str]:
    """Return the pairing of a code, and who made it.

    Raises:
        Unauthenticated: there is no such code.
        CredentialExpired: it was used, or has expired.
    """
    row: Any = db.execute(
        "select name, grants, rate_per_s, lives_s, until_s, who, is_used from pairing where digest = ?", (digest,)
    ).fetchone()
    name, grants, rate_per_s, lives_s, until_s, who, is_used = _NO_ROW if row is None else row
    refuse_code(until_s, now_s, is_used=bool(is_used), life_s=life_s)
    return Pairing(digest, name, _decode_grants(grants), rate_per_s, lives_s, until_s), who


def take(
    db: apsw.Connection, digest: str, now_s: float, make: Callable[[Pairing], Key], *, life_s: int
) -> tuple[Key, str]:
    """Use a code up, within a transaction; return the key that is to be stored, and who made the code.

    Raises as `find`.
    """
    pairing, who = find(db, digest, now_s, life_s=life_s)
    use(db, digest)
    return make(pairing), who


def use(db: apsw.Connection, digest: str) -> None:
    """Note that a code was used."""
    db.execute("update pairing set is_used = 1 where digest = ?", (digest,))
