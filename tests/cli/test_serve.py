"""`twincast serve`: its options, its help, and what keeps it from starting."""

import os
import signal
import socket
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests import warm
from tests.cli.commands import TWINCAST, assert_one_line, run
from tests.running import DEADLINE_S, ROOT, ServerProcess, eventually, free_port
from twincast.cli.serve import FIRST_SETTINGS, settings_table
from twincast.journal.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION
from twincast.settings import Settings


def test_the_help_of_serve_has_every_setting_with_its_default_and_its_variable() -> None:
    wide = {**os.environ, "COLUMNS": "400"}
    told = warm.run([*TWINCAST, "serve", "--help"], env=wide, capture_output=True, text=True, check=True).stdout
    first, _, advanced = told.partition("Advanced")
    for name, field in Settings.model_fields.items():
        option = f"--{name.replace('_', '-')} "
        (line,) = [line for line in told.splitlines() if option in line]
        assert f"[env: TWINCAST_{name.upper()}]" in line and field.description, name
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"[default: {field.default}]" in line
        assert (option in first) is (name in FIRST_SETTINGS) is (option not in advanced)
    assert "--host " in first and "[default: 127.0.0.1]" in first
    assert len(FIRST_SETTINGS) == 15


def test_the_table_of_the_documents_is_made_of_the_settings() -> None:
    """`twincast.cli.serve.settings_table()` prints what belongs there."""
    assert settings_table() in (ROOT / "docs" / "command-line.md").read_text()


def test_every_default_is_shown_also_one_that_is_nothing() -> None:
    wide = {**os.environ, "COLUMNS": "400"}
    told = warm.run([*TWINCAST, "serve", "--help"], env=wide, capture_output=True, text=True, check=True).stdout
    assert told.count("[env: ") == len(Settings.model_fields) == told.count("[default: ")
    assert "[env: TWINCAST_LAN] [default: false]" in told and "[env: TWINCAST_TLS_KEY] [default: not set]" in told
    assert "](" not in told  # links are the page's


def test_an_advanced_setting_is_a_flag_and_a_wrong_one_is_named() -> None:
    assert_one_line(run("", "serve", "--outbox-max-bytes", "1"), 2, "--outbox-max-bytes: must be at least 65536")
    assert_one_line(run("", "serve", "--log-format", "xml"), 2, "--log-format: must be 'text' or 'json'")


def test_serve_refuses_workers_that_would_share_nothing_and_says_what_they_can_share() -> None:
    refused = run("", "serve", "--workers", "2", "--port", "0", "--journal", "memory:")
    assert_one_line(refused, 2, "several processes share a log on disk")


@pytest.mark.parametrize(("given", "told"), [("0", "at least 1"), ("65", "at most 64"), ("all", "a whole number")])
def test_serve_says_how_many_workers_there_may_be(given: str, told: str) -> None:
    assert_one_line(run("", "serve", "--workers", given), 2, f"--workers: must be {told}")


def test_serve_refuses_a_public_address_and_says_what_to_do() -> None:
    result = run("", "serve", "--host", "0.0.0.0")
    assert result.returncode == 1
    assert "twincast keys add" in result.stderr
    assert "--tls-cert" in result.stderr
    assert "--behind-tls-proxy" in result.stderr


def test_serve_says_that_its_port_is_in_use(server: ServerProcess) -> None:
    assert_one_line(
        run("", "serve", "--port", str(server.port), "--journal", "memory:"), 1, "another program is listening"
    )


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--keep-bytes", "30MB"], "has no room for the newest 1,000,000 entries"),
        (["--keep-for", "lab\\x=7d"], "--keep-for"),
        (["--tls-cert", "nothing.pem", "--tls-key", "nothing.pem"], "nothing.pem"),
        (["--jwt-key", "nothing.pem"], "nothing.pem"),
        (["--self-signed", "--keep-bytes", "30MB"], "has no room for the newest 1,000,000 entries"),
        (["--self-signed", "--jwt-key", "nothing.pem"], "nothing.pem"),
        (["--journal", "sqlite:notes.txt"], "not a journal"),
        (["--self-signed", "--journal", "sqlite:notes.txt"], "notes.txt"),
        (["--journal", "sqlite:other.db"], "not a twincast journal"),
        (["--journal", "sqlite:newer.db"], "written by a newer twincast"),
        (["--journal", "sqlite:missing/journal.db"], "missing/journal.db"),
    ],
)
def test_a_start_that_is_refused_leaves_nothing_behind(
    tmp_path: Path, words: list[str], said: str, workers: str
) -> None:
    (tmp_path / "notes.txt").write_text("to be kept")
    for name in "other", "newer":
        with closing(apsw.Connection(str(tmp_path / f"{name}.db"))) as db:
            db.execute("create table t (a)")
            if name == "newer":
                db.pragma("application_id", APPLICATION_ID)
                db.pragma("user_version", SCHEMA_VERSION + 1)
    before = files_in(tmp_path)
    refused = warm.run(
        [*TWINCAST, "serve", "--workers", workers, "--port", str(free_port()), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert refused.returncode in {1, 2}, refused
    assert said in refused.stderr and "Traceback" not in refused.stderr
    assert files_in(tmp_path) == before


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_serve_says_what_is_wrong_with_a_setting() -> None:
    assert_one_line(run("", "serve", "--port", "70000"), 2, "--port")
    assert_one_line(run("", "serve", "--journal", "tape:x"), 1, "sqlite:PATH")


def test_serve_says_which_variable_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINCAST_ALLOW_HOST", "[twin.example.org]")  # what is left when something eats the quotes
    assert_one_line(run("", "serve"), 2, "TWINCAST_ALLOW_HOST")


@pytest.mark.parametrize("content", [b"this is a letter, not a database" * 40, b"SQLite format 3\0" + b"x" * 4_000])
def test_serve_refuses_a_file_that_is_no_journal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    result = run("", "serve", "--port", str(free_port()), "--journal", f"sqlite:{path}")
    assert_one_line(result, 1, str(path))
    assert path.read_bytes() == content


def test_serve_says_where_the_dashboard_is_and_ends_cleanly_at_ctrl_c(server: ServerProcess) -> None:
    printed = server.stop(signal.SIGINT)
    assert f"{server.url}/dashboard" in printed
    assert "Traceback" not in printed
    assert server.process.returncode == 0


def test_a_second_ctrl_c_ends_it_at_once_in_one_line(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(b"POST /api/data HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
        eventually(lambda: server.get("/api/status")["ok"], "it has read what came before")
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: not _listens(server.port), "it waits for the request that is under way")
        printed = server.stop(signal.SIGINT)
    assert "Traceback" not in printed and "ERROR" not in printed
    assert printed.count("stopped at once, as a second signal asked") == 1
    assert server.process.returncode == 0


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
