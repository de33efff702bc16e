"""The benchmark's own arithmetic: a figure is worth what the counting behind it is worth."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import against, interpreter, report
from benchmarks.growth.curves import Bend, bends_of, curves_of
from benchmarks.growth.log import fill
from benchmarks.growth.report import section, write
from benchmarks.growth.run import ALL, main
from benchmarks.history.fleets import A, B, C, Fleet
from benchmarks.history.made import KEPT_AT, journal, plain_log
from benchmarks.loads import history, jetstream, page
from benchmarks.loads.fanout import (
    MARK,
    OWN_MARKS,
    READING_BYTES,
    IncompleteDelivery,
    Marks,
    Publisher,
    Subscriber,
    check,
    reading,
)
from benchmarks.loads.latency import percentile
from benchmarks.machine import ROOT, ServerProcess
from benchmarks.peers import Streaming
from benchmarks.peers.shared_log import can_limit
from benchmarks.runs import LOADS, LOGIN, MEMORY, NAIVE, NATS, SQLITE, TARGETS, UWS, Target
from tests.browser import chromium
from tests.journal.sqlite.history.making import log_of
from tests.running import eventually
from twincast.journal.sqlite.file import SqliteFile
from twincast.testing import Server


@given(st.lists(st.sampled_from([MARK, MARK + b"a", b"#~", b'":"', b"}", b"\n", b"x" * 7]), max_size=40), st.data())
def test_marks_are_counted_wherever_the_stream_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(b"%b}" % part for part in parts)
    marks, counted, buffer = Marks(MARK), 0, bytearray(64)
    while stream:
        size_bytes = data.draw(st.integers(1, min(64, len(stream))))
        buffer[:size_bytes], stream = stream[:size_bytes], stream[size_bytes:]
        counted += marks.count(buffer, size_bytes)
    assert counted == sum(part.startswith(MARK) for part in parts)


def test_every_reading_has_72_bytes_one_mark_and_its_own_number() -> None:
    readings = {reading(number, mark) for number in (0, 1, 999_999) for mark in OWN_MARKS}
    assert len(readings) == 12
    for text in readings:
        assert len(text) == READING_BYTES
        assert text.count(MARK) == 1


class Heard:
    """A client that has received what it is given."""

    def __init__(self, *readings: bytes) -> None:
        self.received = len(readings)
        self.kept = list(readings)


def test_a_reading_that_is_missing_or_comes_twice_makes_a_run_worthless() -> None:
    both = [reading(0, OWN_MARKS[0]), reading(1, OWN_MARKS[0])]
    check([Heard(*both)], 2)  # type: ignore[list-item]  # only the counts matter
    for heard in (Heard(both[0]), Heard(both[0], both[0]), Heard(*both, both[0])):
        with pytest.raises(IncompleteDelivery):
            check([heard], 2)  # type: ignore[list-item]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [percentile(range(1, 101), percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7], 99) == 7


def test_a_ratio_is_taken_within_each_round_before_the_median() -> None:
    samples = {("f", "ours"): [10.0, 100.0, 30.0], ("f", "theirs"): [10.0, 50.0, 10.0]}
    (verdict,) = report.judged(samples, [Target("f", "ours", "theirs", at_least=2.0)])
    assert (verdict.value, verdict.low, verdict.high, verdict.is_met) == (2.0, 1.0, 3.0, True)


def test_a_target_that_is_missed_is_said_to_be() -> None:
    samples = {("f", "ours"): [1.0]}
    verdicts = report.judged(samples, [Target("f", "ours", None, at_least=2.0), Target("f", "ours", None, at_most=0.5)])
    assert [verdict.is_met for verdict in verdicts] == [False, False]
    assert report.targets_table(verdicts).count("**missed**") == 2


def test_what_was_not_measured_is_not_judged() -> None:
    assert report.judged({}, TARGETS) == []
    assert report.judged({("f", "ours"): [1.0]}, [Target("f", "ours", "theirs", at_least=1)]) == []


def test_the_promised_loads_are_there() -> None:
    assert {"fanout-1", "fanout-10", "fanout-100", "fanout-1000", "ingest", "rest", "latency", "idle"} <= set(LOADS)
    assert {"single", "dashboards", "sse", "resume", "storm", "stalled", "steady", "page", "charts"} <= set(LOADS)
    assert {"workers", "catch-up", "failover", "closing", "history"} <= set(LOADS)
    assert len(TARGETS) == (58 if can_limit() else 56)
    assert len(against.TARGETS) == 3


def test_what_must_hold_in_each_round_is_judged_by_the_worst_of_them() -> None:
    samples = {("longest, ms", "ours"): [10.0, 61.0, 11.0]}
    targets = [Target("longest, ms", "ours", None, at_most=60, in_each_round=each) for each in (False, True)]
    usual, each_round = report.judged(samples, targets)
    assert (usual.is_met, each_round.is_met) == (True, False)
    assert "≤ 60 in each round" in report.targets_table([each_round])


class Recorder(asyncio.Transport):
    """A transport that counts the readings written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.readings = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.readings += bytes(data).count(MARK)


