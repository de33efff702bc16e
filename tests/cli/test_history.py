"""`twincast history`, as a person and a script run it."""

import csv
import io
import json
from collections.abc import Iterator

import httpx
import pytest
import typer

from tests.cli.commands import assert_one_line, run
from twincast.cli.history import command
from twincast.cli.terminal import out
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


def test_into_a_pipe_it_is_everything(server: Server) -> None:
    body = [{"device_id": "lab/many", "value": value} for value in range(1_234)]
    httpx.post(f"{server.url}/api/data", json=body).raise_for_status()
    told = run(server.url, "history", "lab/many").stdout.splitlines()
    assert [json.loads(line)["value"] for line in told] == list(range(1_233, -1, -1))
    assert run(server.url, "history", "lab/many", "--limit", "7").stdout.splitlines() == told[:7]


@pytest.mark.parametrize("words", [["--json"], ["--csv"], []])
def test_a_pipe_that_stays_empty_is_explained_beside_it(server: Server, words: list[str]) -> None:
    empty = run(server.url, "history", "lab/motor", "--every", "1h", *words)
    assert_one_line(empty, 0, "no numbers in this time; --path /NAME takes a part of an object")
    empty = run(server.url, "history", "lab/motor", "--from", "2020-01-01T00:00Z", "--to", "2020-01-02T00:00Z", *words)
    assert_one_line(empty, 0, "nothing in this time")


def test_several_paths_are_each_in_the_lines(server: Server) -> None:
    said = run(server.url, "history", "lab/motor", "--path", "/rpm", "--path", "/none", "--limit", "1").stdout
    assert json.loads(said)["value"] == {"/rpm": 13.5}


def test_as_csv_it_has_a_header(server: Server) -> None:
    words = ["--csv", "--from", "-3m", "--path", "/rpm", "--limit", "2"]
    told = list(csv.DictReader(io.StringIO(run(server.url, "history", "lab/motor", *words).stdout)))
    assert [(row["seq"], row["number"]) for row in told] == [("19", "13.5"), ("17", "12.0")]


