"""Tickets over NATS: a server asks the one that issued a ticket, and tells it where the ticket's stream is.

Questions go to `twincast.NAME.ticket.ID` of the issuer. They hold digests of the ticket and of its query, never the
ticket; the answer is whom it lets in, or the refusal.
"""

import asyncio
import logging
from collections import deque
from typing import Literal

import msgspec
from msgspec import Struct

from twincast.access.tickets import Asked, Granted, Tickets
from twincast.cluster.peers import Peers, subscribed
from twincast.core.rights import Principal, Rate, Rights
from twincast.errors import JournalUnavailable, Unauthenticated, ValidationFailed
from twincast.journal.jetstream.link import Link, Message

logger = logging.getLogger("twincast.cluster")

ASK_S = 1.0
WORDS_MAX = 10_000
"""How many words for other servers may wait; above it the oldest are dropped. A stream that one was about is then ended
later, or does not come back on another server."""


class Question(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one server asks of another, or tells it."""

    does: Literal["redeem", "began", "ended", "end"]
    by: str
    """The id of the server that asks."""
    key: str
    query: str = ""
    is_stream: bool = False
    resumes: bool = False


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whom a ticket lets in, or why nobody."""

    refusal: str = ""
    id: str = ""
    rights: dict[str, list[str]] = {}
    expires_s: float | None = None
    rate: tuple[float, float] | None = None
    owner: str = ""


_encode = msgspec.json.Encoder().encode
_question = msgspec.json.Decoder(Question).decode
_answer = msgspec.json.Decoder(Answer).decode


class SharedTickets:
    """The tickets of this server and of the others; see Elsewhere in access/tickets. `run` drives it."""

    def __init__(self, link: Link, log_name: str, tickets: Tickets, peers: Peers) -> None:
        """Make it; `run` starts it."""
        self._link = link
        self._subject = f"twincast.{log_name}.ticket"
        self._tickets = tickets
        self._peers = peers
        self._own_id = peers.own_id
        self._words: deque[tuple[str, Question]] = deque(maxlen=WORDS_MAX)
        self._has_words = asyncio.Event()

    async def run(self) -> None:
        """Answer the others, and tell them what they should know, until cancelled."""
        async with subscribed(self._link, f"{self._subject}.{self._own_id}", self._take):
            self._tickets.join(self._own_id, self)
            self._peers.on_gone.append(self._tickets.server_ended)
            try:
                while True:
                    await self._has_words.wait()
                    self._has_words.clear()
                    await self._say_all()
            finally:
                self._peers.on_gone.remove(self._tickets.server_ended)

    async def redeem(self, home: str, asked: Asked) -> Granted | None:
        """See Elsewhere."""
        if not self._link.is_connected:
            raise JournalUnavailable("NATS cannot be reached, so the server that issued this ticket cannot be asked")
        if not self._peers.live.has(home, self._peers.now_s):
            return None
        question = Question(does="redeem", by=self._own_id, **asked._asdict())
        try:
            answer = _answer(await self._link.request(f"{self._subject}.{home}", _encode(question), ASK_S))
        except JournalUnavailable:
            if self._peers.live.has(home, self._peers.now_s):
                raise
            return None
        except msgspec.DecodeError as error:
            raise JournalUnavailable(f"server {home} answers about a ticket in a way that is not known here") from error
        if answer.refusal:
            raise Unauthenticated(answer.refusal)
        try:
            rights = Rights.of(answer.rights)
        except ValidationFailed as error:
            raise JournalUnavailable(f"server {home} knows rights that are not known here: {error}") from error
        rate = None if answer.rate is None else Rate(*answer.rate)
        return Granted(Principal(answer.id, rights, answer.expires_s, rate), answer.owner)

    def tell_began(self, home: str, key: str) -> None:
        """See Elsewhere."""
        self._say(home, Question(does="began", by=self._own_id, key=key))

    def tell_ended(self, home: str, key: str) -> None:
        """See Elsewhere."""
        self._say(home, Question(does="ended", by=self._own_id, key=key))

    def _say(self, server_id: str, word: Question) -> None:
        self._words.append((server_id, word))
        self._has_words.set()

    async def _say_all(self) -> None:
        while self._words:
            server_id, word = self._words.popleft()
            try:
                await self._link.publish(f"{self._subject}.{server_id}", _encode(word))
            except JournalUnavailable as error:
                logger.info("server %s is not told where a stream is: %s", server_id, error)

    async def _take(self, message: Message) -> None:
        try:
            question = _question(message.data)
        except msgspec.DecodeError:
            logger.warning("what came on %s is no question of a twincast server", message.subject)
            return
        key, by = question.key, question.by
        match question.does:
            case "redeem":
                answer = self._redeemed(Asked(key, question.query, question.is_stream, question.resumes))
                try:
                    await self._link.publish(message.reply, _encode(answer))
                except JournalUnavailable as error:
                    logger.info("server %s is not answered: %s", by, error)
            case "began":
                self._tickets.began_elsewhere(key, by, lambda: self._say(by, self._end(key)))
            case "ended":
                self._tickets.ended_elsewhere(key, by)
            case "end":
                self._tickets.end_stream(key)

    def _end(self, key: str) -> Question:
        return Question(does="end", by=self._own_id, key=key)

    def _redeemed(self, asked: Asked) -> Answer:
        try:
            principal, owner = self._tickets.redeem_here(asked)
        except Unauthenticated as error:
            return Answer(refusal=error.message)
        rights, rate = principal.rights.described(), principal.rate
        return Answer(id=principal.id, rights=rights, expires_s=principal.expires_s, rate=rate, owner=owner)
