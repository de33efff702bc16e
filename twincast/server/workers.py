"""`twincast serve --workers N`: several server processes behind one port, on one log.

The parent takes the port, runs the NATS server that holds the log, makes what is made once (the certificate, the first
key, the banner), and keeps the workers running. The log lies beside the journal's path (`journal/local`); where the
journal is `nats://…` it is that one, and each worker has a copy of its own.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from twincast import logs
from twincast.app import refuse_settings
from twincast.cluster.engine import Engine
from twincast.cluster.local import held
from twincast.environment import is_link
from twincast.errors import SettingUnusable
from twincast.journal.jetstream.address import SCHEMES, TOKEN, NatsAddress
from twincast.journal.local import LocalLog
from twincast.journal.url import JournalUrl, local_log_of
from twincast.server.banner import Banner
from twincast.server.crew import Crew, Member
from twincast.server.exposure import exposed, refuse_exposure, with_certificate
from twincast.server.process import certificate_of, exit_quietly
from twincast.server.shared_port import SharedPort
from twincast.settings import Settings

logger = logging.getLogger("twincast.workers")


class _Log(NamedTuple):
    """What the workers share."""

    url_of: Callable[[str], str]
    """Returns the log's URL for a worker of that name."""
    engine: Engine | None
    inherited: Sequence[int]


def serve(settings: Settings) -> int:
    """Run workers until a signal stops them, and print where their dashboard is.

    Returns:
        The process's exit status: 0 after Ctrl-C or SIGTERM.

    Raises:
        SettingUnusable: workers cannot share this journal, or not on this system.
        TwincastError: see `process.serve`; or what a worker says that cannot start.
    """
    refuse_exposure(settings)
    refuse_settings(settings)
    certificate_of(settings)  # what is wrong with one that is named is said before anything is begun
    logs.configure(settings.log_format, settings.log_level, "parent")
    for line in settings.ignored:
        logger.warning(line)
    signal.signal(signal.SIGTERM, exit_quietly)
    with ExitStack() as undo:
        exposure = exposed(settings)
        port = SharedPort.take(exposure.hosts, settings.port)
        undo.callback(port.close)
        log = _opened(settings, undo)
        exposure = with_certificate(exposure)
        certificate_of(exposure.settings)  # what is wrong with it is said here, once
        names = [f"worker-{number}" for number in range(1, settings.workers + 1)]
        banner = Banner(exposure, *port.address, workers=len(names))
        banner.show_first_key()
        undo.callback(banner.forget)
        crew = Crew(
            [Member(name, _settings_of_one(exposure.settings, log.url_of(name), len(names))) for name in names],
            port,
            engine=log.engine,
            inherited=log.inherited,
            env={name: text for name, text in os.environ.items() if not is_link(name, text)},
            keeps_to_tls=exposure.self_signed is None,
            shutdown_timeout_s=settings.shutdown_timeout_s,
            on_start=banner.show,
        )
        asyncio.run(crew.run())
    return 0


def _opened(settings: Settings, undo: ExitStack) -> _Log:
    """Open what the workers share. A NATS server of this machine's own gets its token into the environment."""
    if sys.platform == "win32":
        raise SettingUnusable("--workers: several processes cannot share a port on Windows; leave it at 1")
    if urlsplit(settings.journal).scheme in SCHEMES:
        address = NatsAddress.parse(settings.journal)
        return _Log(lambda name: _nats_url_of(settings.journal, address, name), None, ())
    log = local_log_of(settings.journal) or _local_log(settings.journal)
    engine, lock = undo.enter_context(held(log))
    os.environ[TOKEN] = engine.token or ""
    return _Log(lambda name: log.url(engine.url, name), engine, (lock,))


def _local_log(url: str) -> LocalLog:
    kind, path = JournalUrl.parse(url)
    if kind != "sqlite" or path == ":memory:":
        raise SettingUnusable(
            "--workers: several processes share a log on disk; leave --journal out, or name sqlite:PATH or"
            " nats://HOST:PORT/NAME"
        )
    return LocalLog.beside(path)


def _nats_url_of(url: str, address: NatsAddress, worker: str) -> str:
    """Return a shared log's URL for one of several workers: with a copy and a name of its own."""
    number = worker.rpartition("-")[2]
    options = dict(parse_qsl(urlsplit(url).query)) | {
        "copy": f"{address.copy}.{number}",
        "as": f"{address.server_name or socket.gethostname()}-{number}",
    }
    return urlunsplit(urlsplit(url)._replace(query=urlencode(options)))


def _settings_of_one(settings: Settings, journal: str, count: int) -> dict[str, object]:
    """Return what one worker is given: everything as it was found here, and its part of the connections."""
    most = settings.connections_max
    own = {"journal": journal, "workers": 1, "connections_max": None if most is None else -(-most // count)}
    return settings.model_copy(update=own).model_dump(mode="json")
