"""Outgoing messages, encoded once for each wire."""

from msgspec import Raw

from twincast.core.model import DataUpdate, Late
from twincast.delivery.cast import Cast
from twincast.wire import event_stream, frames
from twincast.wire.outgoing import Outgoing


def test_the_frames_are_those_of_all_messages_in_order() -> None:
    assert Cast([b"one", b"two"]).encoded[frames.encode] == frames.text([b"one"]) + frames.text([b"two"])


def test_the_frames_are_made_once_and_shared_by_all_who_take_them() -> None:
    cast = Cast([b"message"])
    assert cast.encoded[frames.encode] is cast.encoded[frames.encode]


def test_each_wire_has_its_own_form_and_none_of_them_is_known_to_the_cast() -> None:
    def shouted(outgoing: Outgoing) -> bytes:
        return b"".join(outgoing.messages).upper()

    cast = Cast([b"one", b"two"])
    assert cast.encoded[shouted] == b"ONETWO"
    assert cast.encoded[frames.encode] == frames.text([b"one", b"two"])
    assert cast.encoded[event_stream.encode] == event_stream.text([b"one", b"two"], ["", ""])
    assert cast.encoded[shouted] is cast.encoded[shouted]


def test_late_readings_are_left_out_of_what_is_on_time() -> None:
    reading = DataUpdate("a", Raw(b"1"), "", "rest", 1)
    late = Late("a", Raw(b"2"), "", "rest", "", 2)
    cast = Cast([b"one", b"two"], [reading, late])
    assert cast.has_late and cast.on_time is cast.on_time
    assert (cast.on_time.messages, cast.on_time.entries) == ([b"one"], [reading])
    plain = Cast([b"one"], [reading])
    assert not plain.has_late and plain.on_time is plain
    assert not Cast([b"two"], [late]).on_time.entries


def test_a_cast_that_answers_one_client_has_no_entries() -> None:
    assert not Cast((b"pong",)).entries


def test_a_cast_of_nothing_frames_to_nothing_again_and_again() -> None:
    cast = Cast(())
    assert (cast.encoded[frames.encode], cast.encoded[frames.encode]) == (b"", b"")
