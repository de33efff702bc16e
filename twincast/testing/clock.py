"""A clock that the test moves."""

from datetime import UTC, datetime, timedelta


class Clock:
    """A server's source of timestamps. It stands still until `advance`."""

    def __init__(self, start: str = "2026-01-01T00:00:00+00:00") -> None:
        """Begin at a time, ISO 8601 with offset."""
        self._now = datetime.fromisoformat(start).astimezone(UTC)

    def __call__(self) -> str:
        """Return the time as every wire writes it."""
        return self._now.isoformat(timespec="microseconds")

    def advance(self, seconds: float) -> None:
        """Move forward.

        Raises:
            ValueError: time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"time goes forward; {seconds} s would be back")
        self._now += timedelta(seconds=seconds)
