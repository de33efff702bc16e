"""Which connections make room for a new one."""

from twincast.server.idle import LOOK_S, SHARE, Room, close_longest_idle


class Connection:
    """A connection that is idle until a time, or busy."""

    def __init__(self, idle_until_s: float | None) -> None:
        self.idle_until_s = idle_until_s

    def close(self) -> None:
        self.idle_until_s = None


def open_ones(connections: list[Connection]) -> list[float]:
    return [each.idle_until_s for each in connections if each.idle_until_s is not None]


def test_the_one_that_was_idle_longest_is_closed_and_no_busy_one() -> None:
    connections = [Connection(3.0), Connection(None), Connection(1.0), Connection(2.0)]
    assert close_longest_idle([*connections, object()])
    assert open_ones(connections) == [3.0, 2.0]
    assert not close_longest_idle([Connection(None), object()])


def test_room_is_made_for_several_at_once() -> None:
    connections = [Connection(float(number)) for number in range(2 * SHARE)]
    assert Room().make(connections, 0.0)
    assert open_ones(connections) == [float(number) for number in range(3, 2 * SHARE)]


def test_after_a_search_in_vain_the_next_one_waits() -> None:
    room, idle = Room(), [Connection(1.0)]
    assert not room.make([], 10.0)
    assert not room.make(idle, 10.0 + LOOK_S / 2)
    assert room.make(idle, 10.0 + LOOK_S)
