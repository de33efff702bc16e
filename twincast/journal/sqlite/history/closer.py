"""Makes one partition, of the log or of another one: a whole file on the disk, whose name the server does not know."""

import os
import time
from contextlib import suppress

import apsw
from msgspec import Struct

from twincast.errors import JournalUnusable
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.history import files
from twincast.journal.sqlite.history.build import build
from twincast.journal.sqlite.history.rewrite import rewrite
from twincast.journal.sqlite.history.span import copy_span
from twincast.journal.sqlite.history.summary import summarise
from twincast.journal.sqlite.history.writing_out import written_out


class Job(Struct, tag="close"):
    """What is to be closed."""

    journal: str
    """The file that has the span."""
    new: str
    """The file that is made."""
    first: int
    last: int
    log: str
    """The name of the log."""
    before: str | None
    """The file of the partition before."""
    share: float
    """How much of a core this takes."""


class Rewriting(Struct, tag="rewrite"):
    """What is to be written anew, without the entries of some devices; see `rewrite`."""

    source: str
    """The partition's file."""
    new: str
    """The file that is made."""
    without: list[tuple[str, int]]
    """Devices, each with the position up to which its entries are left out."""
    keeps_places: bool
    share: float
    """How much of a core this takes."""


class Summing(Struct, tag="summarise"):
    """What is to be summed up, as it is kept no longer; see `summary`."""

    source: str
    """The partition's file."""
    new: str
    """The file that is made."""
    share: float
    """How much of a core this takes."""


Work = Job | Rewriting | Summing


class Closed(Struct):
    """What was made: facts for the catalog."""

    entries: int
    """Of the log; this and the times are of what was closed, and 0 of a summary."""
    min_us: int
    max_us: int
    stored_min_us: int
    stored_max_us: int
    bytes: int
    """0 if there was nothing to make."""
    sha256: str
    cpu_s: float
    """What it took."""
    problem: str = ""
    """Why nothing was made; empty if it was."""


def close(job: Job) -> Closed:
    """Make the file of a partition. It is whole and on the disk when this returns.

    Raises:
        JournalUnusable: the journal does not have the span.
        apsw.Error, OSError: a disk does not give it, or takes no more.
    """
    copy, began_s = f"{job.new}-copy", time.process_time()
    try:
        with_twins = job.before is None and job.first > 1
        copy_span(job.journal, copy, job.first, job.last, with_twins=with_twins, share=job.share)
        with written_out(job.new):
            built = build(copy, job.new, job.first, job.last, log=job.log, before=job.before, share=job.share)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(copy)
    files.sync(job.new)
    return Closed(
        *built, os.path.getsize(job.new), files.digest(job.new, share=job.share), time.process_time() - began_s
    )


def _facts(path: str, share: float) -> tuple[int, str]:
    return os.path.getsize(path), files.digest(path, share=share)


def write_anew(job: Rewriting) -> Closed:
    """Write a partition anew. The new file is whole and on the disk when this returns, if there is one.

    Raises:
        apsw.Error, OSError: a disk does not give it, or takes no more.
    """
    began_s = time.process_time()
    with written_out(job.new):
        built = rewrite(job.source, job.new, dict(job.without), keeps_places=job.keeps_places, share=job.share)
    if built is None:
        return _nothing("")
    files.sync(job.new)
    return Closed(
        *built, os.path.getsize(job.new), files.digest(job.new, share=job.share), time.process_time() - began_s
    )


def sum_up(job: Summing) -> Closed:
    """Make the file of what is left of a partition. It is whole and on the disk when this returns.

    Raises:
        apsw.Error, OSError: a disk does not give it, or takes no more.
    """
    began_s = time.process_time()
    with written_out(job.new):
        summarise(job.source, job.new, share=job.share)
    files.sync(job.new)
    return Closed(0, 0, 0, 0, 0, *_facts(job.new, job.share), time.process_time() - began_s)


def close_in_words(job: Work) -> Closed:
    """Do a job; say in words what keeps it from being done, and leave no file then."""
    try:
        if isinstance(job, Job):
            return close(job)
        return sum_up(job) if isinstance(job, Summing) else write_anew(job)
    except JournalUnusable as error:
        problem = str(error)
    except (apsw.Error, OSError) as error:
        problem = in_words(error)
    with suppress(OSError):
        os.unlink(job.new)
    return _nothing(problem)


def _nothing(problem: str) -> Closed:
    return Closed(0, 0, 0, 0, 0, 0, "", 0.0, problem)
