"""How a server that stops has its clients go: each once, none all at once, and soon if it is told so."""

from collections.abc import Callable
from functools import partial

import pytest

from twincast.server import leaving
from twincast.server.leaving import SPREAD_MAX_S, end_spread, spread_s


def test_a_few_clients_go_at_once_and_many_within_the_time_that_there_is() -> None:
    assert spread_s(0, 10.0) == 0.0
    assert spread_s(5, 10.0) == pytest.approx(0.05)
    assert spread_s(100_000, 10.0) == SPREAD_MAX_S
    assert spread_s(100_000, 1.0) == 0.5


@pytest.mark.parametrize("clients", [0, 1, 7, 1_000])
async def test_each_client_is_ended_once_in_steps(clients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "STEP_S", 0.001)
    ended: list[int] = []
    steps: list[int] = []
    ends: list[Callable[[], object]] = [partial(ended.append, number) for number in range(clients)]

    def note_step() -> bool:
        steps.append(len(ended))
        return False

    await end_spread(ends, 0.01, note_step)
    assert sorted(ended) == list(range(clients))
    assert clients < 1_000 or ended != sorted(ended), "in any order"
    sizes = [after - before for before, after in zip([0, *steps], [*steps, clients], strict=True)]
    assert len(sizes) == 10 and max(sizes) <= clients // 10 + 1


async def test_a_server_that_is_told_to_hurry_ends_all_at_once() -> None:
    ended: list[int] = []
    await end_spread([partial(ended.append, number) for number in range(100)], 3_600.0, lambda: True)
    assert len(ended) == 100
