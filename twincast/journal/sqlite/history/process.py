"""The process that makes one partition: `python -m twincast.journal.sqlite.history.process`, with a job on its input.

So neither the interpreter's lock nor a long statement holds up the server. It runs at normal priority, for a process
that is nice may keep a read of the journal open for seconds; it rests instead. `apart` starts it, and nobody else.
"""

import os
import sys
import threading
from contextlib import suppress

import msgspec

from twincast.journal.sqlite.history.closer import Work, close_in_words
from twincast.journal.sqlite.history.files import remove_unfinished


def main() -> None:
    """Do the job that comes as a line; end when the input does, for then the server has ended."""
    line = sys.stdin.buffer.readline()
    if not line:
        return
    job = msgspec.json.decode(line, type=Work)
    threading.Thread(target=_end_with_input, args=(job.new,), name="watching the server", daemon=True).start()
    closed = close_in_words(job)
    with suppress(BrokenPipeError):  # the server has just ended
        sys.stdout.buffer.write(msgspec.json.encode(closed) + b"\n")
        sys.stdout.buffer.flush()
    os._exit(0)  # the thread that waits for input holds what an orderly end would take


def _end_with_input(new: str) -> None:
    sys.stdin.buffer.read()
    remove_unfinished(new)
    os._exit(0)


if __name__ == "__main__":
    main()
