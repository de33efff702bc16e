"""One client's conversation, and what may happen to it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fuzz.oracles import REFUSAL_MAX_CHARS, as_utf8, hold, read_object
from tests.fakes import AnyonesVisit, CommittingStream, RecordingConnection
from twincast.core.rights import Principal, Rights
from twincast.delivery.session import Session
from twincast.errors import JournalUnavailable, TwincastError, Unauthenticated, UnsupportedMedia

OUTBOX_MAX_BYTES = 4_096


class LoginVisit(AnyonesVisit):
    """The visit of somebody who has still to say who he is, and may then do little."""

    def __init__(self, end: Callable[[TwincastError], None]) -> None:
        super().__init__(end)
        self.principal = None

    def present(self, text: str) -> Principal:
        """See Lease."""
        if text != "good":
            raise Unauthenticated("the credential is not known here")
        rights = Rights(publish=frozenset({"lamp"}), read=frozenset({"l*", "lab/fan"}), command=frozenset({"lab/*"}))
        self.principal = Principal("key:1", rights)
        return self.principal


class Talk:
    """One client's conversation, beside a watcher who says nothing.

    A line of one byte is an event: 1 a commit, 2 and 3 the buffer is full or drained, 4 the journal refuses,
    5 time passes, 6 a binary frame, 7 another client's reading.
    """

    def __init__(self, has_to_log_in: bool) -> None:
        self.stream = CommittingStream()
        self.connection, self.other = RecordingConnection(), RecordingConnection()
        Session(self.other, self.stream, AnyonesVisit, outbox_max_bytes=1 << 30).begin()
        enter = LoginVisit if has_to_log_in else AnyonesVisit
        self.session = Session(self.connection, self.stream, enter, outbox_max_bytes=OUTBOX_MAX_BYTES)
        self._may_hear_bytes = 4_096
        self._events: dict[bytes, Callable[[], None]] = {
            b"\x01": self._commit,
            b"\x02": self.session.pause,
            b"\x03": self.session.resume,
            b"\x04": partial(self.stream.refuse, JournalUnavailable("the disk is full")),
            b"\x05": self._wait,
            b"\x06": partial(self.session.refuse, UnsupportedMedia("messages are JSON text")),
            b"\x07": partial(self.stream.change, "lab/fan", b'{"rpm":900}'),
        }

    def goes_on(self, line: bytes) -> None:
        """Let an event happen, or the client say something."""
        event = self._events.get(line)
        if event is None:
            self.session.receive(as_utf8(line))
        else:
            event()

    def hears(self, said_bytes: int) -> list[Any]:
        """Return what came back. It may be all that was kept for it and was ever said, and an answer each."""
        taken = self.connection.taken()
        self._may_hear_bytes += 4 * said_bytes + 3_000
        hold(sum(map(len, taken)) <= self._may_hear_bytes, "an answer stays in proportion", self._may_hear_bytes)
        heard = [read_object(text) for text in (*taken, *self.other.taken())]
        hold(len(self.connection.closed_with) <= 1, "a conversation ends once", self.connection.closed_with)
        for _, reason in self.connection.closed_with:
            hold(len(reason) < 2 * REFUSAL_MAX_CHARS, "a reason is short", reason)
        hold(self.session.closed or not self.connection.closed_with, "who was sent away is gone")
        return heard[: len(taken)]

    def ends(self) -> None:
        """See that everybody is served to the end."""
        self.session.resume()
        self._commit()
        self._wait()
        self.hears(0)
        if not self.session.closed and not self.session.is_unauthenticated:
            self.session.receive(b'{"type":"ping"}')
            self._wait()
            types = [message["type"] for message in self.hears(0)]
            hold("pong" in types, "a client that takes everything is answered", types)
        self.session.end()
        self.stream.change("lab/fan", b"1")
        hold(not self.connection.taken() and self.other.taken() != [], "who is left is served, who is gone is not")

    def _commit(self) -> None:
        if self.stream.submitted:
            self.stream.commit()

    def _wait(self) -> None:
        self.stream.read_on()
        self.stream.pass_time(1_000.0)