def test_in_a_terminal_numbers_are_a_curve(server: Server, terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    command("lab/motor", since="-10m", path=["/rpm"], url=server.url)
    said = capsys.readouterr().out.splitlines()
    assert "●" in said[0]
    assert said[0].split()[0] == "13.5"
    assert said[-1].startswith("lab/motor /rpm: 10 numbers, from 0 to 13.5, by ")
    command("lab/motor", since="-1m", path=["/rpm"], url=server.url)
    assert "lab/motor /rpm: 1 number, 13.5, by " in capsys.readouterr().out


@pytest.mark.parametrize("width", [24, 50, 80])
@pytest.mark.parametrize("every", [None, "1d", "5m", "1s"])
@pytest.mark.usefixtures("terminal")
def test_a_curve_fits_the_terminal_and_says_it_where_buckets_are_wider_than_asked(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    width: int,
    every: str | None,
) -> None:
    monkeypatch.setattr(out.console, "width", width)
    command("lab/motor", since="-2000d", every=every, path=["/rpm"], url=server.url)
    *drawn, said = capsys.readouterr().out.splitlines()
    assert max(map(len, drawn)) <= width
    assert (f" ({every} has more than fit here), in UTC" in said) is (every is not None)


def test_a_curve_has_its_times_in_the_zone_of_its_buckets(
    server: Server, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command("lab/motor", since="-2d", every="1d", tz="Europe/Berlin", path=["/rpm"], url=server.url)
    *_, axis, said = capsys.readouterr().out.splitlines()
    assert axis.strip() == "2026-11-23 00:00:00 to 2026-11-25 00:00:00"
    assert said.endswith("by 1d, in Europe/Berlin")


def test_several_paths_are_a_curve_each(server: Server, terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    command("lab/motor", path=["/rpm", "/none"], url=server.url)
    said = capsys.readouterr().out
    assert "lab/motor /rpm: 10 numbers" in said
    assert said.endswith("lab/motor /none: no numbers in this time\n")


def test_what_a_curve_does_not_show_is_refused_in_a_terminal(server: Server, terminal: None) -> None:
    with pytest.raises(typer.BadParameter, match="--agg is of lines"):
        command("lab/motor", every="1h", agg="max", path=["/rpm"], url=server.url)
    with pytest.raises(typer.BadParameter, match="`limit` is of entries"):
        command("lab/motor", every="6h", limit=3, path=["/rpm"], url=server.url)


def test_in_a_terminal_texts_are_the_newest_values(
    server: Server, terminal: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command("lab/door", url=server.url)
    *said, last = capsys.readouterr().out.splitlines()
    assert (len(said), said[-1]) == (10, '2026-11-25 10:09:00.000  "open"')
    assert last == "lab/door: no numbers in this time; 10 values, the newest last; times in UTC"
    command("lab/door", limit=1, url=server.url)
    assert capsys.readouterr().out.splitlines() == [
        '2026-11-25 10:09:00.000  "open"',
        "lab/door: the newest 1 value; --limit asks for more; times in UTC",
    ]
    command("lab/door", tz="Europe/Berlin", url=server.url)
    assert '2026-11-25 11:09:00.000  "open"\n' in capsys.readouterr().out
    monkeypatch.setattr(out.console, "width", 28)
    command("lab/door", limit=1, url=server.url)
    assert capsys.readouterr().out.splitlines()[0] == '2026-11-25 10:09:00.000  "o…'
    command("lab/door", since="2020-01-01T00:00:00Z", until="2020-01-02T00:00:00Z", url=server.url)
    assert capsys.readouterr().out == "nothing in this time\n"


def test_where_a_history_was_deleted_that_is_said_and_when(
    server: Server, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    name, address = "lab/gone", f"{server.url}/api/data/lab%2Fgone"
    why = f"the history of {name} up to 2026-11-25 10:10:00 (UTC) was deleted"
    body = {"device_id": name, "value": 1}
    httpx.post(f"{server.url}/api/data", json=body).raise_for_status()
    httpx.delete(f"{address}/history").raise_for_status()
    for words in ([], ["--json"], ["--csv"], ["--limit", "3"]):
        assert_one_line(run(server.url, "history", name, *words), 0, f"nothing in this time; {why}")
    empty = run(server.url, "history", name, "--every", "1h")
    assert_one_line(empty, 0, f"no numbers in this time; --path /NAME takes a part of an object; {why}")
    command(name, url=server.url)
    command(name, limit=3, url=server.url)
    command(name, tz="Europe/Berlin", url=server.url)
    assert capsys.readouterr().out.splitlines() == [
        f"nothing in this time; {why}",
        f"nothing in this time; {why}",
        f"nothing in this time; the history of {name} up to 2026-11-25 11:10:00 (Europe/Berlin) was deleted",
    ]
    httpx.post(f"{server.url}/api/data", json=body).raise_for_status()
    httpx.delete(address).raise_for_status()  # a deletion that leaves the history hides nothing
    command(name, limit=3, until="2026-11-24T00:00:00Z", url=server.url)
    command(name, limit=3, url=server.url)
    nothing, *found = capsys.readouterr().out.splitlines()
    assert nothing == f"nothing in this time; {why}"
    assert [line.split()[-1] for line in found[:-1]] == ["1"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.cli.terminal.Output.is_terminal", True)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["lab/motor", "--every", "soon"], 2, "`every` is a whole number and a unit"),
        (["lab/motor", "--every", "1h", "--agg", "median"], 2, "the aggregates are avg, "),
        (["lab/motor", "--agg", "max"], 2, "`agg` is of buckets"),
        (["lab/motor", "--every", "6h", "--limit", "3"], 2, "`limit` is of entries"),
        (["lab/*"], 1, "this command takes the name of one device, not a pattern"),
        (["nobody"], 1, "there is no device 'nobody', and no history of one"),
        (["lab/motor", "--from", "2026-11-25"], 2, "ISO 8601 with a zone"),
        (["lab/motor", "--json", "--csv"], 2, "give --json or --csv, not both"),
        (
            ["lab/motor", "--every", "1s", "--from", "-7d"],
            2,
            "the smallest `every` of whole seconds that fits a range of this length is 61s",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(server: Server, words: list[str], status: int, said: str) -> None:
    result = run(server.url, "history", *words)
    assert_one_line(result, status, said)
