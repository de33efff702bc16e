"""The pause after the server could not store an update, and the restart behind it."""

import asyncio
from collections.abc import Callable

from twincast.client.backoff import Backoff
from twincast.client.message import Message
from twincast.client.questions import OnAnswer
from twincast.errors import TwincastError

HOLD_MIN_S = 0.1
"""The shortest pause, so that a server that cannot store anything at the moment is left alone."""


class Hold:
    """Three states of one connection's updates: *sending*, *waiting*, *restarting*.

    - sending -> waiting, by `begin`: the server refused an update for now. It refuses everything behind that too, so
      that nothing overtakes it.
    - waiting -> restarting, after a back-off: the server is asked to store again. A server that keeps no order is not
      asked, and sending resumes at once.
    - restarting -> sending: the acknowledgement comes behind all refusals, so nothing that is sent now can be mistaken
      for what was refused. A refusal of the restart leads back to waiting.
    - any -> sending, by `end`: the connection is over.
    """

    def __init__(self, ask: Callable[[Message, OnAnswer], None], resume: Callable[[], None]) -> None:
        """Begin in the state *sending*.

        Args:
            ask: sends a question on the connection.
            resume: sends everything that is not acknowledged again.
        """
        self._ask = ask
        self._resume = resume
        self._backoff = Backoff()
        self._timer: asyncio.TimerHandle | None = None
        self.is_on = False
        self.is_ordered = False
        """Whether the server, once it has refused an update for now, refuses all until it is asked to restart."""

    def begin(self) -> None:
        """Pause."""
        if not self.is_on:
            self.is_on = True
            pause_s = self._backoff.wait_s() + HOLD_MIN_S
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._restart)

    def end(self) -> None:
        """End the pause, because the connection is over."""
        self.is_on = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def note_success(self) -> None:
        """Note that the server stored an update: the next pause is short again."""
        if not self.is_on:
            self._backoff.reset()

    def _restart(self) -> None:
        if self.is_ordered:
            self._ask({"type": "restart"}, self._restarted)
        else:
            self._restarted(None)

    def _restarted(self, error: TwincastError | None) -> None:
        if not self.is_on:  # the connection was lost meanwhile
            return
        self.end()
        if error is None:
            self._resume()
        else:
            self.begin()
