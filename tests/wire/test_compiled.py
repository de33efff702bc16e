"""The compiled module beside Python, its oracle: what it takes is the same, and what most clients send it takes."""

import gc
import sys
import tracemalloc
from collections.abc import Sequence
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.mutations import mutate
from tests.wire.strategies import compact, ids, json_values
from tests.wire.test_readings import MAX_BYTES, PLAIN
from twincast.core.names import NAME_MAX_CHARS
from twincast.wire.frames import text_in_python
from twincast.wire.readings import in_python

SPACED = b'{"type": "telemetry", "device_id": "a", "value": %b}'
TIGHT = b'{"type":"telemetry","device_id":"a","value":%b}'
VALUES = (
    *(b"1", b"-0", b"0.5", b"-12.25", b"123456789012345678", b"true", b"false", b"null", b'""', b'"a: b, {c}"'),
    *('"21 °C"'.encode(), b"[]", b"[1]", b'[1, "a", null, -0.0]', b"{}", b'{"n":1}', b'{"":[1,2],"b":"x y"}'),
    *(b'{"n": 1, "m": "a:b", "w": true, "list": [1, 2, 3]}', b'{"caf\xc3\xa9": "\x7f"}'),
)
"""What is taken, in the spellings of JavaScript and of Python."""
LEFT = (
    *(b"", b" 1", b"1 ", b"01", b"-", b"+1", b".5", b"1.", b"1e5", b"1E5", b"1234567890123456789", b"NaN", b"tru"),
    *(b'"a', b'"\\n"', b'"\x00"', b'"a\nb"', b"[1,]", b"[,1]", b"[1 ,2]", b"[1,  2]", b"[1", b"[[1]]", b'[{"a":1}]'),
    *(b"{", b"{ }", b'{"a"}', b'{"a":}', b'{"a":1,}', b'{"a" :1}', b'{"a":1 }', b'{"a":{"b":1}}', b'{"a":[[1]]}'),
    *(b'{"a":1,"a":2}', b'{"a":1,"b":2,"a":3}', b'{"a":1]', b"{1:2}", b'{"a\\u0062":1}', b'{"a":1,"id":2}}'),
)
"""What is left to Python, right or wrong."""
EXAMPLES = [spelling % value for spelling in (SPACED, TIGHT) for value in (*VALUES, *LEFT)]
MUTANTS = 200_000
SCALARS = tuple(value for value in VALUES if value[:1] not in (b"{", b"["))
CHANGES = (
    *(bytes((code,)) for code in b'aZ019-.eE,:[]{}\\" \n\x00\x1f\x7f'),
    b'","',
    b'":',
    b"null",
    b', "b": ',
    "é".encode(),
)


def both(module: ModuleType, payloads: Sequence[bytes], max_bytes: int = MAX_BYTES) -> int:
    """Hold that what the module takes Python takes too, and as the same; return how many messages that are."""
    readings, size_bytes = module.plain_readings(payloads, "websocket", max_bytes)
    taken = payloads[: len(readings)]
    assert (readings, size_bytes) == in_python(taken, "websocket", max_bytes), taken
    for reading in readings:
        assert type(reading.value).__name__ == "Raw" and reading.device_id.isprintable()
    return len(taken)


@pytest.mark.parametrize("spelling", [SPACED, TIGHT])
def test_what_most_clients_send_is_taken(compiled: ModuleType, spelling: bytes) -> None:
    payloads = [spelling % value for value in VALUES]
    assert both(compiled, payloads) == both(compiled, tuple(payloads)) == len(VALUES)


@pytest.mark.parametrize("spelling", [SPACED, TIGHT])
@pytest.mark.parametrize("value", LEFT)
def test_what_is_not_spelled_plainly_ends_it(compiled: ModuleType, spelling: bytes, value: bytes) -> None:
    assert both(compiled, [PLAIN, spelling % value, PLAIN]) == 1


@given(ids, json_values, st.booleans(), st.booleans())
def test_what_it_takes_is_the_same(
    compiled: ModuleType, device_id: str, value: Any, is_ascii: bool, is_spaced: bool
) -> None:
    message = {"type": "telemetry", "device_id": device_id, "value": value}
    payload = compact(message, is_ascii)
    both(compiled, [payload.replace(b",", b", ").replace(b":", b": ") if is_spaced else payload])


def grown(random: Random, depth: int = 0) -> bytes:
    """Return a value that is mostly plain, in a mixture of spellings; names come twice now and then."""
    kind = random.random()
    if kind < 0.3 or depth == 2:
        return random.choice(SCALARS) if random.random() < 0.8 else str(random.randint(-(10**19), 10**19)).encode()
    comma, colon = random.choice((b",", b", ")), random.choice((b":", b": "))
    if kind < 0.65:
        return b"[%b]" % comma.join(grown(random, depth + 1) for _ in range(random.randint(0, 3)))
    names = (b'"%b"' % random.choice((b"n", b"m", b"value", b"id", b"", b"a b", b"x:y")) for _ in range(3))
    members = [name + colon + grown(random, depth + 1) for name in names]
    return b"{%b}" % comma.join(members[: random.randint(0, 3)])


