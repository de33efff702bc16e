"""How far an opening is, in words."""

from twincast.core.opening import Opening


def test_an_opening_says_how_far_it_is_and_what_is_in_its_way() -> None:
    opening = Opening()
    assert str(opening) == "its log is being opened"
    opening.problem = "nobody answers at nats://localhost:4222"
    assert str(opening) == "its log is being opened; nobody answers at nats://localhost:4222"
    opening.at_seq, opening.of_seq, opening.problem = 1_000, 20_000, None
    assert str(opening) == "it has read 1,000 of 20,000 entries of its log"
