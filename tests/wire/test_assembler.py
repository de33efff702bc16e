"""Frames to messages, without a socket. What a client sees of it on both edges is in tests/stories/test_rfc6455.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.errors import TooLarge, UnsupportedMedia
from twincast.wire.assembler import BINARY, CLOSE, CONTINUATION, TEXT, Assembler, Violation, close_code_of

MAX_BYTES = 64
PING, PONG = 0x9, 0xA


@pytest.fixture
def assembler() -> Assembler:
    return Assembler(MAX_BYTES)


@given(text=st.text(max_size=16), cuts=st.lists(st.integers(0, 64), max_size=5))
def test_a_text_comes_out_as_it_was_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    payload = text.encode()
    ends = [*sorted(min(cut, len(payload)) for cut in cuts), len(payload)]
    parts = [payload[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assembler = Assembler(MAX_BYTES)
    taken = [
        assembler.take(CONTINUATION if number else TEXT, number == len(parts) - 1, part)
        for number, part in enumerate(parts)
    ]
    assert taken == [*[None] * (len(parts) - 1), payload]
    assert assembler.take(TEXT, True, b"next") == b"next"


def test_control_frames_between_fragments_complete_nothing(assembler: Assembler) -> None:
    assert assembler.take(TEXT, False, b"a") is None
    assert assembler.take(PING, True, b"there?") is None
    assert assembler.take(PONG, True, b"") is None
    assert assembler.take(CONTINUATION, True, b"b") == b"ab"


@pytest.mark.parametrize("opcode", [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG])
def test_reserved_bits_break_the_protocol_in_every_frame(assembler: Assembler, opcode: int) -> None:
    with pytest.raises(Violation, match="reserved bits") as broken:
        assembler.take(opcode, True, b"", True)
    assert broken.value.code == 1002


def test_a_continuation_without_a_beginning_and_a_beginning_inside_a_message_break_the_protocol(
    assembler: Assembler,
) -> None:
    for opcodes in ((CONTINUATION,), (TEXT, TEXT), (TEXT, BINARY), (BINARY, TEXT)):
        *before, last = opcodes
        for opcode in before:
            assembler.take(opcode, False, b"x")
        with pytest.raises(Violation, match="a fragment continues") as broken:
            assembler.take(last, True, b"x")
        assert broken.value.code == 1002


@pytest.mark.parametrize("whole", [b"\xff", b"ok \xe2\x82", b"\xed\xa0\x80"])
def test_a_whole_text_is_utf8(assembler: Assembler, whole: bytes) -> None:
    with pytest.raises(Violation, match="UTF-8") as broken:
        assembler.take(TEXT, True, whole)
    assert broken.value.code == 1007


@pytest.mark.parametrize("begun", [b"\xff", b"\xed\xa0", b"\xf4\x90"])
def test_a_fragment_that_nothing_could_make_utf8_is_refused_before_the_next_comes(
    assembler: Assembler, begun: bytes
) -> None:
    with pytest.raises(Violation, match="UTF-8"):
        assembler.take(TEXT, False, begun)


def test_fragments_count_together_and_bytes_that_are_not_text_are_not_decoded(assembler: Assembler) -> None:
    assert assembler.take(TEXT, True, b"x" * MAX_BYTES) == b"x" * MAX_BYTES
    for opcode, begun, more in ((TEXT, b"x", b"x" * MAX_BYTES), (BINARY, b"\xff", b"\xff" * MAX_BYTES)):
        assert assembler.take(opcode, False, begun) is None
        with pytest.raises(TooLarge, match="at most 64 bytes"):
            assembler.take(CONTINUATION, False, more)
    with pytest.raises(TooLarge):
        assembler.take(TEXT, True, b"x" * (MAX_BYTES + 1))


def test_a_binary_message_is_refused_when_it_is_whole_and_the_next_one_begins_anew(assembler: Assembler) -> None:
    with pytest.raises(UnsupportedMedia):
        assembler.take(BINARY, True, b"\xff")
    assert assembler.take(BINARY, False, b"\xff") is None
    with pytest.raises(UnsupportedMedia):
        assembler.take(CONTINUATION, True, b"\xfe")
    assert assembler.take(TEXT, True, b"{}") == b"{}"


def test_empty_fragments_take_no_memory(assembler: Assembler) -> None:
    assembler.take(TEXT, False, b"")
    for _ in range(1_000):
        assembler.take(CONTINUATION, False, b"")
    assert assembler._parts == []
    assert assembler.take(CONTINUATION, True, b"") == b""


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
def test_a_code_that_no_close_frame_carries_breaks_the_protocol(assembler: Assembler, code: int) -> None:
    with pytest.raises(Violation, match=f"{code} is not a close code"):
        assembler.take(CLOSE, True, code.to_bytes(2, "big") + b"bye")


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999, None])
def test_a_close_code_that_may_be_sent_is_read(assembler: Assembler, code: int | None) -> None:
    payload = b"" if code is None else code.to_bytes(2, "big") + b"bye"
    assert assembler.take(CLOSE, True, payload) is None
    assert close_code_of(payload) == code


@given(st.lists(st.sampled_from([b"{}", b"[1]", "ü".encode(), b"\xc3", b"\xbc", b"", b"x" * 20, b"x" * 21, b"x" * 9])))
def test_texts_that_came_together_would_be_taken_if_each_is_taken(payloads: list[bytes]) -> None:
    def takes(payload: bytes) -> bool:
        try:
            return Assembler(20).take(TEXT, True, payload) == payload
        except (Violation, TooLarge):
            return False

    assert not payloads or Assembler(20).would_take(payloads) == all(map(takes, payloads))


def test_inside_a_message_no_other_would_be_taken() -> None:
    assembler = Assembler(20)
    assert not assembler.is_inside and assembler.would_take([b"{}"])
    assembler.take(TEXT, False, b"{")
    assert assembler.is_inside and not assembler.would_take([b"{}"])
