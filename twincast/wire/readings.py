"""Plain readings: telemetry with a `device_id` and a `value` and nothing else, which most messages are.

They are decoded in one loop, which leaves everything else, right or wrong, to `decode_message` in wire/client_messages;
so a refusal is put into words in one place. What the loop takes, it takes exactly as `decode_message` does.

Where the compiled module is in use (wire/implementation), it takes those that are spelled as most encoders do; what it
leaves comes to the loop in Python, which is also the oracle of its tests.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from twincast.core.model import DataUpdate, Source
from twincast.core.names import NAME_MAX_CHARS
from twincast.errors import BadMessage
from twincast.wire.implementation import compiled
from twincast.wire.values import check_value, compact

_FRAME_MAX_BYTES = len('{"type":"telemetry","device_id":"","value":}') + len(',"id":1') - 1
"""How much may stand beside name and value: less than the shortest third field of a meaning needs, or than one of the
three a second time. So there is none. The white space that other encoders leave (five characters) fits in."""
_CHECKED_KINDS = frozenset(b"{[-0123456789")
"""How values begin that have to be looked at; texts and words are what msgspec lets through."""
_CONTAINERS = frozenset(b"{[")


class _Plain(Struct, gc=False):
    type: Literal["telemetry"]  # a tag could be missing
    device_id: str
    value: Raw


_decode = msgspec.json.Decoder(_Plain).decode


def plain_readings(payloads: Sequence[bytes], source: Source, message_max_bytes: int) -> tuple[list[DataUpdate], int]:
    """Decode messages, valid UTF-8, from the first on, as long as they are plain readings of at most so many bytes.

    Returns:
        As many readings as there are before the first message that is anything else, and the length of their text.
    """
    if compiled is None:
        return in_python(payloads, source, message_max_bytes)
    readings: list[DataUpdate]
    readings, size_bytes = compiled.plain_readings(payloads, source, message_max_bytes)
    if len(readings) < len(payloads):
        # The rest in Python, whatever it is: to try each message both ways would cost a stream of nested values more
        others, others_bytes = in_python(payloads[len(readings) :], source, message_max_bytes)
        readings += others
        size_bytes += others_bytes
    return readings, size_bytes


def in_python(payloads: Sequence[bytes], source: Source, message_max_bytes: int) -> tuple[list[DataUpdate], int]:
    """Do what `plain_readings` does, in Python."""
    decode, reading, raw = _decode, DataUpdate, Raw
    readings: list[DataUpdate] = []
    size_bytes = 0
    try:
        for payload in payloads:
            message = decode(payload)
            device_id = message.device_id
            value = bytes(message.value)  # a copy: a value must not keep a whole message in memory
            message_bytes, chars = len(payload), len(device_id)
            beside_bytes = message_bytes - len(value) - chars
            if beside_bytes > _FRAME_MAX_BYTES and not _is_long_in_bytes(device_id, beside_bytes):
                break
            if not device_id.isprintable() or not 0 < chars <= NAME_MAX_CHARS or message_bytes > message_max_bytes:
                break
            kind = value[0]
            if kind in _CHECKED_KINDS:
                check_value(value)
                if kind in _CONTAINERS:
                    value = compact(value)
            readings.append(reading(device_id, raw(value), "", source))
            size_bytes += message_bytes
    except (msgspec.DecodeError, RecursionError, BadMessage):
        pass
    return readings, size_bytes


def _is_long_in_bytes(device_id: str, beside_bytes: int) -> bool:
    """Whether a name is so much longer in bytes than in characters that nothing else stands beside it."""
    return beside_bytes + len(device_id) - len(device_id.encode()) <= _FRAME_MAX_BYTES
