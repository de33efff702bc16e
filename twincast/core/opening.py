"""How far a server is that opens its log: what opens it writes this, and what is asked meanwhile says it."""

from dataclasses import dataclass


@dataclass(slots=True)
class Opening:
    """One opening of a log, under way. A log in a file is open at once; one that many servers share is caught up."""

    at_seq: int = 0
    """The newest entry that is here."""
    of_seq: int = 0
    """The newest entry that there was when the opening began; 0 while that is not known."""
    problem: str | None = None
    """Why it does not get on at the moment, in a sentence."""

    @property
    def so_far(self) -> str:
        """How far it is, as the end of a sentence about the server."""
        if not self.of_seq:
            return "its log is being opened"
        return f"it has read {self.at_seq:,} of {self.of_seq:,} entries of its log"

    def __str__(self) -> str:
        """Say how far it is, and what is in its way: for those who run the server, since a problem names addresses."""
        return self.so_far if self.problem is None else f"{self.so_far}; {self.problem}"
