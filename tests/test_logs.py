"""What the server writes about itself."""

import json
import logging
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.conftest import StartServer
from tests.credentials import AUDIENCE, ISSUER, Issuer, add_key, bearer
from tests.running import DEADLINE_S
from twincast import logs
from twincast.logs import JsonFormatter, TextFormatter

FORGED = "a\nERROR twincast: all is lost\x1b[2J\u2028b\u202e"
# Controls of ASCII and of Latin-1, ends of lines, marks that turn the direction of what follows (UAX 9, 2).
UNSAFE = [*map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029))]
UNSAFE += "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
KEPT = "~é☂\u2027\u2030😀"
BETWEEN_FIELDS = [" ", "\t", "\xa0", "\u2003", "\u3000", '"', "'", "\\", "`"]


def record(text: str, *arguments: object, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord("twincast.test", logging.WARNING, "here", 1, text, arguments, info)


def test_a_line_of_text_cannot_be_forged_by_a_name() -> None:
    line = TextFormatter().format(record("device %s", FORGED))
    assert line.count("\n") == 0
    assert "\x1b" not in line and "\u2028" not in line and "\u202e" not in line
    assert "\\x0aERROR" in line


@pytest.mark.parametrize("character", UNSAFE, ids=ascii)
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_no_character_that_acts_on_who_reads_it_is_written(formatter: logging.Formatter, character: str) -> None:
    line = formatter.format(record("device %s", f"a{character}b", error=ValueError(f"c{character}d")))
    if isinstance(formatter, TextFormatter):
        first, *trace = line.split("\n")
        assert all(part.startswith("  ") for part in trace)
        code = f"x{ord(character):02x}" if ord(character) < 0x100 else f"u{ord(character):04x}"
        assert f"a\\{code}b" in first
        assert character == "\n" or f"c\\{code}d" in trace[-1]
        assert character not in "".join([first, *trace])
    else:
        assert character not in line
        assert json.loads(line)["message"] == f"device a{character}b"
        assert f"c{character}d" in json.loads(line)["traceback"]


def test_other_characters_stay_as_they_are() -> None:
    assert KEPT in TextFormatter().format(record("device %s", KEPT))
    assert json.loads(JsonFormatter().format(record("device %s", KEPT)))["message"].endswith(KEPT)


@pytest.mark.parametrize("character", BETWEEN_FIELDS, ids=ascii)
def test_a_name_is_one_field_of_a_line_whatever_is_in_it(character: str) -> None:
    name = f"/x{character}200{character}key:1"
    line = TextFormatter().format(record("%s %s %s", "GET", name, 404))
    said = line.partition("twincast.test: ")[2]
    assert len(said.split()) == 3 and character not in said.split(" ")[1].replace("\\x", "").replace("\\u", "")
    assert json.loads(JsonFormatter().format(record("%s", name)))["message"] == name
    assert TextFormatter().format(record("%s %s", "", "b")).endswith(": - b")


def test_two_names_are_two_fields_that_differ() -> None:
    fields = {TextFormatter().format(record("%s", name)).split()[-1] for name in ("a b", "a\\x20b", "a\u2003b", "ab")}
    assert len(fields) == 4


def test_a_sentence_is_not_taken_for_a_name() -> None:
    assert (
        TextFormatter().format(record("it failed: %s", ValueError("no room here"))).endswith("it failed: no room here")
    )
    assert TextFormatter().format(record("a line as it is")).endswith("a line as it is")
    of_a_library = logging.LogRecord("uvicorn.error", logging.WARNING, "here", 1, "%s", ("it says so",), None)
    assert TextFormatter().format(of_a_library).endswith("it says so")


def test_a_line_of_json_is_one_object() -> None:
    line = JsonFormatter().format(record("device %s", FORGED))
    assert line.isascii() and line.isprintable()
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
        logging.getLogger("twincast.test").debug("not so loud")
        printed = capsys.readouterr()
        assert json.loads(printed.err)["message"] == "hello"
        assert printed.out == ""
    finally:
        root.handlers[:], root.level = before


@pytest.fixture
def without_picows(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the fast edge does not fit."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "picows.py").write_text("raise ImportError('no wheel fits')")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("how", ["fast", "portable", "uvicorn"])
def test_no_server_writes_a_credential_however_much_it_is_to_say(
    server_process: StartServer, tmp_path: Path, without_picows: dict[str, str], how: str
) -> None:
    path = tmp_path / "journal.db"
    secret = add_key(path, read=["*"], publish=["*"])
    env = {"TWINCAST_LOG_LEVEL": "debug", "UVICORN_LOG_LEVEL": "debug"} | (without_picows if how == "portable" else {})
    server = server_process(f"sqlite:{path}", edge="portable" if how == "uvicorn" else "picows", **env)
    status = httpx.get(f"{server.url}/api/status?thequery", headers=bearer(secret)).json()
    assert status["edge"] == ("picows" if how == "fast" else "portable")
    with connect(f"{server.ws_url}?devices=thequery", additional_headers=bearer(secret)) as socket:
        assert "hello" in str(socket.recv(timeout=DEADLINE_S))
    with connect(f"{server.ws_url}?auth=message&devices=thequery") as socket:
        socket.recv(timeout=DEADLINE_S)
        socket.send(json.dumps({"type": "auth", "token": secret}))
        assert "hello" in str(socket.recv(timeout=DEADLINE_S))
    printed = server.stop()
    assert secret.split("_", 2)[2] not in printed
    if how != "uvicorn":  # which writes addresses, as its users expect
        assert "thequery" not in printed


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
    for credential in (secret, secret.split("_", 2)[2], ticket, "thewrongone"):
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


def test_whoever_asks_forges_no_field_of_the_access_log(server_process: StartServer, tmp_path: Path) -> None:
    issuer = Issuer()
    (tmp_path / "issuer.pem").write_text(issuer.pem())
    server = server_process(
        "memory:",
        TWINCAST_LOG_LEVEL="info",
        TWINCAST_JWT_KEY=str(tmp_path / "issuer.pem"),
        TWINCAST_JWT_ISSUER=ISSUER,
        TWINCAST_JWT_AUDIENCE=AUDIENCE,
    )
    token = issuer.token('alice from 192.0.2.1 "x" jwt:bob', twincast={"read": ["*"]})
    for path in ("/api/data", "/a%20200%20jwt:root%20::1%20%22%20b", "/x%0d%0aGET%20/y"):
        httpx.get(f"{server.url}{path}", headers=bearer(token))
        httpx.get(f"{server.url}{path}")  # which is refused, and noted otherwise
    with connect(server.ws_url, additional_headers=bearer(token)) as socket:
        socket.recv(timeout=DEADLINE_S)
    lines = server.stop().splitlines()
    asked = [line.partition("twincast.access")[2].partition(": ")[2].split(" ") for line in lines if ".access" in line]
    assert {len(fields) for fields in asked if fields[2] != "from"} == {7}
    assert {len(fields) for fields in asked if fields[2] == "from"} == {6}
    assert {fields[0] for fields in asked} == {"GET"}
    assert {fields[4] for fields in asked if fields[2] != "from"} == {"127.0.0.1"}
    (entered,) = [line for line in lines if "twincast.admission" in line and "jwt:" in line]
    assert entered.endswith("from 127.0.0.1") and entered.count(" from ") == 1
