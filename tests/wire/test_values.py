"""Which JSON is taken, against a check of its own that walks what the standard library parses."""

import json
import math
import random
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from twincast.core.names import check_id
from twincast.errors import BadMessage, MalformedJson, TooLarge, ValidationFailed
from twincast.wire import values
from twincast.wire.client_messages import decode_message
from twincast.wire.values import check_value, compact, refuse_duplicate_names


class _Pairs(list[tuple[str, Any]]):
    """An object as it was written: duplicates kept."""


def faults_of(text: str) -> set[type[BadMessage]]:
    """Say what is wrong with a JSON text; nothing of the package is asked."""
    try:
        return _faults(json.loads(text, object_pairs_hook=_Pairs), 0) | _too_many_names(text)
    except ValueError:
        return {MalformedJson}


def _faults(value: Any, depth: int) -> set[type[BadMessage]]:
    found: set[type[BadMessage]] = set()
    children: list[Any] = []
    if isinstance(value, _Pairs):
        children = [child for _, child in value]
        if len({name for name, _ in value}) < len(value):
            found.add(MalformedJson)
    elif isinstance(value, list):
        children = value
    elif isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > 64 or value < -(2**63):
            found.add(MalformedJson)
    elif isinstance(value, float) and not math.isfinite(value):
        found.add(MalformedJson)
    if isinstance(value, list) and depth == 32:
        found.add(TooLarge)
    return found.union(*(_faults(child, depth + 1) for child in children))


def _too_many_names(text: str) -> set[type[BadMessage]]:
    names = 0

    def count(pairs: list[tuple[str, Any]]) -> None:
        nonlocal names
        names += len(pairs)

    json.loads(text, object_pairs_hook=count)
    return {TooLarge} if names > 1_024 else set()


def verdict(text: bytes) -> type[BadMessage] | None:
    """Say what `check_value` makes of a text after msgspec has passed over it, as in every message."""
    try:
        check_value(bytes(msgspec.json.decode(text, type=Raw)))
    except msgspec.DecodeError:
        return MalformedJson
    except BadMessage as error:
        return type(error)
    return None


numbers = st.one_of(
    st.integers().map(str),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**18, -(10**18), 10**20]).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1e400", "-1E+999", "1e-400", "0.0", "-0", "1E5", "1.0", "NaN", "Infinity", "-Infinity"]),
)
names = st.sampled_from(['"a"', '"b"', '"a:b"', '""', '"\\u0061"', '"é"', '"}"'])
scalars = numbers | st.sampled_from(["true", "false", "null", '":"', '"a:b,c"', '"\\""', '"\\u003a"', '"{"']) | names
space = st.sampled_from(["", "", "", " ", "\n"])


def containers(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.tuples(space, st.lists(children, max_size=4)).map(lambda parts: f"[{parts[0]}{','.join(parts[1])}]")
    members = st.lists(st.tuples(names, space, children), max_size=4)
    objects = members.map(lambda parts: "{" + ",".join(f"{name}{gap}:{value}" for name, gap, value in parts) + "}")
    return arrays | objects


texts = st.recursive(scalars, containers, max_leaves=20)


@given(texts)
@example("[" * 32 + "]" * 32)
@example("[" * 33 + "]" * 33)
@example('{"a":' * 32 + "1" + "}" * 32)
@example('{"a":' * 33 + "1" + "}" * 33)
@example('{"a":1,"\\u0061":2}')
@example('{"a":":","a":1}')
@example('[{"a":"::"},{"b":1,"b":2}]')
@example("1e400")
@example("-1E+999")
@example('{"a":18446744073709551616}')
@example('{"a":-9223372036854775809,"b":true}')
@example('{"a":[18446744073709551616]}')
@example('{"a":' + "[" * 32 + "]" * 32 + "}")
@example('{"a":"{","b":1,"b":2}')
@example("999999999999999999")
@example("1000000000000000000")
@example("-99999999999999999")
def test_a_value_is_taken_exactly_when_an_independent_check_finds_nothing(text: str) -> None:
    found = faults_of(text)
    if found:
        assert verdict(text.encode()) in found
    else:
        assert verdict(text.encode()) is None


@given(texts)
def test_a_value_that_is_taken_returns_its_colons(text: str) -> None:
    if not faults_of(text) and text.startswith(("{", "[", '"')):
        assert check_value(text.encode()) == text.count(":")


@st.composite
def spaced_and_tight(draw: st.DrawFn) -> tuple[str, str]:
    """Draw one value's text twice: with white space between its tokens, and without."""
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^{}\[\]:,"\s]+', draw(texts))
    gaps = draw(st.lists(st.sampled_from(["", " ", "\n", "\t\r\n  "]), min_size=len(tokens), max_size=len(tokens)))
    return "".join(token + gap for token, gap in zip(tokens, gaps, strict=True)).strip(), "".join(tokens)


@given(spaced_and_tight())
@example(('{"a b" : [ -0, 1.0 , 1E+5,"\\u0041 \\/ é" ] }', '{"a b":[-0,1.0,1E+5,"\\u0041 \\/ é"]}'))
def test_compact_leaves_out_white_space_between_tokens_and_nothing_else(texts: tuple[str, str]) -> None:
    spaced, tight = texts
    if faults_of(tight) == set():
        assert compact(spaced.encode()) == tight.encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [31, 32])
