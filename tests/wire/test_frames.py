"""Server frames, read back by a reader that knows RFC 6455 and nothing of ours."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.wire import frames

pytestmark = pytest.mark.usefixtures("implementation")


class Frame(NamedTuple):
    is_final: bool
    reserved_bits: int
    opcode: int
    is_masked: bool
    payload: bytes


def frames_of(data: bytes) -> list[Frame]:
    """Take a server's bytes apart as RFC 6455 section 5.2 says, and hold them to it."""
    found = []
    while data:
        first, second = data[0], data[1]
        size, start = second & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
            assert size > 125, "the minimal number of bytes must be used to encode the length"
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
            assert 1 << 16 <= size < 1 << 63
        payload, data = data[start : start + size], data[start + size :]
        assert len(payload) == size, "the frame is cut off"
        found.append(Frame(bool(first & 0x80), first >> 4 & 7, first & 0xF, bool(second & 0x80), payload))
    return found


def text_frame(payload: bytes) -> Frame:
    return Frame(is_final=True, reserved_bits=0, opcode=1, is_masked=False, payload=payload)


@given(st.lists(st.binary(max_size=300)))
def test_each_message_is_one_whole_unmasked_text_frame(messages: list[bytes]) -> None:
    assert frames_of(frames.text(messages)) == [text_frame(message) for message in messages]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536, 70_000, 1 << 20])
def test_each_length_has_its_own_form_of_header(size: int) -> None:
    message = bytes(size)
    assert frames_of(frames.text([message, b"next"])) == [text_frame(message), text_frame(b"next")]


def test_no_messages_are_no_bytes() -> None:
    assert frames.text([]) == b""


@given(st.binary(max_size=125))
def test_a_pong_carries_the_payload_of_its_ping(payload: bytes) -> None:
    assert frames_of(frames.pong(payload)) == [Frame(True, 0, 0xA, False, payload)]


@given(st.integers(1000, 4999))
def test_a_close_frame_carries_its_code(code: int) -> None:
    assert frames_of(frames.close(code)) == [Frame(True, 0, 8, False, code.to_bytes(2, "big"))]


@given(st.text())
def test_a_reason_fits_a_control_frame_and_is_cut_between_characters(reason: str) -> None:
    shown = frames.close_reason(reason).decode()
    assert len(shown.encode()) <= frames.CLOSE_REASON_MAX_BYTES
    assert reason.startswith(shown)
    left_over = reason[len(shown) :]
    assert not left_over or len((shown + left_over[0]).encode()) > frames.CLOSE_REASON_MAX_BYTES


def test_a_reason_of_wide_characters_is_cut_within_123_bytes() -> None:
    assert frames.close_reason("\N{SNOWMAN}" * 42).decode() == "\N{SNOWMAN}" * 41


def test_a_close_frame_without_a_code_is_empty() -> None:
    assert frames_of(frames.close(None)) == [Frame(True, 0, 8, False, b"")]
