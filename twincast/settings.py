"""What a user can set of a server, by flag, `TWINCAST_…` environment variable or the file `.env`."""

import os
import re
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from twincast.access import addresses, hosts
from twincast.environment import (
    ENCODING,
    ENV_FILE,
    JOURNAL,
    NOT_TEXT,
    PREFIX,
    is_link,
    refuse_halves,
    unreadable,
)
from twincast.errors import SettingUnusable


class _Read(BaseSettings):
    """Frozen settings, and from where they are read; each default is the documented one.

    Raises:
        SettingUnusable: one cannot be; the words name it, and hold no library's words and nobody's secrets.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding=ENCODING,
        env_ignore_empty=True,  # as `TWINCAST_PORT=${PORT}` leaves it where there is none
        extra="ignore",
        frozen=True,
    )

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise SettingUnusable("; ".join(_problem(each, given) for each in error.errors())) from None
        except SettingsError as error:
            raise SettingUnusable(_unread(error)) from None
        except UnicodeError:
            raise SettingUnusable(NOT_TEXT) from None
        except OSError as error:
            raise unreadable(error) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See BaseSettings: arguments before the environment before the file."""
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)
            refuse_halves(source.env_vars)
            source.env_vars = {name: text for name, text in source.env_vars.items() if not is_link(name, text)}
        return init_settings, env_settings, dotenv_settings

    @property
    def ignored(self) -> list[str]:
        """What in the environment looks like a setting and is not meant for this program, in words."""
        return [
            f"{name}={text} is ignored: it is a link to a service, as Kubernetes and Docker make them, and no setting"
            for name, text in sorted(os.environ.items())
            if is_link(name, text)
        ]


