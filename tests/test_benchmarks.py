"""The benchmark's own arithmetic: a figure is worth what the counting behind it is worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import against, report
from benchmarks.loads.fanout import MARK, OWN_MARKS, READING_BYTES, IncompleteDelivery, Marks, check, reading
from benchmarks.loads.latency import percentile
from benchmarks.machine import ROOT
from benchmarks.runs import LOADS, TARGETS, Target


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
    check([None], [Heard(*both)], 2)  # type: ignore[list-item]  # only the counts matter
    for heard in (Heard(both[0]), Heard(both[0], both[0]), Heard(*both, both[0])):
        with pytest.raises(IncompleteDelivery):
            check([None], [heard], 2)  # type: ignore[list-item]


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
    assert {"single", "dashboards", "sse", "resume", "storm", "stalled"} <= set(LOADS)
    assert len(TARGETS) == 21


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
