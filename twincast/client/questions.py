"""Questions to the server on one connection: each has an id, and is answered or ends with the connection."""

import itertools
from collections import deque
from collections.abc import Callable

from twincast.client.message import Message, encode
from twincast.errors import ServerUnreachable, TwincastError

OnAnswer = Callable[[TwincastError | None], None]
"""Called with None for an acknowledgement; with the refusal; or with ServerUnreachable if the connection ended."""


class Questions:
    """Unlike updates they are not kept for another connection."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._unsent: deque[str] = deque()
        self._unanswered: dict[str, OnAnswer] = {}

    @property
    def has_unsent(self) -> bool:
        """Whether one is still to be sent."""
        return bool(self._unsent)

    @property
    def has_unanswered(self) -> bool:
        """Whether one has no answer yet."""
        return bool(self._unanswered)

    def add(self, message: Message, on_answer: OnAnswer) -> None:
        """Queue a question."""
        message_id = f"ask-{next(self._ids)}"
        self._unanswered[message_id] = on_answer
        self._unsent.append(encode({**message, "id": message_id}).decode())

    def take_unsent(self) -> str:
        """Return the next one, to be sent."""
        return self._unsent.popleft()

    def answer(self, message_id: str, error: TwincastError | None) -> None:
        """Pass on an answer; one to an id of another connection is ignored."""
        if (on_answer := self._unanswered.pop(message_id, None)) is not None:
            on_answer(error)

    def end(self) -> None:
        """Fail all of them: the connection ended."""
        self._unsent.clear()
        unanswered, self._unanswered = self._unanswered, {}
        for on_answer in unanswered.values():
            on_answer(ServerUnreachable("the connection was lost"))
