"""The pairing codes in an SQLite journal, each exchanged once for a key: a command stores them, a server uses them.

A code that was used or has expired stays for a day, so that the error says so, and not that the code is wrong.
"""

from collections.abc import Callable
from typing import Any

import apsw
import msgspec

from twincast.core.audit import Actor
from twincast.core.keys import Key, Pairing
from twincast.errors import CredentialExpired, Unauthenticated, ValidationFailed
from twincast.wire.messages import encode

KEPT_S = 86_400
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
    if db.execute("select count(*) from pairing where not is_used and until_s > ?", (now_s,)).get >= waiting_max:
        raise ValidationFailed(f"{waiting_max} codes wait to be used; each is good for {life_s // 60} minutes")
    db.execute(
        "insert into pairing values (?, ?, ?, ?, ?, ?, ?, 0)",
        (
            pairing.digest,
            pairing.name,
            encode(pairing.grants).decode(),
            pairing.rate_per_s,
            pairing.lives_s,
            pairing.until_s,
            actor.who,
        ),
    )


def find(db: apsw.Connection, digest: str, now_s: float, *, life_s: int) -> tuple[Pairing, str]:
    """Return the pairing of a code, and who made it.

    Raises:
        Unauthenticated: there is no such code.
        CredentialExpired: it was used, or has expired.
    """
    row: Any = db.execute(
        "select name, grants, rate_per_s, lives_s, until_s, who, is_used from pairing where digest = ?", (digest,)
    ).fetchone()
    if row is None:
        raise Unauthenticated("this code is not known here; `twincast pair NAME --may publish` shows one")
    name, grants, rate_per_s, lives_s, until_s, who, is_used = row
    if is_used:
        raise CredentialExpired("this code was used already, and is good once; `twincast pair` shows another")
    if not 0 < until_s - now_s <= life_s:  # a clock that was set back makes none live longer
        raise CredentialExpired(f"this code was good for {life_s // 60} minutes; `twincast pair` shows another")
    return Pairing(digest, name, _decode_grants(grants), rate_per_s, lives_s, until_s), who


def take(
    db: apsw.Connection, digest: str, now_s: float, make: Callable[[Pairing], Key], *, life_s: int
) -> tuple[Key, str]:
    """Use a code up, within a transaction; return the key that is to be stored, and who made the code.

    Raises as `find`.
    """
    pairing, who = find(db, digest, now_s, life_s=life_s)
    db.execute("update pairing set is_used = 1 where digest = ?", (digest,))
    return make(pairing), who
