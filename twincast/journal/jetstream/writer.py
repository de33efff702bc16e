"""Sends commits to a stream, one at a time, until each comes back: its outcome is found out, never guessed.

A commit is out, and then folded, refused, or given up. Each attempt has the same number, so that at most one counts.
One that is given up may still be stored, but only before its writer's next one: behind that it is a copy of an old
number.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex

import msgspec

from twincast.core.batch import Batch
from twincast.core.counters import SECONDS, Histogram
from twincast.core.model import Entry
from twincast.errors import JournalUnavailable, TooLarge
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.commit import Commit, commit_of, encode_commit
from twincast.journal.jetstream.fold import Folded
from twincast.journal.jetstream.link import ApiError, Link, Message
from twincast.journal.outage import Outage

RETRY_S = 0.5
"""After so long without its own message a commit is sent again, under the same number."""
GIVE_UP_S = 15.0
"""After so long its senders are told that its outcome is not known."""
PROBE_S = 0.5
HEADER_BYTES = 128
"""At most so much the header of a commit takes: NATS counts it, and ends the connection that sends too much."""
MAY_BE_STORED = "it may be stored: send it again with the same key"
NO_ROOM = frozenset({10023, 10047, 10077})
"""JetStream's numbers: no resources, no storage, a limit of the stream."""


class WriteFailed(JournalUnavailable):
    """A commit was refused or given up: why, and what that says of its outcome."""

    def __init__(self, reason: str, outcome: str = "nothing was stored") -> None:
        self.why = reason
        super().__init__(f"{reason}; {outcome}")


@dataclass(eq=False)
class Own:
    """A commit of this writer that has not come back yet."""

    commit: Commit
    entries: list[Entry]
    folded: asyncio.Future[Folded]
    attempts: int = 0
    """How often it was sent."""

    def settle(self, folded: Folded) -> None:
        """Take what came of it."""
        if self.folded.done():
            return
        if folded.writer is None:  # a later number was folded first: this one can never count
            self.folded.set_exception(WriteFailed("this server has given it up"))
        else:
            self.folded.set_result(folded)


class CommitWriter:
    """The writer of one server's run. Lives on one event loop."""

    def __init__(self, link: Link, address: NatsAddress) -> None:
        self._link, self._address = link, address
        self.by = token_hex(8)
        """Its name in each commit."""
        self.name = address.server_name or self.by[:8]
        """What people call this server."""
        self._n = 0
        self._own: dict[str, Own] = {}
        self._receipts = link.new_inbox()
        self._outage = Outage()
        self._probing: asyncio.Task[None] | None = None
        self.commit_s = Histogram(SECONDS)
        """How long commits took from the first attempt until they came back."""

    @property
    def problem(self) -> JournalUnavailable | None:
        """Why nothing is taken at the moment."""
        return self._outage.problem

    def own(self, message_id: str | None) -> Own | None:
        """Return the commit that waits for a message; None if none does."""
        return None if message_id is None else self._own.get(message_id)

    async def start(self) -> None:
        """Listen to what the stream says of commits. Raises JournalUnavailable."""
        await self._link.subscribe(f"{self._receipts}.*", self._receipt)

    async def write(self, batch: Batch, after: int, version: int) -> Folded:
        """Send a batch until it comes back, or it is too late for it.

        Args:
            batch: it.
            after: how far this server is, in entries.
            version: of the rules that the log has come to.

        Raises:
            TooLarge: NATS takes no message of this size.
            JournalUnavailable: the message says whether nothing was stored, or that this is not known.
        """
        if self._outage.problem is not None:
            raise WriteFailed(self._outage.problem.message)
        self._n += 1
        commit = commit_of(batch, self.by, self._n, server=self.name, after=after, version=version)
        payload = encode_commit(commit)
        if len(payload) + HEADER_BYTES > self._link.max_payload_bytes:
            raise TooLarge(
                f"NATS takes messages of up to {self._link.max_payload_bytes} bytes, by its max_payload; this is stored"
                f" as one of {len(payload)}"
            )
        message_id = f"{self.by}:{self._n}"
        own = self._own[message_id] = Own(commit, batch.entries, asyncio.get_running_loop().create_future())
        began_s = time.perf_counter()
        try:
            folded = await self._send(message_id, payload, own)
        except WriteFailed as failure:
            self._outage.begin(JournalUnavailable(failure.why))
            self._probe()
            raise
        finally:
            del self._own[message_id]
        self.commit_s.add(time.perf_counter() - began_s)
        return folded

    def fail(self, error: WriteFailed) -> None:
        """End whatever waits: nothing comes back any more."""
        for own in self._own.values():
            if not own.folded.done():
                own.folded.set_exception(error)

    async def close(self) -> None:
        """Send nothing any more."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _send(self, message_id: str, payload: bytes, own: Own) -> Folded:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + GIVE_UP_S
        headers = {"Nats-Msg-Id": message_id}
        receipt = f"{self._receipts}.{self._n}"
        while (left_s := until_s - loop.time()) > 0:
            if self._link.is_connected:
                # What is said of a second attempt tells nothing of the first one.
                reply = "" if own.attempts else receipt
                own.attempts += 1
                with suppress(JournalUnavailable):  # the connection comes back, or the time runs out
                    await self._link.publish(self._address.log_subject, payload, headers=headers, reply=reply)
            done, _ = await asyncio.wait({own.folded}, timeout=min(RETRY_S, left_s))
            if done:
                return own.folded.result()
        if own.attempts:
            raise WriteFailed("NATS has not answered in time", MAY_BE_STORED)
        raise WriteFailed("NATS cannot be reached")

    async def _receipt(self, message: Message) -> None:
        """Take what the stream says of a first attempt: only a refusal tells something new."""
        if b'"error"' not in message.data:
            return
        error = ApiError("the commit", msgspec.json.decode(message.data)["error"])
        own = self._own.get(f"{self.by}:{message.subject.rpartition('.')[2]}")
        if own is not None and not own.folded.done() and error.number in NO_ROOM:
            why = f"NATS has no room for the log: {error.description}"
            # There may have been room for the second one.
            own.folded.set_exception(WriteFailed(why) if own.attempts == 1 else WriteFailed(why, MAY_BE_STORED))

    def _probe(self) -> None:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._until_it_works(), name="log probe")

    async def _until_it_works(self) -> None:
        """Send commits of nothing until the stream takes one: an idle server would never see that it works again."""
        while True:
            await asyncio.sleep(PROBE_S)
            self._n += 1
            commit = Commit(self.by, self._n, self.name)
            try:
                await self._link.store(self._address.log_subject, encode_commit(commit))
            except JournalUnavailable:
                continue
            self._outage.end()
            return
