"""`twincast journal`: a journal backed up, put back, checked, described, compacted, moved, fetched from a server."""

import asyncio
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from twincast import __version__, client, extras
from twincast.cli.options import Fingerprint, Journal, commands, journal_url, server_url
from twincast.cli.terminal import err, out
from twincast.cli.units import in_bytes, in_time
from twincast.core.audit import Actor
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.sqlite import backup as sqlite_backup
from twincast.journal.sqlite import backups
from twincast.journal.sqlite import compact as sqlite_compact
from twincast.journal.sqlite import health as sqlite_health
from twincast.journal.sqlite.backup_parts import Progress
from twincast.journal.url import local_log_of, required_file_of, shared_log_of
from twincast.later import later
from twincast.machine import login_name
from twincast.wire.messages import encode

if TYPE_CHECKING:
    from rich import progress
    from rich import table as rich_table

    from twincast.cluster import key_store, moving
else:
    progress, rich_table = later("rich.progress"), later("rich.table")
    moving = later("twincast.cluster.moving")
    key_store = later("twincast.cluster.key_store")


app = commands("Back up, restore, check, describe, compact, move and fetch a journal.")


@app.command("backup")
def _backup(
    folder: Annotated[str, typer.Argument(help="A new or empty folder, or one with an earlier backup of it.")],
    journal: Journal = None,
) -> None:
    """Copy a journal as it is at this moment, checked. An earlier backup there is brought up to it.

    What the journal has lost of its closed log is named, with exit status 1; all the rest is in the backup.
    """
    if not back_up(journal_url(journal), folder, __version__):
        raise typer.Exit(1)


@app.command("restore")
def _restore(
    folder: Annotated[str, typer.Argument(help="What `twincast journal backup` made.")],
    force: Annotated[bool, typer.Option("--force", help="Put a journal that is there aside, not away.")] = False,
    journal: Journal = None,
) -> None:
    """Put a backup in a journal's place, once all of it is copied and checked. No server may run on it."""
    restore(journal_url(journal), folder, force=force)


@app.command("check")
def _check(
    folder: Annotated[str | None, typer.Argument(help="A backup, to be checked instead.")] = None,
    journal: Journal = None,
) -> None:
    """Read all of a journal and say what is wrong with it, with exit status 1. Its server may run meanwhile."""
    if not check(journal_url(journal), folder):
        raise typer.Exit(1)


@app.command("info")
def _info(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    journal: Journal = None,
) -> None:
    """Say what a journal holds. Its server may run meanwhile."""
    info(journal_url(journal), as_json=as_json)


@app.command("compact")
def _compact(journal: Journal = None) -> None:
    """Make a journal smaller: merge small partitions, and give free room back to the disk. No server may run on it.

    Partitions that are gone or damaged are named, with exit status 1; they stay as they are.
    """
    if not compact(journal_url(journal)):
        raise typer.Exit(1)


