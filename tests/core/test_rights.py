"""Who may do what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.core.model import KINDS, KINDS_UNASKED
from twincast.core.pattern import Pattern
from twincast.core.rights import ACTIONS, ANYONE, EVERY_RIGHT, Principal, Rights
from twincast.core.subscription import Subscription, rules_of
from twincast.errors import NotPermitted, ValidationFailed

NAMES = ["lab/a", "lab/b", "home/a", "a", "*", "lab/"]
PATTERNS = ["*", "lab/*", "*/a", "a", "lab/a", r"\*", "home/*", "l*b/*"]
pattern_sets = st.frozensets(st.sampled_from(PATTERNS), max_size=3)


def test_a_right_is_an_action_on_the_devices_of_a_pattern() -> None:
    lab = Principal("key:1", Rights.of({"publish": ["lab/*"], "read": ["lab/*", "door"]}))
    assert lab.may("publish", "lab/lamp")
    assert lab.may("read", "door")
    assert not lab.may("publish", "door")
    assert not lab.may("command", "lab/lamp")
    assert lab.may_at_all("read")
    assert not lab.may_at_all("admin")
    assert not lab.may_everywhere("read")


def test_a_text_alone_is_one_pattern() -> None:
    assert Rights.of({"read": "lab/*"}) == Rights.of({"read": ["lab/*"]})


def test_whoever_may_not_is_told_what_he_asked_and_nothing_else() -> None:
    nobody = Principal("key:1", Rights())
    with pytest.raises(NotPermitted, match="key:1 has no right to publish 'lab/lamp'"):
        nobody.require("publish", "lab/lamp")
    with pytest.raises(NotPermitted, match="key:1 has no right to read"):
        nobody.require_at_all("read")


def test_without_a_login_everybody_may_do_everything() -> None:
    assert ANYONE.is_unbounded
    assert all(ANYONE.may(action, "anything") for action in ACTIONS)


@pytest.mark.parametrize("grants", [{"write": ["*"]}, {"read": [""]}, {"read": ["x" * 257]}, {"read": ["\\"]}])
def test_rights_that_cannot_be_are_refused(grants: dict[str, list[str]]) -> None:
    with pytest.raises(ValidationFailed):
        Rights.of(grants)


def test_an_action_takes_a_bounded_number_of_patterns() -> None:
    Rights.of({"read": [f"d{number}" for number in range(1_000)]})
    with pytest.raises(ValidationFailed, match="1000 patterns"):
        Rights.of({"read": [f"d{number}" for number in range(1_001)]})


def test_rights_come_back_from_what_describes_them() -> None:
    rights = Rights.of({"read": ["lab/*", "a"], "command": ["x"]})
    assert Rights.of(rights.described()) == rights
    assert rights.described() == {"read": ["a", "lab/*"], "command": ["x"]}
    assert set(EVERY_RIGHT.described()) == set(ACTIONS)


@given(pattern_sets, st.sampled_from(NAMES), st.sampled_from(ACTIONS))
def test_an_action_is_allowed_if_one_of_its_patterns_selects_the_name(
    patterns: frozenset[str], name: str, action: str
) -> None:
    principal = Principal("key:1", Rights.of({action: patterns}))
    for other in ACTIONS:
        expected = other == action and any(Pattern(text).matches(name) for text in patterns)
        assert principal.may(other, name) == expected


@given(pattern_sets, pattern_sets, st.sampled_from(NAMES))
def test_a_subscription_inside_rights_selects_what_both_select(
    wanted: frozenset[str], readable: frozenset[str], name: str
) -> None:
    subscription = Subscription(rules_of(wanted, KINDS)).inside(readable)
    for kind in KINDS:
        expected = all(any(Pattern(text).matches(name) for text in texts) for texts in (wanted, readable))
        assert subscription.selects((kind, name)) == expected
        if (kind, name) in subscription.exact:
            assert expected


def test_those_with_equal_rights_and_wishes_have_equal_subscriptions() -> None:
    readable = frozenset({"lab/*"})
    assert Subscription().inside(readable) == Subscription().inside(frozenset({"lab/*"}))
    assert Subscription().inside(readable) != Subscription()
    assert Subscription().inside(frozenset({"*", "lab/*"})) == Subscription()
    assert hash(Subscription().inside(frozenset({"*"}))) == hash(Subscription())


def test_who_may_read_some_names_costs_one_lookup_each_and_no_pattern() -> None:
    subscription = Subscription().inside(frozenset({"lab/a", "lab/b"}))
    assert not subscription.literals
    assert subscription.exact == {(kind, name) for kind in KINDS_UNASKED for name in ("lab/a", "lab/b")}
    assert not subscription.is_everything


def test_changing_a_subscription_leaves_the_rights_around_it() -> None:
    subscription = Subscription().inside(frozenset({"lab/*"}))
    added, emptied = subscription.adding(rules_of(["home/*"])), subscription.removing(None)
    for changed in (added, emptied, subscription.removing(["x"])):
        assert changed.within == {"lab/*"}
        assert not changed.selects(("data_update", "home/a"))
