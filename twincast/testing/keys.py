"""API keys for tests, in a journal's file or a shared log; a running server accepts them a moment later."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from twincast.access.keys import make_key
from twincast.cluster.key_store import KeyStore
from twincast.core.audit import Actor
from twincast.core.rights import Rights
from twincast.hub.hub import system_now_utc
from twincast.journal.sqlite.access_file import AccessFile

if TYPE_CHECKING:
    from twincast.journal.jetstream.access_log import AccessLog

T = TypeVar("T")
ACTOR = Actor("local:test", "test kit")


def add_key(path: str | Path, name: str = "key", *, rate_per_s: float | None = None, **grants: Sequence[str]) -> str:
    """Add a key to a journal's file, which need not exist yet; return its secret. See Server.add_key."""
    return add(f"sqlite:{path}", name, rate_per_s=rate_per_s, **grants)[0]


def revoke_key(path: str | Path, name: str = "key") -> None:
    """Revoke a key in a journal's file. See Server.revoke_key."""
    revoke(f"sqlite:{path}", name)


def add(journal: str, name: str, *, rate_per_s: float | None, **grants: Sequence[str]) -> tuple[str, int]:
    """Add a key to a journal; return its secret and, of a shared log, the version of the keys that has it; else 0."""
    rights = Rights.of({action: list(patterns) for action, patterns in grants.items()})
    key, secret = make_key(name, rights, now_utc=system_now_utc(), rate_per_s=rate_per_s, expires_s=None)
    return secret, _changed(journal, lambda access: access.add(key, ACTOR), make=True)


def revoke(journal: str, name: str) -> int:
    """Revoke a key of a journal; return, of a shared log, the version of the keys that has it ended; else 0."""
    return _changed(journal, lambda access: access.revoke(name, system_now_utc(), ACTOR), make=False)


def _changed(journal: str, change: "Callable[[AccessFile | AccessLog], object]", *, make: bool) -> int:
    def run() -> int:
        with KeyStore(journal).open(make=make) as access:
            change(access)
            return 0 if isinstance(access, AccessFile) else access.version

    with ThreadPoolExecutor(1) as thread:  # the test may run in an event loop
        return thread.submit(run).result()
