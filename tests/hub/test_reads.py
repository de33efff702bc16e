"""Reads of the state: found in slices, charged to their account, and bounded for each account."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec import Raw

from twincast.core.model import DataUpdate, Snapshot
from twincast.core.state import State
from twincast.core.subscription import Subscription, rules_of
from twincast.delivery.cast import Cast
from twincast.delivery.scheduler import Scheduler
from twincast.delivery.selection import Selections
from twincast.errors import RateLimited
from twincast.hub import reads as hub_reads
from twincast.hub.reads import Reads
from twincast.wire.messages import encode_all

LAB = Subscription(rules_of(["lab/*"]))


class Purse:
    """A budget that notes what it is charged, and says for how long it is in debt."""

    def __init__(self, account: str = "anyone", debt_s: float = 0.0) -> None:
        self.account = account
        self.debt_s = debt_s
        self.charged = 0

    def spend(self, steps: int) -> float:
        self.charged += steps
        return self.debt_s


def _call_later(delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, callback)


def reads_of(*names: str) -> Reads:
    state = State(Snapshot("e", 0, {}))
    state.apply_all([DataUpdate(name, Raw(b"1"), "now", "rest", seq) for seq, name in enumerate(names, 1)])
    return Reads(state, Scheduler(_call_later), Selections(state))


async def test_what_a_subscription_selects_is_found_and_charged() -> None:
    reads, budget = reads_of("lab/a", "hall/b", "lab/c"), Purse()
    assert sorted(await reads.select(LAB, budget)) == ["lab/a", "lab/c"]
    assert await reads.count(LAB, budget) == 2
    assert budget.charged > 0


async def test_everything_is_known_without_a_look_at_each_name() -> None:
    reads, budget = reads_of("lab/a", "hall/b"), Purse()
    assert sorted(await reads.select(Subscription(), budget)) == ["hall/b", "lab/a"]
    assert await reads.count(Subscription(), budget) == 2
    assert budget.charged == 0


async def test_what_is_picked_of_a_cast_keeps_its_order() -> None:
    entries = [DataUpdate(name, Raw(b"1"), "now", "rest", seq) for seq, name in enumerate(("lab/a", "hall/b", "lab/c"))]
    picked = await reads_of().pick(Cast(encode_all(entries), entries), LAB, Purse())
    assert [entry.topic[1] for entry in picked.entries] == ["lab/a", "lab/c"]


async def test_so_many_reads_of_one_account_wait_and_the_next_is_refused_but_not_that_of_another() -> None:
    reads, in_debt = reads_of("lab/a"), Purse("key:a", debt_s=60.0)
    waiting = [asyncio.create_task(reads.turn(1, in_debt)) for _ in range(hub_reads.WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited, match=r"16 reads of key:a wait already"):
        await reads.turn(1, in_debt)
    await asyncio.wait_for(reads.turn(1, Purse("key:b")), 10)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)


async def test_a_read_that_its_account_cannot_pay_for_is_refused_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_reads, "READ_MAX_S", 0.01)
    with pytest.raises(RateLimited, match="ask for less"):
        await reads_of("lab/a").turn(1, Purse(debt_s=60.0))
