"""The first key of a server that others are to reach, and the first code for a phone: where there is no key yet."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from twincast.access.keys import make_key
from twincast.access.pairing import CODE_LIFE_S, CODES_MAX, make_pairing
from twincast.core.audit import Actor
from twincast.core.rights import EVERY_RIGHT, Rights
from twincast.core.subscription import EVERYWHERE
from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.access import AccessFile
from twincast.machine import OWNER_ALONE

OWNER, PHONE = "lan/owner", "lan/phone"
ACTOR = Actor("local:server", "serve --lan")
PHONE_RIGHTS = Rights(publish=EVERYWHERE, read=EVERYWHERE, command=EVERYWHERE)


def make_first_key(journal_path: str, show: Callable[[str], None]) -> None:
    """Make a key with every right, in a journal's file that need not exist yet.

    Args:
        journal_path: the file.
        show: shows the secret, or saves it; before the key is stored, for nobody could use one that was lost.

    Raises:
        JournalUnusable: the file is none, or cannot be written.
        ValidationFailed: somebody else was quicker.
    """
    key, secret = make_key(OWNER, EVERY_RIGHT, now_utc=_now_utc(), rate_per_s=None, expires_s=None)
    with AccessFile(journal_path, make=True) as file:
        show(secret)
        file.add(key, ACTOR)


def make_first_code(journal_path: str) -> str:
    """Make a code that is good once, for 5 minutes, for a key that may do everything but administer."""
    pairing, code = make_pairing(PHONE, PHONE_RIGHTS, now_s=int(time.time()), rate_per_s=None, lives_s=None)
    with AccessFile(journal_path, has_codes=True) as file:
        file.pair(pairing, _now_utc(), ACTOR, life_s=CODE_LIFE_S, waiting_max=CODES_MAX)
    return code


def save_first_key(journal_path: str, secret: str) -> str:
    """Put a secret into a file beside the journal, for its owner alone; return where.

    Raises:
        JournalUnavailable: that cannot be.
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
