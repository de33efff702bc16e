"""`twincast status`, `control` and `delete`, and `audit` of a server: one question, one answer."""

import json
from datetime import timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from twincast.cli import fullness
from twincast.cli.terminal import out
from twincast.cli.words import args_of
from twincast.client import Rest
from twincast.core.audit import AuditRecord


def control(url: str, target: str, command: str, args: list[str]) -> None:
    """Send a command to everyone who watches.

    Raises:
        ValueError: see `args_of`.
        TwincastError: the server refused it, or is not there.
    """
    with Rest(url) as rest:
        event = rest.control(target, command, args_of(args))
    out.print(f"dispatched as number {event['seq']:,}")


def delete(url: str, device_id: str) -> None:
    """Delete a device.

    Raises:
        TwincastError: there is none of that name, or the server refused it, or is not there.
    """
    with Rest(url) as rest:
        event = rest.delete(device_id)
    out.print(f"deleted {device_id}, as number {event['seq']:,}", soft_wrap=True)


def audit(url: str, limit: int) -> list[AuditRecord]:
    """Return the newest records of a server's audit trail, newest first.

    Raises:
        TwincastError: the credential lacks the right `admin`, or the server is not there.
    """
    with Rest(url) as rest:
        return rest.audit(limit)


def status(url: str, *, as_json: bool) -> bool:
    """Print how the server is; return whether it is well.

    Raises:
        TwincastError: the server is not there.
    """
    with Rest(url) as rest:
        answer = rest.status()
    if as_json:
        print(json.dumps(answer))
    else:
        table = Table.grid(padding=(0, 2))
        space = answer.pop("space", None)
        shown = {name: _shown(name, value) for name, value in answer.items()}
        for name, text in (*shown.items(), *(fullness.rows(space) if space else ())):
            table.add_row(Text(name, "bold"), Text(text))
        out.print(table)
    return bool(answer["ok"])


def _shown(name: str, value: Any) -> str:
    if name == "uptime_s":
        return str(timedelta(seconds=int(value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
