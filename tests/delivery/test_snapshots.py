"""The state that clients begin with: in bounded parts, made once for all who come together."""

from msgspec import Raw

from tests.delivery.clients import EVERYTHING, Client, a_stream
from tests.fakes import CommittingStream
from twincast.core.model import DataUpdate


def test_a_state_of_many_devices_is_encoded_once_for_all_who_come_together() -> None:
    stream = CommittingStream(block_entries=512)
    stream.cast(*(DataUpdate(f"d{number}", Raw(b"1"), "", "rest") for number in range(2_000)))
    for number in range(100):
        client = Client(stream)
        client.feed.begin(EVERYTHING)
        hello, *behind = client.heard()
        assert hello["seq"] + len(behind) == stream.state.seq
        stream.change(f"d{number}", b"2")
        assert client.seqs() == [stream.state.seq]
    assert stream.snapshots.encoded_count == 1
    stream.pass_time(1.5)
    Client(stream).feed.begin(EVERYTHING)
    assert stream.snapshots.encoded_count == 2, "a second later the bytes are made anew"


def test_a_large_state_comes_in_parts_also_unasked_and_no_message_of_it_is_larger_than_a_part() -> None:
    stream = CommittingStream(part_max_bytes=2_000)
    names = [f'ü"\\{number}' for number in range(40)] + ["large"]
    stream.cast(*(DataUpdate(name, Raw(b'"%b"' % (b"x" * 90)), "", "websocket") for name in names[:-1]))
    stream.change("large", b'"%b"' % (b"x" * 9_000))
    client = Client(stream)
    client.feed.begin(EVERYTHING)
    sizes = [len(message) for message in client.connection.messages]
    hello, *parts = client.heard()
    assert (hello["type"], {part["type"] for part in parts}) == ("hello", {"snapshot"})
    assert [message.get("more", False) for message in (hello, *parts)] == [True] * len(parts) + [False]
    assert [name for message in (hello, *parts) for name in message["data_snapshot"]] == names
    assert max(sizes[:-1]) < 2_000 + 400 < sizes[-1], "beside a twin that is larger by itself"
    stream.change("a", b"1")
    assert client.seqs() == [42]


def test_a_state_of_few_devices_is_always_the_newest() -> None:
    stream = a_stream("a")
    for number in range(5):
        stream.change("a", b"%d" % number)
        client = Client(stream)
        client.feed.begin(EVERYTHING)
        [hello] = client.heard()
        assert hello["data_snapshot"]["a"]["value"] == number
