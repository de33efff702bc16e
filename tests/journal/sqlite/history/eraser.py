"""A process that erases until it is killed: `python -m tests.journal.sqlite.history.eraser JOURNAL`.

It prints the position of the deletion once that is durable.
"""

import asyncio
import sys
from pathlib import Path

from tests.journal.sqlite.history import test_erasing as erasing
from twincast.journal.sqlite import erasures
from twincast.journal.sqlite.history import apart


async def erase(path: Path) -> None:
    """Fill a journal, delete a history, and go on for as long as this lives."""
    async with erasing.opened(path) as (journal, _):
        await erasing.fill(journal, 1, 300)
        print(await erasing.erase(journal), flush=True)
        await asyncio.sleep(60)


if __name__ == "__main__":
    apart.made_apart = apart.made_here
    erasures.SLICE_ENTRIES, erasures.ZEROS_PAGES = 7, 3
    asyncio.run(erase(Path(sys.argv[1])))