class Settings(_Read):
    """The settings of one server; what stands below each is its help."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True)

    @property
    def believed_proxies(self) -> tuple[str, ...]:
        """The networks whose X-Forwarded-For is believed: none unless a proxy stands before the server."""
        return self.trusted_proxy if self.behind_tls_proxy else ()

    @field_validator("host")
    @classmethod
    def _host_is_bare(cls, host: str) -> str:
        return host.removeprefix("[").removesuffix("]")

    @field_validator("allow_host")
    @classmethod
    def _names_are_as_in_requests(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(hosts.allowed_host, names))

    @field_validator("allow_origin")
    @classmethod
    def _origins_are_as_in_requests(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(hosts.allowed_origin, origins))

    @field_validator("trusted_proxy")
    @classmethod
    def _proxies_are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(addresses.network(text)) for text in networks)

    @field_validator("root_path")
    @classmethod
    def _path_is_plain(cls, path: str) -> str:
        names = unquote(path).strip("/").split("/")
        if names == [""]:
            return ""
        if not all(names) or {".", ".."} & set(names) or not all(map(str.isprintable, names)) or set("?#") & set(path):
            raise ValueError("it takes the path before everything of this server's, such as /twin")
        return f"/{'/'.join(names)}"

    @field_validator("tls_cert", "tls_key", "jwt_key")
    @classmethod
    def _files_are_named(cls, path: str | None) -> str | None:
        if path is not None and ("\n" in path or "-----BEGIN" in path):
            raise ValueError("it takes the path of a PEM file, not what is in it")
        return path

    @field_validator("keep", mode="before")
    @classmethod
    def _time_is_kept(cls, text: Any) -> Any:
        return _measured(text, _SECONDS, "a time: a number and s, m, h, d or w, such as 30d or 12h")

    @field_validator("keep_bytes", mode="before")
    @classmethod
    def _size_is_kept(cls, text: Any) -> Any:
        return _measured(text, _BYTES, "a size: a number and KB, MB, GB, TB or KiB, MiB, GiB, TiB, such as 2GB")

    lan: bool = False
    """Listen on this machine's private addresses, with a login, for its own network; never on a public one."""
    self_signed: bool = False
    """Speak TLS by a certificate that is made here and kept beside the journal; clients pin its fingerprint."""
    host: str = "127.0.0.1"
    """Where to listen. Beyond loopback it takes a login and TLS."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 for any that is free."""
    journal: str = JOURNAL
    """`sqlite:PATH`, or `memory:` to forget everything at exit."""
    allow_origin: tuple[str, ...] = ()
    """A web origin, besides the server's own, whose pages may connect; may be given again."""
    allow_host: tuple[str, ...] = ()
    """A name, besides the local ones, that the server answers to; may be given again."""

    root_path: str = ""
    """Below which path, such as /twin, a proxy has the server; it may take that away from requests, or leave it."""

    tls_cert: str | None = None
    """A PEM file with the certificate and those between it and the root; read again when it changes."""
    tls_key: str | None = None
    """The PEM file of its private key."""
    behind_tls_proxy: bool = False
    """A reverse proxy does TLS, and nobody but it reaches this port."""
    trusted_proxy: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """A network whose X-Forwarded-For is believed, if behind a proxy; may be given again."""

    anonymous: Literal["none", "read"] = "none"
    """`none` or `read`: what is allowed without a credential on a server that asks for them."""
    jwt_jwks: str | None = None
    """Where the issuer publishes its keys: an https address, or a file."""
    jwt_key: str | None = None
    """The PEM file of the issuer's public key, instead."""
    jwt_issuer: str = ""
    """Who must have issued a token."""
    jwt_audience: str = ""
    """Whom a token must be for."""
    jwt_algorithm: tuple[str, ...] = ("EdDSA", "ES256", "RS256")
    """How a token may be signed."""

    connections_max: int | None = Field(default=None, ge=1)
    """Connections in all; if not given, four fifths of the process's limit of open files, and 48 fewer at least."""
    address_connections_max: int = Field(default=64, ge=1)
    """Connections from one address; loopback and trusted proxies do not count."""
    identity_connections_max: int = Field(default=16, ge=1)
    """Streams of one key or token subject."""
    unauthenticated_max: int = Field(default=256, ge=1)
    """WebSockets that have not said yet who they are."""
    rate_updates_per_s: float = Field(default=1_000.0, gt=0)
    """Updates of one identity, and as much again of what it reads; five times as many at once.

    Without a login there is no such limit on updates, and each connection has its own for what it reads.
    """
    failed_logins_per_minute: int = Field(default=10, ge=1)
    """Failed logins from one address."""

    log_format: Literal["text", "json"] = "text"
    """`text` or `json`."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """`debug`, `info` (a line for each request), `warning` or `error`."""

    message_max_bytes: int = Field(default=64 * 1024, ge=128)
    """Size of one WebSocket message."""
    value_max_bytes: int = Field(default=63 * 1024, ge=64)
    """Size of one value, or of a command's args: with name and time it still fits a message of 64 KiB."""
    snapshot_part_max_bytes: int = Field(default=256 * 1024, ge=1024)
    """Size of the state in one WebSocket message; a larger one comes in parts, for many clients take at most 1 MiB."""
    body_max_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Size of one request."""
    request_max_updates: int = Field(default=10_000, ge=1)
    """Readings in one request."""
    outbox_max_bytes: int = Field(default=1024 * 1024, ge=64 * 1024)
    """What waits for one slow client before it is disconnected with close code 4008."""
    open_batch_max_bytes: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    """What waits for the next commit before senders are held back."""
    devices_max: int = Field(default=1_000_000, ge=1)
    """How many devices there may be."""
    state_max_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024)
    """Size of the newest state of all devices; each counts as its value's bytes and 512 more."""
    identity_state_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Size of the devices that one key or token subject wrote last, since the server started."""
    memory_journal_max_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """What a journal in memory keeps."""
    resume_max_entries: int = Field(default=1_000_000, ge=0)
    """How many changes a client may be behind and still be sent them one by one."""
    keep: float | None = None
    """How long changes are kept in a journal on disk, such as `30d` or `12h`; for good if not given. The newest state
    of each device and the newest `resume_max_entries` changes always stay."""
    keep_bytes: int | None = None
    """How much of the disk the journal may take, such as `2GB`; the oldest changes go. What always stays is as above.
    """
    head_max_bytes: int = Field(default=32 * 1024, ge=1024)
    """Size of a request's head."""
    head_timeout_s: float = Field(default=10.0, gt=0)
    """How long a request's head may take to come in."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """How long a request's body may take to come in."""
    write_timeout_s: float = Field(default=60.0, gt=0)
    """How long a client of HTTP may take nothing of its answer."""
    keep_alive_timeout_s: float = Field(default=75.0, gt=0)
    """How long a connection is kept for its next request: longer than proxies and clients keep theirs, mostly a minute.
    Whoever closes first should be the one who sends."""
    hsts_max_age_s: int = Field(default=31_536_000, ge=0)
    """For how long a browser keeps to TLS once it has come here by it; 0 takes that back. Only where TLS ends here."""
    handshake_timeout_s: float = Field(default=5.0, gt=0)
    """How long a WebSocket may take to be opened."""
    auth_timeout_s: float = Field(default=5.0, gt=0)
    """How long a WebSocket may take to say who it is."""
    ping_interval_s: float = Field(default=20.0, gt=0)
    """How long a WebSocket may be silent before it is asked for a sign of life."""
    pong_timeout_s: float = Field(default=10.0, gt=0)
    """How long that sign may take."""
    shutdown_timeout_s: float = Field(default=10.0, gt=0)
    """How long the server waits for what is under way when it stops."""


