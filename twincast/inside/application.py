"""Twincast as a part of another application: what to mount, what starts and ends it, and what it can do."""

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from twincast.app import App, create_app
from twincast.client.encoding import checked
from twincast.core.rights import Principal, Rights
from twincast.errors import SettingUnusable
from twincast.inside.party import NAME, Party
from twincast.inside.running import Running
from twincast.settings import Settings
from twincast.transports.parts import PORTABLE

OF_THE_SERVER = frozenset(
    {
        *(
            "lan",
            "self_signed",
            "host",
            "port",
            "root_path",
            "tls_cert",
            "tls_key",
            "hsts_max_age_s",
            "connections_max",
            "head_max_bytes",
        ),
        *("head_timeout_s", "body_timeout_s", "write_timeout_s", "keep_alive_timeout_s", "shutdown_timeout_s"),
        *("log_format", "log_level"),
    }
)
"""The settings of `twincast serve` alone; here the server that runs the application decides these."""
_FLAG = re.compile(r"--([a-z][a-z-]+)")


class Twincast(Party):
    """One twincast in this process, with every right.

    Nothing is opened until it runs: by `lifespan`, or within `running`. All of it belongs to one event loop.
    """

    def __init__(self, journal: str | None = None, **settings: Any) -> None:
        """Make one.

        Args:
            journal: `sqlite:PATH`, or `memory:` to forget everything at the end; what the environment variable
                TWINCAST_JOURNAL or `.env` says, if not given, else `sqlite:twincast.db`.
            settings: those of `twincast serve`, with underscores, without those of the server that runs this
                (docs/inside.md).

        Raises:
            SettingUnusable: a setting does not exist, is of the server, or has a value that cannot be.
        """
        _check(settings)
        chosen = settings if journal is None else {"journal": journal, **settings}
        self.app: App = create_app(_settings(chosen), edge=PORTABLE)
        """The ASGI application, to be mounted."""
        self.app.life.waits_for_log = True
        self._running_it = Running(self.app)
        super().__init__(self._running_it, Principal(NAME), has_identity=False)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Run as long as the context lasts: the journal is open, and what is mounted answers.

        At the end what was accepted is stored and answered; then watches end with Stopping.

        It begins once the journal is open; a log that is shared may be long in coming. If that is another one later, it
        is opened anew: calls raise NotReady meanwhile, and watches go on with what the new one says.

        Raises:
            JournalUnusable: the journal cannot be opened, as when another process has it.
            RuntimeError: this one is running already.
        """
        return self._running_it.context()

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Run as long as an application does: `FastAPI(lifespan=twin.lifespan)`. Raises what `running` raises."""
        async with self.running():
            yield

    def user(self, name: str, **grants: str | Iterable[str]) -> Party:
        """Return a user of this application, with rights that the application decides.

        Args:
            name: of the user; the audit trail says `application:NAME`.
            grants: patterns by right, such as `read=["lab/*"], publish="lab/lamp"`. What is not granted is refused with
                NotPermitted, and devices that may not be read do not exist.

        Raises:
            ValidationFailed: there is no such right, or a pattern or the name cannot be.
        """
        principal = Principal(f"{NAME}:{checked(name, '`name`')}", Rights.of(grants))
        return Party(self._running_it, principal, has_identity=True)


def _settings(chosen: dict[str, Any]) -> Settings:
    try:
        return Settings(**chosen)
    except SettingUnusable as error:  # which names flags, as the command line has them
        raise SettingUnusable(_FLAG.sub(lambda flag: f"`{flag[1].replace('-', '_')}`", error.message)) from None


def _check(settings: dict[str, Any]) -> None:
    for name in settings:
        if name in OF_THE_SERVER:
            raise SettingUnusable(f"`{name}` is of the server that runs the application, such as uvicorn; set it there")
        if name not in Settings.model_fields:
            raise SettingUnusable(f"there is no setting `{name[:40]}`; docs/command-line.md has them all")
