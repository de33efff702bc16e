"""What a user can set, by flag or by a `TWINCAST_…` environment variable."""

import re
from ipaddress import ip_network
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The frozen settings of one server; each default is the documented one."""

    model_config = SettingsConfigDict(env_prefix="TWINCAST_", env_file=".env", extra="ignore", frozen=True)

    @field_validator("allow_origin")
    @classmethod
    def _origins_are_exact(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/*\s]+/?", origin):
                raise ValueError(f"an origin is exact, such as https://app.example.org; {origin!r} is not")
        return origins

    @field_validator("trusted_proxy")
    @classmethod
    def _proxies_are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ip_network(network)
        return networks

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    journal: str = "sqlite:twincast.db"
    """`sqlite:PATH`, or `memory:` to forget everything at exit."""
    allow_origin: tuple[str, ...] = ()
    """Web origins, besides the server's own, whose pages may connect."""
    allow_host: tuple[str, ...] = ()
    """Names, besides the local ones, that the server answers to."""

    tls_cert: str | None = None
    """A PEM file with the certificate and those between it and the root; read again when it changes."""
    tls_key: str | None = None
    """The PEM file of its private key."""
    behind_tls_proxy: bool = False
    """Whether a reverse proxy does TLS, and nobody but it reaches this port."""
    trusted_proxy: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks whose X-Forwarded-For is believed, if behind a proxy."""

    anonymous: Literal["none", "read"] = "none"
    """What is allowed without a credential on a server that asks for them."""
    jwt_jwks: str | None = None
    """Where the issuer publishes its keys: an https address, or a file."""
    jwt_key: str | None = None
    """The PEM file of the issuer's public key, instead."""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_algorithm: tuple[str, ...] = ("EdDSA", "ES256", "RS256")

    connections_max: int | None = Field(default=None, ge=1)
    """In all; four fifths of the process's limit of open files if None."""
    address_connections_max: int = Field(default=64, ge=1)
    """From one address; loopback and trusted proxies do not count."""
    identity_connections_max: int = Field(default=16, ge=1)
    """Streams of one key or token subject."""
    unauthenticated_max: int = Field(default=256, ge=1)
    """WebSockets that have not said yet who they are."""
    rate_updates_per_s: float = Field(default=1_000.0, gt=0)
    """Updates of one identity; five times as many at once. Without a login there is no such limit."""
    failed_logins_per_minute: int = Field(default=10, ge=1)
    """From one address."""

    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    message_max_bytes: int = Field(default=64 * 1024, ge=128)
    value_max_bytes: int = Field(default=63 * 1024, ge=64)
    """Of one value, or of a command's args, on every way in: with name and time it still fits a message of 64 KiB."""
    body_max_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    request_max_updates: int = Field(default=10_000, ge=1)
    outbox_max_bytes: int = Field(default=1024 * 1024, ge=64 * 1024)
    open_batch_max_bytes: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    memory_journal_max_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    resume_max_entries: int = Field(default=1_000_000, ge=0)
    head_max_bytes: int = Field(default=32 * 1024, ge=1024)
    head_timeout_s: float = Field(default=10.0, gt=0)
    body_timeout_s: float = Field(default=30.0, gt=0)
    write_timeout_s: float = Field(default=60.0, gt=0)
    """How long a client of HTTP may take nothing of its answer."""
    handshake_timeout_s: float = Field(default=5.0, gt=0)
    auth_timeout_s: float = Field(default=5.0, gt=0)
    ping_interval_s: float = Field(default=20.0, gt=0)
    pong_timeout_s: float = Field(default=10.0, gt=0)
    shutdown_timeout_s: float = Field(default=10.0, gt=0)
