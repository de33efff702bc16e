"""Which readings are late, against a brute force that looks at the whole log for each of them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from twincast.core import state as fold
from twincast.core.lateness import clock_of, decide, decide_again, horizon_in, mark_clocks, note, time_of, time_of_twin
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Late, Snapshot
from twincast.core.state import State

BEGIN = datetime(2026, 11, 27, 4, 16, 10, tzinfo=UTC)


def at(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def reading(device_id: str = "a", stored_s: float = 0, measured_s: float | None = None) -> DataUpdate:
    measured_at_utc = UNSET if measured_s is None else at(measured_s)
    return DataUpdate(device_id, Raw(b"1"), at(stored_s), "rest", measured_at_utc=measured_at_utc)


def deletion(device_id: str = "a", stored_s: float = 0) -> Deleted:
    return Deleted(device_id, at(stored_s), "rest")


class Log:
    """A log whose batches are decided by its state, as the hub does."""

    def __init__(self) -> None:
        self.state = State(Snapshot("e", 0, {}))
        self.entries: list[Entry] = []

    def append(self, *given: Entry) -> list[Entry]:
        batch = list(given)
        decide(batch, horizon_in(self.state.twins, self.state.deletions))
        self.take(batch)
        return batch

    def take(self, batch: Sequence[Entry]) -> None:
        for seq, entry in enumerate(batch, self.state.seq + 1):
            entry.seq = seq
        self.state.apply_all(batch)
        self.entries += batch


def kinds(entries: Sequence[Entry]) -> list[str]:
    return [entry.kind for entry in entries]


def test_an_older_reading_is_late_and_leaves_the_twin() -> None:
    log = Log()
    log.append(reading(stored_s=10, measured_s=9))
    [late] = log.append(reading(stored_s=11, measured_s=8))
    assert isinstance(late, Late) and (late.seq, late.timestamp_utc, late.measured_at_utc) == (2, at(11), at(8))
    assert log.state.twins["a"].seq == 1
    assert (log.state.seq, time_of_twin(log.state.twins["a"])) == (2, at(9))


def test_of_equal_times_the_later_entry_becomes_the_twin() -> None:
    log = Log()
    assert kinds(log.append(reading(stored_s=10, measured_s=9), reading(stored_s=10, measured_s=9))) == [
        "data_update",
        "data_update",
    ]
    assert log.state.twins["a"].seq == 2


def test_a_reading_that_claims_nothing_becomes_the_twin_though_the_clock_was_set_back() -> None:
    log = Log()
    assert kinds(log.append(reading(stored_s=100), reading(stored_s=3))) == ["data_update", "data_update"]
    assert kinds(log.append(reading(stored_s=4, measured_s=2))) == ["late"], "it is older than what was stored at 3"
    assert kinds(log.append(reading(stored_s=4, measured_s=3.5))) == ["data_update"]


def test_the_first_reading_of_a_device_makes_it_however_old_it_is() -> None:
    assert kinds(Log().append(reading(stored_s=10, measured_s=-(10**9)))) == ["data_update"]


def test_a_claim_is_believed_up_to_a_minute_ahead() -> None:
    log = Log()
    [ahead] = log.append(reading("a", stored_s=0, measured_s=60))
    assert (ahead.kind, time_of(ahead)) == ("data_update", at(60))
    [off] = log.append(reading("b", stored_s=0, measured_s=60.000001))
    assert isinstance(off, DataUpdate) and (off.clock, off.measured_at_utc, time_of(off)) == (
        "off",
        at(60.000001),
        at(0),
    )
    assert clock_of(at(60), at(0)) is UNSET and clock_of(at(61), at(0)) == "off"
    assert log.state.twins["b"].clock == "off" and log.state.newest("b") == DataUpdate(
        *("b", Raw(b"1"), at(0), "rest", 2, "e"), measured_at_utc=at(60.000001), clock="off"
    )


def test_one_that_is_not_believed_becomes_the_twin_and_the_next_is_compared_with_when_it_was_stored() -> None:
    log = Log()
    log.append(reading(stored_s=0, measured_s=50), reading(stored_s=1, measured_s=10_000))
    assert log.state.twins["a"].seq == 2
    assert kinds(log.append(reading(stored_s=2, measured_s=0.5), reading(stored_s=2, measured_s=1))) == [
        "late",
        "data_update",
    ]


def test_what_was_measured_before_a_deletion_does_not_make_the_device_anew() -> None:
    log = Log()
    log.append(reading(stored_s=0), deletion(stored_s=10))
    assert kinds(log.append(reading(stored_s=11, measured_s=9.999999))) == ["late"]
    assert "a" not in log.state.twins
    assert kinds(log.append(reading(stored_s=12, measured_s=10))) == ["data_update"]
    assert kinds(log.append(reading(stored_s=12, measured_s=9))) == ["late"]


def test_a_deletion_counts_in_the_batch_that_it_is_in() -> None:
    log = Log()
    log.append(reading(stored_s=0))
    assert kinds(log.append(deletion(stored_s=5), reading(stored_s=5, measured_s=4))) == ["deleted", "late"]


def test_a_reading_after_a_deletion_that_claims_nothing_makes_the_device_anew() -> None:
    log = Log()
    log.append(reading(stored_s=0), deletion(stored_s=10))
    assert kinds(log.append(reading(stored_s=3))) == ["data_update"]
    assert kinds(log.append(reading(stored_s=11, measured_s=4))) == ["data_update"], "the device is there, as of 3"


def test_of_those_that_were_deleted_last_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "DELETIONS_MAX", 2)
    log = Log()
    for name in ("a", "b", "c", "a", "d"):
        log.append(deletion(name, 10))
    assert list(log.state.deletions) == ["a", "d"]
    assert kinds(log.append(*(reading(name, 11, 9) for name in ("a", "b", "c", "d")))) == [
        *("late", "data_update", "data_update", "late")
    ]


def test_times_of_another_program_are_compared_as_times() -> None:
    log = Log()
    stored = reading()
    stored.timestamp_utc = "2026-11-27T05:16:10+01:00"  # at(0)
    log.take([stored])
    assert kinds(log.append(reading(stored_s=1, measured_s=-0.1), reading(stored_s=1, measured_s=0))) == [
        "late",
        "data_update",
    ]
    stored = reading()
    stored.timestamp_utc = "some day"
    log.take([stored])
    assert kinds(log.append(reading(stored_s=1, measured_s=-9))) == ["data_update"], "it freezes no device"


class Step(NamedTuple):
    """What comes next: a reading, a deletion (`measured_s` is a text) or a command, and whether it begins a batch."""

    device_id: str
    measured_s: float | str | None
    begins: bool
    is_foreign: bool = False


TIMES_S = st.sampled_from([-5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 63.0, 64.0, 100.0])
STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from("ab"),
        st.none() | TIMES_S | st.sampled_from(["deleted", "control"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=14,
)
CLOCK = st.lists(st.integers(-2, 3), min_size=14, max_size=14)


def entries_of(steps: Sequence[Step], clock: Sequence[int]) -> list[tuple[Entry, Step]]:
    stored_s, made = 0, list[tuple[Entry, Step]]()
    for step, tick in zip(steps, clock, strict=False):
        stored_s += tick if step.begins else 0
        entry: Entry
        if step.measured_s == "deleted":
            entry = deletion(step.device_id, stored_s)
        elif step.measured_s == "control":
            entry = Control(step.device_id, "do", Raw(b"{}"), at(stored_s), "rest")
        else:
            assert not isinstance(step.measured_s, str)
            entry = reading(step.device_id, stored_s, step.measured_s)
        made.append((entry, step))
    return made


def brute_force(log: Sequence[tuple[str, str, str | None, bool]]) -> list[str]:
    """Return the kinds of a log of (device, stored, measured or None or a kind, is decided elsewhere)."""
    found: list[str] = []
    for index, (device_id, stored, measured, is_foreign) in enumerate(log):
        if measured in {"deleted", "control"}:
            found.append(str(measured))
            continue
        before = [
            (kind, other_stored, other)
            for kind, (other_device, other_stored, other, _) in zip(found, log[:index], strict=True)
            if other_device == device_id and kind in {"data_update", "deleted"}
        ]
        limit = ""
        if before:
            kind, other_stored, other = before[-1]
            limit = other if kind == "data_update" and other and is_believed(other, other_stored) else other_stored
        believed = measured is not None and is_believed(measured, stored)
        is_late = believed and measured is not None and measured < limit and not is_foreign
        found.append("late" if is_late else "data_update")
    return found


def is_believed(measured: str, stored: str) -> bool:
    return datetime.fromisoformat(measured) - datetime.fromisoformat(stored) <= timedelta(seconds=60)


def plain(entry: Entry, step: Step) -> tuple[str, str, str | None, bool]:
    measured = step.measured_s if isinstance(step.measured_s, str) else (entry.claim or None)
    return step.device_id, entry.timestamp_utc, measured, step.is_foreign


@given(STEPS, CLOCK)
def test_batches_are_decided_as_a_look_at_the_whole_log_would(steps: list[Step], clock: list[int]) -> None:
    made = [(entry, step._replace(is_foreign=False)) for entry, step in entries_of(steps, clock)]
    log, batch = Log(), list[Entry]()
    for entry, step in made:
        if step.begins:
            log.append(*batch)
            batch = []
        batch.append(entry)
    log.append(*batch)
    assert kinds(log.entries) == brute_force([plain(*each) for each in made])


@given(STEPS, CLOCK)
def test_what_turns_out_to_stand_before_a_batch_is_counted_too(steps: list[Step], clock: list[int]) -> None:
    made = entries_of(steps, clock)
    foreign = [each for each in made if each[1].is_foreign]
    own = [each for each in made if not each[1].is_foreign]
    before = Log()
    before.append(reading("a", 0, 2), reading("b", 0), deletion("b", 1))
    batch = [entry for entry, _ in own]
    decide(batch, horizon_in(before.state.twins, before.state.deletions))
    newest: dict[str, str] = {}
    others = [entry for entry, _ in foreign]
    mark_clocks(others)
    for entry in others:
        note(newest, entry)
    has_late = decide_again(batch, newest)
    expected = brute_force(
        [
            ("a", at(0), at(2), False),
            ("b", at(0), None, False),
            ("b", at(1), "deleted", False),
            *(plain(*each) for each in (*foreign, *own)),
        ]
    )[3 + len(foreign) :]
    assert (kinds(batch), has_late) == (expected, "late" in expected)
