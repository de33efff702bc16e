"""API keys for tests, in a journal's file; a running server accepts them a moment later."""

from collections.abc import Sequence
from pathlib import Path

from twincast.access.keys import make_key
from twincast.core.audit import Actor
from twincast.core.rights import Rights
from twincast.hub.hub import system_now_utc
from twincast.journal.sqlite.access_file import AccessFile

ACTOR = Actor("local:test", "test kit")


def add_key(path: str | Path, name: str = "key", *, rate_per_s: float | None = None, **grants: Sequence[str]) -> str:
    """Add a key to a journal's file, which need not exist yet; return its secret. See Server.add_key."""
    rights = Rights.of({action: list(patterns) for action, patterns in grants.items()})
    key, secret = make_key(name, rights, now_utc=system_now_utc(), rate_per_s=rate_per_s, expires_s=None)
    with AccessFile(str(path), make=True) as file:
        file.add(key, ACTOR)
    return secret


def revoke_key(path: str | Path, name: str = "key") -> None:
    """Revoke a key in a journal's file. See Server.revoke_key."""
    with AccessFile(str(path)) as file:
        file.revoke(name, system_now_utc(), ACTOR)