def test_nesting_is_taken_to_its_bound(depth: int, opening: str, closing: str) -> None:
    assert verdict((opening * depth + "1" + closing * depth).encode()) is None


@pytest.mark.parametrize("depth", [33, 100, 900, 100_000])
def test_nesting_beyond_the_bound_is_too_large_however_deep(depth: int) -> None:
    with pytest.raises(TooLarge, match="32 deep"):
        check_value(b"[" * depth + b"]" * depth)


def test_names_are_taken_to_their_bound_wherever_they_are() -> None:
    flat = ",".join(f'"{number}":0' for number in range(1_024))
    spread = ",".join(f'{{"a":{number}}}' for number in range(1_024))
    assert verdict(f"{{{flat}}}".encode()) is None
    assert verdict(f"[{spread}]".encode()) is None
    with pytest.raises(TooLarge, match="1024 names"):
        check_value(f'{{{flat},"more":0}}'.encode())
    with pytest.raises(TooLarge, match="1024 names"):
        check_value(f'[{spread},{{"more":0}}]'.encode())


def test_an_array_may_be_as_long_as_its_message() -> None:
    assert verdict(b"[" + b",".join([b"1"] * 30_000) + b"]") is None


@pytest.mark.parametrize(
    "text", ["18446744073709551616", "-9223372036854775809", "[18446744073709551616]", "9" * 5_000]
)
def test_a_number_that_64_bits_do_not_hold_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(MalformedJson, match=r"64 bits|out of range"):
        check_value(text.encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_only_python_takes_for_a_number_is_refused_where_no_value_is_read(number: str) -> None:
    with pytest.raises(MalformedJson, match=number):
        refuse_duplicate_names(b'{"type":[%b]}' % number.encode())
    with pytest.raises(MalformedJson):
        decode_message(b'{"type":[%b]}' % number.encode())


def test_a_duplicate_name_is_named() -> None:
    with pytest.raises(MalformedJson, match="name 'volt' twice"):
        check_value(b'{"volt":1,"volt":2}')


@given(texts)
def test_duplicate_names_are_found_at_any_depth_and_nothing_else_is(text: str) -> None:
    if "NaN" in text or "Infinity" in text:
        return

    def has_duplicates(value: Any) -> bool:
        if isinstance(value, _Pairs):
            twice = len({name for name, _ in value}) < len(value)
            return twice or any(has_duplicates(child) for _, child in value)
        return isinstance(value, list) and any(map(has_duplicates, value))

    if has_duplicates(json.loads(text, object_pairs_hook=_Pairs)):
        with pytest.raises(MalformedJson):
            refuse_duplicate_names(text.encode())
    else:
        refuse_duplicate_names(text.encode())


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128))
def test_any_name_without_control_characters_is_taken(name: str) -> None:
    check_id(name, "`device_id`")


@pytest.mark.parametrize("name", ["", "x" * 129, "\U0001f600" * 129])
def test_a_name_of_another_length_is_refused_with_its_length(name: str) -> None:
    with pytest.raises(ValidationFailed, match=f"`target` must have 1 to 128 characters; this one has {len(name)}"):
        check_id(name, "`target`")


@given(st.text(max_size=60), st.characters(categories=["Cc"]), st.text(max_size=60))
def test_a_name_with_a_control_character_anywhere_is_refused(before: str, control: str, after: str) -> None:
    with pytest.raises(ValidationFailed, match="no control characters"):
        check_id(before + control + after, "`device_id`")


@given(st.text(max_size=60), st.characters(categories=["Cs"]), st.text(max_size=60))
def test_a_name_with_a_lone_surrogate_anywhere_is_refused(before: str, surrogate: str, after: str) -> None:
    with pytest.raises(ValidationFailed, match=r"no control characters|no lone surrogates"):
        check_id(before + surrogate + after, "`device_id`")


