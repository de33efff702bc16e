"""Calls that wait for a position: in order, once, and none is looked at before its time."""

from hypothesis import example, given
from hypothesis import strategies as st

from twincast.hub.waits import PositionWaits, _Wait

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("forget"), st.integers(0, 30)),
        st.tuples(st.just("reach"), st.integers(1, 3)),
    ),
    max_size=60,
)


@example([("wait", 1), ("wait", 1), ("wait", 9), ("wait", 9), ("forget", 2), ("forget", 3), ("reach", 1)])
@given(STEPS)
def test_each_is_called_once_when_its_position_is_reached_unless_it_was_forgotten(steps: list[tuple[str, int]]) -> None:
    waits, seq = PositionWaits(), 0
    called: list[tuple[int, int]] = []
    expected: dict[tuple[int, int], None] = {}
    forgets = []
    for number, (what, how) in enumerate(steps):
        if what == "wait":
            key = (seq + how, number)
            expected[key] = None
            forgets.append((key, waits.add(seq + how, lambda key=key: called.append(key))))  # type: ignore[misc]
        elif what == "forget" and forgets:
            key, forget = forgets[how % len(forgets)]
            forget()
            expected.pop(key, None)
        elif what == "reach":
            seq += how
            due = sorted(key for key in expected if key[0] <= seq)
            waits.tell(seq)
            assert called == due
            called.clear()
            for key in due:
                del expected[key]
        assert len(waits) == len(expected)
        assert len(waits._waits) <= 2 * len(expected) + 1


class CountedWaits(list[_Wait]):
    """A heap that counts which of its waits are looked at."""

    looks = 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.looks += 1
        return super().__getitem__(index)

    def __iter__(self):  # type: ignore[no-untyped-def]
        raise AssertionError("all waits are looked at")


def test_a_commit_looks_at_one_wait_however_many_there_are() -> None:
    waits = PositionWaits()
    for seq in range(10_000):
        waits.add(100 + seq, lambda: None)
    waits._waits = counted = CountedWaits(waits._waits)
    for seq in range(50):
        waits.tell(seq)
    assert counted.looks == 50
