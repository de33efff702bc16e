"""`twincast history`, as a person and a script run it."""

import csv
import io
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.cli.commands import assert_one_line, run
from twincast.cli.history import command
from twincast.testing import Clock, Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    clock = Clock("2026-11-25T10:00:00+00:00")
    with Server(clock=clock) as server:
        for number in range(10):
            values = {"lab/motor": {"rpm": number * 1.50}, "lab/door": "open" if number % 2 else "shut"}
            body = [{"device_id": name, "value": value} for name, value in values.items()]
            httpx.post(f"{server.url}/api/data", json=body).raise_for_status()
            clock.advance(60)
        yield server


def test_into_a_pipe_it_is_a_json_object_a_line(server: Server) -> None:
    for words in ([], ["--json"]):
        told = [json.loads(line) for line in run(server.url, "history", "lab/motor", *words).stdout.splitlines()]
        assert [entry["value"]["rpm"] for entry in told] == [number * 1.5 for number in range(9, -1, -1)]
    told = [
        json.loads(line)
        for line in run(server.url, "history", "lab/motor", "--every", "5m", "--path", "/rpm").stdout.splitlines()
    ]
    assert [(row["min"], row["max"]) for row in told] == [(0.0, 6.0), (7.5, 13.5)]


def test_as_csv_it_has_a_header(server: Server) -> None:
    words = ["--csv", "--from", "-3m", "--path", "/rpm", "--limit", "2"]
    told = list(csv.DictReader(io.StringIO(run(server.url, "history", "lab/motor", *words).stdout)))
    assert [(row["seq"], row["number"]) for row in told] == [("19", "13.5"), ("17", "12.0")]


def test_in_a_terminal_numbers_are_a_curve(server: Server, terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    command("lab/motor", since="-10m", path="/rpm", url=server.url)
    said = capsys.readouterr().out.splitlines()
    assert "●" in said[0]
    assert said[0].split()[0] == "13.5"
    assert said[-1].startswith("lab/motor /rpm: 10 numbers from 0 to 13.5, by ")


def test_in_a_terminal_texts_are_the_newest_values(
    server: Server, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command("lab/door", url=server.url)
    said = capsys.readouterr().out.splitlines()
    assert (len(said), said[-1]) == (10, '2026-11-25 10:09:00.000  "open"')
    command("lab/door", limit=1, url=server.url)
    assert capsys.readouterr().out == '2026-11-25 10:09:00.000  "open"\n'
    command("lab/door", since="2020-01-01T00:00:00Z", until="2020-01-02T00:00:00Z", url=server.url)
    assert capsys.readouterr().out == "nothing in this time\n"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.cli.terminal.Output.is_terminal", True)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["nobody"], 1, "there is no device 'nobody', and no history of one"),
        (["lab/motor", "--from", "2026-11-25"], 1, "ISO 8601 with a zone"),
        (["lab/motor", "--json", "--csv"], 2, "give --json or --csv, not both"),
        (["lab/motor", "--every", "1s", "--from", "-7d"], 1, "the smallest `every` that fits is"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(server: Server, words: list[str], status: int, said: str) -> None:
    result = run(server.url, "history", *words)
    assert_one_line(result, status, said)
