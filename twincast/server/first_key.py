"""The first key of a server that others may reach, and the first code for a phone: made where there is no key yet."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from twincast.access.keys import make_key
from twincast.access.pairing import CODE_LIFE_S, CODES_MAX, make_pairing
from twincast.cluster.key_store import KeyStore
from twincast.core.audit import Actor
from twincast.core.rights import EVERY_RIGHT, Rights
from twincast.core.subscription import EVERYWHERE
from twincast.errors import JournalUnavailable
from twincast.machine import OWNER_ALONE

OWNER, PHONE = "lan/owner", "lan/phone"
ACTOR = Actor("local:server", "serve --lan")
PHONE_RIGHTS = Rights(publish=EVERYWHERE, read=EVERYWHERE, command=EVERYWHERE)


def make_first_key(store: KeyStore, show: Callable[[str], None]) -> None:
    """Make a key with every right, in a journal that need not exist yet.

    Args:
        store: the journal's keys.
        show: shows the secret, or saves it. Called before the key is stored: a key whose secret is lost is of no use.

    Raises:
        JournalUnusable: the file is not a journal, or cannot be written.
        ValidationFailed: another process has made a key in the meantime.
    """
    key, secret = make_key(OWNER, EVERY_RIGHT, now_utc=_now_utc(), rate_per_s=None, expires_s=None)
    with store.open(make=True) as access:
        show(secret)
        access.add(key, ACTOR)


def make_first_code(store: KeyStore) -> str:
    """Make a code that is good once, for 5 minutes, for a key with every right but `admin`."""
    pairing, code = make_pairing(PHONE, PHONE_RIGHTS, now_s=int(time.time()), rate_per_s=None, lives_s=None)
    with store.open(has_codes=True) as access:
        access.pair(pairing, _now_utc(), ACTOR, life_s=CODE_LIFE_S, waiting_max=CODES_MAX)
    return code


def save_first_key(journal_path: str, secret: str) -> str:
    """Save a secret in a file beside the journal that only its owner may read; return the file's path.

    Raises:
        JournalUnavailable: the file cannot be written.
    """
    name = f"{os.path.abspath(journal_path)}-owner-key"
    try:
        with suppress(FileNotFoundError):
            os.unlink(name)  # of a key that is forgotten
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secret}\n")
    except OSError as error:
        raise JournalUnavailable(f"the first key cannot be kept in {name}: {error.strerror}") from None
    return name


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
