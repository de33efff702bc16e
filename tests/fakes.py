"""Stand-ins for what surrounds the core, named for what they do."""

from collections.abc import Callable

from msgspec import Raw

from twincast.core import protocol
from twincast.core.cast import Cast
from twincast.core.model import DataUpdate, Entry, Snapshot, Source
from twincast.core.session import Done
from twincast.core.state import State
from twincast.errors import TwincastError

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"


class RecordingConnection:
    """An edge's connection that always takes bytes, and remembers what it was given."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.closed_with: list[tuple[int, str]] = []

    def write(self, cast: Cast) -> None:
        self.messages.extend(cast.messages)

    def close(self, code: int, reason: str) -> None:
        self.closed_with.append((code, reason))

    def taken(self) -> list[bytes]:
        """Return what was written since the last call."""
        messages, self.messages = self.messages, []
        return messages


class StallingConnection(RecordingConnection):
    """A connection whose buffer is full after every `writes_until_full` writes: it then pauses the session."""

    def __init__(self, writes_until_full: int) -> None:
        super().__init__()
        self.pause: Callable[[], None] = lambda: None
        self.writes = 0
        self._writes_until_full = writes_until_full

    def write(self, cast: Cast) -> None:
        super().write(cast)
        self.writes += 1
        if self.writes % self._writes_until_full == 0:
            self.pause()


class CommittingStream:
    """A hub without a journal: what is submitted waits until `commit` makes it the state and casts it."""

    def __init__(self) -> None:
        self.state = State(Snapshot("epoch-1", 0, {}))
        self.watchers: list[Callable[[Cast], None]] = []
        self.submitted: list[tuple[Entry, int, Done]] = []

    def submit(self, entry: Entry, size_bytes: int, done: Done) -> None:
        self.submitted.append((entry, size_bytes, done))

    def snapshot_json(self) -> bytes:
        return protocol.encode(self.state.twins)

    def now_utc(self) -> str:
        return NOW_UTC

    def commit(self) -> None:
        """Commit what was submitted as one batch: state, watchers, senders, in this order."""
        batch, self.submitted = self.submitted, []
        self.cast(*(entry for entry, _, _ in batch))
        first_seq = self.state.seq - len(batch) + 1
        for seq, (_, _, done) in enumerate(batch, first_seq):
            done(None, seq)

    def refuse(self, error: TwincastError) -> None:
        """Answer everything that was submitted with an error."""
        batch, self.submitted = self.submitted, []
        for _, _, done in batch:
            done(error, 0)

    def cast(self, *entries: Entry) -> None:
        """Apply entries and offer them, as one commit."""
        for entry in entries:
            entry.seq = self.state.seq + 1
            entry.timestamp_utc = NOW_UTC
            self.state.apply(entry)
        cast = Cast([protocol.encode(entry) for entry in entries], entries)
        for offer in self.watchers:
            offer(cast)

    def change(self, device_id: str, value: bytes, source: Source = "rest") -> None:
        """Commit one reading."""
        self.cast(DataUpdate(device_id, Raw(value), "", source))
