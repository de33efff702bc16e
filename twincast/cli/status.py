"""`twincast status`: how a server is, and how full its journal."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twincast import client
from twincast.cli.options import Fingerprint, Url, commands, server_url
from twincast.cli.terminal import out
from twincast.cli.units import in_bytes, in_time
from twincast.errors import NotPermitted
from twincast.later import later

if TYPE_CHECKING:
    from twincast.cli import tables
else:
    tables = later("twincast.cli.tables")

UNKNOWN_YET = frozenset(
    {
        *("type", "title", "status", "detail", "code", "retryable"),  # what programs know an error by
        *("devices_known", "epoch", "seq", "uptime_s", "identity", "rights"),
    }
)
"""What the status of a server that is not ready has only for programs."""

app = commands()


@app.command()
def command(
    as_json: Annotated[bool, typer.Option("--json", help="As the server says it.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Say how the server is. Exit status 1 if it is not well."""
    if not status(server_url(url, fingerprint), as_json=as_json):
        raise typer.Exit(1)


def status(url: str, *, as_json: bool) -> bool:
    """Print how the server is; return whether it is well.

    Raises:
        TwincastError: the server is not there.
    """
    with client.Rest(url) as rest:
        answer = rest.status()
        servers = _servers(rest) if answer.get("servers", 1) > 1 and not as_json else []
    if as_json:
        print(json.dumps(answer))
    else:
        space = answer.pop("space", None)
        left_out = UNKNOWN_YET if "at_seq" in answer else frozenset()
        shown = {name: _shown(name, value) for name, value in answer.items() if name not in left_out}
        _print((*shown.items(), *(journal_rows(space) if space else ()), *server_rows(servers)))
    return bool(answer["ok"])


def _servers(rest: client.Rest) -> Sequence[Mapping[str, Any]]:
    """Return the servers on a shared log; none for whoever may not see them, for their number is in the status."""
    try:
        servers: Sequence[Mapping[str, Any]] = rest.cluster()["servers"]
    except NotPermitted:
        return []
    return servers


def server_rows(servers: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of each server on a shared log, as names and texts."""
    for each in servers:
        words = [f"{each['websocket_clients']:,} clients", f"at {each['seq']:,}"]
        if each["behind_entries"]:
            words.append(f"{each['behind_entries']:,} entries and {in_time(each['behind_s'])} behind")
        words += ["leaving"] if each["leaving"] else [] if each["ready"] else ["not ready"]
        words += [] if each["same_settings"] else ["other settings"]
        yield f"server {each['name']}", ", ".join([*words, f"{each['version']} since {each['since_utc']}"])


def _print(facts: Sequence[tuple[str, str]]) -> None:
    if out.is_terminal:
        tables.print_facts(facts)
        return
    longest = max(len(name) for name, _ in facts)
    for name, text in facts:
        out.print(f"{name:<{longest}}  {text}")


def _shown(name: str, value: Any) -> str:
    if name == "uptime_s":
        return str(timedelta(seconds=int(value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def journal_rows(space: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a status says of the journal's size, as names and texts."""
    if space["disk_free_bytes"] is None:
        yield "journal_size", f"{in_bytes(space['used_bytes'])} of memory"
    else:
        closed_bytes = space.get("history_bytes")  # an older server does not say it
        history = f", {in_bytes(closed_bytes)} of history" if closed_bytes else ""
        yield "journal_size", f"{in_bytes(space['file_bytes'])}{history}, and {in_bytes(space['wal_bytes'])} of -wal"
    since = f", since {space['oldest_at_utc']}" if space["oldest_at_utc"] else ""
    yield "entries", f"{space['entries']:,}{since}"
    kept = [in_time(space["keep_s"])] if space["keep_s"] else []
    kept += [f"{in_bytes(space['keep_bytes'])} at most"] if space["keep_bytes"] else []
    yield "kept", ", ".join(kept) or "all"
    if space["disk_free_bytes"] is not None:
        yield "disk", f"{in_bytes(space['disk_free_bytes'])} free; {_lasts(space)}"
    if space["problem"]:
        yield "trimming", space["problem"]


def _lasts(space: Mapping[str, Any]) -> str:
    """Return for how long a disk lasts."""
    if space["growth_bytes_per_s"] is None:
        return "for how long that lasts is known after a minute of writing"
    pace = f"{in_bytes(space['growth_bytes_per_s'])}/s"
    if space["full_in_s"] is None:
        return f"it does not fill at this pace, {pace}"
    return f"full in {in_time(space['full_in_s'])} at this pace, {pace}"
