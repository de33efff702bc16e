"""Updates in order: unsent, in flight, settled; what a barrier keeps back, and what is sent again."""

import asyncio
from collections.abc import Iterator

import pytest

from twincast.client.lane import Lane, Update


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class _Filled(Lane):
    """Has updates with these numbers; the text of each is its number."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *numbers: int, barriers: tuple[int, ...] = ()) -> None:
        super().__init__()
        for number in numbers:
            self.add(number, Update(str(number), 10, 1, number in barriers, loop.create_future()))

    def send(self) -> int | None:
        number = self.next
        if number is not None:
            assert self.take(number) == str(number)
        return number


def test_updates_are_sent_in_order_whatever_their_numbers(loop: asyncio.AbstractEventLoop) -> None:
    lane = _Filled(loop, 3, 7, 1_000)
    assert not lane.has_flight
    assert [lane.send() for _ in range(4)] == [3, 7, 1_000, None]
    assert (lane.in_flight(), lane.has_flight, lane.last_sent, lane.size_bytes) == ([3, 7, 1_000], True, 1_000, 30)


def test_what_is_settled_is_in_flight_no_more_and_is_not_sent(loop: asyncio.AbstractEventLoop) -> None:
    lane = _Filled(loop, 1, 2, 3)
    lane.send()
    assert lane.remove(2) is not None and lane.remove(2) is None
    assert lane.in_flight() == [1]
    lane.remove(1)
    assert (lane.in_flight(), lane.has_flight, lane.send(), lane.size_bytes) == ([], False, 3, 10)


def test_what_has_no_answer_is_sent_again_from_the_oldest_on(loop: asyncio.AbstractEventLoop) -> None:
    lane = _Filled(loop, 1, 2, 3)
    for _ in range(2):
        lane.send()
    lane.remove(1)
    lane.rewind()
    assert (lane.in_flight(), lane.has_flight, lane.last_sent) == ([], False, 2)
    assert [lane.send() for _ in range(3)] == [2, 3, None]


def test_nothing_passes_a_barrier_in_flight(loop: asyncio.AbstractEventLoop) -> None:
    lane = _Filled(loop, 1, 2, 3, barriers=(2,))
    assert [lane.send() for _ in range(3)] == [1, 2, None]
    lane.remove(1)
    assert lane.send() is None and lane.has_flight
    lane.rewind()
    assert [lane.send() for _ in range(2)] == [2, None]
    lane.remove(2)
    assert lane.send() == 3
