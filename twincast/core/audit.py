"""The audit trail: who commanded or deleted what, and who changed the keys."""

from typing import NamedTuple

from msgspec import Struct


class Actor(NamedTuple):
    """The identity that does something, and the address that it comes from. `who` is never a credential."""

    who: str
    address: str


class CommandOrigin(NamedTuple):
    """The actor of one command or deletion: `seq` is the position of that entry."""

    seq: int
    who: str
    address: str
    server: str = ""
    """See AuditRecord.server."""


OF_DEVICES = frozenset({"command", "delete"})
"""The actions of the audit records that are about a device; the others are about the keys."""


class AuditRecord(Struct, frozen=True):
    """One line of the audit trail."""

    at_utc: str
    who: str
    address: str
    action: str
    """`command`, `delete`, `keys add`, `keys revoke`, `keys clear`, or of a code `pair` and, once used, `paired`."""
    target: str
    detail: str
    seq: int | None = None
    """Of a command or a deletion: where it stands in the log."""
    server: str = ""
    """Of several servers on a shared log, the one that took it; empty for a command of this machine, or one server."""
