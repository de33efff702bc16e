"""The URL of a shared log, `nats://HOST:PORT,HOST:PORT/NAME`: where NATS is, which log, and where its copy lies."""

import os
import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from twincast.errors import JournalUnusable

TOKEN = "TWINCAST_NATS_TOKEN"  # the name of a variable
"""The environment variable with the token that NATS asks for: a URL is shown in lists of processes, this is not."""
SCHEMES = {"nats": False, "tls": True}
"""By scheme, whether the connection must be encrypted."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_OPTIONS = frozenset({"copy", "replicas", "creds", "nkey", "ca", "cert", "key", "as"})
_EXAMPLE = "nats://127.0.0.1:4222/lab"


class NatsAddress(NamedTuple):
    """A shared log's URL, checked."""

    servers: tuple[str, ...]
    """The NATS servers, each as SCHEME://HOST:PORT."""
    name: str
    """Of the log: letters, digits, `_` and `-`."""
    copy: str
    """The SQLite file of this server's copy."""
    replicas: int | None = None
    """On how many NATS servers the stream is made; None: on three if there are, else on one."""
    server_name: str = ""
    """What this server is called in the audit trail and in the list of servers; empty: by its machine."""
    creds: str | None = None
    """The file of a NATS user's credentials."""
    nkey: str | None = None
    """The file of a NATS user's seed."""
    ca: str | None = None
    """The PEM file of the authority that signed the NATS servers' certificates."""
    cert: str | None = None
    """The PEM file of the certificate that NATS asks for."""
    key: str | None = None
    """The PEM file of its private key."""

    @property
    def is_tls(self) -> bool:
        """Whether the connection must be encrypted."""
        return self.servers[0].startswith("tls:") or self.ca is not None or self.cert is not None

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return f"twincast_{self.name}"

    @property
    def log_subject(self) -> str:
        """The subject of commits."""
        return f"twincast.{self.name}.log"

    @property
    def keys_subject(self) -> str:
        """The subject of changes of the keys."""
        return f"twincast.{self.name}.keys"

    @property
    def token(self) -> str | None:
        """What NATS asks for, from the environment."""
        return os.environ.get(TOKEN) or None

    @classmethod
    def parse(cls, url: str) -> "NatsAddress":
        """Read a URL.

        Raises:
            JournalUnusable: it is none, or holds a password.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise JournalUnusable(f"a shared log is named like {_EXAMPLE}") from None
        if parts.scheme not in SCHEMES:
            raise JournalUnusable(f"a shared log is named like {_EXAMPLE}")
        if "@" in parts.netloc:
            raise JournalUnusable(
                "the URL of a shared log holds no user or password, for others see it;"
                f" `?creds=FILE`, `?nkey=FILE` or the variable {TOKEN} names them"
            )
        hosts = parts.netloc.split(",")
        if not all(map(_HOST.fullmatch, hosts)):
            raise JournalUnusable(
                f"the NATS servers stand in a list, as in nats://n1:4222,n2:4222/lab, not {parts.netloc[:80]!r}"
            )
        name = parts.path.removeprefix("/")
        if not _NAME.fullmatch(name):
            raise JournalUnusable(
                f"the name of a shared log, as in {_EXAMPLE}, has 1 to 64 letters, digits, _ and -, not {name[:80]!r}"
            )
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        options = dict(pairs)
        if parts.fragment or len(options) < len(pairs) or options.keys() - _OPTIONS or not all(options.values()):
            raise JournalUnusable(
                f"behind ? a shared log takes {', '.join(sorted(_OPTIONS))}, each once, as in {_EXAMPLE}?copy=lab.db"
            )
        servers = tuple(f"{parts.scheme}://{host if _has_port(host) else f'{host}:4222'}" for host in hosts)
        return cls(
            servers,
            name,
            options.get("copy", f"twincast-{name}.db"),
            _replicas(options.get("replicas")),
            options.get("as", ""),
            *(options.get(option) for option in ("creds", "nkey", "ca", "cert", "key")),
        )


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _replicas(text: str | None) -> int | None:
    if text is None:
        return None
    if text not in {"1", "3", "5"}:
        raise JournalUnusable(f"a stream has 1, 3 or 5 replicas, not {text[:20]!r}")
    return int(text)
