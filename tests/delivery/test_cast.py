"""One commit's changes, framed once."""

from twincast.delivery.cast import Cast
from twincast.wire import frames


def test_the_frames_are_those_of_all_messages_in_order() -> None:
    assert Cast([b"one", b"two"]).frames == frames.text([b"one"]) + frames.text([b"two"])


def test_the_frames_are_made_once_and_shared_by_all_who_take_them() -> None:
    cast = Cast([b"message"])
    assert cast.frames is cast.frames


def test_a_cast_that_answers_one_client_has_no_entries() -> None:
    assert not Cast((b"pong",)).entries


def test_a_cast_of_nothing_frames_to_nothing_again_and_again() -> None:
    cast = Cast(())
    assert (cast.frames, cast.frames) == (b"", b"")
