"""What a user can set, by flag, environment or file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from twincast.environment import Environment
from twincast.errors import SettingUnusable
from twincast.settings import Settings
from twincast.settings.amounts import pattern_and_seconds
from twincast.settings.shared import digest_of


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
    with pytest.raises(SettingUnusable, match=f"TWINCAST_{name}: must be"):
        Settings()


@pytest.mark.parametrize("origin", ["*", "https://*.example.org", "app.example.org", "null", "https://a b", "file://"])
def test_an_origin_is_exact(origin: str) -> None:
    with pytest.raises(SettingUnusable, match="an origin is exact"):
        Settings(allow_origin=(origin,))
    Settings(allow_origin=("https://app.example.org", "http://127.0.0.1:3000"))


def test_a_proxy_is_a_network() -> None:
    with pytest.raises(SettingUnusable, match="--trusted-proxy: a network is"):
        Settings(trusted_proxy=("proxy.example.org",))
    Settings(trusted_proxy=("10.0.0.0/8", "::1"))
    assert Settings(trusted_proxy=("[::1]",)).trusted_proxy == ("::1/128",)


def test_names_and_origins_are_kept_as_requests_have_them() -> None:
    settings = Settings(allow_host=("Twin.Example.",), allow_origin=("HTTPS://App.Example:443/",), host="[::1]")
    assert (settings.allow_host, settings.allow_origin) == (("twin.example",), ("https://app.example",))
    assert settings.host == "::1"


@pytest.mark.parametrize("link", ["tcp://10.43.0.1:8000", "udp://10.43.0.1:8000", "tcp://[2001:db8::1]:8000"])
def test_a_link_to_a_service_of_this_name_is_no_setting(monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    for name, text in {
        "PORT": link,
        "SERVICE_HOST": "10.43.0.1",
        "SERVICE_PORT": "8000",
        "PORT_8000_TCP": link,
        "PORT_8000_TCP_PROTO": "tcp",
    }.items():
        monkeypatch.setenv(f"TWINCAST_{name}", text)
    settings = Settings()
    assert settings.port == 8000
    assert len(settings.ignored) == 1 and f"TWINCAST_PORT={link}" in settings.ignored[0]
    Path(".env").write_text("TWINCAST_PORT=9002\n")
    assert Settings().port == 9002


@pytest.mark.parametrize("port", ["tcp://", "tcp://twin:8000", "http://10.0.0.1:8000", "10.0.0.1:8000", "8000 "])
def test_what_only_resembles_a_link_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("TWINCAST_PORT", port)
    if port.strip().isdigit():
        assert Settings().port == 8000
    else:
        with pytest.raises(SettingUnusable, match="TWINCAST_PORT: must be a whole number"):
            Settings()


def test_a_setting_that_is_there_and_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    unset = Settings()
    for name in (*Settings.model_fields, "url"):
        monkeypatch.setenv(f"TWINCAST_{name.upper()}", "")
    assert Settings() == unset
    assert Environment.read().url == "http://127.0.0.1:8000"


READ_ALL_THE_SAME = {
    "its mark of UTF-8 and ends of lines of Windows": b"\xef\xbb\xbfTWINCAST_PORT=9002\r\nTWINCAST_HOST=::1\r\n",
    "quotes and comments": b"# ours\nexport TWINCAST_PORT='9002' # so\nTWINCAST_HOST=\"::1\"\n",
    "the same twice": b"TWINCAST_PORT=1\nTWINCAST_HOST=::1\nTWINCAST_PORT=9002\n",
    "names of others, and empty ones": b"\nFOO=bar\nTWINCAST_NOTHING=1\nA=\nB\nTWINCAST_PORT=9002\nTWINCAST_HOST=::1",
    "what is no setting": b"this is prose, with a = sign\n=5\n!\nTWINCAST_PORT=9002\nTWINCAST_HOST=::1\n",
}


@pytest.mark.parametrize("what", READ_ALL_THE_SAME)
def test_an_env_file_is_read_with(what: str) -> None:
    Path(".env").write_bytes(READ_ALL_THE_SAME[what])
    settings = Settings()
    assert (settings.port, settings.host) == (9002, "::1")


NOT_TEXT = {
    "Latin-1": b"OWNER=Z\xfcrich\nTWINCAST_PORT=9002\n",
    "UTF-16 with its mark": "TWINCAST_PORT=9002\n".encode("utf-16"),
    "UTF-16 without it": "TWINCAST_PORT=9002\n".encode("utf-16-le"),
}


@pytest.mark.parametrize("what", NOT_TEXT)
def test_an_env_file_that_is_no_text_is_named(what: str) -> None:
    Path(".env").write_bytes(NOT_TEXT[what])
    with pytest.raises(SettingUnusable, match=r"the file \.env is not text in UTF-8"):
        Settings()
    with pytest.raises(SettingUnusable, match=r"\.env"):
        Environment.read()


def test_an_env_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").mkdir()
    assert Settings().port == 8000
    Path(".env").rmdir()
    Path(".env").symlink_to("/proc/self/mem")  # which nobody, root neither, reads from its beginning
    with pytest.raises(SettingUnusable, match=r"the file \.env cannot be read"):
        Settings()


def test_a_setting_of_the_file_is_named_as_such() -> None:
    Path(".env").write_text("TWINCAST_PORT=http\n")
    with pytest.raises(SettingUnusable, match=r"TWINCAST_PORT in \.env: must be a whole number"):
        Settings()


def test_a_file_that_is_wanted_is_named_not_shown() -> None:
    for name in ("tls_cert", "tls_key", "jwt_key"):
        with pytest.raises(SettingUnusable) as refused:
            Settings.model_validate({name: "-----BEGIN PRIVATE KEY-----\nsecret"})
        assert "the path of a PEM file" in refused.value.message and "secret" not in refused.value.message


def given(**texts: str) -> dict[str, Any]:
    """Return settings as the command line hands them over, whatever type they come to be of."""
    return texts


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("12h", 43_200), ("1.5 m", 90), ("90s", 90), ("2W", 1_209_600)]
)
def test_a_time_to_keep_is_a_number_and_its_unit(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    assert Settings(**given(keep=text)).keep == seconds
    monkeypatch.setenv("TWINCAST_KEEP", text)
    assert Settings().keep == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2_000_000_000), ("200 mb", 200_000_000), ("1.5GiB", 1_610_612_736), ("300000000", 3 * 10**8)],
)
def test_a_size_to_keep_is_a_number_and_its_unit(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    assert Settings(**given(keep_bytes=text)).keep_bytes == size
    monkeypatch.setenv("TWINCAST_KEEP_BYTES", text)
    assert Settings().keep_bytes == size


def test_without_a_word_everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINCAST_KEEP", "")  # as `TWINCAST_KEEP=${KEEP}` leaves it
    assert (Settings().keep, Settings().keep_bytes) == (None, None)


@pytest.mark.parametrize("text", ["0", "0d", "-1d", "30", "d", "1 fortnight", "1h30m", "1e3s", "inf d", "٣d", "nan"])
def test_a_time_that_is_none_is_refused_with_what_to_write(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(SettingUnusable, match="--keep: must be a time: a number and s, m, h, d, w or y, such as 30d"):
        Settings(**given(keep=text))
    monkeypatch.setenv("TWINCAST_KEEP", text)
    with pytest.raises(SettingUnusable, match="TWINCAST_KEEP: must be a time"):
        Settings()


@pytest.mark.parametrize("text", ["0", "0GB", "-2GB", "2 gigs", "GB", "1e9", "99999999999999TB"])
def test_a_size_that_is_none_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(SettingUnusable, match="--keep-bytes: must be a size: a number and KB, MB, GB, TB or KiB"):
        Settings(**given(keep_bytes=text))


def test_servers_of_one_log_compare_what_should_be_the_same_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_text("key")
    (tmp_path / "other.pem").write_text("key")
    (tmp_path / "wrong.pem").write_text("another key")
    own = digest_of(Settings(jwt_key="one.pem"))
    assert own == digest_of(Settings(jwt_key="other.pem", port=9, journal="memory:", outbox_max_bytes=1 << 22))
    others = {
        digest_of(Settings(jwt_key="wrong.pem")),
        digest_of(Settings(jwt_key="missing.pem")),
        digest_of(Settings(jwt_key="one.pem", rate_updates_per_s=5)),
        digest_of(Settings(jwt_key="one.pem", anonymous="read")),
        digest_of(Settings(jwt_jwks="https://login.example/keys")),
        digest_of(Settings()),
    }
    assert len(others | {own}) == 7


def test_workers_are_a_number_or_one_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.settings.amounts.cores", lambda: 3)
    assert Settings().workers == 1
    monkeypatch.setenv("TWINCAST_WORKERS", "auto")
    assert Settings().workers == 3
    monkeypatch.setattr("twincast.settings.amounts.cores", lambda: 500)
    assert Settings().workers == 64
    assert Settings(workers=4).workers == 4


def test_the_history_of_some_devices_is_kept_by_a_pattern_and_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(keep_for=("lab/*=7d", "a=b=1h")).keep_for == ("lab/*=7d", "a=b=1h")
    assert pattern_and_seconds("a=b=1.5h") == ("a=b", 5_400.0)
    monkeypatch.setenv("TWINCAST_KEEP_FOR", '["lab/*=7d"]')
    assert Settings().keep_for == ("lab/*=7d",)
    monkeypatch.setenv("TWINCAST_KEEP_FOR", "lab/*=7d")
    said = 'TWINCAST_KEEP_FOR: a list is JSON, with its quotes, such as ["lab/*=7d"]'
    with pytest.raises(SettingUnusable, match=re.escape(said)):
        Settings()
    monkeypatch.delenv("TWINCAST_KEEP_FOR")
    for rule, said in (
        ("lab/*", "must be a pattern and a time, such as lab"),
        ("=7d", "must be a pattern and a time"),
        ("lab/*=", "must be a time"),
        ("lab/*=7 weeks", "must be a time"),
        ("lab/*=0d", "must be a time"),
    ):
        with pytest.raises(SettingUnusable, match=f"--keep-for.*{said}"):
            Settings(keep_for=(rule,))
