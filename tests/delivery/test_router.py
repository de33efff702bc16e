"""Which groups receive an entry, and what it costs them that a client comes, changes or leaves."""

import gc
import json
import weakref
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.delivery.clients import COSTLY, COSTLY_STEPS
from tests.fakes import CommittingStream, CountedMatches, FreePayer, RecordingConnection
from twincast.core.model import KINDS, KINDS_UNASKED, DataUpdate, Entry, Late
from twincast.core.subscription import Subscription, rules_of
from twincast.delivery import router
from twincast.delivery.feed import Feed
from twincast.delivery.router import Router


def come(stream: CommittingStream, *patterns: str, max_hz: float | None = None) -> tuple[Feed, RecordingConnection]:
    connection = RecordingConnection()
    feed = Feed(connection.write, stream, lambda _: None, budget=FreePayer(), outbox_max_bytes=1 << 40)
    feed.begin(Subscription(rules_of(patterns), max_hz=max_hz))
    connection.taken()
    return feed, connection


def devices_of(connection: RecordingConnection) -> list[str]:
    return [json.loads(message)["device_id"] for message in connection.taken()]


def report(stream: CommittingStream, names: Sequence[str]) -> None:
    stream.cast(*(DataUpdate(name, Raw(b"1"), "", "rest") for name in names))


def test_a_client_that_comes_and_goes_has_no_other_patterns_matched_again(matches: CountedMatches) -> None:
    stream = CommittingStream()
    watching = [come(stream, f"site{number}*", f"*x{number}*") for number in range(20)]
    names = [f"site{number}/{number}" for number in range(50)]
    report(stream, names)
    for patterns in (["*y*"], ["site1*", "*z"], ["site7/7"], ["*"]):
        matches.count = 0
        feed, _ = come(stream, *patterns)
        feed.close()
        selecting = matches.count
        report(stream, names)
        assert matches.count - selecting == 0, f"{patterns} has left, and nobody else has changed"
    newcomer, _ = come(stream, "*y*")
    matches.count = 0
    report(stream, names)
    assert matches.count == len(names), "only the newcomer's pattern is asked, once for each name"
    newcomer.close()
    for _, connection in watching:
        connection.taken()


def test_no_route_keeps_a_group_that_is_over() -> None:
    stream = CommittingStream()
    come(stream, "d*")
    feed, _ = come(stream, "*1")
    group = stream.router.join(feed.sender, of("*1"))
    report(stream, ["d1"])
    feed.close()
    kept = weakref.ref(group)
    del group, feed
    report(stream, ["d1"])
    gc.collect()
    assert kept() is None


def test_a_group_that_is_over_keeps_no_subscription_even_where_a_route_remembers_it() -> None:
    stream = CommittingStream()
    feed, _ = come(stream, *(f"d{number}*" for number in range(100)))
    come(stream, "d*")
    report(stream, ["d1"])
    kept = weakref.ref(feed.subscription)
    feed.close()
    del feed
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("text", ["*/site{}/*", "site/*/x{}/*", "site/*/door{}"])
def test_thousands_of_patterns_that_differ_only_between_their_ends_cost_a_new_device_a_few(
    text: str, matches: CountedMatches
) -> None:
    stream = CommittingStream()
    for number in range(3_000):
        feed = Feed(lambda _: None, stream, lambda _: None, budget=FreePayer(), outbox_max_bytes=1)
        stream.router.join(feed.sender, of(text.format(number)))
    matches.count = 0
    report(stream, [text.format(number).replace("*", "site/any") for number in range(100)])
    assert matches.count <= 100 * 2 * router.CROWD


def test_ten_thousand_distinct_patterns_cost_a_new_device_what_one_does(matches: CountedMatches) -> None:
    stream = CommittingStream()
    for number in range(10_000):
        feed = Feed(lambda _: None, stream, lambda _: None, budget=FreePayer(), outbox_max_bytes=1)
        stream.router.join(feed.sender, of(f"site{number}/*"))
    matches.count = 0
    report(stream, [f"site{number}/door" for number in range(1_000)])
    assert matches.count == 1_000


def of(*patterns: str) -> Subscription:
    return Subscription(rules_of(patterns))


PATTERNS = st.sampled_from(["*", "a*", "*a", "ab*", "*b*", "a", "ab", "b", "a*b", "**"])
READABLE = st.sampled_from([frozenset({"*"}), frozenset({"a*"}), frozenset({"a", "ab"}), frozenset({"*b", "a"})])
SUBSCRIPTIONS = st.builds(
    lambda patterns, kinds, readable: Subscription(rules_of(patterns, kinds)).inside(readable),
    st.lists(PATTERNS, max_size=3),
    st.sampled_from([None, ["data_update"], ["control"]]),
    READABLE,
)
STEPS = st.one_of(
    st.tuples(st.just("join"), SUBSCRIPTIONS),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("report"), st.lists(st.sampled_from(["a", "b", "ab", "ba", "aab", "c"]), min_size=1, max_size=4)),
)


