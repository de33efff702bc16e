"""The past, asked for in the process of an application: the same answers as over HTTP, and nobody needs a login."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from twincast import Twincast
from twincast.client.history import asking, asking_state
from twincast.client.message import decode
from twincast.core.model import Position
from twincast.errors import (
    Ahead,
    BadRange,
    BadTime,
    NoSuchDevice,
    NotPermitted,
    NotStarted,
    Stopping,
    Truncated,
    UnknownEpoch,
    ValidationFailed,
)
from twincast.testing.keys import add_key

HERE = "http://127.0.0.1"
START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
async def twin(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Twincast]:
    twin = Twincast("memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'lab.db'}")
    async with twin.running():
        yield twin


async def filled(twin: Twincast, count: int = 200) -> None:
    for number in range(count):
        at = START + timedelta(minutes=number)
        await twin.publish(f"lab/{number % 3}", {"rpm": number, "on": number % 2 == 0}, measured_at=at)
    await twin.command("lab/0", "start", {"rpm": 900})


async def over_http(twin: Twincast, paths: Any) -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(twin.app), base_url=HERE) as http:
        try:
            path = next(paths)
            while True:
                answer = (await http.get(path)).raise_for_status()
                path = paths.send(decode(answer.content))
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    "question",
    [
        {"device_id": "lab/1"},
        {"device_id": "lab/1", "order": "asc", "limit": 7, "path": ["/rpm", "/on"]},
        {"device_id": "lab/0", "kinds": ["control"]},
        {"devices": ["lab/*"], "limit": 5},
        {"device_id": "lab/1", "every": "10m", "from_": START, "to": START + timedelta(hours=2), "path": "/rpm"},
        {"devices": ["lab/*"], "points": 20, "from_": START, "to": START + timedelta(hours=2), "path": "/rpm"},
    ],
    ids="-".join,
)
async def test_history_is_what_the_client_gets(twin: Twincast, question: dict[str, Any]) -> None:
    await filled(twin)
    found = await twin.history(**question)
    device_id, asked = question.get("device_id"), {name: question[name] for name in question if name != "device_id"}
    assert found == await over_http(twin, asking(device_id, asked))  # type: ignore[arg-type]
    assert found.entries or found.series[0].columns
    assert found.position == twin.position


async def test_all_pages_are_fetched(twin: Twincast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.client.history.PAGE_MAX", 10)
    await filled(twin, 120)
    found = await twin.history("lab/1", limit=None, order="asc")
    assert [entry.value["rpm"] for entry in found.entries] == list(range(1, 120, 3))
    assert not found.has_more


async def test_the_state_at_a_position_is_what_the_client_gets(twin: Twincast) -> None:
    await filled(twin)
    at = Position(twin.position.epoch, 100)
    found = await twin.state_at(at, "lab/*")
    assert found == await over_http(twin, asking_state(at, ["lab/*"]))
    assert {name: each.value["rpm"] for name, each in found.state.items()} == {"lab/0": 99, "lab/1": 97, "lab/2": 98}
    now = await twin.state_at("now")
    assert now.state == dict(twin.state) and now.position == twin.position


async def test_it_goes_live_where_the_answer_ends(twin: Twincast) -> None:
    await filled(twin, 30)
    found = await twin.history("lab/1", order="asc")
    missed = await twin.publish("lab/1", "between")
    async with twin.watch("lab/1", mode="every", since=found.position) as events:
        following = await twin.publish("lab/1", "after")
        iterating = aiter(events)
        assert [(await anext(iterating)).seq for _ in range(2)] == [missed, following]


async def test_a_user_gets_what_it_may_read(twin: Twincast) -> None:
    await filled(twin, 30)
    await twin.publish("secret/door", "open")
    alice = twin.user("alice", read=["lab/1", "lab/2"])
    assert {entry.device_id for entry in (await alice.history(devices=["*"])).entries} == {"lab/1", "lab/2"}
    assert set((await alice.state_at("now")).state) == {"lab/1", "lab/2"}
    for hidden in ("secret/door", "lab/0", "none"):
        with pytest.raises(NoSuchDevice):
            await alice.history(hidden)
    nobody = twin.user("nobody", publish="*")
    with pytest.raises(NotPermitted):
        await nobody.history("lab/1")
    with pytest.raises(NotPermitted):
        await nobody.state_at("now")


async def test_what_cannot_be_is_refused_as_over_http(twin: Twincast) -> None:
    await filled(twin, 3)
    naive = datetime(2026, 11, 1)
    with pytest.raises(ValidationFailed):
        await twin.history("lab/1", from_=naive)
    with pytest.raises(BadTime):
        await twin.history("lab/1", from_="yesterday")
    with pytest.raises(BadRange):
        await twin.history("lab/1", from_="now", to="-1h")
    with pytest.raises(Ahead):
        await twin.state_at(datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(UnknownEpoch):
        await twin.state_at("5f0c9a1e-0b7d3c28:1")
    with pytest.raises(TypeError, match="no parameter 'since'"):
        await twin.history("lab/1", since=1)  # type: ignore[call-arg]
    assert len((await twin.history("lab/1")).entries) == 1


async def test_what_the_log_no_longer_has_is_said() -> None:
    twin = Twincast("memory:", memory_journal_max_bytes=65_536)
    async with twin.running():
        for _ in range(100):
            await twin.publish("lab/1", "x" * 1_000)
        with pytest.raises(Truncated):
            await twin.state_at(Position(twin.position.epoch, 5))


async def test_many_questions_at_once_are_all_answered(twin: Twincast) -> None:
    """A client over HTTP is refused when too many of its questions wait."""
    await filled(twin, 30)
    users = [twin.user(f"user {number}", read="*") for number in range(5)]
    found = await asyncio.gather(*(party.history("lab/1") for party in [twin, *users] for _ in range(20)))
    assert {len(each.entries) for each in found} == {10}


async def test_a_login_is_for_others(tmp_path: Path) -> None:
    add_key(tmp_path / "lab.db", read=["*"])
    twin = Twincast(f"sqlite:{tmp_path / 'lab.db'}")
    async with twin.running(), httpx.AsyncClient(transport=httpx.ASGITransport(twin.app), base_url=HERE) as http:
        await filled(twin, 3)
        assert (await http.get("/api/history", params={"device_id": "lab/1"})).status_code == 401
        assert len((await twin.history("lab/1")).entries) == 1
        assert len((await twin.user("alice", read="*").state_at("now")).state) == 3


async def test_before_its_start_and_after_its_end_it_says_so() -> None:
    twin = Twincast("memory:")
    with pytest.raises(NotStarted):
        await twin.history("lab/1")
    async with twin.running():
        pass
    with pytest.raises(NotStarted):
        await twin.state_at("now")


async def test_a_question_that_is_open_at_the_end_ends_with_that() -> None:
    other = Twincast("memory:")
    async with other.running():
        await filled(other, 3)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(8):  # as many as are answered at a time
                await stack.enter_async_context(other._running.asking)
            waiting = asyncio.create_task(other.history("lab/1"))
            await asyncio.sleep(0)
            cancelled = asyncio.create_task(other.history("lab/1"))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert not waiting.done()
            stack.pop_all()
    with pytest.raises(Stopping):
        await waiting
