"""A new server on a log whose stream was trimmed begins with the copy of one that runs: `twincast journal fetch`."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from tests import warm
from tests.running import eventually
from twincast.client import Rest
from twincast.cluster import trimming
from twincast.cluster.engine import Engine
from twincast.errors import NotFound, RateLimited, ValidationFailed
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.link import Link
from twincast.journal.jetstream.stream import stream_facts
from twincast.testing import Server


def fetch(folder: Path, peer: str, journal: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twincast", "journal", "fetch", peer, "--journal", journal]
    env = {**os.environ, "TWINCAST_TOKEN": ""}
    return warm.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=env)


async def trim(address: NatsAddress, stream_seq: int) -> None:
    link = await Link.connect(address)
    try:
        await link.ask(f"STREAM.PURGE.{address.stream}", {"seq": stream_seq, "filter": address.log_subject})
    finally:
        await link.close()


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "nats", asks_token=False) as engine:
        yield engine


def test_a_new_server_is_refused_fetches_and_serves_what_the_others_do(nats: Engine, tmp_path: Path) -> None:
    one_url, two_url = (f"{nats.url}/lab?copy={tmp_path}/{name}.db&as={name}" for name in ("one", "two"))
    with Server(one_url) as one:
        for number in range(20):
            httpx.post(f"{one.url}/api/data", json={"device_id": f"d{number % 4}", "value": number}).raise_for_status()
        asyncio.run(trim(NatsAddress.parse(one_url), 15))
        with pytest.raises(Exception, match="journal fetch"), Server(two_url):
            pass
        done = fetch(tmp_path, one.url, two_url)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "up to entry 20, checked" in done.stderr
        with Server(two_url) as two:
            assert httpx.get(f"{two.url}/api/data").json()["data"] == httpx.get(f"{one.url}/api/data").json()["data"]
            history = [
                httpx.get(f"{each.url}/api/events?since_seq=0", headers={"Accept": "application/json"}).content
                for each in (one, two)
            ]
            assert history[0] == history[1]
        again = fetch(tmp_path, one.url, one_url)
        assert again.returncode == 1
        assert "in use by another server" in again.stderr


def test_a_copy_is_for_administrators_on_one_log_of_many_and_comes_one_at_a_time(nats: Engine, tmp_path: Path) -> None:
    with Server(f"{nats.url}/lab?copy={tmp_path}/one.db") as one, httpx.Client() as http:
        for _ in range(30):
            body = [{"device_id": f"d{device}", "value": "x" * 4_000} for device in range(200)]
            http.post(f"{one.url}/api/data", json=body).raise_for_status()
        with http.stream("GET", f"{one.url}/api/cluster/copy", headers={"Accept-Encoding": "identity"}) as answer:
            assert answer.headers["Content-Type"] == "application/vnd.sqlite3"
            busy = httpx.get(f"{one.url}/api/cluster/copy")
            assert (busy.status_code, msgspec.json.decode(busy.content)["code"]) == (429, "rate_limited")
        for _ in range(2):  # the first one was given up, and the next may have it as soon as that is seen
            eventually(lambda: comes_whole(one, tmp_path), "a copy comes")
    with Server() as alone, Rest(alone.url) as rest, pytest.raises(NotFound):
        rest.copy_log(str(tmp_path / "none.db"))
    with Rest("http://192.0.2.1") as rest, pytest.raises(ValidationFailed, match="by TLS"):
        rest.copy_log(str(tmp_path / "none.db"))


def comes_whole(server: Server, folder: Path) -> bool:
    path, told = folder / "fetched.db", list[tuple[int, int]]()
    with Rest(server.url) as rest:
        try:
            rest.copy_log(str(path), lambda done, total: told.append((done, total)))
        except RateLimited:
            return False
    size_bytes = path.stat().st_size
    path.unlink()
    assert told[-1] == (size_bytes, size_bytes)
    return size_bytes > 20_000_000


def test_what_is_no_longer_kept_goes_from_the_stream_too(
    nats: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "ROUND_S", 0.1)
    url = f"{nats.url}/lab?copy={tmp_path}/one.db"

    async def first_seq() -> int:
        link = await Link.connect(address := NatsAddress.parse(url))
        try:
            return (await stream_facts(link, address)).first_seq
        finally:
            await link.close()

    with Server(url, keep=1.0, resume_max_entries=1) as one:

        def trims() -> bool:
            httpx.post(f"{one.url}/api/data", json={"device_id": "d", "value": 1}).raise_for_status()
            return asyncio.run(first_seq()) > 3

        eventually(trims, "the stream is trimmed")
        assert httpx.get(f"{one.url}/api/status").json()["ok"]


def test_of_a_shared_log_the_copy_here_is_backed_up_checked_and_described(nats: Engine, tmp_path: Path) -> None:
    url = f"{nats.url}/lab?copy={tmp_path}/one.db"

    def journal(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "twincast", "journal", *words, "--journal", url]
        return warm.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert "no copy of it" in journal("info").stderr
    with Server(url) as one:
        httpx.post(f"{one.url}/api/data", json={"device_id": "d", "value": 1}).raise_for_status()
        for words in (["backup", "monday"], ["check"], ["info", "--json"]):
            done = journal(*words)
            assert (done.returncode, "one.db, a copy of the shared log" in done.stderr) == (0, True), done.stderr
    refused = journal("restore", "monday")
    assert refused.returncode == 1
    assert "is not put back under them" in refused.stderr
