"""The stream of a shared log: made once, and refused where it is not ours, in words."""

import asyncio
from typing import Any

import pytest

from twincast.errors import JournalUnusable
from twincast.journal.jetstream import stream
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.link import Link
from twincast.journal.jetstream.stream import nanoseconds, open_stream
from twincast.testing import Nats


def address_of(nats: Nats, name: str) -> NatsAddress:
    return NatsAddress.parse(nats.url(name))


async def test_of_those_who_open_at_once_one_makes_the_stream(nats: Nats, log_name: str) -> None:
    address = address_of(nats, log_name)
    links = [await Link.connect(address) for _ in range(5)]
    facts = await asyncio.gather(*(open_stream(link, address) for link in links))
    assert len({(each.log, each.generation) for each in facts}) == 1
    for link in links:
        await link.close()


async def test_the_stream_is_made_so_that_what_was_acknowledged_stays(nats: Nats, log_name: str) -> None:
    address = address_of(nats, log_name)
    link = await Link.connect(address)
    await open_stream(link, address)
    config = (await link.ask(f"STREAM.INFO.{address.stream}"))["config"]
    assert (config["storage"], config["retention"], config["discard"]) == ("file", "limits", "new")
    assert (config["deny_delete"], config["max_bytes"], config["max_msgs"], config["max_age"]) == (True, -1, -1, 0)
    assert config["compression"] == "none", "a killed node may not read compressed blocks of its own again"
    await link.close()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"subjects": ["theirs"]}, "not twincast's"),
        ({"metadata": {"twincast.epoch": "a", "twincast.fold": "4"}}, "newer twincast"),
        ({"metadata": {"twincast.epoch": "a"}}, "newer twincast"),
        ({"name": "other_{name}"}, "name the log otherwise"),
    ],
)
async def test_a_stream_that_is_not_ours_is_refused_and_left_alone(
    nats: Nats, log_name: str, config: dict[str, Any], words: str
) -> None:
    address = address_of(nats, log_name)
    link = await Link.connect(address)
    theirs = {"name": address.stream, "subjects": [address.log_subject, address.keys_subject]} | config
    theirs["name"] = theirs["name"].format(name=log_name)
    made = await link.ask(f"STREAM.CREATE.{theirs['name']}", theirs)
    with pytest.raises(JournalUnusable, match=words):
        await open_stream(link, address)
    assert (await link.ask(f"STREAM.INFO.{theirs['name']}"))["config"] == made["config"]
    await link.close()


async def test_a_clock_far_off_is_said(nats: Nats, log_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = address_of(nats, log_name)
    link = await Link.connect(address)
    await open_stream(link, address)
    monkeypatch.setattr(stream, "CLOCKS_APART_MAX_S", -1.0)
    with pytest.raises(JournalUnusable, match=r"clock of NATS is .* NTP"):
        await open_stream(link, address)
    await link.close()


async def test_an_old_nats_is_refused(nats: Nats, log_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = address_of(nats, log_name)
    link = await Link.connect(address)
    monkeypatch.setattr(stream, "OLDEST_NATS", (99, 0, 0))
    with pytest.raises(JournalUnusable, match=r"needs 99\.0\.0 or newer"):
        await open_stream(link, address)
    await link.close()


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:00.5Z", 5 * 10**8),
        ("2026-11-27T03:44:16.252263001Z", 1795751056252263001),
    ],
)
def test_times_of_nats_are_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert nanoseconds(text) == ns
