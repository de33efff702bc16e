"""`twincast audit`: who did what, from a journal or a server."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from twincast import client, extras
from twincast.cli.options import Fingerprint, Journal, commands, journal_url, server_url
from twincast.cli.terminal import err, out
from twincast.core.audit import AuditRecord
from twincast.later import later
from twincast.wire.messages import encode

if TYPE_CHECKING:
    from rich import table as rich_table

    from twincast.cli import tables
    from twincast.cluster import key_store  # a device opens no journal
else:
    rich_table, tables = later("rich.table"), later("twincast.cli.tables")
    key_store = later("twincast.cluster.key_store")

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
        with client.Rest(server_url(url, fingerprint)) as rest:
            show(rest.audit(limit), as_json=as_json)
    else:
        show(_records_of(journal_url(journal), limit), as_json=as_json)


def show(records: Sequence[AuditRecord], *, as_json: bool) -> None:
    """Print records, which come newest first, with the newest last, as a log is read."""
    if as_json:
        for record in reversed(records):
            out.print(encode(record).decode())
        return
    if out.is_terminal and out.console.width < WIDE:
        table = rich_table.Table("when (UTC)", "what", box=None, header_style="bold")
        for record in reversed(records):
            when, who, address, action, target, detail, seq, server = _row(record)
            by = ", ".join(filter(None, (address, server and f"by {server}", seq)))
            words = (who, action, target, detail, f"({by})")
            table.add_row(when, " ".join(filter(None, words)))
    else:
        servers = ["server"] if any(record.server for record in records) else []
        names = ["when (UTC)", "who", "from", "did", "to", "", "seq", *servers]
        table = rich_table.Table(*names, box=None, header_style="bold")
        for record in reversed(records):
            table.add_row(*_row(record)[: len(names)])
    when_column, *others = table.columns
    when_column.no_wrap = True
    tables.print_whole(table, others)


def _records_of(journal: str, limit: int) -> list[AuditRecord]:
    store = key_store.KeyStore(journal)
    records, has_commands = store.audit(limit)
    if not has_commands:
        copy = f"sqlite:{store.copy}" if store.copy else "sqlite:COPY"
        err.print(
            "These are the changes of the keys, as the log has them. Commands and deletions are asked of a server"
            f" (`twincast audit --url URL`) or of a server's copy (`--journal {copy}`)."
        )
    return records


def _row(record: AuditRecord) -> tuple[str, ...]:
    seq = "" if record.seq is None else str(record.seq)
    return (
        *(record.at_utc[:19], record.who, record.address, record.action, record.target, record.detail, seq),
        record.server,
    )