@app.command("move")
def _move(
    source: Annotated[str, typer.Argument(metavar="FROM", help="sqlite:PATH; or what can be TO, or a copy's file.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="nats://HOST:PORT/NAME or workers:PATH; or sqlite:PATH.")],
) -> None:
    """Move a log, whole, to several servers or workers, or back to one. No server may run on it."""
    move(source, target)


@app.command("fetch")
def _fetch(
    peer: Annotated[str, typer.Argument(metavar="URL", help="Of a server on the log; https, or on this machine.")],
    fingerprint: Fingerprint = None,
    journal: Journal = None,
) -> None:
    """Begin a server's copy of a shared log with that of another server, checked against the log."""
    fetch(server_url(peer, fingerprint), journal_url(journal))


def fetch(peer: str, journal: str) -> None:
    """Make the copy of another server the beginning of this one's."""
    address = shared_log_of(journal)
    if address is None:
        raise JournalUnusable(f"only a shared log, nats://…, is fetched from another server; not {journal[:80]!r}")
    with extras.needed("a shared log", "cluster"):
        from twincast.journal.jetstream import fetched  # noqa: PLC0415  # comes with an extra
    with fetched.receiving(address.copy) as file:
        with client.Rest(peer) as rest, _progress("fetch") as told:
            rest.copy_log(file, told)
        with err.console.status("checking it"):
            newest = asyncio.run(fetched.check_fetched(address, file))
    _say(f"{address.copy} has the log {address.name!r} up to entry {newest:,}, checked: a server goes on there.")


def move(source: str, target: str) -> None:
    """Move a log from one kind of journal to another."""
    with _progress("move", progress.MofNCompleteColumn) as told:
        done = moving.move(source, target, Actor(f"local:{login_name()}", "command line"), told)
    _say(f"{done}.")


def back_up(journal: str, folder: str, version: str) -> bool:
    """Copy a journal into a folder; return whether nothing of it is lost."""
    path = _file_of(journal)
    with _progress("backup") as told:
        made = sqlite_backup.back_up(path, folder, version=version, now_utc=_now_utc(), progress=told)
    size_bytes = sum(file.bytes for file in made.files)
    for lost in made.lost:
        out.print(str(lost))
    lacking = " It has all but what is lost." if made.lost else ""
    _say(f"{folder} is a backup of {path} up to entry {made.seq:,}, {size_bytes:,} bytes, checked.{lacking}")
    try:
        backups.note(path, backups.Backup(os.path.realpath(folder), platform.node(), made.seq, made.at_utc))
    except (JournalUnavailable, JournalUnusable) as error:
        _say(f"The journal could not take a note of it: {error}")
    for other in sqlite_health.facts(path).backups_with_erased:
        _say(f"{other} is a backup that may still have histories that were deleted since.")
    return not made.lost


def compact(journal: str) -> bool:
    """Make a journal smaller; return whether its partitions are what was written."""
    path = _file_of(journal)
    with _progress_of_stages(progress.MofNCompleteColumn) as told:
        made = sqlite_compact.compact(path, now_utc=_now_utc(), progress=told)
    merged = f", {made.parts_before:,} partitions are {made.parts_after:,}" * (made.parts_before != made.parts_after)
    _say(f"{path} takes {made.bytes_after:,} bytes instead of {made.bytes_before:,}{merged}.")
    for problem in made.problems:
        out.print(problem)
    return not made.problems


def restore(journal: str, folder: str, *, force: bool) -> None:
    """Put a backup in a journal's place."""
    if shared_log_of(journal) is not None or local_log_of(journal) is not None:
        raise JournalUnusable(
            "a log that servers share is not put back under them: restore the backup of a copy to --journal"
            " sqlite:NEW.db, make a journal of it by `twincast journal move`, and move that to a new log"
        )
    path = required_file_of(journal)
    with _progress("restore") as told:
        made, aside = sqlite_backup.restore(folder, path, force=force, now_utc=_now_utc(), progress=told)
    for name in aside:
        _say(f"What was there is {name} now.")
    for lost in made.lost:
        _say(f"The backup was made without what the journal had lost: {lost}")
    _say(f"{path} is as it was at {made.at_utc}, up to entry {made.seq:,}.")


def check(journal: str, folder: str | None) -> bool:
    """Say what is wrong with a journal or a backup; return whether nothing is."""
    if folder is not None:
        made = sqlite_backup.check_backup(folder)
        for lost in made.lost:
            out.print(str(lost))
        is_whole = "has all but what its journal had lost" if made.lost else "is whole"
        _say(f"{folder} {is_whole}: a backup of {made.at_utc}, up to entry {made.seq:,}.")
        return not made.lost
    path = _file_of(journal)
    with err.console.status(f"reading all of {path}"):
        problems = sqlite_health.problems(path)
    for problem in problems:
        out.print(problem)
    _say(
        f"{path} is damaged; `twincast journal restore` puts a backup in its place."
        if problems
        else f"{path} is whole."
    )
    return not problems


def info(journal: str, *, as_json: bool) -> None:
    """Print what a journal holds."""
    facts = sqlite_health.facts(_file_of(journal))
    if as_json:
        out.print(encode(facts).decode())
        return
    table = rich_table.Table(box=None, show_header=False)
    for name in facts.__struct_fields__:
        if name != "backups":
            table.add_row(_NAMED.get(name, name.replace("_", " ")), _shown(name, getattr(facts, name)))
    out.console.print(table)
    for made in facts.backups:
        out.print(f" backup of {made.at_utc}, up to entry {made.seq:,}: {made.place} on {made.host}")


def _file_of(journal: str) -> str:
    """Return the file of a journal; of a log that servers share, that of a copy on this machine.

    Raises:
        JournalUnusable: there is none.
    """
    if shared_log_of(journal) is None and local_log_of(journal) is None:
        return required_file_of(journal)
    path = key_store.KeyStore(journal).copy
    if path is None:
        raise JournalUnusable(
            f"{journal[:80]} is shared, and this machine has no copy of it: ask where a server of it runs, or name the"
            " file of a copy, as sqlite:PATH"
        )
    _say(f"This is of {path}, a copy of the shared log.")
    return path


_NAMED = {
    "oldest_at_utc": "oldest, UTC",
    "newest_at_utc": "newest, UTC",
    "created_at_utc": "made, UTC",
    "file_bytes": "file",
    "wal_bytes": "-wal",
    "history_bytes": "closed partitions",
    "free_bytes": "free in the file",
    "disk_free_bytes": "free on the disk",
    "growth_bytes_per_s": "growth",
    "full_in_s": "disk full, untrimmed, in",
    "is_served": "a server runs on it",
    "erasing": "histories being erased",
    "backups_with_erased": "backups with erased histories",
}
"""How a person is told what a fact is, where its name is not that already."""


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        units = {"_bytes_per_s": lambda pace: f"{in_bytes(pace)}/s", "_bytes": in_bytes, "_in_s": in_time}
        say = next((say for end, say in units.items() if name.endswith(end)), "{:,}".format)
        return say(value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not known" if value is None else str(value)


@contextmanager
def _progress(what: str, counted: "type[progress.ProgressColumn] | None" = None) -> Iterator[Progress]:
    with _progress_of_stages(counted) as told:
        yield lambda done, total: told(what, done, total)


@contextmanager
def _progress_of_stages(counted: "type[progress.ProgressColumn] | None" = None) -> Iterator[sqlite_compact.Progress]:
    if not err.is_terminal:
        yield lambda what, done, total: None
        return
    columns = (counted or progress.DownloadColumn)(), progress.TimeRemainingColumn()
    shown = progress.TextColumn("{task.description}"), progress.BarColumn(), *columns
    with progress.Progress(*shown, console=err.console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _say(text: str) -> None:
    err.print(text)


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
