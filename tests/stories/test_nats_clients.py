"""NATS clients beside a shared log: real servers, the first of which dies while readings come in."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import nats as nats_py
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from tests.credentials import NOW_UTC, bearer
from tests.fakes import LONG_S
from tests.running import ServerProcess, eventually_async
from twincast.access.keys import make_key
from twincast.core.rights import Rights
from twincast.journal.jetstream.key_changes import KeyChange
from twincast.testing import Nats

BEFORE, IN_ALL = 60, 120


async def change_keys(client: Client, action: str, name: str, **what: Any) -> None:
    """Change the keys of the log, once a server has made its stream."""
    change = KeyChange("local:test", "test", action, name, "", **what).encoded()
    async with asyncio.timeout(LONG_S):
        while True:
            try:
                assert "seq" in json.loads((await client.request("twincast.lab.keys", change, timeout=LONG_S)).data)
            except NoRespondersError:
                await asyncio.sleep(0.02)
            else:
                return


async def ask(client: Client, number: int, timeout_s: float = LONG_S) -> Any:
    """Send a reading under a key of its own; return the answer."""
    subject, headers = "twincast.lab.publish.lab.lamp", {"Nats-Msg-Id": f"n{number}"}
    return json.loads((await client.request(subject, b"%d" % number, timeout=timeout_s, headers=headers)).data)


async def stored(client: Client, number: int) -> Any:
    """Send a reading as a publisher does that must not lose any, until it is stored; return the receipt."""
    async with asyncio.timeout(LONG_S):
        while True:
            try:
                told = await ask(client, number, timeout_s=2)  # who had to answer may be dead
                if told.get("ok"):
                    return told
                assert told["retryable"] or told["code"] == "unauthenticated", told  # the key is on its way
            except (NoRespondersError, NatsTimeout):
                pass
            await asyncio.sleep(0.02)


async def test_readings_go_on_in_order_by_the_second_server_when_the_first_is_killed(tmp_path: Path) -> None:
    with Nats() as nats:
        first, second = (
            ServerProcess(nats.url("lab", copy=str(tmp_path / f"{name}.db"), as_=name), TWINCAST_NATS_KEY="bus")
            for name in ("first", "second")
        )
        client = await nats_py.connect(f"nats://127.0.0.1:{nats.ports[0]}")
        try:
            key, secret = make_key(
                "bus", Rights.of({"publish": ["*"], "read": ["*"]}), now_utc=NOW_UTC, rate_per_s=1e6, expires_s=None
            )
            first.ready()
            await change_keys(client, "keys add", "bus", add=key)
            heard: list[dict[str, Any]] = []

            async def hear(message: Any) -> None:
                heard.append(json.loads(message.data))

            await client.subscribe("twincast.lab.data.>", cb=hear)
            receipts = [await stored(client, 0)]
            await eventually_async(lambda: bool(heard), "what is stored goes out")
            second.ready()
            receipts += [await stored(client, number) for number in range(1, BEFORE)]
            first.kill()
            receipts += [await stored(client, number) for number in range(BEFORE, IN_ALL)]
            seqs = [receipt["seq"] for receipt in receipts]
            assert seqs == list(range(1, IN_ALL + 1))
            await eventually_async(lambda: heard[-1]["seq"] == IN_ALL, "all of it goes out")
            once = list({event["seq"]: event for event in heard}.values())
            assert [event["seq"] for event in once] == seqs  # twice is allowed, a gap is not
            assert [event["value"] for event in once] == list(range(IN_ALL))
            assert {event["source"] for event in once} == {"nats"}
            async with httpx.AsyncClient(headers=bearer(secret), timeout=LONG_S) as http:
                at_second = (await http.get(f"{second.url}/api/data/lab%2Flamp")).json()
            assert (at_second["seq"], at_second["value"]) == (IN_ALL, IN_ALL - 1)
            await change_keys(client, "keys revoke", "bus", revoke=key.id)
            while (await ask(client, IN_ALL)).get("ok"):
                pass
            assert (await ask(client, IN_ALL))["code"] == "credential_expired"
        finally:
            await client.close()
            first.kill()
            second.stop()
