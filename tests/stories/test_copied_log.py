"""A log's identity over copies of its file, restored, cloned or forked. Real servers, and every way of a position.

A live restart and a crash keep every cursor; a copy keeps those up to where the two part, and no other.
"""

import json
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from tests.conftest import StartServer
from tests.running import DEADLINE_S, ServerProcess

WAYS = ("websocket", "stream", "last-event-id", "poll", "min_seq")
GOES_ON = dict.fromkeys(WAYS, "")
IS_TOLD = dict.fromkeys(WAYS, "epoch")
BOTH_EDGES = pytest.mark.parametrize("edge", ["picows", "portable"])


def publish(server: ServerProcess, *values: Any, device: str = "lamp") -> str:
    """Store readings of a device; return the position of the last one."""
    body = [{"device_id": device, "value": value} for value in values]
    answer = server.post("/api/data", body).json()
    return f"{answer['epoch']}:{answer['last_seq']}"


def head(server: ServerProcess) -> str:
    status = server.get("/api/status")
    return f"{status['epoch']}:{status['seq']}"


def backup(journal: Path, to: Path) -> None:
    """Copy a journal while its server runs, as docs/journal.md says."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as live, closing(sqlite3.connect(to)) as copy:
        live.backup(copy)


def put(copy: Path, journal: Path) -> None:
    """Put a copy in the place of a journal that no server has open."""
    for suffix in ("", "-wal", "-shm"):
        journal.with_name(journal.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, journal)


def judged(server: ServerProcess, cursor: str) -> dict[str, str]:
    """Bring a position by every way; return why it is not honoured, empty where it is."""
    query = f"since={cursor}"
    with connect(f"{server.ws_url}?{query}") as socket:
        hellos = {"websocket": json.loads(socket.recv(timeout=DEADLINE_S))}
    hellos["stream"] = first_event(server, f"?{query}")
    hellos["last-event-id"] = first_event(server, "", **{"Last-Event-ID": cursor})
    hellos["poll"] = server.get(f"/api/events?{query}")
    epoch = server.get("/api/status")["epoch"]
    assert {hello["epoch"] for hello in hellos.values()} == {epoch}, "each answer is in the words of this run"
    reasons = {way: "" if hello["resumed"] else hello.get("reason", "none") for way, hello in hellos.items()}
    read = requests.get(f"{server.url}/api/data?min_seq={cursor}", timeout=DEADLINE_S)
    return reasons | {"min_seq": {200: "", 410: "epoch"}[read.status_code]}


def first_event(server: ServerProcess, query: str, **headers: str) -> Any:
    headers["Accept"] = "text/event-stream"
    with requests.get(f"{server.url}/api/events{query}", headers=headers, stream=True, timeout=DEADLINE_S) as response:
        for line in response.iter_lines():
            if line.startswith(b"data:"):
                return json.loads(line.removeprefix(b"data:"))
    raise AssertionError("the stream ended before it began")


def missed(server: ServerProcess, cursor: str) -> list[Any]:
    answer = server.get(f"/api/events?since={cursor}")
    assert answer["resumed"]
    return [event["value"] for event in answer["events"]]


@BOTH_EDGES
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_end_and_a_crash_keep_every_cursor(
    server_process: StartServer, tmp_path: Path, edge: str, how: signal.Signals
) -> None:
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    cursors: list[tuple[str, int]] = []
    for run in range(3):
        server = server_process(journal, edge=edge)
        assert {head(server).partition(":")[0]}.isdisjoint(cursor.partition(":")[0] for cursor, _ in cursors)
        for number in range(2):
            cursors.append((publish(server, 2 * run + number), 2 * run + number))
        for cursor, value in cursors:
            assert missed(server, cursor) == list(range(value + 1, 2 * run + 2))
        server.stop(how)
    server = server_process(journal, edge=edge)
    assert [judged(server, cursor) for cursor, _ in cursors] == [GOES_ON] * 6


@BOTH_EDGES
def test_a_journal_that_was_restored_honours_what_it_still_has_and_tells_the_others(
    server_process: StartServer, tmp_path: Path, edge: str
) -> None:
    path, copy = tmp_path / "journal.db", tmp_path / "backup.db"
    server = server_process(f"sqlite:{path}", edge=edge)
    kept = publish(server, "kept")
    backup(path, copy)
    lost = publish(server, *("lost" for _ in range(5)))
    server.stop()
    lives = [lost]
    for _ in range(2):  # a restore that is restored once more
        put(copy, path)
        server = server_process(f"sqlite:{path}", edge=edge)
        assert judged(server, kept) == GOES_ON
        for way in range(2):  # as far as it came, and further than the first life ever came
            assert [judged(server, cursor) for cursor in lives] == [IS_TOLD] * len(lives)
            lives_on = publish(server, *(f"new {way}" for _ in range(5)))
        assert judged(server, lives_on) == GOES_ON
        server.kill()
        lives.append(lives_on)


def test_two_servers_on_one_copied_disk_part_where_the_copy_was_made(
    server_process: StartServer, tmp_path: Path
) -> None:
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    original = server_process(f"sqlite:{one}")
    before = [publish(original, "a"), publish(original, "b")]
    backup(one, other)
    clone = server_process(f"sqlite:{other}")
    assert [judged(clone, cursor) for cursor in before] == [GOES_ON] * 2
    behind, beyond = publish(original, "original"), publish(clone, "clone")
    assert behind.partition(":")[2] == beyond.partition(":")[2], "they count alike"
    assert judged(original, behind) == judged(clone, beyond) == GOES_ON
    assert judged(clone, behind) == judged(original, beyond) == IS_TOLD
    original.stop()
    clone.kill()
    original, clone = server_process(f"sqlite:{one}"), server_process(f"sqlite:{other}")
    assert judged(original, behind) == judged(clone, beyond) == GOES_ON
    assert judged(clone, behind) == judged(original, beyond) == IS_TOLD


def test_a_fork_that_takes_the_place_of_its_original_keeps_its_own_clients(
    server_process: StartServer, tmp_path: Path
) -> None:
    path, fork_path = tmp_path / "journal.db", tmp_path / "fork.db"
    original = server_process(f"sqlite:{path}")
    shared = publish(original, "shared")
    backup(path, fork_path)
    lost = publish(original, "lost", "lost too")
    original.kill()
    fork = server_process(f"sqlite:{fork_path}")
    of_the_fork = publish(fork, "fork")
    fork.stop()
    put(fork_path, path)
    back = server_process(f"sqlite:{path}")
    assert judged(back, shared) == judged(back, of_the_fork) == GOES_ON
    assert judged(back, lost) == IS_TOLD
    assert missed(back, shared) == ["fork"]


def test_a_journal_that_was_left_without_its_newest_commits_tells_who_saw_them(
    server_process: StartServer, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    server = server_process(f"sqlite:{path}")
    kept = publish(server, "kept")
    server.stop()  # which leaves the file alone, with all that it has
    server = server_process(f"sqlite:{path}")
    lost = publish(server, "lost")
    server.kill()
    path.with_name("journal.db-wal").unlink()
    server = server_process(f"sqlite:{path}")
    assert judged(server, kept) == GOES_ON
    assert judged(server, lost) == IS_TOLD
    publish(server, "another", "and more")
    assert judged(server, lost) == IS_TOLD


def test_a_key_that_a_restore_lost_is_stored_anew_and_one_that_it_kept_is_not(
    server_process: StartServer, tmp_path: Path
) -> None:
    path, copy = tmp_path / "journal.db", tmp_path / "backup.db"
    server = server_process(f"sqlite:{path}")

    def order(key: str, value: str = "on") -> tuple[Any, bool]:
        answer = requests.post(
            f"{server.url}/api/control",
            json={"target": "lamp", "command": value},
            headers={"Idempotency-Key": key},
            timeout=DEADLINE_S,
        )
        return answer.json().get("event", answer.json()), "idempotency-replayed" in answer.headers

    first, _ = order("kept")
    backup(path, copy)
    order("lost")
    server.stop()
    put(copy, path)
    server = server_process(f"sqlite:{path}")
    again, is_replayed = order("kept")
    assert is_replayed and again == first | {"epoch": head(server).partition(":")[0]}
    anew, is_replayed = order("lost", "another")
    assert (is_replayed, anew["command"], anew["seq"]) == (False, "another", 2)
    assert order("lost", "another") == (anew, True)
    records = server.get("/api/audit")
    assert records["epoch"] == head(server).partition(":")[0], "its seqs are positions of this log, too"
    assert [(record["detail"], record["seq"]) for record in records["records"]] == [("another", 2), ("on", 1)]


def test_a_position_that_is_not_yet_there_may_be_asked_for_again_and_one_of_another_log_not(
    server_process: StartServer, tmp_path: Path
) -> None:
    server = server_process(f"sqlite:{tmp_path / 'journal.db'}")
    old = publish(server, "a")
    server.stop()
    server = server_process(f"sqlite:{tmp_path / 'journal.db'}")
    new = publish(server, "b")
    epoch, _, seq = new.partition(":")
    for cursor in (old, new, seq):
        assert requests.get(f"{server.url}/api/data?min_seq={cursor}", timeout=DEADLINE_S).status_code == 200
    ahead = requests.get(f"{server.url}/api/data?min_seq={epoch}:9", timeout=DEADLINE_S)
    assert (ahead.status_code, ahead.json()["code"], ahead.json()["retryable"]) == (503, "not_yet", True)
    for foreign in ("feedbeef:1", f"{old.partition(':')[0]}:2", f"{epoch}x:1", f"{epoch.partition('-')[0]}:1"):
        told = requests.get(f"{server.url}/api/data?min_seq={foreign}", timeout=4)  # less than others wait
        assert (told.status_code, told.json()["code"], told.json()["retryable"]) == (410, "unknown_epoch", False)
        assert epoch in told.json()["detail"] and foreign in told.json()["detail"]
