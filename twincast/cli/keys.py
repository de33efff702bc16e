"""`twincast keys`: the API keys of a journal."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from twincast.access.keys import make_key
from twincast.cli.arguments import actions_of, duration_s
from twincast.cli.options import Devices, Journal, May, Rate, commands, journal_url
from twincast.cli.terminal import err, out
from twincast.cli.units import counted
from twincast.cluster.key_store import KeyStore, wait_until_noticed
from twincast.core.audit import Actor
from twincast.core.keys import Key
from twincast.core.rights import Rights
from twincast.later import later
from twincast.machine import login_name
from twincast.wire.messages import encode

if TYPE_CHECKING:
    from rich import table as rich_table

    from twincast.cli import tables
else:
    rich_table, tables = later("rich.table"), later("twincast.cli.tables")

app = commands("Make, list and revoke the API keys of a journal.")


@app.command("add")
def _add(
    name: Annotated[str, typer.Argument(help="What you call it, such as lab/gateway.")],
    *,
    may: May,
    devices: Devices = None,
    expires: Annotated[str | None, typer.Option(help="In how long, such as 30d. \\[default: never]")] = None,
    rate: Rate = None,
    journal: Journal = None,
) -> None:
    """Make a key and show it once. From the first one on, the server asks for a login; it need not be restarted."""
    add(journal_url(journal), name, may=may, devices=devices or ["*"], expires=expires, rate_per_s=rate)


@app.command("list")
def _list(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    journal: Journal = None,
) -> None:
    """Show all keys: what they may do, until when. Their secrets are not stored, so nobody can show those."""
    show(journal_url(journal), as_json=as_json)


@app.command("revoke")
def _revoke(key: Annotated[str, typer.Argument(help="Its name or id.")], journal: Journal = None) -> None:
    """End a key. Its open connections are closed within a second."""
    revoke(journal_url(journal), key)


@app.command("clear")
def _clear(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, journal: Journal = None) -> None:
    """Forget all keys. After its next start the server asks for no login."""
    if not yes:
        typer.confirm("Forget all keys? After its next start the server is open to every program here.", abort=True)
    clear(journal_url(journal))


def add(
    journal: str, name: str, *, may: list[str], devices: list[str], expires: str | None, rate_per_s: float | None
) -> None:
    """Make a key, store its digest, and print the secret: alone on standard output, for scripts."""
    rights = Rights.of({action: devices for action in actions_of(may)})
    expires_s = None if expires is None else int(time.time()) + duration_s(expires)
    key, secret = make_key(name, rights, now_utc=now_utc(), rate_per_s=rate_per_s, expires_s=expires_s)
    store = KeyStore(journal)
    with store.open(make=True) as access:
        access.add(key, actor())
    wait_until_noticed()
    if access.is_new:
        err.print(f"There was no journal at {store.place}; now there is.")
    err.print(store.force)
    err.print(f"Key {key.id} of {key.name} may {rights_of(key.grants)}. It is shown this once:")
    out.print(secret)


def show(journal: str, *, as_json: bool) -> None:
    """Print all keys."""
    with KeyStore(journal).open() as access:
        keys = access.keys()
    if as_json:
        for key in keys:
            told = {name: getattr(key, name) for name in key.__struct_fields__ if name != "digest"}
            out.print(encode(told).decode())
        return
    if not keys:
        out.print("No keys, so no login is asked for. `twincast keys add` makes one.")
        return
    table = rich_table.Table("id", "name", "may", "updates/s", "state", box=None, header_style="bold")
    for key in keys:
        rate = "" if key.rate_per_s is None else f"{key.rate_per_s:g}"
        table.add_row(key.id, key.name, rights_of(key.grants), rate, _state(key))
    tables.print_whole(table, table.columns)


def revoke(journal: str, name_or_id: str) -> None:
    """End a key."""
    store = KeyStore(journal)
    with store.open(is_urgent=True) as access:
        key = access.revoke(name_or_id, now_utc(), actor())
    wait_until_noticed()
    closed = "every server closes" if store.is_shared else "a server that runs has closed"
    err.print(f"Key {key.id} of {key.name} is revoked; {closed} what was connected with it.")


def clear(journal: str) -> None:
    """Forget all keys."""
    with KeyStore(journal).open(is_urgent=True) as access:
        count = access.clear(now_utc(), actor())
    are = "is" if count == 1 else "are"
    err.print(
        f"{counted(count, 'key')} {are} forgotten. A server that runs goes on asking for a login until it is restarted."
    )


def actor() -> Actor:
    """Return who changes keys here, for the audit trail."""
    return Actor(f"local:{login_name()}", "command line")


def rights_of(grants: Mapping[str, Sequence[str]]) -> str:
    """Return what a key may do, for people."""
    by_patterns: dict[str, list[str]] = {}
    for action, patterns in grants.items():
        by_patterns.setdefault(" ".join(sorted(patterns)), []).append(action)
    return "; ".join(f"{', '.join(actions)} {patterns}" for patterns, actions in by_patterns.items())


def _state(key: Key) -> str:
    if key.revoked_at_utc is not None:
        return f"revoked {key.revoked_at_utc[:16]}"
    if key.expires_s is None:
        return "good"
    until = datetime.fromtimestamp(key.expires_s, UTC).isoformat(timespec="minutes")[:16]
    return f"{'good until' if key.expires_s > time.time() else 'expired'} {until}"


def now_utc() -> str:
    """Return the time as the journal has it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