def mutant(random: Random) -> bytes:
    """Return a message with up to two small changes; one in five with those of the fuzzer, which leave less of it."""
    if random.random() < 0.2:
        return mutate(random.choice(EXAMPLES), EXAMPLES, random, 512)
    payload = random.choice((SPACED, TIGHT)) % grown(random)
    for _ in range(random.choice((0, 1, 1, 2))):
        at = random.randint(0, len(payload))
        payload = payload[:at] + random.choice(CHANGES) + payload[at + random.choice((0, 0, 1, 2)) :]
    return payload


def test_200_000_mutated_messages_are_taken_as_python_takes_them(compiled: ModuleType) -> None:
    random = Random(17)
    mutants = [payload for payload in (mutant(random) for _ in range(MUTANTS)) if _is_utf8(payload)]
    taken = sum(both(compiled, (payload,), 100) for payload in mutants)
    assert taken > MUTANTS / 10, "enough is plain, whatever was changed in it"


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_each_byte_in_each_place_is_taken_as_python_takes_it(compiled: ModuleType) -> None:
    for example in (SPACED % b'{"n": 1, "m": ["a", -0.5]}', TIGHT % b'{"n":1,"m":true}'):
        for at in range(len(example)):
            both(compiled, (example[:at],))
            for byte in range(128):
                both(compiled, (example[:at] + bytes((byte,)) + example[at + 1 :],))
                both(compiled, (example[:at] + bytes((byte,)) + example[at:],))


@pytest.mark.parametrize("chars", [0, 1, NAME_MAX_CHARS, NAME_MAX_CHARS + 1])
def test_a_name_has_the_length_that_it_may_have(compiled: ModuleType, chars: int) -> None:
    payload = b'{"type":"telemetry","device_id":"%b","value":1}' % (b"x" * chars)
    assert both(compiled, [payload]) == len(in_python([payload], "websocket", MAX_BYTES)[0]) == (0 < chars <= 128)


def test_a_message_above_the_limit_is_left(compiled: ModuleType) -> None:
    assert both(compiled, [PLAIN, PLAIN], len(PLAIN)) == 2
    assert both(compiled, [PLAIN], len(PLAIN) - 1) == both(compiled, [PLAIN], 0) == 0


@pytest.mark.parametrize("names", [31, 32, 33, 1_024, 1_025])
def test_objects_with_many_names_are_left(compiled: ModuleType, names: int) -> None:
    members = b",".join(b'"%d":1' % number for number in range(names))
    assert both(compiled, [TIGHT % b"{%b}" % members]) == (names <= 32)
    assert both(compiled, [TIGHT % b'{%b,"0":1}' % members]) == 0


def test_an_array_is_taken_however_long_it_is(compiled: ModuleType) -> None:
    numbers = b",".join([b"1"] * 30_000)
    assert both(compiled, [TIGHT % b"[%b]" % numbers, TIGHT % b'{"a":[%b]}' % numbers]) == 2


SIZES = (0, 1, 2, *range(123, 129), 255, 256, *range(65_533, 65_539), 1 << 20)


@pytest.mark.parametrize("size", SIZES)
def test_frames_are_the_same_for_each_form_of_length(compiled: ModuleType, size: int) -> None:
    for messages in ([bytes(size)], [b"before", bytes(size), b"behind"]):
        assert compiled.text(messages) == compiled.text(tuple(messages)) == text_in_python(messages)


@given(st.lists(st.binary(max_size=300)))
def test_frames_are_the_same(compiled: ModuleType, messages: list[bytes]) -> None:
    assert compiled.text(messages) == text_in_python(messages)


@pytest.mark.parametrize("other", [None, 1, "text", [PLAIN]])
def test_what_is_no_bytes_raises(compiled: ModuleType, other: Any) -> None:
    for messages in ([other], [PLAIN, other], other if other != [PLAIN] else 2):
        with pytest.raises(TypeError):
            compiled.text(messages)
        with pytest.raises(TypeError):
            compiled.plain_readings(messages, "websocket", MAX_BYTES)


def test_nothing_is_kept_of_what_was_taken_or_left(compiled: ModuleType) -> None:
    payloads = [spelling % (b'{"n": 1, "m": "%b"}' % (b"x" * 5_000)) for spelling in (SPACED, TIGHT)]
    payloads += [b'{"type":"telemetry","device_id":"a","value":{"a":1,"a":1}}', b"not JSON"]

    def use() -> None:
        for payload in payloads:
            compiled.plain_readings([payload], "websocket", MAX_BYTES)
            compiled.text([payload])

    use()
    references = [sys.getrefcount(payload) for payload in payloads]
    tracemalloc.start()
    try:
        use()
        gc.collect()
        before_bytes, _ = tracemalloc.get_traced_memory()
        for _ in range(2_000):
            use()
        gc.collect()
        after_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after_bytes - before_bytes < 2_000, "less than a byte a round"
    assert [sys.getrefcount(payload) for payload in payloads] == references
