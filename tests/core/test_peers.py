"""Heartbeats, and the list of the servers that live."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.core.checks import Checks
from twincast.core.peers import (
    COUNTED_S,
    FORGET_S,
    NAMES_MAX,
    Heartbeat,
    LiveList,
    decode_heartbeat,
    differing,
    encode_heartbeat,
)

IDS = st.sampled_from(["a", "b", "c", "d"])
HEARD = st.lists(st.tuples(IDS, st.floats(0, 2), st.booleans()), max_size=40)
"""Which server was heard, how long after the one before, and whether it leaves."""


def beat(own_id: str, *, leaving: bool = False, **more: Any) -> Heartbeat:
    since_utc = {"a": "4", "b": "3", "c": "3", "d": "1"}[own_id]
    return Heartbeat(id=own_id, since_utc=since_utc, leaving=leaving, **more)


@given(HEARD)
def test_the_list_has_those_that_were_heard_within_three_seconds_and_all_see_the_same_first(
    heard: list[tuple[str, float, bool]],
) -> None:
    lists = [LiveList(own_id) for own_id in "abcd"]
    now_s, last = 0.0, dict[str, tuple[float, bool]]()
    for own_id, later_s, leaving in heard:
        now_s += later_s
        last[own_id] = (now_s, leaving)
        for each in lists:
            each.learn(beat(own_id, leaving=leaving), now_s)
        alive = {one for one, (at_s, _) in last.items() if now_s - at_s < FORGET_S}
        stay = [one for one in "dbca" if one in alive and not last[one][1]]
        for each in lists:
            assert {member.heartbeat.id for member in each.members(now_s)} == alive
            assert each.first(now_s) == (stay[0] if stay else "")
            assert len(each.others(now_s)) == len(alive - {each.own_id})


@given(st.lists(st.tuples(IDS, st.integers(0, 9), st.floats(0, 2)), max_size=20))
def test_what_others_have_counts_while_they_are_heard(heard: list[tuple[str, int, float]]) -> None:
    live = LiveList("a")
    now_s, last = 0.0, dict[str, tuple[int, float]]()
    for own_id, count, later_s in heard:
        now_s += later_s
        last[own_id] = (count, now_s)
        live.learn(beat(own_id, clients=count, by_identity={"key:1": count}, by_address={"192.0.2.1": count}), now_s)
        counted = [count for one, (count, at_s) in last.items() if one != "a" and now_s - at_s < COUNTED_S]
        assert live.of_identity("key:1", now_s) == live.of_address("192.0.2.1", now_s) == sum(counted)
        assert live.of_identity("key:2", now_s) == 0
        living = [count for one, (count, at_s) in last.items() if one != "a" and now_s - at_s < FORGET_S]
        assert live.clients_elsewhere(now_s) == sum(living)


def test_a_server_that_leaves_stays_on_the_list_and_counts_for_no_limit() -> None:
    live = LiveList("a")
    live.learn(beat("a"), 0.0)
    live.learn(beat("d", by_identity={"key:1": 5}), 0.0)
    assert live.first(0.0) == "d"
    assert live.of_identity("key:1", 0.0) == 5
    live.learn(beat("d", leaving=True, by_identity={"key:1": 5}, clients=3), 0.5)
    assert live.first(0.5) == "a"
    assert live.of_identity("key:1", 0.5) == 0
    assert live.clients_elsewhere(0.5) == 3


def test_a_new_server_is_told_from_one_that_was_known() -> None:
    live = LiveList("a")
    assert live.learn(beat("b"), 0.0)
    assert not live.learn(beat("b"), 2.9)
    assert live.learn(beat("b"), 2.9 + FORGET_S)
    live.forget_all()
    assert not live.has("b", 6.0) and live.first(6.0) == ""


def test_how_long_a_server_is_behind_is_known_from_what_others_have_told() -> None:
    live = LiveList("a")
    live.learn(beat("a", seq=10), 0.0)
    live.learn(beat("b", seq=20), 1.0)
    live.learn(beat("b", seq=30), 2.0)
    assert live.head_seq() == 30
    assert live.behind_s(30, 5.0) == 0.0
    assert live.behind_s(20, 5.0) == 3.0
    assert live.behind_s(10, 5.0) == 4.0


def test_a_heartbeat_survives_the_wire_and_one_of_another_version_is_read() -> None:
    told = beat("b", seq=7, checks={1_000: 5}, spent={"key:1": 2.5}, ready=False)
    assert decode_heartbeat(encode_heartbeat(told)) == told
    assert decode_heartbeat(b'{"id":"x","seq":3,"moon":"full"}') == Heartbeat(id="x", seq=3)
    for text in (b"", b"{}", b"[]", b'{"id":1}', b"\xff"):
        assert decode_heartbeat(text) is None


@pytest.mark.parametrize("max_bytes", [2_000, 20_000, 256 * 1024])
def test_a_heartbeat_is_bounded_and_keeps_the_highest_counts(max_bytes: int) -> None:
    many = {f"jwt:{'x' * 90}{number}": number for number in range(5_000)}
    text = encode_heartbeat(beat("b", by_identity=many, by_address={"192.0.2.1": 1}), max_bytes)
    assert len(text) <= max_bytes
    told = msgspec.json.decode(text, type=Heartbeat)
    assert 0 < len(told.by_identity) <= NAMES_MAX
    assert min(told.by_identity.values()) == 5_000 - len(told.by_identity)
    assert told.by_address == {"192.0.2.1": 1}


def test_sums_of_another_log_are_not_compared() -> None:
    checks = Checks()
    checks.note(1, 5)
    other = beat("b", epoch="one-1", checks={1: 6})
    assert differing(checks, "one-1", other) == 1
    assert differing(checks, "two-1", other) is None
