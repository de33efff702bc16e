"""`twincast audit`: who did what, from a journal or a server."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from twincast import extras
from twincast.cli.options import Fingerprint, Journal, commands, journal_url, server_url
from twincast.cli.terminal import out, print_whole
from twincast.client import Rest
from twincast.core.audit import AuditRecord
from twincast.wire.messages import encode

WIDE = 100
"""From so many columns on a terminal shows an audit record as a row of its parts; below that they share one."""

app = commands()


@app.command()
def command(
    limit: Annotated[int, typer.Option(min=1, help="How many records, the newest.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    journal: Journal = None,
    url: Annotated[
        str | None,
        typer.Option(help="A server to ask instead, with the right admin; the default where no server is installed."),
    ] = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Show who commanded or deleted what, and who changed the keys."""
    if journal is not None and url is not None:
        raise typer.BadParameter("--journal and --url name two places; give one of them")
    if url is not None or (journal is None and not extras.has_server()):
        with Rest(server_url(url, fingerprint)) as rest:
            show(rest.audit(limit), as_json=as_json)
    else:
        show(_records_of(journal_url(journal), limit), as_json=as_json)


def show(records: Sequence[AuditRecord], *, as_json: bool) -> None:
    """Print records, which come newest first, with the newest last, as a log is read."""
    if as_json:
        for record in reversed(records):
            out.print(encode(record).decode(), soft_wrap=True)
        return
    if out.is_terminal and out.width < WIDE:
        table = Table("when (UTC)", "what", box=None, header_style="bold")
        for record in reversed(records):
            when, who, address, action, target, detail, seq = _row(record)
            words = (who, action, target, detail, f"({address}{f', {seq}' if seq else ''})")
            table.add_row(when, " ".join(filter(None, words)))
    else:
        table = Table("when (UTC)", "who", "from", "did", "to", "", "seq", box=None, header_style="bold")
        for record in reversed(records):
            table.add_row(*_row(record))
    when_column, *others = table.columns
    when_column.no_wrap = True
    print_whole(table, others)


def _records_of(journal: str, limit: int) -> list[AuditRecord]:
    from twincast.journal.sqlite.access_file import AccessFile  # noqa: PLC0415  # a device opens no journal
    from twincast.journal.url import keys_file_of  # noqa: PLC0415

    with AccessFile(keys_file_of(journal)) as file:
        return file.audit(limit)


def _row(record: AuditRecord) -> tuple[str, ...]:
    seq = "" if record.seq is None else str(record.seq)
    return (record.at_utc[:19], record.who, record.address, record.action, record.target, record.detail, seq)
