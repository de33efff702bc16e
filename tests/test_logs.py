"""What the server writes about itself."""

import json
import logging
import sys
from pathlib import Path

import httpx
import pytest

from tests.access import add_key, bearer
from tests.conftest import StartServer
from twincast import logs
from twincast.logs import JsonFormatter, TextFormatter

FORGED = "a\nERROR twincast: all is lost\x1b[2J\u2028b\u202e"


def record(text: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord("twincast.test", logging.WARNING, "here", 1, text, arguments, info)


def test_a_line_of_text_cannot_be_forged_by_a_name() -> None:
    line = TextFormatter().format(record("device %s", FORGED))
    assert line.count("\n") == 0
    assert "\x1b" not in line and "\u2028" not in line and "\u202e" not in line
    assert "\\x0aERROR" in line


def test_a_line_of_json_is_one_object() -> None:
    line = JsonFormatter().format(record("device %s", FORGED))
    assert "\n" not in line and "\x1b" not in line
    told = json.loads(line)
    assert told["message"] == f"device {FORGED}"
    assert (told["level"], told["logger"]) == ("warning", "twincast.test")
    assert told["time_utc"].endswith("+00:00")


def test_a_traceback_is_kept_and_escaped() -> None:
    error = ValueError(FORGED)
    text = TextFormatter().format(record("it failed", error=error))
    assert "ValueError: a" in text and "\x1b" not in text
    assert "ValueError" in json.loads(JsonFormatter().format(record("it failed", error=error)))["traceback"]


def test_lines_about_one_request_carry_its_number() -> None:
    logs.CONNECTION.set(7)
    try:
        assert " [7]: hello" in TextFormatter().format(record("hello"))
        assert json.loads(JsonFormatter().format(record("hello")))["connection"] == 7
    finally:
        logs.CONNECTION.set(0)


def test_logs_go_to_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure("json", "info")
        logging.getLogger("twincast.test").info("hello")
        assert json.loads(capsys.readouterr().err)["message"] == "hello"
    finally:
        root.handlers[:], root.level = before
    assert sys.stderr


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_a_server_writes_names_who_asked_and_never_a_credential(
    server_process: StartServer, tmp_path: Path, style: str
) -> None:
    path = tmp_path / "journal.db"
    secret = add_key(path, read=["*"], publish=["*"])
    server = server_process(f"sqlite:{path}", TWINCAST_LOG_LEVEL="debug", TWINCAST_LOG_FORMAT=style)
    ticket = httpx.post(f"{server.url}/api/tickets", json={}, headers=bearer(secret)).json()["ticket"]
    httpx.get(f"{server.url}/api/events?ticket={ticket}")
    httpx.get(f"{server.url}/api/data", headers=bearer(secret))
    httpx.get(f"{server.url}/api/data", headers=bearer("twc_00000000_thewrongone"))
    httpx.get(f"{server.url}/nothing%0aERROR%1b[2J", headers=bearer(secret))
    printed = server.stop()
    key_id = secret.split("_")[1]
    assert f"key:{key_id} 127.0.0.1" in printed
    for credential in (secret, secret.split("_")[2], ticket, "thewrongone"):
        assert credential not in printed
    assert "\x1b[2J" not in printed
    assert not any(line.startswith("ERROR") for line in printed.splitlines())
    if style == "json":
        lines = [line for line in printed.splitlines() if line.startswith("{")]
        assert any(json.loads(line).get("connection") for line in lines)


def test_a_server_that_nothing_happens_to_writes_nothing(server_process: StartServer) -> None:
    server = server_process()
    httpx.get(f"{server.url}/api/data")
    httpx.get(f"{server.url}/nothing")
    printed = server.stop()
    assert "WARNING" not in printed and "INFO" not in printed and "ERROR" not in printed
