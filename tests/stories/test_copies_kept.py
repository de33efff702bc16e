"""Servers on one log keep only so much, each in its own copy: all of them answer alike what was and what is no more."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.running import eventually
from tests.stories.test_fetch import fetch, trim
from twincast.client import Rest
from twincast.cluster.engine import Engine
from twincast.errors import Truncated
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.history import thinning
from twincast.journal.sqlite.history.layout import folder_of
from twincast.testing import Server

DEADLINE_S = 30
READINGS = 130
ENTRIES = (50, 50, 40)
"""How many make a partition at each server: these need not agree. The 30 that are left open in the end fill none."""
RESUMED_FROM = 10
SUMMED = {"keep": 1.0, "keep_rollups": 86_400.0, "resume_max_entries": RESUMED_FROM}
THINNED = {"keep_for": ("lab/*=1s",), "resume_max_entries": RESUMED_FROM}


class Copies:
    """Servers on one log, each with its own copy."""

    def __init__(self, nats: Engine, folder: Path, stack: ExitStack, **kept: Any) -> None:
        self.paths = [folder / f"s{i}" / "copy.db" for i in range(len(ENTRIES))]
        self.urls = [f"{nats.url}/lab?copy={path}&as={path.parent.name}" for path in self.paths]
        self.servers: list[Server] = []
        for path, url, entries in zip(self.paths, self.urls, ENTRIES, strict=True):
            path.parent.mkdir()
            self.servers.append(stack.enter_context(Server(url, partition_entries=entries, **kept)))

    def publish(self, devices: tuple[str, ...]) -> None:
        """Have each server take some of the readings, in turns; they count up."""
        for n in range(READINGS):
            with closing(Rest(self.servers[n % len(self.servers)].url)) as rest:
                rest.publish(devices[n % len(devices)], n)

    def wait_for_oldest(self, *seqs: int) -> None:
        """Wait until the copies have the whole log, from such positions on."""

        def said() -> list[tuple[int, int]]:
            spaces = [ask(server, "/api/status") for server in self.servers]
            return [(each["seq"], each["space"]["oldest_seq"]) for each in spaces]

        expected = [(READINGS, seq) for seq in seqs]
        eventually(lambda: said() == expected, f"the copies begin at {seqs}", DEADLINE_S)

    def delete_copy(self, i: int) -> None:
        """End a server, and delete its copy with all that belongs to it."""
        self.servers[i].stop()
        self.paths[i].unlink()
        shutil.rmtree(folder_of(str(self.paths[i])))

    def check(self) -> None:
        """Check that the files of each copy are whole."""
        assert [problems(str(path)) for path in self.paths] == [[]] * len(self.paths)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "nats", asks_token=False) as engine:
        yield engine


def ask(server: Server, address: str, **parameters: str) -> dict[str, Any]:
    answer = requests.get(f"{server.url}{address}", params=parameters, timeout=DEADLINE_S)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def hours(server: Server) -> dict[str, Any]:
    """Return the sums by hour of all devices, and from where on nothing lacks in them."""
    asked = {"every": "1h", "agg": "count,sum,min,max,min_t,max_t", "from": "-1d"}
    told = ask(server, "/api/history", devices="*", **asked)
    return {name: told[name] for name in ("epoch", "seq", "reaches_back_to", "series")}


def counts(server: Server) -> dict[str, int]:
    """Return how many readings the sums by hour are of, by device."""
    return {each["device_id"]: sum(each["count"]) for each in hours(server)["series"]}


def entries(server: Server) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of all devices, by device."""
    told = ask(server, "/api/history", devices="*", limit="1000", order="asc")
    return {each["device_id"]: each["entries"] for each in told["devices"]}


def seqs(server: Server, device_id: str) -> list[int]:
    return [entry["seq"] for entry in entries(server)[device_id]]


def reaches_back_to(server: Server) -> Any:
    return ask(server, "/api/history", devices="*")["reaches_back_to"]


