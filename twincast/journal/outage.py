"""When a journal takes nothing: why, and the two lines in the server's log, where that begins and where it ends."""

import logging

from twincast.errors import JournalUnavailable

logger = logging.getLogger("twincast.journal")


class Outage:
    """What a journal knows of its own failing. It begins and ends any number of times."""

    __slots__ = ("problem",)

    def __init__(self) -> None:
        self.problem: JournalUnavailable | None = None
        """See Journal.problem."""

    def begin(self, problem: JournalUnavailable) -> None:
        """Note why nothing is taken; while that lasts, the newest reason counts."""
        if self.problem is None:
            logger.error("nothing is stored or cast until the journal works again: %s", problem)
        self.problem = problem

    def end(self) -> None:
        """Note that entries are taken, perhaps again."""
        if self.problem is not None:
            logger.warning("the journal works again")
            self.problem = None
