"""Jobs on partitions, each done in a process of its own, and the room on the disk that they leave to commits."""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.history import closer, files
from twincast.journal.sqlite.history.catalog import Part
from twincast.journal.sqlite.history.closer import Closed, Rewriting, Work
from twincast.machine import free_bytes

ROOM_BYTES = 16 << 20
"""So much of the disk is left to commits meanwhile, at least."""
REWRITING_SHARE = 0.3
"""How much of a core it takes to write a partition anew."""
_PROCESS = "twincast.journal.sqlite.history.process"


async def check_room(journal: str, needed_bytes: int) -> None:
    """Check that the disk has room for what a job makes: commits need what is left of it.

    Raises:
        JournalUnavailable: it has not.
    """
    needed_bytes += ROOM_BYTES
    free = await asyncio.get_running_loop().run_in_executor(None, free_bytes, journal)
    if free < needed_bytes:
        raise JournalUnavailable(f"that takes {needed_bytes:,} bytes for a while, and {free:,} of the disk are free")


async def settled(job: Work, settle: Callable[[], str]) -> tuple[Closed, str]:
    """Do a job, and give the file that it makes its name. If that fails, or is cancelled, no file is left of it.

    Args:
        job: what is to be made.
        settle: gives the file its name, for good, and returns that.

    Returns:
        What was made, and the name; empty if there was nothing to make.

    Raises:
        JournalUnavailable, OSError: it is not made.
    """
    loop = asyncio.get_running_loop()
    try:
        made = await made_apart(job)
        if made.problem:
            raise JournalUnavailable(made.problem)
        name = await loop.run_in_executor(None, settle) if made.bytes else ""
    finally:
        await loop.run_in_executor(None, files.remove_unfinished, job.new)
    return made, name


async def rewritten(
    journal: str, part: Part, without: list[tuple[str, int]], *, keeps_places: bool
) -> tuple[Closed, str]:
    """Write a partition anew without entries of some devices; see `settled`, and `rewrite` for the arguments."""
    await check_room(journal, 2 * part.bytes)
    new = await asyncio.get_running_loop().run_in_executor(None, files.new_file, journal, part.first_seq)
    source = files.path_of(journal, part)
    job = Rewriting(source=source, new=new, without=without, keeps_places=keeps_places, share=REWRITING_SHARE)
    return await settled(job, partial(files.settle_anew, new, part.file))


def part_anew(part: Part, name: str, made: Closed) -> Part:
    """Return what the catalog says of what was made in the place of a partition; without entries, it has the times."""
    anew = part._replace(file=name, bytes=made.bytes, sha256=made.sha256)
    if not made.entries:
        return anew
    return anew._replace(
        entries=made.entries,
        min_us=made.min_us,
        max_us=made.max_us,
        stored_min_us=made.stored_min_us,
        stored_max_us=made.stored_max_us,
    )


async def made_apart(job: Work) -> Closed:
    """Do a job in a process of its own; in a thread where there can be none.

    Raises:
        JournalUnavailable: the process has failed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *_command(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
    except (OSError, NotImplementedError):
        return await made_here(job)
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(msgspec.json.encode(job) + b"\n")  # it stays open: its end tells the process of ours
        answer = await process.stdout.readline()
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if not answer:
        raise JournalUnavailable(f"the process that closes it has ended with status {status}")
    return msgspec.json.decode(answer, type=Closed)


async def made_here(job: Work) -> Closed:
    """Do a job in a thread, where the interpreter's lock is in the way, but whose statements rest all the same."""
    return await asyncio.get_running_loop().run_in_executor(None, closer.close_in_words, job)


def _command() -> list[str]:
    # Without -P Python looks for modules in the working directory first, where any file may have the name of one.
    root = Path(__file__).parents[4]
    safely = [] if root == Path.cwd() else ["-P"]
    return [sys.executable, *safely, "-m", _PROCESS]