def test_a_refusal_is_short_however_deep_the_value_is() -> None:
    with pytest.raises(MalformedJson) as refusal:
        check_value(b"[" * 500 + b"9" * 5_000 + b"]" * 500)
    assert len(refusal.value.message) < 300


def mutated(text: str, random_: random.Random) -> bytes:
    """Return a text with up to two of its bytes changed, left out or doubled."""
    data = bytearray(text.encode())
    for _ in range(random_.choice((0, 0, 1, 2))):
        at = random_.randrange(len(data) or 1)
        change = random_.choice((b"", data[at : at + 1] * 2, *(b"%c" % char for char in b'{}[]":,09eE.-+\\u ')))
        data[at : at + 1] = change
    return bytes(data)


def crafted(random_: random.Random, depth: int) -> str:
    """Return a value made of what has mattered once: numbers at the edge of 64 bits, `:` in texts, deep nesting."""
    kind = random_.random()
    if depth == 0 or kind < 0.4:
        return random_.choice(CRAFTED)
    parts = [crafted(random_, depth - 1) for _ in range(random_.randrange(4))]
    if kind < 0.65:
        return f"[{','.join(parts)}]"
    if kind < 0.7:
        levels = random_.choice((4, 5, 31, 32, 33))
        opening, closing = random_.choice((("[", "]"), ('{"a":', "}"), ('{"a":[', "]}")))
        return opening * levels + crafted(random_, 0) + closing * levels
    names = random_.choices(('"a"', '"b"', '"c"', '"a:b"', '"\\u0061"', '"\\u003a"', '":"', '"é"'), k=len(parts))
    return "{" + ",".join(f"{name}:{part}" for name, part in zip(names, parts, strict=True)) + "}"


CRAFTED = (
    *("1", "-0", "1.5", "1e5", "1E-400", "true", "false", "null", "[]", "{}", '""', '":"', '"12:30:00"', '"a:b,c"'),
    *(
        '"\\u003a"',
        '"\\\\u003a"',
        '"\\u003A:"',
        '"{"',
        '"[{"',
        '"\\""',
        '"é"',
        "1e400",
        "0.12345678901234567890",
    ),
    *map(str, (2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**18, 10**19, 10**20)),
)


def test_crafted_and_mutated_values_are_taken_exactly_when_an_independent_check_finds_nothing() -> None:
    random_ = random.Random(17)
    for _ in range(20_000):
        data = mutated(crafted(random_, 4), random_)
        text = data.decode(errors="replace").strip()  # no edge lets other bytes than UTF-8 through
        if text:
            found, seen = faults_of(text), verdict(text.encode())
            assert seen in found if found else seen is None, text


def calls_of(check: Callable[[], object]) -> int:
    """Return how many calls of Python's functions a check takes."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        check()
    finally:
        sys.setprofile(None)
    return calls


MANY = 5_000


@pytest.mark.parametrize(
    "value",
    [
        [*range(MANY)],
        [number / 7 for number in range(MANY)],
        [1e-30 * number for number in range(MANY)],
        [-(2**63), *range(MANY), 2**63 - 1],
        [2**64 - 1, 1.5, True, None] * (MANY // 4),
        [[number, number / 7] for number in range(MANY)],
        [[[[number]]] for number in range(MANY)],
        ["12:30:00", "http://a"] * MANY,
        [True, None] * MANY,
        {"samples": [*range(MANY)], "at": "12:30:00"},
        {"a": {"b": {"c": {"d": {"samples": [*range(MANY)]}}}}},
        [{"samples": [*range(MANY)]}],
        {str(number): number for number in range(1_000)},
        {str(number): "12:30:00" for number in range(1_000)},
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_a_large_value_is_checked_without_a_call_for_each_of_its_parts(value: Any) -> None:
    text = json.dumps(value).encode()
    assert calls_of(lambda: check_value(text)) < MANY / 25


@pytest.mark.parametrize(
    "text",
    [
        b'{"at":"12:30:00"}',
        b'{"url":"http://a:80/","more":{"at":"::"}}',
        b'{"a:b":1}',
        b'[{"at":"12:30:00","said":"\\"hi\\": \\n"}]',
        b'["12:30:00","\\u003a"]',
    ],
)
def test_a_colon_or_an_escape_in_a_text_takes_no_second_parser(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "refuse_duplicate_names", None)
    assert check_value(text) == text.count(b":")
