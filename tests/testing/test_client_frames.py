"""Where a client's bytes may be cut, however they come."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from twincast.testing.client_frames import HEAD_MAX_BYTES, ClientFrames

UPGRADE = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n"

Parts = list[tuple[bytes, bool]]


def frame(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


TEXT = frame(Opcode.TEXT, b"hello")


def taken(frames: ClientFrames, data: bytes, cuts: list[int]) -> Parts:
    """Return what comes out when the data comes in, cut at some places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    chunks = (data[start:end] for start, end in pairwise(places))
    return [part for chunk in chunks if chunk for part in frames.split(chunk)]


frames_of_a_client = st.builds(
    frame,
    st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]),
    st.sampled_from([0, 1, 125, 126, 65_535, 65_536]).map(bytes),
    fin=st.booleans(),
) | st.builds(frame, st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE]), st.just(b"\x03\xe8"))


@given(st.lists(frames_of_a_client, max_size=5), st.lists(st.integers(0), max_size=8))
def test_frames_come_out_whole_wherever_the_bytes_were_cut(sent: list[bytes], cuts: list[int]) -> None:
    parts = taken(ClientFrames(), UPGRADE + b"".join(sent), cuts)
    assert b"".join(part for part, _ in parts) == UPGRADE + b"".join(sent)
    assert [part for part, is_message in parts if is_message] == [one for one in sent if one[0] == 0x81]


def test_a_frame_that_is_not_complete_waits_and_is_there_at_the_end() -> None:
    frames = ClientFrames()
    assert frames.split(UPGRADE + TEXT + TEXT[:-1]) == [(UPGRADE, False), (TEXT, True)]
    assert (frames.rest(), frames.rest()) == (TEXT[:-1], b"")


@given(st.lists(st.integers(0), max_size=8))
def test_what_is_no_websocket_passes_as_it_comes(cuts: list[int]) -> None:
    post = b"POST /api/data HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"\x81\x00" + UPGRADE
    parts = taken(ClientFrames(), post, cuts)
    assert b"".join(part for part, _ in parts) == post
    assert not any(is_message for _, is_message in parts)


def test_a_head_without_end_is_not_kept() -> None:
    frames = ClientFrames()
    endless = bytes(HEAD_MAX_BYTES + 1)
    assert frames.split(endless) == [(endless, False)]
    assert frames.split(UPGRADE + TEXT) == [(UPGRADE + TEXT, False)]
