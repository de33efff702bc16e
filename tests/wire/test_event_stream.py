"""Server-sent events, as the HTML standard reads them."""

from msgspec import Raw

from twincast.core.model import DataUpdate, Position
from twincast.delivery.cast import Cast
from twincast.wire import event_stream


def test_an_event_is_its_id_its_data_and_an_empty_line() -> None:
    assert event_stream.text([b"{}"], ["e:5"]) == b"id: e:5\ndata: {}\n\n"
    assert event_stream.text([b"{}", b"[]"], ["", "e:6"]) == b"data: {}\n\nid: e:6\ndata: []\n\n"


def test_a_heartbeat_moves_the_id_and_dispatches_nothing() -> None:
    assert event_stream.heartbeat("e:7") == b": still here\nid: e:7\n\n"
    assert event_stream.heartbeat("") == b": still here\n\n"
    assert event_stream.retry(2_000) == b"retry: 2000\n\n"


def test_changes_carry_their_own_positions_and_an_answer_the_one_that_it_brings_to() -> None:
    entries = [DataUpdate("lamp", Raw(b"1"), "", "rest", seq, "e") for seq in (3, 4)]
    assert Cast([b"a", b"b"], entries).encoded[event_stream.encode] == b"id: e:3\ndata: a\n\nid: e:4\ndata: b\n\n"
    assert Cast([b"hello"], cursor=Position("e", 4)).encoded[event_stream.encode] == b"id: e:4\ndata: hello\n\n"
    assert Cast([b"page"]).encoded[event_stream.encode] == b"data: page\n\n", (
        "a state that is not whole moves no cursor"
    )
