"""Why there is no connection, or no answer, in words."""

import asyncio

import pytest

from tests.running import free_port
from twincast.access.tickets import TicketElsewhere
from twincast.client import Rest, connect, error_of
from twincast.client.failures import kinds_of_errors
from twincast.errors import (
    JournalUnavailable,
    MalformedJson,
    ServerUnreachable,
    TwincastError,
    ValidationFailed,
)
from twincast.journal.jetstream.link import ApiError
from twincast.journal.jetstream.writer import WriteFailed

pytestmark = pytest.mark.usefixtures("impatient")


async def test_nobody_there_is_said_in_one_sentence_that_helps() -> None:
    port = free_port()
    with pytest.raises(ServerUnreachable, match=f"nobody answers at http://127.0.0.1:{port}; `twincast serve`"):
        async with connect(f"http://127.0.0.1:{port}", timeout_s=0):
            raise AssertionError("nobody could have answered")
    with Rest(f"http://127.0.0.1:{port}") as rest, pytest.raises(ServerUnreachable, match="nobody answers"):
        rest.status()


async def test_another_kind_of_server_is_told_apart() -> None:
    async def teapot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 418 I'm a teapot\r\ncontent-length: 3\r\n\r\ntea")
        await writer.drain()

    async with await asyncio.start_server(teapot, "127.0.0.1", 0) as other:
        url = "http://127.0.0.1:{1}".format(*other.sockets[0].getsockname())
        with pytest.raises(ServerUnreachable, match="does not speak like a twincast server"):
            async with connect(url, timeout_s=0):
                raise AssertionError("a teapot is no server")
        with Rest(url) as rest, pytest.raises(ServerUnreachable, match="does not speak like"):
            await asyncio.to_thread(rest.status)


def test_a_code_is_one_class_whatever_a_server_in_the_process_has_made_of_it() -> None:
    """A server's subclasses have the code of their parent, and some are made of other arguments."""
    for own in (TicketElsewhere, ApiError, WriteFailed):
        assert own.code == own.__mro__[1].code  # type: ignore[attr-defined]
    found = {kind.code: kind for kind in kinds_of_errors(TwincastError)}
    assert {kind.__module__ for kind in found.values()} == {"twincast.errors"}


@pytest.mark.parametrize("kind", [MalformedJson, JournalUnavailable, ValidationFailed])
def test_a_code_on_the_wire_becomes_its_error_again(kind: type[TwincastError]) -> None:
    error = error_of(kind.code, "words")
    assert type(error) is kind
    assert error.message == "words"


def test_a_code_from_a_newer_server_is_still_an_error_with_its_words() -> None:
    assert "brand_new: words" in str(error_of("brand_new", "words"))
