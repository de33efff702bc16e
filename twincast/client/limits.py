"""How large what a server stores may be, as its greeting says."""

from typing import NamedTuple

from twincast.errors import TooLarge


class Limits(NamedTuple):
    """The limits of one server; None where it names none."""

    message_max_bytes: int | None = None
    value_max_bytes: int | None = None

    def refusal(self, message_bytes: int, value_bytes: int) -> TooLarge | None:
        """Return the error for an update that is beyond one of them; None if it is within both."""
        if self.value_max_bytes is not None and value_bytes > self.value_max_bytes:
            return TooLarge(
                f"a value may have at most {self.value_max_bytes} bytes on this server; this one has {value_bytes}"
            )
        if self.message_max_bytes is not None and message_bytes > self.message_max_bytes:
            return TooLarge(
                f"a message may have at most {self.message_max_bytes} bytes on this server;"
                f" this one has {message_bytes}"
            )
        return None
