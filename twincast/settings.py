"""What a user can set, by flag or by a `TWINCAST_…` environment variable."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The frozen settings of one server; each default is the documented one."""

    model_config = SettingsConfigDict(env_prefix="TWINCAST_", env_file=".env", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    journal: str = "sqlite:twincast.db"
    """`sqlite:PATH`, or `memory:` to forget everything at exit."""
    allow_origin: tuple[str, ...] = ()
    """Web origins, besides the server's own, whose pages may connect."""
    allow_host: tuple[str, ...] = ()
    """Names, besides the local ones, that the server answers to."""

    message_max_bytes: int = Field(default=64 * 1024, ge=128)
    body_max_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    request_max_updates: int = Field(default=10_000, ge=1)
    outbox_max_bytes: int = Field(default=1024 * 1024, ge=64 * 1024)
    open_batch_max_bytes: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    memory_journal_max_bytes: int = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    resume_max_entries: int = Field(default=1_000_000, ge=0)
    handshake_timeout_s: float = Field(default=5.0, gt=0)
    ping_interval_s: float = Field(default=20.0, gt=0)
    pong_timeout_s: float = Field(default=10.0, gt=0)
    shutdown_timeout_s: float = Field(default=10.0, gt=0)
