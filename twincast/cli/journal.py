"""`twincast journal`: a journal's file backed up, put back, checked and described."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from twincast import __version__
from twincast.cli.options import Journal, commands, journal_url
from twincast.cli.terminal import err, out
from twincast.cli.units import in_bytes, in_time
from twincast.journal.sqlite import backup as sqlite_backup
from twincast.journal.sqlite import health as sqlite_health
from twincast.journal.url import required_file_of
from twincast.wire.messages import encode

PAGE_BYTES = 4_096  # of SQLite; a backup counts in pages


app = commands("Back up, restore, check and describe a journal.")


@app.command("backup")
def _backup(
    folder: Annotated[str, typer.Argument(help="A new or empty folder.")],
    journal: Journal = None,
) -> None:
    """Copy a journal as it is at this moment, checked. Its server may run meanwhile."""
    back_up(journal_url(journal), folder, __version__)


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


def back_up(journal: str, folder: str, version: str) -> None:
    """Copy a journal into a folder."""
    path = required_file_of(journal)
    with _progress("backup", PAGE_BYTES) as told:
        made = sqlite_backup.back_up(path, folder, version=version, now_utc=_now_utc(), progress=told)
    _say(f"{folder} is a backup of {path} up to entry {made.seq:,}, {made.files[0].bytes:,} bytes, checked.")


def restore(journal: str, folder: str, *, force: bool) -> None:
    """Put a backup in a journal's place."""
    path = required_file_of(journal)
    with _progress("restore") as told:
        made, aside = sqlite_backup.restore(folder, path, force=force, now_utc=_now_utc(), progress=told)
    for name in aside:
        _say(f"What was there is {name} now.")
    _say(f"{path} is as it was at {made.at_utc}, up to entry {made.seq:,}.")


def check(journal: str, folder: str | None) -> bool:
    """Say what is wrong with a journal or a backup; return whether nothing is."""
    if folder is not None:
        made = sqlite_backup.check_backup(folder)
        _say(f"{folder} is whole: a backup of {made.at_utc}, up to entry {made.seq:,}.")
        return True
    path = required_file_of(journal)
    with err.status(f"reading all of {path}"):
        problems = sqlite_health.problems(path)
    for problem in problems:
        out.print(problem, soft_wrap=True)
    _say(
        f"{path} is damaged; `twincast journal restore` puts a backup in its place."
        if problems
        else f"{path} is whole."
    )
    return not problems


def info(journal: str, *, as_json: bool) -> None:
    """Print what a journal holds."""
    facts = sqlite_health.facts(required_file_of(journal))
    if as_json:
        out.print(encode(facts).decode(), soft_wrap=True)
        return
    table = Table(box=None, show_header=False)
    for name in facts.__struct_fields__:
        value = getattr(facts, name)
        table.add_row(name.replace("_", " "), _shown(name, value))
    out.print(table)


def _shown(name: str, value: object) -> str:
    if value is None:
        return "not known"
    if name.endswith(("_bytes", "_bytes_per_s")) and isinstance(value, int | float):
        return f"{value:,} ({in_bytes(value)})"
    if name.endswith("_in_s") and isinstance(value, float):
        return f"{value:,} ({in_time(value)})"
    return f"{value:,}" if type(value) is int else str(value)


@contextmanager
def _progress(what: str, unit_bytes: int = 1) -> Iterator[sqlite_backup.Progress]:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def told(done: int, total: int) -> None:
            bar.update(task, completed=done * unit_bytes, total=total * unit_bytes)

        yield told


def _say(text: str) -> None:
    err.print(text, soft_wrap=True)


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
