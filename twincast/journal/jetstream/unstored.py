"""What was folded, and is not in the copy yet."""

from collections.abc import Sequence

from twincast.journal.jetstream.copy_file import Step

STORE_ENTRIES = 20_000
"""At most about so many entries are stored in one transaction of the copy."""


class Unstored:
    """A queue of steps, with its size."""

    def __init__(self) -> None:
        self._steps: list[tuple[Step, int]] = []
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: Step, size_bytes: int) -> None:
        """Add a step at the end."""
        self._steps.append((step, size_bytes))
        self.size_bytes += size_bytes

    def first(self, entries_max: int = STORE_ENTRIES) -> Sequence[Step]:
        """Return the oldest steps, up to the one that makes it so many entries."""
        found: list[Step] = []
        entries = 0
        for step, _ in self._steps:
            found.append(step)
            entries += step.entries
            if entries >= entries_max:
                break
        return found

    def stored(self, count: int) -> None:
        """Forget the oldest steps."""
        self.size_bytes -= sum(size_bytes for _, size_bytes in self._steps[:count])
        del self._steps[:count]
