"""The log that the workers of one machine share: what lies where beside the path of a journal.

twincast.db-workers/        of the journal sqlite:twincast.db, once several processes serve it
├── nats/                   the store of the NATS server that they share, its token and its log
├── worker-1.db, …          the copy of each
└── lock                    held by every worker: who starts next waits until the last one has ended
"""

import os
from glob import escape, iglob
from typing import NamedTuple
from urllib.parse import urlencode

SCHEME = "workers"
"""Of its URL, `workers:PATH`, where it is to be told from the journal `sqlite:PATH`."""
NAME = "local"
"""What the log is called in NATS; there is one in each folder."""


class LocalLog(NamedTuple):
    """The log that belongs to the path of a journal."""

    path: str
    """Of the journal, with links resolved."""

    @classmethod
    def beside(cls, journal_path: str) -> "LocalLog":
        """Return the log of a journal's path, whether there is one or not."""
        return cls(os.path.realpath(journal_path))

    @property
    def folder(self) -> str:
        """The folder with all of it."""
        return f"{self.path}-workers"

    @property
    def engine_folder(self) -> str:
        """The folder of the NATS server."""
        return os.path.join(self.folder, "nats")

    @property
    def lock(self) -> str:
        """The file that its workers hold locked."""
        return os.path.join(self.folder, "lock")

    @property
    def is_there(self) -> bool:
        """Whether there is a log: NATS has its stream."""
        streams = os.path.join(escape(self.engine_folder), "jetstream", "*", "streams", f"twincast_{NAME}")
        return next(iglob(streams), None) is not None

    def copy(self, worker: str) -> str:
        """Return the file of a worker's copy."""
        return os.path.join(self.folder, f"{worker}.db")

    def url(self, engine_url: str, worker: str) -> str:
        """Return the log's URL for a worker.

        Args:
            engine_url: where its NATS server runs, as `nats://HOST:PORT`.
            worker: what it is called.
        """
        return f"{engine_url}/{NAME}?{urlencode({'copy': self.copy(worker), 'as': worker})}"