def heard(subscriber: Subscriber, *texts: bytes) -> None:
    chunk = b"".join(texts)
    subscriber.get_buffer(-1)[: len(chunk)] = chunk
    subscriber.buffer_updated(len(chunk))


async def test_a_publisher_sends_as_many_as_have_come_back_of_its_own_and_no_more_than_there_are() -> None:
    publisher, subscriber = Publisher(MEMORY, 1, OWN_MARKS[0]), Subscriber(MEMORY, 1)
    publisher.transport = sent = Recorder()
    subscriber.entered.set_result(None)
    publisher.prepare(10)
    subscriber.expect(20, keep=True, paces=publisher)
    publisher.send(4)
    heard(subscriber, reading(0, OWN_MARKS[0]), reading(0, OWN_MARKS[1]), reading(1, OWN_MARKS[0]))
    assert (sent.readings, subscriber.received) == (6, 3)
    for number in range(2, 10):
        heard(subscriber, reading(number, OWN_MARKS[0]))
    assert (sent.readings, subscriber.received) == (10, 11)


def test_publishers_of_every_system_subscribe_to_nothing() -> None:
    systems: list[Streaming] = [MEMORY, SQLITE, LOGIN, NATS, UWS, NAIVE]
    for system in systems:
        subscribing = (system.path, system.greeting)
        assert (system.publisher_path, system.publisher_greeting) != subscribing
    assert b"SUB" in NATS.greeting and b"SUB" not in NATS.publisher_greeting


def test_an_atomic_batch_numbers_its_messages_and_its_last_one_commits_and_asks_for_the_acknowledgement() -> None:
    (batch,) = jetstream.batches(5, 3, 3)
    places = []
    while batch:
        line, _, rest_of_it = batch.partition(b"\r\n")
        head_bytes, all_bytes = map(int, line.split()[-2:])
        message, batch = rest_of_it[:all_bytes], rest_of_it[all_bytes + 2 :]
        head, text = message[:head_bytes], message[head_bytes:]
        assert b"Nats-Batch-Id:5\r\n" in head and head.endswith(b"\r\n\r\n")
        asks = len(line.split()) == 5
        places.append((head.split(b"Sequence:")[1].split(b"\r\n")[0], b"Batch-Commit:1" in head, asks, text))
    texts = [reading(number, OWN_MARKS[0]) for number in (5, 6, 7)]
    assert places == [(b"1", False, False, texts[0]), (b"2", False, False, texts[1]), (b"3", True, True, texts[2])]


