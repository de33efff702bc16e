"""`twincast serve --workers`: real processes on one log, killed and stopped in every way there is."""

import asyncio
import json
import re
import signal
import sqlite3
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests import warm
from tests.cli.commands import TWINCAST
from tests.credentials import bearer
from tests.running import DEADLINE_S, ROOT, ServerProcess, eventually, free_port
from twincast.cluster.engine import Engine
from twincast.errors import JournalUnusable
from twincast.journal.stores import open_stores


class Workers(ServerProcess):
    """A server of several processes, and which those are."""

    def __init__(self, path: Path, count: int = 2, *, journal: str = "", **how: Any) -> None:
        super().__init__(journal or f"sqlite:{path}", **{"TWINCAST_WORKERS": str(count), **how})

    def ready(self) -> Self:
        """Wait until all of them serve."""
        eventually(lambda: self.process.poll() is not None or "is up" in self.printed(), "all workers serve", 90.0)
        return super().ready()

    def processes(self, what: str) -> list[psutil.Process]:
        """Return those that run with something in their command, such as worker-1."""
        try:
            below = psutil.Process(self.process.pid).children()
            return [each for each in below if what in " ".join(each.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def all_processes(self) -> list[psutil.Process]:
        return [psutil.Process(self.process.pid), *self.processes("")]

    def kill_one(self, what: str) -> None:
        """Kill the process with this in its command, and wait until another has its place and the server answers."""
        (before,) = self.processes(what)
        before.kill()
        eventually(lambda: [each.pid for each in self.processes(what) if each.pid != before.pid], f"{what} is started")
        self.ready()


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs, and does not only wait for its parent to ask how it ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "twincast.db"


@pytest.fixture
def started(path: Path) -> Iterator[Callable[..., Workers]]:
    """Start servers, without waiting for them; all end with the test."""
    servers: list[Workers] = []

    def start(count: int = 2, **how: Any) -> Workers:
        servers.append(Workers(path, count, **how))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


Start = Callable[..., Workers]


def refused(path: Path, *words: str) -> str:
    """Start a server that does not start; return the one line that it says."""
    done = command(path, "serve", *words)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("twincast: ") and done.stderr.count("\n") == 1, done.stderr
    return str(done.stderr)


def command(path: Path, *words: str, journal: str = "") -> Any:
    """Run a command on the journal."""
    return warm.run(
        [*TWINCAST, *words, "--journal", journal or f"sqlite:{path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_a_port_that_is_in_use_is_told_once_and_nothing_is_begun(path: Path, server: ServerProcess) -> None:
    assert "another program is listening" in refused(path, "--workers", "2", "--port", str(server.port))
    assert not Path(f"{path}-workers").exists()


def test_a_worker_that_cannot_start_says_why_once(path: Path) -> None:
    copy = Path(f"{path}-workers") / "worker-1.db"
    copy.mkdir(parents=True)
    assert "worker-1.db" in refused(path, "--workers", "3", "--port", str(free_port()))


def test_a_journal_of_one_server_is_not_passed_over(path: Path) -> None:
    one = ServerProcess(f"sqlite:{path}").ready()
    one.post("/api/data", {"device_id": "a", "value": 1})
    assert "in use by another server" in refused(path, "--workers", "2", "--port", "0")
    one.stop()
    done = command(path, "serve", "--workers", "2", "--port", "0")
    assert done.returncode == 1
    assert f"twincast journal move sqlite:{path} workers:{path}" in done.stderr


def rows_of(copy: Path) -> list[tuple[Any, ...]]:
    """Return the log as a copy has it."""
    with closing(sqlite3.connect(copy)) as db:
        return db.execute("select * from log order by seq").fetchall()


def copies(path: Path, count: int = 2) -> list[list[tuple[Any, ...]]]:
    return [rows_of(Path(f"{path}-workers") / f"worker-{number}.db") for number in range(1, count + 1)]


def publish(server: Workers, values: Iterable[int], device_id: str = "a") -> None:
    """Store readings, each on a connection of its own, so by any worker; each until it is acknowledged, once."""
    for value in values:

        def is_stored(value: int = value) -> bool:
            try:
                done = requests.post(
                    f"{server.url}/api/data",
                    json={"device_id": device_id, "value": value},
                    headers={"Idempotency-Key": f"{device_id}{value}", "Connection": "close"},
                    timeout=DEADLINE_S,
                )
            except requests.RequestException:
                return False
            assert done.status_code in {200, 201, 503}, done.text
            return done.status_code != 503

        eventually(is_stored, f"{value} is acknowledged")


def stored(path: Path, device_id: str = "a") -> list[int]:
    """Return a device's values in all copies, which are equal."""
    first, *others = copies(path)
    assert all(other == first for other in others)
    return [json.loads(row[3]) for row in first if row[2] == device_id]


def test_one_command_starts_workers_behind_one_port_with_one_banner(path: Path, started: Start) -> None:
    server = started(3).ready()
    assert [len(server.processes(f"worker-{number}")) for number in (1, 2, 3)] == [1, 1, 1]
    assert len(server.processes("nats-server")) == 1
    assert server.printed().count("is up") == 1
    assert f"{server.url}/dashboard" in server.printed()
    assert "3, which share one log" in server.printed()

    def names() -> list[str]:
        return sorted(each["name"] for each in server.get("/api/cluster")["servers"])

    eventually(lambda: names() == ["worker-1", "worker-2", "worker-3"], "they know each other")
    assert all(each["same_settings"] for each in server.get("/api/cluster")["servers"])


def test_every_worker_takes_connections_and_all_are_shown_the_same(path: Path, started: Start) -> None:
    server = started().ready()
    with ExitStack() as undo:
        watchers = [undo.enter_context(connect(f"{server.ws_url}?mode=every")) for _ in range(32)]
        for process in server.processes("twincast.server.worker"):
            assert [each for each in process.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED]
        publish(server, range(20))
        for watcher in watchers:
            seen: list[int] = []
            while len(seen) < 20:
                message = json.loads(watcher.recv(timeout=DEADLINE_S))
                if message["type"] == "data_update":
                    seen.append(message["value"])
            assert seen == list(range(20))
    assert server.stop().count("Traceback") == 0
    assert stored(path) == list(range(20))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_all_end_in_order_at_a_signal_and_clients_are_told(path: Path, started: Start, how: signal.Signals) -> None:
    server = started().ready()
    everybody = server.all_processes()
    with ExitStack() as undo:
        watchers = [undo.enter_context(connect(server.ws_url)) for _ in range(8)]
        workers, (nats,) = server.processes("twincast.server.worker"), server.processes("nats-server")
        server.process.send_signal(how)
        while any(map(is_alive, workers)):
            assert is_alive(nats) or not any(map(is_alive, workers)), "NATS ended before the workers"
        for watcher in watchers:
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    watcher.recv(timeout=DEADLINE_S)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    printed = server.output()
    assert server.process.returncode == 0
    assert "Traceback" not in printed and "ended with status" not in printed
    assert not list(filter(is_alive, everybody))


def test_a_signal_ends_a_start_that_is_not_over(path: Path, started: Start) -> None:
    server = started()
    everybody = eventually(lambda: server.processes("twincast.server.worker"), "workers are being started")
    assert "Traceback" not in server.stop()
    assert server.process.returncode == 0
    assert not list(filter(is_alive, everybody))


def test_a_killed_worker_is_started_again_and_nothing_is_lost(path: Path, started: Start) -> None:
    server = started().ready()
    publish(server, range(10))
    server.kill_one("worker-1")
    publish(server, range(10, 20))
    server.kill_one("worker-2")
    publish(server, range(20, 30))
    eventually(lambda: server.printed().count("serves again") == 2, "both serve again")
    server.stop()
    assert stored(path) == list(range(30))
    assert "worker-1 ended with status -9" in server.printed()


def test_a_killed_nats_server_is_started_again_where_it_was_and_nothing_is_lost(path: Path, started: Start) -> None:
    server = started().ready()
    publish(server, range(10))
    (before,) = server.processes("nats-server")
    workers = [each.pid for each in server.processes("twincast.server.worker")]
    server.kill_one("nats-server")
    publish(server, range(10, 20))
    assert [each.pid for each in server.processes("twincast.server.worker")] == workers
    assert not before.is_running()
    server.stop()
    assert stored(path) == list(range(20))


def test_all_end_with_a_killed_parent_and_the_next_one_has_everything(path: Path, started: Start) -> None:
    server = started().ready()
    publish(server, range(10))
    everybody = server.all_processes()
    server.kill()
    eventually(
        lambda: not list(filter(is_alive, everybody)),
        "workers and NATS end with their parent",
    )
    again = started(port=server.port).ready()
    publish(again, range(5, 15))  # half of them came before, with the same keys
    again.stop()
    assert stored(path) == list(range(15))


def test_a_copy_that_is_deleted_is_made_again(path: Path, started: Start) -> None:
    server = started().ready()
    publish(server, range(10))
    server.stop()
    for copy in Path(f"{path}-workers").glob("worker-2.db*"):
        copy.unlink()
    again = started().ready()
    again.stop()
    assert stored(path) == list(range(10))


def test_a_second_start_is_refused(path: Path, started: Start) -> None:
    started().ready()
    assert "in use by another server" in refused(path, "--workers", "2", "--port", "0")
    assert "in use by another server" in refused(path, "--port", "0")


def test_a_start_without_workers_serves_what_workers_have_stored(path: Path, started: Start) -> None:
    several = started().ready()
    publish(several, range(3))
    several.stop()
    one = started(1).ready()
    assert one.get("/api/data")["data"]["a"]["value"] == 2
    assert len(one.processes("twincast.server.worker")) == 1
    publish(one, [3])
    one.stop()
    assert not path.exists()
    again = started().ready()
    assert again.get("/api/data")["data"]["a"]["value"] == 3


def test_an_application_of_ones_own_does_not_begin_a_second_history(path: Path, started: Start) -> None:
    started().ready().stop()
    with pytest.raises(JournalUnusable, match="`twincast serve` serves it"):
        asyncio.run(open_stores(f"sqlite:{path}", memory_max_bytes=1 << 20))


def test_a_certificate_of_the_servers_own_is_made_once(path: Path, started: Start) -> None:
    server = started(TWINCAST_SELF_SIGNED="1")
    eventually(lambda: "Ctrl-C" in server.printed(), "the banner")
    assert "Trust      sha256:" in (printed := server.printed())
    assert f"https://127.0.0.1:{server.port}/dashboard" in printed
    found = {ssl.get_server_certificate(("127.0.0.1", server.port)) for _ in range(16)}
    assert len(found) == 1
    assert found.pop().strip() == Path(f"{path}-tls-cert.pem").read_text().strip()


def test_the_log_says_which_process_wrote_a_line(path: Path, started: Start) -> None:
    server = started(TWINCAST_LOG_LEVEL="info").ready()
    for _ in range(32):
        requests.get(f"{server.url}/api/status", timeout=DEADLINE_S)
    eventually(lambda: {"[worker-1", "[worker-2"} <= set(re.findall(r"\[worker-\d", server.printed())), "both say so")


def test_workers_on_a_log_of_other_servers_have_a_copy_and_a_name_each(path: Path, started: Start) -> None:
    with Engine(path.with_name("nats")) as engine:
        journal = f"{engine.url}/lab?copy={path}&as=here"
        server = started(journal=journal, TWINCAST_NATS_TOKEN=engine.token or "").ready()
        assert not server.processes("nats-server")
        publish(server, range(10))
        server.stop()
        assert engine.is_running
    assert rows_of(path.with_name(f"{path.name}.1")) == rows_of(path.with_name(f"{path.name}.2"))
    assert len(rows_of(path.with_name(f"{path.name}.1"))) == 10
    assert not Path(f"{path}-workers").exists()


def test_a_key_of_the_journal_holds_at_every_worker(path: Path, started: Start) -> None:
    server = started().ready()
    publish(server, [1])
    made = command(path, "keys", "add", "lab/reader", "--may", "read")
    assert made.returncode == 0, made.stderr
    reader = bearer(made.stdout.strip())

    def asked(headers: dict[str, str]) -> set[int]:
        answers = [requests.get(f"{server.url}/api/data", headers=headers, timeout=DEADLINE_S) for _ in range(16)]
        return {each.status_code for each in answers}

    eventually(lambda: asked({}) == {401}, "every worker asks for a login")
    assert asked(reader) == {200}
    assert command(path, "keys", "revoke", "lab/reader").returncode == 0
    # 429: whoever often presents a credential that is not good is told to wait
    eventually(lambda: asked(reader) <= {401, 429}, "every worker has heard of the end of the key")
    server.stop()
    assert "lab/reader" in command(path, "keys", "list").stdout
    assert command(path, "audit").stdout.count("lab/reader") == 2
    assert not path.exists()


def test_keys_may_come_before_the_first_start(path: Path, started: Start) -> None:
    told = command(path, "serve", "--workers", "2", "--behind-tls-proxy", "--port", "0")
    assert told.returncode == 1 and f"--journal workers:{path}" in told.stderr
    made = command(path, "keys", "add", "lab/reader", "--may", "read", journal=f"workers:{path}")
    assert made.returncode == 0, made.stderr
    server = started(TWINCAST_BEHIND_TLS_PROXY="1").ready()
    assert requests.get(f"{server.url}/api/data", timeout=DEADLINE_S).status_code == 401


def test_the_first_key_of_a_server_for_the_network_is_in_the_log(path: Path, started: Start) -> None:
    server = started(TWINCAST_LAN="1")
    eventually(lambda: "Ctrl-C" in server.printed(), "the banner")
    secret = Path(f"{path}-owner-key").read_text().strip()
    for _ in range(16):
        done = requests.get(f"{server.url}/api/status", headers=bearer(secret), timeout=DEADLINE_S)
        assert done.json()["identity"].startswith("key:")
    assert not path.exists()


def test_the_place_of_the_log_can_be_named(path: Path, started: Start) -> None:
    one = started(1, journal=f"workers:{path}").ready()
    publish(one, [1])
    one.stop()
    again = started().ready()
    assert again.get("/api/data")["data"]["a"]["value"] == 1


def test_workers_that_die_again_and_again_end_the_whole_with_a_reason(path: Path, started: Start) -> None:
    server = started().ready()
    everybody = server.all_processes()

    def has_ended() -> bool:
        for worker in server.processes("twincast.server.worker"):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        return server.process.poll() is not None

    eventually(has_ended, "the parent gives up")
    assert server.process.returncode == 1
    last = server.output().splitlines()[-1]
    assert re.fullmatch(r"twincast: worker-[12] ends again and again, now with status -9; .*", last)
    assert not list(filter(is_alive, everybody))


def test_a_code_for_a_device_is_made_and_redeemed_at_any_worker(path: Path, started: Start) -> None:
    server = started().ready()
    made = command(path, "pair", "lab/phone", "--may", "read")
    assert made.returncode == 0, made.stderr
    assert server.url in made.stdout + made.stderr
    code = re.search(r"[A-Z0-9]{4}(?:-[A-Z0-9]{4})+", made.stdout + made.stderr)
    assert code, made
    answers = [
        requests.post(f"{server.url}/api/pair", json={"code": code[0]}, timeout=DEADLINE_S).status_code
        for _ in range(4)
    ]
    assert answers[0] in {200, 201} and set(answers[1:]).isdisjoint({200, 201})
