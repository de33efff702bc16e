"""What comes in by NATS: readings and commands, in the order in which NATS brings them, as one API key."""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from twincast.access.admission import Admission
from twincast.core.audit import Actor
from twincast.core.counters import refusals
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, digest_of, key_of_update
from twincast.core.model import Entry, Position, Source
from twincast.core.names import check_id
from twincast.core.rights import Principal
from twincast.errors import JournalUnavailable, RateLimited, TwincastError
from twincast.hub.hub import Hub
from twincast.transports.nats import Counters, Message
from twincast.transports.nats.outlet import Outlet, line
from twincast.wire.assembler import too_large
from twincast.wire.checks import check_value_sizes
from twincast.wire.messages import encode_receipt
from twincast.wire.problem import encode_problem
from twincast.wire.requests import decode_command_to, decode_value_of
from twincast.wire.subjects import name_of

ADDRESS = "nats"
"""In the audit trail, where others have the address that they come from."""
SOURCE: Source = "nats"
KEY_HEADER = "Nats-Msg-Id"
MEASURED_HEADER = "Measured-At-Utc"
"""When a reading was measured: its payload is the value and nothing else."""
INBOX = "_INBOX"
"""How the subjects begin that are answered on. A publisher chooses the subject, and this server has rights of its own
there: it would tell JetStream to purge a stream on whose API it is to answer."""
WAITING_MAX_BYTES = 8 << 20
"""What may wait while the open batch is full; NATS cannot be told to wait, so what comes above that is refused."""
MESSAGE_BYTES = 512
"""What a message that waits takes beside its text."""

Draft = Callable[[str, bytes, Source], Entry]


class _Waiting(NamedTuple):
    entry: Entry
    size_bytes: int
    key: str
    reply: str
    principal: Principal


class Incoming:
    """Checks, submits and answers what comes. Nothing waits here but in bounded queues, so NATS brings on."""

    def __init__(self, hub: Hub, admission: Admission, outlet: Outlet, key_name: str, counters: Counters) -> None:
        """Take what comes from now on.

        Args:
            hub: where it is submitted.
            admission: knows the key.
            outlet: sends the answers.
            key_name: as which API key all of it acts.
            counters: where it is counted.
        """
        self._hub = hub
        self._admission = admission
        self._outlet = outlet
        self._key_name = key_name
        self._counters = counters
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._answers: list[bytes] = []

    async def take_reading(self, prefix: str, message: Message) -> None:
        """Take a message whose subject is a prefix, a `.` and a device's, and whose payload is a value."""
        measured = "" if message.headers is None else message.headers.get(MEASURED_HEADER, "")
        self._take(message, prefix, partial(decode_value_of, measured=measured))

    async def take_command(self, prefix: str, message: Message) -> None:
        """Take a message whose subject is a prefix, a `.` and a target's, and whose payload is a command."""
        self._take(message, prefix, decode_command_to)

    def _take(self, message: Message, prefix: str, draft: Draft) -> None:
        reply = message.reply
        if reply and not reply.startswith(INBOX):
            self._counters.tell_nobody(1, f"an answer is asked for on {reply[:128]!r}, which begins with no {INBOX}")
            return
        try:
            taken = self._checked(message, prefix, draft)
            if self._waiting or not self._hub.intake.has_room:
                self._wait(taken)
            else:
                self._submit(taken)
        except TwincastError as error:
            self._refuse(reply, error)

    def _checked(self, message: Message, prefix: str, draft: Draft) -> _Waiting:
        principal = self._admission.authenticator.of_key(self._key_name)
        payload, sizes = message.data, self._hub.sizes
        if len(payload) > sizes.message_max_bytes:
            raise too_large(sizes.message_max_bytes)
        entry = draft(name_of(message.subject[len(prefix) + 1 :], "the subject"), payload, SOURCE)
        check_value_sizes((entry,), sizes.value_max_bytes)
        key = "" if message.headers is None else message.headers.get(KEY_HEADER, "")
        if key:
            check_id(key, f"`{KEY_HEADER}`")
        principal.require(entry.right, entry.subject)
        self._admission.limits.spend(principal, 1)
        return _Waiting(entry, len(payload), key, message.reply, principal)

    def _submit(self, taken: _Waiting) -> None:
        entry, size_bytes, text, reply, principal = taken
        idempotency_key = None
        if text:
            key = key_of_update(entry, text, principal.identity)
            idempotency_key = IdempotencyKey(key, digest_of((entry,)), partial(self._on_replayed, reply))
        actor = None if entry.audited_as is None else Actor(principal.id, ADDRESS)
        done = partial(self._on_stored, reply)
        self._hub.submit(entry, size_bytes, done, idempotency_key, actor, identity=principal.identity)

    def _wait(self, taken: _Waiting) -> None:
        size_bytes = taken.size_bytes + MESSAGE_BYTES
        if self._waiting_bytes + size_bytes > WAITING_MAX_BYTES:
            raise RateLimited("more comes by NATS than is stored in the time")
        self._waiting_bytes += size_bytes
        self._waiting.append(taken)
        if len(self._waiting) == 1:
            self._hub.intake.when_settled(self._go_on)

    def _go_on(self) -> None:
        """Submit what waits, oldest first, as far as there is room. The key may have been revoked meanwhile."""
        while self._waiting and self._hub.intake.has_room:
            taken = self._waiting.popleft()
            self._waiting_bytes -= taken.size_bytes + MESSAGE_BYTES
            try:
                self._admission.recheck(taken.principal)
                self._submit(taken)
            except TwincastError as error:
                self._refuse(taken.reply, error)
        if self._waiting:
            self._hub.intake.when_settled(self._go_on)

    def _on_stored(self, reply: str, error: TwincastError | None, last_seq: int) -> None:
        if error is not None:
            self._refuse(reply, error)
            return
        self._counters.taken += 1
        self._receipt(reply, last_seq)

    def _on_replayed(self, reply: str, record: IdempotencyRecord) -> None:
        self._receipt(reply, record.last_seq, replayed=True)

    def _receipt(self, reply: str, seq: int, *, replayed: bool = False) -> None:
        if reply:
            self._answer(reply, encode_receipt(Position(self._hub.state.epoch, seq), replayed=replayed))

    def _refuse(self, reply: str, error: TwincastError) -> None:
        refusals[error.code] += 1
        if reply:
            self._answer(reply, encode_problem(error))
        else:
            self._counters.tell_nobody(1, error.message)

    def _answer(self, reply: str, payload: bytes) -> None:
        """Send an answer with the others of this turn of the loop: those of one commit come together."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._send_answers)
        self._answers.append(line(reply, payload))

    def _send_answers(self) -> None:
        answers, self._answers = self._answers, []
        try:
            if self._outlet.is_full:
                raise JournalUnavailable("NATS takes no more for now")
            self._outlet.send(b"".join(answers))
        except JournalUnavailable as error:
            self._counters.tell_nobody(len(answers), error.message)