BUILDS = {
    "'--enable-optimizations' '--with-lto'": "PGO, LTO",
    "'--enable-optimizations'": "PGO, no LTO",
    "'--prefix=/usr' '--with-wheel-pkg-dir=/usr/share/python-wheels/'": "PGO, LTO",
    "'--enable-shared'": "no PGO, no LTO, in a shared library",
}


@pytest.mark.parametrize("options", BUILDS)
def test_how_a_python_was_built_is_read_from_its_options(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"CONFIG_ARGS": options, "Py_ENABLE_SHARED": "enable-shared" in options}
    monkeypatch.setattr(sysconfig, "get_config_var", told.get)
    assert interpreter.build() == BUILDS[options]
    assert interpreter.is_optimized() == BUILDS[options].startswith("PGO")


def test_the_report_says_what_was_measured_on_and_how_it_was_counted() -> None:
    circumstances = interpreter.described()
    assert str(Path(sys.executable).resolve()) in circumstances["Python"]
    assert {"machine", "compiler", "packages", "SQLite", "calibration", "hot path"} <= set(circumstances)
    said = report.circumstances_list(circumstances)
    assert "USS" in said and "subscribe to nothing" in said and all(name in said for name in circumstances)


def test_the_python_to_run_on_is_the_one_that_is_named_or_one_built_with_pgo_or_the_usual_one() -> None:
    def chosen(**environment: str) -> str:
        env = {**{name: value for name, value in os.environ.items() if name != "PYTHON"}, **environment}
        return subprocess.run(
            [ROOT / "scripts" / "python"], env=env, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert chosen(PYTHON="/some/python") == "/some/python"
    found = chosen()
    is_optimized = subprocess.run([found, ROOT / "benchmarks" / "interpreter.py"], check=False).returncode == 0
    assert is_optimized or found == "python3"


def test_a_change_is_a_loss_only_if_every_round_says_so_and_less_is_better_of_costs() -> None:
    samples = {
        ("fan-out to 10: x", "then"): [100.0, 100.0],
        ("fan-out to 10: x", "now"): [90.0, 98.0],
        ("CPU µs a reading, REST: x", "then"): [10.0, 10.0],
        ("CPU µs a reading, REST: x", "now"): [12.0, 11.0],
        ("latency p50, ms: x", "then"): [2.0, 2.0],
        ("latency p50, ms: x", "now"): [1.0, 4.0],
    }
    speed, cost, delay = against.changes(samples)
    assert (speed.ratios, speed.is_loss) == ([0.9, 0.98], False)
    assert cost.is_loss and max(cost.ratios) == 10 / 11
    assert (delay.ratios, delay.is_loss) == ([2.0, 0.5], False)
    assert against.table([speed, cost, delay]).count("**loss**") == 1


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="these files are no git checkout, so there are no commits")
def test_the_tree_of_another_commit_is_laid_out_and_an_unknown_one_is_named() -> None:
    with against.tree_of("HEAD") as tree:
        assert (tree / "twincast" / "hub" / "hub.py").is_file()
    with pytest.raises(ValueError, match="nonsense"), against.tree_of("nonsense"):
        pass


def test_the_processor_time_of_a_server_is_known_more_exactly_than_by_ticks() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ntime.sleep(60)"
    process = ServerProcess([sys.executable, "-c", burn], core=None)
    try:
        eventually(lambda: process.cpu_s >= 0.2, "a fifth of a second of work")
        assert process.cpu_s % 0.01 > 0
    finally:
        process.stop()


def test_a_curve_bends_where_a_point_costs_half_as_much_again_as_the_one_before() -> None:
    curves = curves_of({100: {"a": 4.0, "b": 1.0}, 1: {"a": 9.0, "b": 1.0}, 10: {"a": 2.0, "b": 1.4}})
    assert curves == {"a": {1: 9.0, 10: 2.0, 100: 4.0}, "b": {1: 1.0, 10: 1.4, 100: 1.0}}
    assert bends_of(curves) == [Bend("a", 10, 100, 2.0)]


