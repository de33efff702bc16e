"""The one connection to NATS, at a real server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.fakes import LONG_S
from twincast.cluster.engine import Engine
from twincast.errors import JournalUnavailable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.link import Link, Message, _cancellable


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("nats"), asks_token=False) as engine:
        yield engine


@pytest.fixture
async def link(engine: Engine) -> AsyncIterator[Link]:
    link = await Link.connect(NatsAddress.parse(f"{engine.url}/lab"))
    yield link
    await link.close()


async def say(engine: Engine, lines: bytes) -> None:
    """Send lines as a client of no library does, and return when NATS has taken them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", engine.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + lines + b"PING\r\n")
    assert await asyncio.wait_for(reader.readline(), LONG_S) == b"PONG\r\n"
    writer.close()


@pytest.mark.parametrize(
    "lines",
    [
        b"PUB said.\xff 1\r\n1\r\n",
        b"PUB said.a \xff 1\r\n1\r\n",
        b"HPUB said.a 8 9\r\nNATS/1.01\r\n",
        b"HPUB said.a 16 17\r\nNATS/1.0 \xff\xff\xff\r\n\r\n1\r\n",
        b"HPUB said.a 19 20\r\nNATS/1.0 200 \xff\xff\r\n\r\n1\r\n",
        b"HPUB said.a 1 2\r\nN1\r\n",
        b"HPUB said.a 18 19\r\nNATS/1.0\r\n\xff: 1\r\n\r\n1\r\n",
    ],
)
async def test_a_message_that_cannot_be_read_ends_nothing(engine: Engine, link: Link, lines: bytes) -> None:
    heard: asyncio.Queue[Message] = asyncio.Queue()
    changes: list[bool] = []
    link.on_connection.append(changes.append)
    await link.subscribe("said.>", heard.put)
    await asyncio.sleep(0)
    await link.confirm()
    await say(engine, lines + b"PUB said.later 1\r\n2\r\n")
    async with asyncio.timeout(LONG_S):
        while (await heard.get()).subject != "said.later":
            pass
    assert (link.is_connected, changes) == (True, [])


async def test_what_is_confirmed_has_come_to_all_who_listen(link: Link) -> None:
    heard: list[str] = []

    async def take(message: Message) -> None:
        heard.append(message.subject)

    await link.subscribe("many.>", take)
    await link.confirm()
    await link.confirm()
    link.send(b"".join(b"PUB many.%d 2\r\n{}\r\n" % number for number in range(1_000)))
    await link.confirm()
    assert heard == [f"many.{number}" for number in range(1_000)]


async def test_an_answer_that_comes_too_late_ends_nothing(link: Link) -> None:
    waiting = asyncio.create_task(link.confirm())
    await asyncio.sleep(0)
    waiting.cancel()
    link._client._pongs[-1].cancel()  # as after the time that it had
    await link.confirm()
    assert link.is_connected


async def test_nothing_is_sent_without_a_connection(tmp_path: Path) -> None:
    with Engine(tmp_path, asks_token=False) as engine:
        link = await Link.connect(NatsAddress.parse(f"{engine.url}/lab"))
        changes: asyncio.Queue[bool] = asyncio.Queue()
        link.on_connection.append(changes.put_nowait)
        engine.stop()
        assert await asyncio.wait_for(changes.get(), LONG_S) is False
        with pytest.raises(JournalUnavailable):
            link.send(b"PUB a 1\r\n1\r\n")
        with pytest.raises(JournalUnavailable):
            await link.confirm()
        await link.close()


class AnsweringAtTheEnd(Client):
    """A client that answers a question when the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        return True

    async def request(self, *_: object, **__: object) -> Message:
        self.asked.set()
        return await asyncio.wait_for(self.answer, LONG_S)


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    client = AnsweringAtTheEnd()
    asking = asyncio.create_task(Link(client).request("there", b""))
    await client.asked.wait()
    client.answer.set_result(Message(client, data=b"answer"))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def _loses_a_cancellation(heard: asyncio.Queue[str]) -> None:
    """Wait for ever, and take the first cancellation for another's, as nats-py does while it closes a connection."""
    for _ in range(2):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        heard.put_nowait("cancelled")


async def test_what_loses_its_cancellation_is_cancelled_again() -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    with pytest.raises(TimeoutError):
        await _cancellable(_loses_a_cancellation(heard), 0)
    assert heard.qsize() == 2