_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BYTES = {"B": 1, "": 1} | {
    f"{letter}{infix}B": base**power
    for power, letter in enumerate("KMGT", 1)
    for infix, base in (("", 1_000), ("i", 1_024))
}
_MEASURE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", re.ASCII)


def _measured(given: Any, units: dict[str, int], takes: str) -> Any:
    """Return an amount in its unit's smallest part: of `30d` its seconds. A number is one already.

    Raises:
        ValueError: it is none, or not more than nothing.
    """
    if given is None:
        return None
    amount: float
    if isinstance(given, str):
        found = _MEASURE.fullmatch(given.strip())
        unit = next((unit for unit in units if found and unit.lower() == found[2].lower()), None)
        if found is None or unit is None:
            raise ValueError(f"it takes {takes}, not {given[:40]!r}; leave it out to keep everything")
        amount = float(found[1]) * units[unit]
    else:
        amount = given
    if not 0 < amount < _AMOUNT_MAX:
        raise ValueError(f"it takes {takes}, not {given!r}; leave it out to keep everything")
    return amount if units is _SECONDS else int(amount)


_AMOUNT_MAX = 2.0**62

_TAKES = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_unicode": "a text in UTF-8",
    "tuple_type": 'a list in JSON, such as ["twin.example.org"]',
}
"""What a setting takes, by what pydantic finds is wrong with it."""
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _problem(problem: Any, given: dict[str, Any]) -> str:
    name, kind, context = str(problem["loc"][0]), problem["type"], problem.get("ctx", {})
    bounds = [f"{words} {context[sign]}" for sign, words in _BOUNDS.items() if sign in context]
    if kind == "value_error":
        said = str(context["error"])
    elif kind == "literal_error":
        said = f"it takes {context['expected']}"
    else:
        said = f"it takes {_TAKES.get(kind) or ' and '.join(bounds) or 'something else'}"
    return f"{_where(name, given)}: {said}"


def _where(field: str, given: dict[str, Any]) -> str:
    """Return where a person has set something."""
    if field in given:
        return f"--{field.replace('_', '-')}"
    variable = f"{PREFIX}{field.upper()}"
    return variable if variable in map(str.upper, os.environ) else f"{variable} in {ENV_FILE}"


def _unread(error: SettingsError) -> str:
    """Say which variable is no JSON: pydantic-settings names the field, and only in a sentence."""
    field = re.search(r'field "(\w+)"', str(error))
    where = "a list of the settings" if field is None else _where(field[1], {})
    return f'{where}: a list is JSON, with its quotes, such as ["twin.example.org"]'
