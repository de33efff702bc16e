"""What every command reads where it runs: the environment, then the file `.env`; and what is not a setting there."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from twincast.errors import SettingUnusable
from twincast.later import later

if TYPE_CHECKING:
    import dotenv
else:
    dotenv = later("dotenv")

PREFIX, ENV_FILE, ENCODING = "TWINCAST_", ".env", "utf-8-sig"
JOURNAL = "sqlite:twincast.db"
URL = "http://127.0.0.1:8000"
NOT_TEXT = f"the file {ENV_FILE} is not text in UTF-8; save it as such, or move it"

_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://\[?[0-9a-fA-F.:]+\]?:[0-9]+")
"""What Kubernetes puts into TWINCAST_PORT, in each pod, if any service is called `twincast`; Docker's links too."""


@dataclass(frozen=True)
class Environment:
    """What the commands that talk to a server, or open its journal, read from their environment."""

    journal: str = JOURNAL
    url: str = URL
    token: str | None = None
    fingerprint: str | None = None

    @classmethod
    def read(cls) -> Self:
        """Read them as the server's settings are read: of any case, what is empty is not set.

        Raises:
            SettingUnusable: the file cannot be read.
        """
        found = {name.upper(): text for source in (_file(), os.environ) for name, text in source.items() if text}
        names = (name for name in cls.__dataclass_fields__ if f"{PREFIX}{name.upper()}" in found)
        return cls(**{name: found[f"{PREFIX}{name.upper()}"] for name in names})


def _file() -> dict[str, str | None]:
    if not os.path.isfile(ENV_FILE):
        return {}
    try:
        found = dotenv.dotenv_values(ENV_FILE, encoding=ENCODING)
    except UnicodeError:
        raise SettingUnusable(NOT_TEXT) from None
    except OSError as error:
        raise unreadable(error) from None
    refuse_halves(found)
    return found


def refuse_halves(names: Iterable[str]) -> None:
    """Refuse UTF-16 without its mark, whose every other byte is 0.

    Raises:
        SettingUnusable: a name has such a byte.
    """
    if any("\0" in name for name in names):
        raise SettingUnusable(NOT_TEXT)


def unreadable(error: OSError) -> SettingUnusable:
    """Return the error of a file that cannot be read, in words."""
    return SettingUnusable(f"the file {ENV_FILE} cannot be read: {error.strerror}")


def is_link(name: str, text: str | None) -> bool:
    """Whether a variable only looks like a setting: what names a service of the same name."""
    return name.upper() == f"{PREFIX}PORT" and _SERVICE_LINK.fullmatch(text or "") is not None
