"""What one connection wants: which topics are selected, and what cannot be wanted."""

import pytest

from twincast.core.model import KINDS_UNASKED, Topic
from twincast.core.subscription import Subscription, rules_of
from twincast.errors import ValidationFailed
from twincast.wire.client_messages import decode_message
from twincast.wire.query import decode_stream_query, resubscribed

DATA: Topic = ("data_update", "lab/fan")
CONTROL: Topic = ("control", "lab/fan")
DELETED: Topic = ("deleted", "lab/fan")


def test_by_default_everything_is_selected_in_mode_latest() -> None:
    subscription = Subscription()
    assert subscription.is_everything and subscription.selects(DATA) and subscription.selects(CONTROL)
    assert subscription.described() == {
        "devices": {"*": ["control", "data_update", "deleted"]},
        "mode": "latest",
        "max_hz": None,
    }


@pytest.mark.parametrize("pattern", ["lab/*", "lab/fan"])
def test_a_pattern_selects_by_its_kinds(pattern: str) -> None:
    subscription = Subscription(rules_of([pattern], ["control"]))
    assert subscription.selects(CONTROL)
    assert not subscription.selects(DATA)
    assert not subscription.selects(("control", "hall/fan"))


def test_deletions_come_to_those_who_name_no_kinds_or_this_one() -> None:
    assert Subscription(rules_of(["lab/*"])).selects(DELETED)
    assert Subscription(rules_of(["lab/*"], ["deleted"])).selects(DELETED)
    assert not Subscription(rules_of(["*"], ["data_update", "control"])).selects(DELETED)


def test_a_text_alone_is_one_pattern_and_one_kind() -> None:
    assert rules_of("hall/*", "late") == rules_of(["hall/*"], ["late"])
    assert not Subscription(rules_of("hall/*")).selects(DATA)


def test_nothing_may_be_selected() -> None:
    assert not Subscription(frozenset()).selects(DATA)


def test_equal_subscriptions_are_one_however_they_were_asked_for() -> None:
    first = decode_stream_query("devices=a&devices=b&mode=latest").subscription
    second = decode_stream_query("kinds=control&devices=b&devices=a&kinds=data_update&kinds=deleted").subscription
    assert first == second and hash(first) == hash(second)
    assert first != decode_stream_query("devices=a&devices=b&max_hz=1").subscription


def test_patterns_are_added_replaced_and_removed() -> None:
    subscription = Subscription(rules_of(["a", "b"])).adding(rules_of(["b", "c"], ["control"]))
    assert dict(subscription.rules) == {"a": KINDS_UNASKED, "b": {"control"}, "c": {"control"}}
    assert dict(subscription.removing(["a", "x"]).rules) == {"b": {"control"}, "c": {"control"}}
    assert not subscription.removing(None).rules


def test_a_subscription_has_so_many_patterns_and_so_many_stars_at_most() -> None:
    Subscription(rules_of([f"d{n}" for n in range(900)] + [f"s{n}*" for n in range(100)]))
    with pytest.raises(ValidationFailed, match="1000 patterns"):
        Subscription(rules_of(f"d{n}" for n in range(1_001)))
    with pytest.raises(ValidationFailed, match="100 patterns may have a star"):
        Subscription(rules_of(f"s{n}*" for n in range(101)))


def asked(text: bytes, current: Subscription) -> Subscription:
    return resubscribed(decode_message(text), current)


def test_mode_and_frequency_stay_unless_they_are_named() -> None:
    throttled = decode_stream_query("devices=a&max_hz=5").subscription
    assert asked(b'{"type":"subscribe","devices":["b"]}', throttled).max_hz == 5
    every = asked(b'{"type":"subscribe","mode":"every"}', throttled)
    assert (every.mode, every.max_hz, dict(every.rules)) == ("every", None, {"a": KINDS_UNASKED})
    assert asked(b'{"type":"unsubscribe","devices":["a"]}', throttled).max_hz == 5
    with pytest.raises(ValidationFailed, match="max_hz"):
        asked(b'{"type":"subscribe","max_hz":3}', every)


def test_an_address_says_whether_it_names_devices() -> None:
    assert not decode_stream_query("").names_devices
    assert decode_stream_query("devices=").names_devices and not decode_stream_query("devices=").subscription.rules
    assert decode_stream_query("page_size=7").page_size == 7
    assert decode_stream_query("since=e:1", "e:5").since == ("e", 5), (
        "what a browser sends when it comes back counts more"
    )


@pytest.mark.parametrize("kinds", [[], ["x" * 10_000], [f"kind-{n}" for n in range(10_000)]])
def test_a_refusal_of_kinds_is_short_however_long_they_are(kinds: list[str]) -> None:
    with pytest.raises(ValidationFailed, match="control, data_update, deleted and late") as refusal:
        rules_of(["*"], kinds)
    assert len(refusal.value.message) < 200
