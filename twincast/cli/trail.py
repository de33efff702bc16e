"""`twincast audit`: who did what, from a journal or a server."""

from collections.abc import Sequence

from rich.table import Table

from twincast.cli.terminal import out, print_whole
from twincast.core.audit import AuditRecord
from twincast.wire.messages import encode

WIDE = 100
"""From so many columns on a terminal shows an audit record as a row of its parts; below that they share one."""


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


def _row(record: AuditRecord) -> tuple[str, ...]:
    seq = "" if record.seq is None else str(record.seq)
    return (record.at_utc[:19], record.who, record.address, record.action, record.target, record.detail, seq)
