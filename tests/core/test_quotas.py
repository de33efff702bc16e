"""How much state there may be, against a model that counts everything anew at each question."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from twincast.core.batch import ENTRY_BYTES, Batch
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Snapshot
from twincast.core.quotas import Account, Quotas
from twincast.core.state import DEVICE_BYTES, State
from twincast.errors import TwincastError


def update(device_id: str, value_bytes: int = 1) -> DataUpdate:
    return DataUpdate(device_id, Raw(b"1" * value_bytes), "", "rest")


def deletion(device_id: str) -> Deleted:
    return Deleted(device_id, "", "rest")


def nothing(error: TwincastError | None, last_seq: int) -> None:
    """Be told nothing."""


class Ledger:
    """A state, batches on their way to it, and the account of both."""

    def __init__(self, quotas: Quotas) -> None:
        self.state = State(Snapshot("e", 0, {}))
        self.account = Account(self.state, quotas)
        self.waiting: list[Batch] = [Batch()]

    @property
    def open(self) -> Batch:
        return self.waiting[-1]

    def why_not(self, who: str, *entries: Entry) -> str:
        """Submit entries as the hub does; return why they are refused."""
        size_bytes = sum(len(entry.value) for entry in entries if isinstance(entry, DataUpdate))
        size_bytes += ENTRY_BYTES * len(entries)
        free_bytes = self.account.free_bytes(sum(batch.size_bytes for batch in self.waiting[:-1]))
        if self.open.size_bytes + size_bytes > free_bytes or who not in self.account.at_ease:
            counted_bytes = size_bytes + sum(batch.size_bytes for batch in self.waiting)
            refusal = self.account.refusal(entries, who, self.waiting, counted_bytes)
            if refusal is not None:
                return refusal.message
        self.open.add_all(entries, size_bytes, nothing, None, who)
        return ""

    def knows(self, device_id: str) -> bool:
        return self.account.knows(device_id, self.waiting)

    def begin_commit(self) -> None:
        self.waiting.append(Batch())

    def store(self) -> None:
        """Bring the oldest batch into the state."""
        batch = self.waiting.pop(0)
        for entry in batch.entries:
            entry.seq = self.state.seq + 1
            self.state.apply(entry)
        self.account.settle(batch)

    def fail(self) -> None:
        """Lose the batch that is being committed."""
        self.waiting.pop(-2)
        self.account.forget_outlooks()

    def commit(self) -> None:
        self.begin_commit()
        self.store()


def test_there_are_as_many_devices_as_there_may_be_and_deleting_one_makes_room() -> None:
    ledger = Ledger(Quotas(devices_max=3))
    assert ledger.why_not("", update("a"), update("b"), update("a")) == ""
    ledger.commit()
    assert ledger.why_not("", update("c"), update("d")).startswith("there may be 3 devices")
    assert ledger.why_not("", update("c")) == ""
    assert ledger.why_not("", update("d")) != "", "what waits counts"
    assert ledger.why_not("", update("a", 9), Control("x", "on", Raw(b"{}"), "", "rest")) == "", "nothing new is made"
    ledger.why_not("", deletion("b"))
    assert ledger.why_not("", update("d")) == "", "what waits to be deleted makes room"
    ledger.commit()
    assert sorted(ledger.state.twins) == ["a", "c", "d"]


def test_the_state_is_as_large_as_it_may_be_and_what_does_not_grow_is_always_taken() -> None:
    ledger = Ledger(Quotas(state_max_bytes=2 * DEVICE_BYTES + 100))
    assert ledger.why_not("", update("a", 60), update("b", 40)) == ""
    ledger.commit()
    assert "TWINCAST_STATE_MAX_BYTES" in ledger.why_not("", update("a", 61))
    assert ledger.why_not("", update("a", 60)) == ledger.why_not("", update("a", 50)) == ""
    assert ledger.why_not("", update("b", 50)) == "", "what waits to shrink makes room"
    assert ledger.why_not("", update("b", 51)) != ""
    ledger.commit()
    assert ledger.state.size_bytes == 2 * DEVICE_BYTES + 100


def test_an_identity_has_its_share_and_who_writes_a_device_last_has_it_in_his() -> None:
    ledger = Ledger(Quotas(identity_state_max_bytes=2 * DEVICE_BYTES + 100))
    assert ledger.why_not("key:1", update("a", 50), update("b", 50)) == ""
    ledger.commit()
    assert "key:1" in ledger.why_not("key:1", update("c"))
    assert ledger.why_not("key:2", update("b", 50)) == ledger.why_not("", update("z", 500)) == ""
    assert ledger.why_not("key:1", update("c", 50)) == "", "b is key:2's share now"
    ledger.commit()
    assert ledger.why_not("key:1", update("b", 50)) != ""
    ledger.why_not("key:3", deletion("a"))
    assert ledger.why_not("key:1", update("b", 50)) == ""


def test_a_state_that_was_beyond_its_bound_at_the_start_is_kept_up_to_date_and_does_not_grow() -> None:
    ledger = Ledger(Quotas(devices_max=3))
    ledger.why_not("", *(update(name) for name in "abc"))
    ledger.commit()
    ledger.account = Account(ledger.state, Quotas(devices_max=1, state_max_bytes=1_024))
    assert ledger.why_not("key:1", update("a")) == ledger.why_not("key:1", update("b")) == ""
    assert ledger.why_not("key:1", update("d")) != "" != ledger.why_not("key:1", update("a", 2))


def test_a_device_is_known_in_the_light_of_all_that_waits() -> None:
    ledger = Ledger(Quotas())
    ledger.why_not("", update("a"))
    ledger.begin_commit()
    assert ledger.knows("a")
    ledger.why_not("", deletion("a"))
    assert not ledger.knows("a")
    ledger.why_not("", update("a"))
    assert ledger.knows("a") and not ledger.knows("b")
    ledger.why_not("", deletion("a"))
    ledger.fail()
    assert not ledger.knows("a")


@pytest.mark.parametrize("count", [2_000])
def test_what_waits_is_looked_at_once_however_often_it_is_asked(count: int) -> None:
    ledger = Ledger(Quotas(devices_max=1))
    looked = 0
    account = ledger.account
    after = account._after

    def counting(device_id: str, batches: Sequence[Batch]) -> object:
        nonlocal looked
        looked += 1
        return after(device_id, batches)

    account._after = counting  # type: ignore[method-assign, assignment]
    for _ in range(count):
        ledger.why_not("", update("a"))
    assert looked <= 2 * count


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
WHO = st.sampled_from(["", "key:1", "key:2"])
QUOTAS = Quotas(devices_max=4, state_max_bytes=4 * DEVICE_BYTES + 900, identity_state_max_bytes=2 * DEVICE_BYTES + 700)


class AccountAgainstModel(RuleBasedStateMachine):
    """Batches are submitted, committed, or lost; the model folds all that is stored or waits, from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(QUOTAS)
        self.stored: list[tuple[str, Entry]] = []
        self.waiting: list[list[tuple[str, Entry]]] = [[]]

    def folded(self, *more: tuple[str, Entry]) -> dict[str, tuple[int, str]]:
        held: dict[str, tuple[int, str]] = {}
        for who, entry in (*self.stored, *(pair for batch in self.waiting for pair in batch), *more):
            if isinstance(entry, DataUpdate):
                held[entry.device_id] = (DEVICE_BYTES + len(entry.value), who)
            elif isinstance(entry, Deleted):
                held.pop(entry.device_id, None)
        return held

    @rule(who=WHO, values=st.lists(st.tuples(NAMES, st.integers(1, 600)), min_size=1, max_size=4))
    def submit(self, who: str, values: list[tuple[str, int]]) -> None:
        entries = [update(name, size_bytes) for name, size_bytes in values]
        before, after = self.folded(), self.folded(*((who, entry) for entry in entries))
        refused = self.ledger.why_not(who, *entries)
        assert bool(refused) == self._is_too_much(before, after, who)
        if not refused:
            self.waiting[-1] += [(who, entry) for entry in entries]

    @rule(who=WHO, name=NAMES)
    def delete(self, who: str, name: str) -> None:
        assert self.ledger.knows(name) == (name in self.folded())
        if self.ledger.knows(name):
            self.ledger.why_not(who, deletion(name))
            self.waiting[-1].append((who, deletion(name)))

    @precondition(lambda self: len(self.waiting) < 3)
    @rule()
    def begin_commit(self) -> None:
        self.ledger.begin_commit()
        self.waiting.append([])

    @precondition(lambda self: len(self.waiting) > 1)
    @rule()
    def store(self) -> None:
        self.ledger.store()
        self.stored += self.waiting.pop(0)

    @precondition(lambda self: len(self.waiting) > 1)
    @rule()
    def fail(self) -> None:
        self.ledger.fail()
        self.waiting.pop(-2)

    @invariant()
    def the_fold_counts_what_is_stored(self) -> None:
        twins = self.ledger.state.twins
        assert self.ledger.state.size_bytes == sum(DEVICE_BYTES + len(twin.value) for twin in twins.values())

    @staticmethod
    def _is_too_much(before: dict[str, tuple[int, str]], after: dict[str, tuple[int, str]], who: str) -> bool:
        def bytes_by_who(held: dict[str, tuple[int, str]]) -> Counter[str]:
            used: Counter[str] = Counter()
            for size_bytes, owner in held.values():
                used[owner] += size_bytes
            return used

        mine = bytes_by_who(after)[who]
        all_bytes = bytes_by_who(after).total()
        return (
            (len(after) > QUOTAS.devices_max and len(after) > len(before))
            or (all_bytes > QUOTAS.state_max_bytes and all_bytes > bytes_by_who(before).total())
            or (who != "" and mine > QUOTAS.identity_state_max_bytes and mine > bytes_by_who(before)[who])
        )


TestAccountAgainstModel = AccountAgainstModel.TestCase
TestAccountAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