@given(st.lists(STEPS, max_size=40), st.booleans())
def test_each_client_is_sent_what_it_selects_whichever_clients_have_come_and_gone(
    steps: list[tuple[str, object]], prepares: bool
) -> None:
    stream = CommittingStream()
    watching: list[tuple[Feed, RecordingConnection, Subscription]] = []
    for what, how in steps:
        if what == "join" and isinstance(how, Subscription):
            connection = RecordingConnection()
            feed = Feed(connection.write, stream, lambda _: None, budget=FreePayer(), outbox_max_bytes=1 << 40)
            feed.begin(how)
            connection.taken()
            watching.append((feed, connection, how))
        elif what == "leave" and watching and isinstance(how, int):
            watching.pop(how % len(watching))[0].close()
        elif isinstance(how, list):
            stream.prepares = prepares
            report(stream, how)
            for _, connection, subscription in watching:
                expected = [name for name in how if subscription.selects(("data_update", name))]
                assert devices_of(connection) == expected


def test_the_routes_of_many_new_names_and_many_patterns_are_found_a_little_at_a_time() -> None:
    stream = CommittingStream()
    for number in range(15):
        come(stream, *COSTLY, f"x{number}")
    asked: list[int] = []

    class CountingRouter(Router):
        def _renew(self, *how):  # type: ignore[no-untyped-def]
            route, steps = super()._renew(*how)
            asked[-1] += steps
            return route, steps

    stream.router.__class__ = CountingRouter
    cast = stream.drafted(DataUpdate(f"{'a' * 100}{number}", Raw(b"1"), "", "rest") for number in range(5))
    unknown: int | None = 0
    while unknown is not None:
        asked.append(0)
        unknown = stream.router.prepare(cast, unknown)
    assert len(asked) > 15
    assert max(asked) <= router.ROUTE_STEPS + COSTLY_STEPS
    asked.append(0)
    stream.router.offer(cast)
    assert asked[-1] == 0, "all is known by then"


def test_each_device_keeps_its_route_however_many_there_are(
    matches: CountedMatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "ROUTES_MAX", 100)
    stream = CommittingStream()
    come(stream, "site*lamp*")
    names = [f"site{number}/lamp" for number in range(1_000)]
    report(stream, names)
    matches.count = 0
    report(stream, names)
    assert matches.count == 0


def test_kinds_are_not_mixed_up_among_remembered_routes() -> None:
    stream = CommittingStream()
    connection = RecordingConnection()
    commands = Feed(connection.write, stream, lambda _: None, budget=FreePayer(), outbox_max_bytes=1 << 40)
    commands.begin(Subscription(frozenset({("a*", frozenset({"control"})), ("b*", KINDS)})))
    connection.taken()
    for name in ("a1", "b1", "a1"):
        stream.change(name, b"1")
        stream.command(name)
    told = [json.loads(message) for message in connection.taken()]
    assert [(each["type"], each.get("device_id") or each["target"]) for each in told] == [
        ("control", "a1"),
        ("data_update", "b1"),
        ("control", "b1"),
        ("control", "a1"),
    ]


def test_a_change_of_many_names_leaves_nothing_for_the_collector_of_garbage() -> None:
    stream = CommittingStream()
    names = [f"d{number}" for number in range(900)]
    come(stream, *names[:10])
    watcher, wish = (
        Feed(lambda _: None, stream, lambda _: None, budget=FreePayer(), outbox_max_bytes=1),
        of(*names),
    )
    assert len(wish.exact) == 900 * len(KINDS_UNASKED)
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        group = stream.router.join(watcher.sender, wish)
        assert gc.get_count()[0] - before < 100, "what is kept of a name is one and the same for all names of a group"
    finally:
        gc.enable()
    stream.router.leave(watcher.sender, group)
    report(stream, names)


def test_who_wants_everything_gets_late_readings_only_by_their_name() -> None:
    stream = CommittingStream()
    kinds = {"unasked": None, "asked": KINDS, "of some": KINDS_UNASKED}
    told: dict[str, RecordingConnection] = {}
    for name, wanted in kinds.items():
        told[name] = RecordingConnection()
        feed = Feed(told[name].write, stream, lambda _: None, budget=FreePayer(), outbox_max_bytes=1 << 40)
        rules = rules_of(["*"], wanted) | (rules_of(["a*"], ["late"]) if name == "of some" else frozenset())
        feed.begin(Subscription(rules))
        told[name].taken()
    entries: list[Entry] = [
        *(DataUpdate("a1", Raw(b"1"), "", "rest"), Late("a1", Raw(b"2"), "", "rest", "")),
        *(Late("b1", Raw(b"3"), "", "rest", ""), DataUpdate("b1", Raw(b"4"), "", "rest")),
    ]
    stream.cast(*entries)
    stream.cast(Late("b1", Raw(b"5"), "", "rest", ""))
    values = {name: [json.loads(message)["value"] for message in each.taken()] for name, each in told.items()}
    assert values == {"unasked": [1, 4], "asked": [1, 2, 3, 4, 5], "of some": [1, 2, 4]}
