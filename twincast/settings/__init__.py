"""What a user can set of a server, by flag, `TWINCAST_…` environment variable or the file `.env`.

A setting is written here, once: `twincast serve --help` and the table in docs/command-line.md are made of its name, its
default and the description below it. A description may have links from that page; the help leaves them out.
"""

from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from twincast.access import addresses, hosts
from twincast.environment import JOURNAL
from twincast.settings.amounts import WORKERS_MAX, count_of_workers, pattern_and_seconds, seconds, whole_bytes
from twincast.settings.reading import FrozenSettings


class Settings(FrozenSettings):
    """The settings of one server."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True)

    lan: bool = False
    """Listen on this machine's private addresses, with a login, for [its own network](access.md#on-the-same-network);
    never on a public one."""
    self_signed: bool = False
    """Speak TLS by [a certificate that is made here](access.md#a-certificate-of-the-servers-own) and kept beside the
    journal; clients pin its fingerprint."""
    host: str = "127.0.0.1"
    """Where to listen. Beyond loopback this needs [a login and TLS](access.md#exposing-a-server)."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 for any that is free."""
    journal: str = JOURNAL
    """[The journal](journal.md): `sqlite:PATH`, or `memory:` to forget everything at exit."""
    workers: Annotated[int, BeforeValidator(count_of_workers), Field(ge=1, le=WORKERS_MAX)] = 1
    """How many processes serve, under `twincast serve`: several
    [share one log](cluster.md#several-cores-of-one-machine), beside the journal. `auto` is one for each core."""
    nats_key: str | None = None
    """The name of an API key, as which [NATS clients](nats.md) of a shared log act: turns on the subjects where they
    hear what is stored, and send readings and commands."""
    allow_origin: tuple[str, ...] = ()
    """A web origin, besides the server's own, whose pages [may connect](access.md#exposing-a-server). May be given
    again."""
    allow_host: tuple[str, ...] = ()
    """A name, besides the local ones, that the server answers to. May be given again."""

    root_path: str = ""
    """The path, such as /twin, [below which a proxy has the server](inside.md#below-a-path). The proxy may remove it
    from requests, or leave it."""

    tls_cert: str | None = None
    """A PEM file with the certificate and those between it and the root; read again when it changes."""
    tls_key: str | None = None
    """The PEM file of its private key; read again when it changes."""
    behind_tls_proxy: bool = False
    """A reverse proxy does TLS, and only the proxy reaches this port."""
    trusted_proxy: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """A network whose X-Forwarded-For is believed, if behind a proxy. May be given again."""

    anonymous: Literal["none", "read"] = "none"
    """`none` or `read`: what is allowed without a credential on a server that asks for one."""
    jwt_jwks: str | None = None
    """Where the issuer of [tokens](access.md#tokens) publishes its keys: an https address, or a file."""
    jwt_key: str | None = None
    """The PEM file of the issuer's public key, instead."""
    jwt_issuer: str = ""
    """Who must have issued a token."""
    jwt_audience: str = ""
    """Whom a token must be for."""
    jwt_algorithm: tuple[str, ...] = ("EdDSA", "ES256", "RS256")
    """How a token may be signed. May be given again."""

    connections_max: int | None = Field(default=None, ge=1)
    """Connections in all, under `twincast serve`. If not set, four fifths of the process's limit of open files, and at
    least 48 fewer than that limit."""
    address_connections_max: int = Field(default=64, ge=1)
    """Connections from one address; loopback and trusted proxies do not count."""
    identity_connections_max: int = Field(default=16, ge=1)
    """Streams of one key or token subject."""
    unauthenticated_max: int = Field(default=256, ge=1)
    """WebSockets that have not authenticated yet."""
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
    """Size of one value, or of a command's args, on every way in. With name and time it still fits a message of 64 KiB.
    """
    snapshot_part_max_bytes: int = Field(default=256 * 1024, ge=1024)
    """Size of the state in one WebSocket message. A larger state comes in parts, for many clients accept at most 1 MiB.
    """
    body_max_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Size of one request's body."""
    request_max_updates: int = Field(default=10_000, ge=1)
    """Readings in one request."""
    outbox_max_bytes: int = Field(default=1024 * 1024, ge=64 * 1024)
    """What may wait for one slow client; above it, the client is
    [disconnected with close code 4008](delivery.md#modes)."""
    open_batch_max_bytes: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    """What may wait for the next commit; above it, senders are held back."""
    devices_max: int = Field(default=1_000_000, ge=1)
    """How many devices there may be, as one of [the limits](access.md#limits)."""
    state_max_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024)
    """Size of the newest state of all devices. Each counts as its value's bytes and 512 more."""
    identity_state_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1024)
    """Size of the devices that one key or token subject wrote last, since the server started."""
    memory_journal_max_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """What a journal in memory keeps."""
    resume_max_entries: int = Field(default=1_000_000, ge=0)
    """How many entries a client may be behind and still be sent them one by one."""
    keep: Annotated[float | None, BeforeValidator(seconds)] = None
    """How long entries are kept in a journal on disk, such as `30d` or `12h`. If not set, everything
    [is kept](journal.md#how-much-is-kept). The newest state of each device and the newest `resume_max_entries` entries
    always stay."""
    keep_bytes: Annotated[int | None, BeforeValidator(whole_bytes)] = None
    """How much of the disk the journal may take, such as `2GB`; the oldest entries are removed first. What always stays
    is as for `keep`."""
    keep_rollups: Annotated[float | None, BeforeValidator(seconds)] = None
    """How long the [sums by hour and day](journal.md#what-is-left-of-it) of entries are kept that are kept no longer
    themselves, such as `5y`. If not set, nothing is left of them."""
    keep_for: tuple[str, ...] = ()
    """How long the [history of some devices](journal.md#less-of-some-devices) is kept, if for a shorter time than the
    log, such as `lab/*=7d`. The first pattern that selects a device counts."""
    partition_entries: int = Field(default=1_000_000, ge=0)
    """How many entries of a journal on disk are [closed](journal.md#closed-partitions) at once; 0 for none."""
    head_max_bytes: int = Field(default=32 * 1024, ge=1024)
    """Size of a request's head, under `twincast serve`, as are the times below."""
    head_timeout_s: float = Field(default=10.0, gt=0)
    """How long a request's head may take to come in."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """How long a request's body may take to come in."""
    write_timeout_s: float = Field(default=60.0, gt=0)
    """How long a client of HTTP may leave its answer unread."""
    keep_alive_timeout_s: float = Field(default=75.0, gt=0)
    """How long a connection is kept for its next request: [longer than its clients keep theirs](access.md#http), mostly
    a minute. The side that closes first should be the one that sends."""
    hsts_max_age_s: int = Field(default=31_536_000, ge=0)
    """For how long a browser that has come by TLS keeps to it; 0 [takes that back](access.md#exposing-a-server). Only
    where TLS ends here."""
    handshake_timeout_s: float = Field(default=5.0, gt=0)
    """How long a WebSocket may take to be opened."""
    auth_timeout_s: float = Field(default=5.0, gt=0)
    """How long a WebSocket may take to authenticate."""
    ping_interval_s: float = Field(default=20.0, gt=0)
    """How long a WebSocket may be silent before it is sent a ping."""
    pong_timeout_s: float = Field(default=10.0, gt=0)
    """How long the pong may take."""
    shutdown_timeout_s: float = Field(default=10.0, gt=0)
    """How long the server, when it stops, waits for what is under way."""

    @property
    def believed_proxies(self) -> tuple[str, ...]:
        """The networks whose X-Forwarded-For is believed: none unless a proxy stands before the server."""
        return self.trusted_proxy if self.behind_tls_proxy else ()

    @property
    def reaches_others(self) -> bool:
        """Whether programs of other machines reach the server, itself or through a proxy."""
        return self.lan or self.behind_tls_proxy or not addresses.is_local(self.host)

    @field_validator("host")
    @classmethod
    def _host_is_bare(cls, host: str) -> str:
        return host.removeprefix("[").removesuffix("]")

    @field_validator("nats_key")
    @classmethod
    def _subjects_lie_beside_a_shared_log(cls, name: str | None, info: ValidationInfo) -> str | None:
        journal = info.data.get("journal", "")
        if name is not None and journal.partition(":")[0] not in {"nats", "tls"}:
            raise ValueError(f"needs a shared log, as `--journal nats://127.0.0.1:4222/lab` names one, not {journal!r}")
        return name

    @field_validator("allow_host")
    @classmethod
    def _names_are_as_in_requests(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(hosts.allowed_host, names))

    @field_validator("allow_origin")
    @classmethod
    def _origins_are_as_in_requests(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(hosts.allowed_origin, origins))

    @field_validator("keep_for")
    @classmethod
    def _patterns_have_times(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            pattern_and_seconds(rule)
        return rules

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
            raise ValueError("must be the path before everything of this server's, such as /twin")
        return f"/{'/'.join(names)}"

    @field_validator("tls_cert", "tls_key", "jwt_key")
    @classmethod
    def _files_are_named(cls, path: str | None) -> str | None:
        if path is not None and ("\n" in path or "-----BEGIN" in path):
            raise ValueError("must be the path of a PEM file, not what is in it")
        return path