def is_gone(server: Server, seq: int) -> bool:
    """Return whether the state at a position is refused; the client says the same, and a stream that resumes there."""
    position = f"{ask(server, '/api/status')['epoch']}:{seq}"
    at = requests.get(f"{server.url}/api/data", params={"at": position}, timeout=DEADLINE_S)
    is_refused = (at.status_code, at.json().get("code")) == (410, "truncated")
    assert is_refused or at.status_code == 200
    with closing(Rest(server.url)) as rest, pytest.raises(Truncated) if is_refused else nullcontext():
        rest.state_at(position)
    poll = ask(server, "/api/events", since=position)
    is_resumed = not is_refused and seq >= READINGS - RESUMED_FROM
    assert (poll["resumed"], poll.get("reason")) == ((True, None) if is_resumed else (False, "too_old"))
    return is_refused


def test_of_what_each_has_dropped_all_have_the_same_sums_and_none_has_entries(nats: Engine, tmp_path: Path) -> None:
    with ExitStack() as stack:
        copies = Copies(nats, tmp_path, stack, **SUMMED)
        one, two, other = copies.servers
        copies.publish(("lab/lamp",))
        copies.wait_for_oldest(101, 101, 121)
        summed = hours(one)
        (lamp,) = summed["series"]
        assert (sum(lamp["count"]), sum(lamp["sum"])) == (READINGS, sum(range(READINGS)))
        assert (min(lamp["min"]), max(lamp["max"])) == (0, READINGS - 1)
        assert hours(two) == hours(other) == summed
        assert [seqs(server, "lab/lamp") for server in copies.servers] == [
            [*range(first, READINGS + 1)] for first in (101, 101, 121)
        ]
        assert entries(one) == entries(two)
        assert summed["reaches_back_to"] < reaches_back_to(one) == reaches_back_to(two) < reaches_back_to(other)
        for first, server in zip((101, 101, 121), copies.servers, strict=True):
            assert [is_gone(server, seq) for seq in (1, first - 2, first, READINGS)] == [True, True, False, False]

        copies.delete_copy(1)  # the stream has all of the log still, so that all of it is summed up anew
        two.start()
        copies.wait_for_oldest(101, 101, 121)
        assert hours(two) == summed
        assert entries(two) == entries(one)

        copies.delete_copy(2)
        asyncio.run(trim(NatsAddress.parse(copies.urls[0]), READINGS - 10))
        with pytest.raises(Exception, match="journal fetch"):
            other.start()
        other.stop()
        fetched = fetch(tmp_path, one.url, copies.urls[2])
        assert fetched.returncode == 0, fetched.stderr
        other.start()
        copies.wait_for_oldest(101, 101, 101)
        assert counts(other) == {"lab/lamp": 30}, "sums of what is gone do not come with it"
        assert hours(other)["reaches_back_to"] == reaches_back_to(other) == reaches_back_to(one)
        assert entries(other) == entries(one)
        assert [is_gone(other, seq) for seq in (1, 99, 101)] == [True, True, False]
    copies.check()


def test_devices_that_are_kept_for_less_are_thinned_out_of_each_copy(
    nats: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinning, "LOOK_S", 0.1)
    with ExitStack() as stack:
        copies = Copies(nats, tmp_path, stack, **THINNED)
        one, two, other = copies.servers
        copies.publish(("lab/lamp", "hall/door"))
        begin = (51, 51, 81)  # the newest partition of each stays as it is
        for _ in range(2):
            copies.wait_for_oldest(*begin)
            door = entries(one)["hall/door"]
            assert [entry["value"] for entry in door] == [*range(1, READINGS, 2)]
            assert entries(two)["hall/door"] == entries(other)["hall/door"] == door
            assert entries(two) == entries(one)
            for first, server in zip(begin, copies.servers, strict=True):
                assert seqs(server, "lab/lamp") == [*range(first, READINGS + 1, 2)]
                assert counts(server) == {name: len(found) for name, found in entries(server).items()}
                assert [is_gone(server, seq) for seq in (1, first - 2, first)] == [True, True, False]
            assert reaches_back_to(one) == reaches_back_to(two) < reaches_back_to(other)
            copies.delete_copy(2)
            other.start()
        copies.wait_for_oldest(*begin)
    copies.check()
