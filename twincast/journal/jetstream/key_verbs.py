"""The changes that commands and servers make of the keys, each checked against the keys as they are; pure."""

from collections.abc import Callable

from twincast.core.audit import Actor
from twincast.core.keys import Key, Pairing
from twincast.journal.jetstream.key_changes import KeyChange, KeyTable
from twincast.journal.key_rules import key_in_use, refuse_code, refuse_many_codes, refuse_name_in_use, said_of


def adding(table: KeyTable, key: Key, actor: Actor) -> KeyChange:
    """Return the change that adds a key. Raises ValidationFailed if one of its name is in use."""
    refuse_name_in_use(table.keyring().keys, key.name)
    return KeyChange(*actor, "keys add", f"key:{key.id}", f"{key.name} {said_of(key.grants)}", add=key)


def revoking(table: KeyTable, name_or_id: str, actor: Actor) -> KeyChange:
    """Return the change that ends a key. Raises ValidationFailed if none that is in use has the name or id."""
    key = key_in_use(table.keyring().keys, name_or_id)
    return KeyChange(*actor, "keys revoke", f"key:{key.id}", key.name, revoke=key.id)


def clearing(table: KeyTable, actor: Actor) -> KeyChange:
    """Return the change that forgets all keys."""
    return KeyChange(*actor, "keys clear", "", f"{len(table.keyring().keys)} keys forgotten", clear=True)


def pairing(table: KeyTable, code: Pairing, actor: Actor, *, life_s: int, waiting_max: int) -> KeyChange:
    """Return the change that adds a code.

    Raises:
        ValidationFailed: a key of its name is in use, or too many codes wait.
    """
    refuse_name_in_use(table.keyring().keys, code.name)
    now_s = code.until_s - life_s
    others = [each for each in table.codes() if each.pairing.name != code.name]
    waiting = sum(not each.is_used and each.pairing.until_s > now_s for each in others)
    refuse_many_codes(waiting, waiting_max=waiting_max, life_s=life_s)
    return KeyChange(*actor, "pair", "", f"{code.name} {said_of(code.grants)}", code=code)


def using(
    table: KeyTable,
    digest: str,
    now_s: float,
    make: Callable[[Pairing], Key],
    address: str,
    *,
    life_s: int,
    server: str,
) -> KeyChange:
    """Return the change that exchanges a code for a key; `make` makes the key.

    Raises:
        Unauthenticated: there is no such code.
        CredentialExpired: it was used, or has expired.
        ValidationFailed: a key of its name is in use.
    """
    code = table.code(digest)
    if code is None:
        refuse_code(None, now_s, is_used=False, life_s=life_s)
        raise AssertionError
    refuse_code(code.pairing.until_s, now_s, is_used=code.is_used, life_s=life_s)
    refuse_name_in_use(table.keyring().keys, code.pairing.name)
    key = make(code.pairing)
    identity, detail = f"key:{key.id}", f"{key.name} {said_of(key.grants)}, by a code of {code.who}"
    return KeyChange(identity, address, "paired", identity, detail, server, used=digest, add=key)
