"""What a program without a credential is told, before a server's first key and behind it, and whether that helps."""

import asyncio
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import warm
from tests.running import eventually
from twincast.cli import host, lines, send, simulate, watch
from twincast.client import Rest, connect
from twincast.client import sync as without_asyncio
from twincast.errors import LOGIN_NEEDED, TwincastError, Unauthenticated
from twincast.testing import Server

SOON_S = 10.0
WORDS = (LOGIN_NEEDED, "`token=…`", "TWINCAST_TOKEN")


async def client(url: str) -> None:
    async with connect(url, timeout_s=None) as client:
        async for _ in client.watch(kinds=["control"]):
            raise AssertionError("nobody commands anything")


def without(url: str) -> None:
    with without_asyncio.connect(url, timeout_s=None) as client:
        for _ in client.watch(kinds=["control"]):
            raise AssertionError("nobody commands anything")


STAYING: dict[str, Callable[[str], Any]] = {
    "client": lambda url: asyncio.run(client(url)),
    "without asyncio": without,
    "host": lambda url: asyncio.run(host.host(url, None, 0.05, None)),
    "watch": lambda url: asyncio.run(watch.watch(url, [])),
}
ASKING: dict[str, Callable[[str], Any]] = {
    "rest": lambda url: Rest(url).data(),
    "send": lambda url: send.send(url, "lamp", "1"),
    "send lines": lambda url: asyncio.run(lines.send_lines(url, "lamp")),
    "simulate": lambda url: asyncio.run(simulate.simulate(url, 2, 10.0, 5.0, 0)),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("TWINCAST_TOKEN", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n"))
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        yield server


async def end_of(way: Callable[[str], Any], url: str) -> str:
    """Return how a program ends that is let run for some seconds at most."""
    with pytest.raises(Unauthenticated) as refused:
        await asyncio.wait_for(asyncio.to_thread(way, url), SOON_S)
    return refused.value.message


@pytest.mark.parametrize("how", [*STAYING, *ASKING])
async def test_behind_the_first_key_all_are_told_at_once_and_in_the_same_words(server: Server, how: str) -> None:
    await asyncio.to_thread(lambda: server.add_key("me", publish=["*"]))
    said = await end_of({**STAYING, **ASKING}[how], server.url)
    assert all(words in said for words in WORDS), said


@pytest.mark.parametrize("how", STAYING)
async def test_the_first_key_ends_who_is_connected_without_one_in_the_same_words(server: Server, how: str) -> None:
    ending = asyncio.create_task(end_of(STAYING[how], server.url))
    await asyncio.to_thread(
        eventually, lambda: Rest(server.url).status()["websocket_clients_connected"], "it is connected"
    )
    await asyncio.to_thread(lambda: server.add_key("me", publish=["*"]))
    said = await ending
    assert all(words in said for words in WORDS), said


def test_what_the_refusal_says_helps_when_it_is_done(server: Server, tmp_path: Path) -> None:
    server.add_key("me", read=["*"])
    refusal = httpx.get(f"{server.url}/api/data").json()
    assert refusal["detail"].startswith(LOGIN_NEEDED)
    makes_a_key, header = refusal["detail"].split("`")[1::2]
    key = warm.run(
        [sys.executable, "-m", *shlex.split(makes_a_key), "--journal", f"sqlite:{tmp_path / 'journal.db'}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    name, _, value = header.replace("KEY", key).partition(": ")
    assert httpx.get(f"{server.url}/api/data", headers={name: value}).is_success
    given = warm.run(
        [sys.executable, "-m", "twincast", "send", "lamp", "1", "--url", server.url],
        env={**os.environ, "TWINCAST_TOKEN": key},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "stored" in given.stdout
    with without_asyncio.connect(server.url, token=key) as client:
        client.publish("lamp", 2)


def test_a_credential_that_is_not_known_is_told_so_and_not_to_give_one(server: Server) -> None:
    server.add_key("me", publish=["*"])
    for way in (lambda: Rest(server.url, token="twc_x").data(), lambda: entered(server.url, "twc_x")):
        with pytest.raises(TwincastError, match="not known here"):
            way()


def entered(url: str, token: str) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(without_asyncio.connect(url, token=token))
