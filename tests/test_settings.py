"""What a user can set, by flag, environment or file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from twincast.settings import Settings


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start from a place without an .env file, and an environment without our names."""
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        for name in Settings.model_fields:
            patch.delenv(f"TWINCAST_{name.upper()}", raising=False)
        yield


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.journal) == ("127.0.0.1", 8000, "sqlite:twincast.db")
    assert (settings.allow_host, settings.allow_origin) == ((), ())
    assert settings.message_max_bytes == 64 * 1024
    assert settings.body_max_bytes == 4 * 1024 * 1024
    assert settings.request_max_updates == 10_000
    assert settings.outbox_max_bytes == 1024 * 1024
    assert settings.handshake_timeout_s == 5
    assert (settings.ping_interval_s, settings.pong_timeout_s) == (20, 10)


def test_the_environment_sets_what_carries_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINCAST_PORT", "9001")
    monkeypatch.setenv("TWINCAST_JOURNAL", "memory:")
    monkeypatch.setenv("PORT", "1")
    settings = Settings()
    assert (settings.port, settings.journal) == (9001, "memory:")


def test_a_list_is_set_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINCAST_ALLOW_ORIGIN", '["https://shop.example","http://other.example"]')
    assert Settings().allow_origin == ("https://shop.example", "http://other.example")


def test_an_env_file_sets_what_the_environment_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("TWINCAST_PORT=9002\nTWINCAST_HOST=::1\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("TWINCAST_HOST", "localhost")
    settings = Settings()
    assert (settings.host, settings.port) == ("localhost", 9002)


def test_an_argument_outranks_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINCAST_PORT", "9001")
    assert Settings(port=0).port == 0


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("MESSAGE_MAX_BYTES", "0"),
        ("OUTBOX_MAX_BYTES", "1"),
        ("REQUEST_MAX_UPDATES", "0"),
        ("PING_INTERVAL_S", "0"),
        ("PONG_TIMEOUT_S", "-1"),
        ("HANDSHAKE_TIMEOUT_S", "soon"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TWINCAST_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize("origin", ["*", "https://*.example.org", "app.example.org", "null", "https://a b", "file://"])
def test_an_origin_is_exact(origin: str) -> None:
    with pytest.raises(ValidationError, match="an origin is exact"):
        Settings(allow_origin=(origin,))
    Settings(allow_origin=("https://app.example.org", "http://127.0.0.1:3000"))


def test_a_proxy_is_a_network() -> None:
    with pytest.raises(ValidationError):
        Settings(trusted_proxy=("proxy.example.org",))
    Settings(trusted_proxy=("10.0.0.0/8", "::1"))
