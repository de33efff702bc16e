"""`twincast send`: one value, or one a line."""

import subprocess
from functools import partial

import pytest

from tests import warm
from tests.cli.commands import TWINCAST, assert_one_line, environment, run, values
from tests.running import DEADLINE_S, ROOT, ServerProcess, eventually


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("21.5", 21.5),
        ("on", "on"),
        ('{"a":[1]}', {"a": [1]}),
        ("null", None),
        ("true", True),
        ("-3", -3),
        ('"5"', "5"),
        ("NaN", "NaN"),
    ],
)
def test_send_takes_json_or_else_text_and_says_which(server: ServerProcess, text: str, value: object) -> None:
    result = run(server.url, "send", "lab/x", text)
    as_text = ", as text" if value == text else ""
    assert (result.returncode, result.stdout) == (0, f"stored as number 1{as_text}\n")
    assert values(server) == {"lab/x": value}


def test_send_stores_no_json_that_went_wrong(server: ServerProcess) -> None:
    for words in (["{bad"], ["[1, 2"], ['"on'], ["{a:", "1}"], ["-", "1"]):
        assert_one_line(run(server.url, "send", "lab/x", *words), 2, """quoted as a whole: '{"rpm": 900}'""")
    for word in ("1e400", '{"a":1,"a":2}', "[" * 33 + "]" * 33):
        assert_one_line(run(server.url, "send", "lab/x", word), 1, "")
    assert values(server) == {}
    assert "must be JSON" in " ".join(run("", "send", "--help").stdout.replace("│", "").split())


def test_send_reads_one_value_a_line_and_names_a_bad_one(server: ServerProcess) -> None:
    result = run(server.url, "send", "lab/x", "-", stdin='1\n\n{"a":1}\nnonsense\n1.50\n1e400\n')
    assert result.returncode == 1
    assert result.stdout == "stored: 3 readings\n"
    assert "line 4: expected a JSON value, not 'nonsense': at character 1" in result.stderr
    assert "line 6: a number is beyond 64 bits" in result.stderr
    assert server.get("/api/status")["seq"] == 3


def test_send_says_when_a_value_was_measured(server: ServerProcess) -> None:
    assert run(server.url, "send", "lab/x", "on", "--measured-at", "2026-11-27T05:16:10+01:00").returncode == 0
    result = run(server.url, "send", "lab/x", "--measured-at", "2026-11-26T00:00:00Z", "-3")
    assert result.stdout == "stored as number 2, as late: the device has a newer one\n"
    twin = server.get("/api/data")["data"]["lab/x"]
    assert (twin["value"], twin["measured_at_utc"]) == ("on", "2026-11-27T04:16:10.000000+00:00")


def test_send_takes_a_time_before_each_value_of_a_line(server: ServerProcess) -> None:
    lines = (
        '2026-11-27T04:16:10Z 1\n2026-11-27T04:16:11.5Z\t{"a": 1}\n\n3\n2026-11-27T04:16:12 4\n2026-11-27T04:16:13Z x\n'
    )
    result = run(server.url, "send", "lab/x", "-", "--timed", stdin=lines)
    assert (result.returncode, result.stdout) == (1, "stored: 2 readings\n")
    assert "line 4: expected a time, a space and a JSON value" in result.stderr
    assert "line 5: the time must be a date and a time with its zone" in result.stderr
    assert "line 6: expected a JSON value, not 'x'" in result.stderr
    assert server.get("/api/data")["data"]["lab/x"]["measured_at_utc"] == "2026-11-27T04:16:11.500000+00:00"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1", "--measured-at", "2026-11-27T04:16:10"], "--measured-at must be a date and a time with its zone"),
        (["1", "--measured-at", "now"], "--measured-at must be a date and a time with its zone"),
        (["-", "--measured-at", "2026-11-27T04:16:10Z"], "with --timed each line begins with its own time"),
        (["1", "--timed"], "one value has --measured-at"),
    ],
)
def test_send_takes_no_time_that_says_no_instant(server: ServerProcess, words: list[str], said: str) -> None:
    assert_one_line(run(server.url, "send", "lab/x", *words), 2, said)
    assert values(server) == {}


def is_newest(server: ServerProcess, number: int) -> bool:
    return values(server).get("tap") == number


def test_send_passes_lines_on_as_they_come(server: ServerProcess) -> None:
    command = warm.Popen([*TWINCAST, "send", "tap", "-"], env=environment(server.url), cwd=ROOT, stdin=subprocess.PIPE)
    assert command.stdin is not None
    for number in range(3):
        command.stdin.write(f"{number}\n".encode())
        command.stdin.flush()
        eventually(partial(is_newest, server, number), f"{number} is stored")
    command.stdin.close()
    assert command.wait(DEADLINE_S) == 0


def test_send_a_fast_source_loses_nothing(server: ServerProcess) -> None:
    result = run(server.url, "send", "lab/x", "-", stdin="".join(f"{number}\n" for number in range(10_000)))
    assert (result.returncode, result.stdout) == (0, "stored: 10,000 readings\n")
    assert server.get("/api/status")["seq"] == 10_000
    assert values(server) == {"lab/x": 9_999}


def test_one_is_not_many(server: ServerProcess) -> None:
    assert run(server.url, "send", "lab/x", "-", stdin="1\n").stdout == "stored: 1 reading\n"
    assert "not stored: 1 line\n" in run(server.url, "send", "lab/x", "-", stdin="x\n").stderr
    result = run(server.url, "host", "--count", "1", "--interval", "0.05")
    assert result.stdout == "stored: 1 reading\n"
    assert "of 1 device stored" in run(server.url, "simulate", "--devices", "1", "--seconds", "0.3").stdout
