"""Changes that know the structure of what they change: the same for the fuzzer and for the test-suite."""

import re
from collections.abc import Callable, Sequence
from random import Random

_WORDS = """
producer line
type id device_id value target command args update_id devices kinds mode max_hz token since page auth ticket
telemetry control ping subscribe unsubscribe data_update latest every message epoch-1 lamp true false null
Host Origin Authorization Bearer Connection Upgrade websocket Sec-WebSocket-Key localhost 127.0.0.1 [::1]
"""
_NUMBERS = """
0 -0 -1 1.5 1e5 1E400 -1e-400 NaN Infinity 01 1. .5 9007199254740992 9223372036854775808 -9223372036854775809
18446744073709551615 18446744073709551616 100000000000000000 1e308 1e309
"""
_SIGNS = '{ } [ ] , : " * / & = % + ; # @ ?'
WORDS, NUMBERS = _WORDS.split(), _NUMBERS.split()
TOKENS: Sequence[bytes] = (
    *(f'"{word}"'.encode() for word in WORDS),
    *(word.encode() for word in (*WORDS, *NUMBERS, *_SIGNS.split())),
    *(bytes((code,)) for code in (*range(12), 0x20, 0x5C, 0x7F)),
    *(
        b"\r\n",
        b"\\u0000",
        b"\\ud800",
        b"\\udc00",
        b"\\u003a",
        b"\\u0022",
        b"\\\\",
        b"\\*",
        b"%00",
        b"%ff",
        b"%F0%9F%8C%A1",
    ),
    *(b'{"":', b'"lab/*"', b"*/door", b'{"a":1,"a":2}', b'"args":{}', b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
    *(b"\x81\x80\0\0\0\0", b"\x01\x80\0\0\0\0", b"\x80\x80\0\0\0\0", b"\x89\x80\0\0\0\0", b"\x88\x82\0\0\0\0\x03\xe8"),
    *(b"\x81\xfe\x00\x7e\0\0\0\0", b"\x82\xff\0\0\0\0\0\x01\0\0", b"\x0f\xff", b"\x8f\xff", b"\xff\xff"),
)
BROKEN_UTF8 = (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xf0\x9f\x8c")
_MEMBER = re.compile(rb'"[^"]*":[^,{}\[\]]+')
_NUMBER = re.compile(rb"-?\d[\d.eE+-]*")


def mutate(data: bytes, corpus: Sequence[bytes], random: Random, max_bytes: int) -> bytes:
    """Return data with one to three changes."""
    for _ in range(random.choice((1, 1, 2, 3))):
        data = _change(data, corpus, random)[:max_bytes]
    return data


def _change(data: bytes, corpus: Sequence[bytes], random: Random) -> bytes:
    at, end = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
    before, part, after = data[:at], data[at:end], data[end:]
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: before + _end_of(random.choice(corpus), random),
        lambda: before + random.choice(TOKENS) + data[at:],
        lambda: before + random.choice(TOKENS) + after,
        lambda: before + after,
        lambda: before + part * random.choice((2, 3, 50)) + after,
        lambda: before + _nested(part, random) + after,
        lambda: before + random.choice(BROKEN_UTF8) + data[at:],
        lambda: before + bytes([random.randrange(256)]) + data[at + 1 :],
        lambda: _replaced(_NUMBER, data, random, lambda _: _number(random)),
        lambda: _replaced(_MEMBER, data, random, lambda member: member + b"," + member),  # the same name twice
    )
    return random.choice(kinds)()


def _end_of(other: bytes, random: Random) -> bytes:
    return other[random.randint(0, len(other)) :]


def _nested(part: bytes, random: Random) -> bytes:
    depth = random.choice((1, 2, 31, 32, 33, 400, 1_500))
    if random.random() < 0.5:
        return b"[" * depth + part + b"]" * depth
    return b'{"a":' * depth + part + b"}" * depth


def _number(random: Random) -> bytes:
    return random.choice((random.choice(NUMBERS).encode(), b"9" * random.choice((18, 19, 20, 309, 4_301))))


def _replaced(pattern: re.Pattern[bytes], data: bytes, random: Random, change: Callable[[bytes], bytes]) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data + random.choice(TOKENS)
    place = random.choice(found)
    return data[: place.start()] + change(place.group()) + data[place.end() :]
