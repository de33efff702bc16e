"""The table of sorted runs: which values it has itself, and that the others are found."""

from pathlib import Path

import pytest
from msgspec import Raw

from tests.journal.sqlite.history.logs import EPOCH, OpenLog
from twincast.core.model import Control, DataUpdate, Entry
from twincast.history.times import text_of
from twincast.journal.sqlite.history import slices
from twincast.journal.sqlite.history.run_table import value_of
from twincast.journal.sqlite.history.slices import Slices

SHORT, LONG = [b"7", b"null", b'"%b"' % (b"x" * 62)], [b'"%b"' % (b"x" * 63), '"{}"'.format("ü" * 32).encode()]


def test_it_has_short_values_and_the_log_has_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "BLOCK_ENTRIES", 3)
    log, values = OpenLog(tmp_path), [*SHORT, *LONG]
    entries: list[Entry] = [
        DataUpdate("a", Raw(value), text_of(seq), "rest", seq, EPOCH) for seq, value in enumerate(values, 1)
    ]
    log.write([*entries, Control("a", "go", Raw(b"{}"), text_of(6), "rest", 6, EPOCH)])
    made = Slices(log.path)
    while made.go_on(0, 6):
        pass
    own = [value for (value,) in made.db.execute("select value from open.run order by seq")]
    assert own == [*(value.decode() for value in SHORT), None, None, "{}"]
    found = made.db.execute(f"select {value_of('run')}, run.bytes from open.run run order by seq").fetchall()
    assert found == [(value.decode(), len(value)) for value in [*values, b"{}"]]
    made.close()