def test_a_run_of_one_dimension_leaves_what_another_run_found(tmp_path: Path) -> None:
    file = tmp_path / "growth.md"
    for name in ("devices", "log"):
        write([(ALL[name], {1: {"a": 1.0}, 10: {"a": 2.0}})], file)
    write([(ALL["devices"], {1: {"a": 3.0}})], file)
    text = file.read_text()
    assert [line for line in text.split("\n") if line.startswith("## ")] == ["## devices", "## log"]
    assert "| 1 | 3 |" in text and "**a** bends from 1 to 10: 2.0 times" in text


def test_every_dimension_says_what_grows_and_what_it_costs() -> None:
    for dimension in ALL.values():
        assert dimension.quick and set(dimension.quick) < {*dimension.points, *dimension.quick}
        assert list(dimension.points) == sorted(dimension.points)
        assert "no bend" in section(dimension, {"a": {1: 1.0}})


@pytest.mark.parametrize("name", ["subscribers", "steps", "patterns", "behind", "debt"])
def test_a_point_is_measured_in_a_server_within_the_process(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--point", "3", "--seconds", "0.01"]) == 0
    assert all(cost > 0 for cost in json.loads(capsys.readouterr().out).values())


def test_a_log_that_is_filled_by_sql_is_one_that_a_server_opens(tmp_path: Path) -> None:
    fill(tmp_path / "journal.db", 20_000)
    file = SqliteFile(str(tmp_path / "journal.db"))
    try:
        assert (file.seq, file.checkpoint_seq, len(file.snapshot().twins)) == (20_000, 20_000, 10_000)
    finally:
        file.close()


def test_a_page_to_which_no_updates_come_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "WARM_UP_S", 0.1)
    with Server() as server, pytest.raises(page.NothingToShow, match=r"^0\.0 updates a second came"):
        page.measure(server.url, 0.1, updates_per_s=20, executable=chromium())


def test_a_fleet_is_the_same_log_in_partitions_as_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEPT_AT, str(tmp_path))
    fleet = Fleet("small", 30, 10_000, 1_000_000, partition_entries=4_000)
    told: list[str] = []
    path, whole = journal(fleet, told.append), log_of(plain_log(fleet, told.append))
    assert told and journal(fleet, pytest.fail) == path
    closed = sorted(Path(f"{path}-history").glob("0*.db"))
    assert [row for part in closed for row in log_of(part)] == whole[: fleet.closed_entries]
    assert log_of(path) == whole[-fleet.partition_entries :]
    file = SqliteFile(str(path))
    try:
        assert (file.seq, len(file.partitions.parts)) == (len(whole), len(fleet.spans))
        assert {name: twin.seq for name, twin in file.snapshot().twins.items()} == {row[2]: row[0] for row in whole}
    finally:
        file.close()


@pytest.mark.parametrize("fleet", [A, B, C])
def test_a_fleet_has_nearly_a_partition_open_and_closed_ones_behind_one_another(fleet: Fleet) -> None:
    spans = fleet.spans
    assert fleet.entries - fleet.closed_entries == 990_000
    assert (spans[0][0], spans[-1][1]) == (1, fleet.closed_entries)
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(spans))
    assert {last - first + 1 for first, last in spans[1:]} == {fleet.partition_entries}


def test_a_peer_that_answers_something_else_makes_a_run_worthless() -> None:
    chart = {"time_ms": [0, 1_000], "avg": [1.0, 2.0], "min": [1.0, 2.0], "max": [1.0, 2.0]}
    history.check_chart(chart, [(0, 1.0, 1.0, 1.0), (1_000, 2.0, 2.0, 2.0)])
    for other in [(0, 1.0, 1.0, 1.0)], [(0, 1.0, 1.0, 1.0), (1_000, 2.0, 2.5, 2.0)]:
        with pytest.raises(history.Differs):
            history.check_chart(chart, other)
