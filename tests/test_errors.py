"""One tree, and what each wire is promised of it."""

import re
from http import HTTPStatus

import pytest

from twincast import errors
from twincast.errors import BadMessage, FellBehind, Stopping, TwincastError, Unavailable


def tree(root: type[TwincastError]) -> list[type[TwincastError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in tree(child))]


# Other modules may derive from the tree; what they add is theirs.
KINDS = [kind for kind in tree(TwincastError) if kind.__module__ == errors.__name__]
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def test_every_error_of_the_module_stands_in_the_tree_and_in_its_drawing() -> None:
    defined = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert defined == {kind.__name__ for kind in KINDS}
    drawn = re.findall(r"(?:├──|└──|/) (\w+)", errors.__doc__ or "")
    assert set(drawn) | {"TwincastError"} == defined


def test_the_drawing_shows_who_derives_from_whom() -> None:
    parents = ["TwincastError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"((?:[│ ]   )*)[├└]── (.*?)(?:  |$)", line):
            depth = len(found[1]) // 4
            for name in re.findall(r"\w+", found[2]):
                assert getattr(errors, name).__base__.__name__ == parents[depth]
                parents[depth + 1 :] = [name]


@EVERY_KIND
def test_a_code_is_a_plain_word_that_only_one_error_has(kind: type[TwincastError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert [other for other in KINDS if other.code == kind.code] == [kind]


@EVERY_KIND
def test_the_http_status_exists_and_means_an_error(kind: type[TwincastError]) -> None:
    assert 400 <= HTTPStatus(kind.http_status) <= 599


@EVERY_KIND
def test_the_close_code_may_be_sent(kind: type[TwincastError]) -> None:
    assert kind.close_code in {1003, 1009, 1011, 1012, 1013} or 4000 <= kind.close_code <= 4999


@EVERY_KIND
def test_whoever_may_try_again_is_told_so_alike_on_every_wire(kind: type[TwincastError]) -> None:
    assert kind.retryable == issubclass(kind, Unavailable)
    if kind.retryable:
        assert kind.http_status in {429, 503}
        assert kind.close_code in {1012, 1013} or 4000 <= kind.close_code <= 4499
    if issubclass(kind, BadMessage):
        assert 400 <= kind.http_status <= 499
        assert not 4000 <= kind.close_code <= 4499


def test_a_restart_and_a_slow_client_have_the_close_codes_of_the_contract() -> None:
    assert Stopping.close_code == 1012
    assert FellBehind.close_code == 4008
    assert Stopping.retryable
    assert FellBehind.retryable


@EVERY_KIND
def test_the_message_is_what_was_said(kind: type[TwincastError]) -> None:
    assert kind("expected this, and that came").message == "expected this, and that came"
