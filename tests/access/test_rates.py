"""Token buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.access.rates import DEBT_MAX_S, Buckets, _Bucket
from twincast.core.rights import Rate

TEN = Rate(10.0, 20.0)


def test_the_burst_passes_at_once_and_then_the_rate() -> None:
    buckets = Buckets()
    assert [buckets.spend("a", TEN, 1, 0.0) for _ in range(20)] == [0.0] * 20
    assert buckets.spend("a", TEN, 1, 0.0) == pytest.approx(0.1)
    assert buckets.spend("a", TEN, 1, 0.1) == 0.0
    assert buckets.spend("a", TEN, 1, 0.1) > 0


def test_each_key_has_a_bucket_of_its_own() -> None:
    buckets = Buckets()
    assert buckets.spend("a", TEN, 20, 0.0) == 0.0
    assert buckets.spend("b", TEN, 20, 0.0) == 0.0
    assert buckets.wait_s("a", TEN, 1, 0.0) > 0


def test_what_is_more_than_the_burst_passes_when_the_bucket_is_full_and_is_owed() -> None:
    buckets = Buckets()
    assert buckets.spend("a", TEN, 50, 0.0) == 0.0
    assert buckets.wait_s("a", TEN, 1, 0.0) == pytest.approx(3.1)
    assert buckets.spend("a", TEN, 1, 3.2) == 0.0


def test_a_debt_is_paid_by_waiting() -> None:
    buckets = Buckets()
    assert buckets.charge("a", TEN, 20, 0.0) == 0.0
    assert buckets.charge("a", TEN, 5, 0.0) == pytest.approx(0.5)
    assert buckets.charge("a", TEN, 0, 0.25) == pytest.approx(0.25)
    assert buckets.charge("a", TEN, 0, 0.6) == 0.0


def test_a_changed_rate_counts_from_now_on() -> None:
    buckets = Buckets()
    buckets.spend("a", TEN, 20, 0.0)
    assert buckets.spend("a", Rate(1.0, 5.0), 5, 0.0) == 0.0
    assert buckets.spend("a", Rate(1.0, 5.0), 1, 0.0) > 0


def test_a_flood_of_keys_takes_bounded_memory_and_forgets_the_full_ones_first() -> None:
    buckets = Buckets(max_keys=100)
    buckets.spend("spent", TEN, 20, 0.0)
    for number in range(1_000):
        buckets.spend(f"other {number}", TEN, 1, 0.0 if number % 2 else 0.2)
    assert len(buckets) <= 100


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 30)), max_size=50))
def test_never_more_passes_than_the_burst_and_the_rate_allow(asked: list[tuple[float, int]]) -> None:
    buckets, now_s, passed = Buckets(), 0.0, 0
    largest = 0
    for pause_s, amount in asked:
        now_s += pause_s
        if buckets.spend("a", TEN, amount, now_s) == 0.0:
            passed += amount
            largest = max(largest, amount)
    assert passed <= TEN.burst + TEN.per_s * now_s + max(0, largest - TEN.burst) + 1e-6


@pytest.mark.parametrize("pause_s", [0.0, 0.1, 2.0, 20.0])
def test_keys_that_are_more_than_there_is_room_for_cost_a_few_looks_each(
    pause_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    fill = _Bucket.fill

    def counting(bucket: _Bucket, now_s: float) -> None:
        nonlocal looks
        looks += 1
        fill(bucket, now_s)

    monkeypatch.setattr(_Bucket, "fill", counting)
    buckets = Buckets(max_keys=1_000)
    for number in range(6_000):
        buckets.spend(f"key {number % 1_500}", TEN, 20, number * pause_s / 1_000)
    assert looks < 6_000 * 8


def test_a_flood_of_keys_does_not_cost_a_look_at_all_for_each() -> None:
    buckets = Buckets(max_keys=1_000)
    for number in range(1_000):
        buckets.spend(f"spent {number}", TEN, 20, 0.0)
    buckets.spend("one more", TEN, 20, 0.0)
    assert len(buckets) <= 751


def test_what_was_spent_elsewhere_is_owed_here_where_the_key_is_known() -> None:
    buckets = Buckets()
    buckets.charge_known("a", 100, 0.0)
    assert len(buckets) == 0
    assert buckets.spend("a", TEN, 5, 0.0) == 0.0
    buckets.charge_known("a", 25, 0.0)
    assert buckets.wait_s("a", TEN, 1, 0.0) == pytest.approx(1.1)
    buckets.charge_known("a", 1e9, 1.0)
    assert buckets.wait_s("a", TEN, 0, 1.0) == pytest.approx(DEBT_MAX_S)
    buckets.charge("a", TEN, 1e9, 1.0)
    owed_s = buckets.wait_s("a", TEN, 0, 1.0)
    buckets.charge_known("a", 1, 1.0)
    assert buckets.wait_s("a", TEN, 0, 1.0) == pytest.approx(owed_s), "and nothing is forgiven"


SENT = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 15)), min_size=30, max_size=90)


@given(SENT, st.integers(5, 30))
def test_over_three_servers_an_identity_has_one_rate_and_a_burst_more_for_each(
    sent: list[tuple[int, int]], seconds: int
) -> None:
    """They send as fast as they may; each server hears once a second what the others let pass."""
    servers, passed, now_s = [Buckets() for _ in range(3)], 0, 0.0
    told = [0, 0, 0]
    for second in range(seconds):
        for place, amount in sent:
            now_s += 1 / len(sent)
            if servers[place].spend("a", TEN, amount, now_s) == 0.0:
                passed += amount
                told[place] += amount
        for place, amount in enumerate(told):
            for other, buckets in enumerate(servers):
                if other != place and amount:
                    buckets.charge_known("a", amount, now_s)
        told = [0, 0, 0]
        one_second = 3 * TEN.per_s
        assert passed <= (second + 1) * TEN.per_s + 3 * TEN.burst + one_second + 3 * 15
