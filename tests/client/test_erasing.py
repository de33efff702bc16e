"""`delete(…, history=True)` of the clients, against a real server."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.client.node_client import CLIENT, node
from tests.client.test_history import _ask
from tests.running import eventually
from twincast.client import Deletion, Rest, connect, sync
from twincast.errors import NoSuchDevice
from twincast.testing import Server


def ways(server: Server) -> dict[str, Any]:
    """Return how each client deletes."""

    def by_rest(name: str) -> int:
        with Rest(server.url) as rest:
            return int(rest.delete(name, history=True)["seq"])

    def by_sync(name: str) -> int:
        with sync.connect(server.url, ()) as client:
            return client.delete(name, history=True)

    return {
        "rest": by_rest,
        "sync": by_sync,
        "async": lambda name: asyncio.run(_ask(server, "delete", name, history=True)),
    }


@pytest.mark.parametrize("way", ["rest", "sync", "async"])
def test_a_device_is_deleted_with_its_history(server: Server, way: str) -> None:
    httpx.post(f"{server.url}/api/data", json={"device_id": "lab/motor", "value": 1}).raise_for_status()
    delete = ways(server)[way]
    with Rest(server.url) as rest:
        seq = delete("lab/motor")
        assert [
            (entry.kind, entry.seq) for entry in rest.history("lab/motor", kinds=["data_update", "deleted"]).entries
        ] == [("deleted", seq)]
        eventually(lambda: rest.erasures() == [], "nothing is pending")
        with pytest.raises(NoSuchDevice):
            delete("nobody")


async def test_a_watch_is_told_what_went(server: Server) -> None:
    async with connect(server.url) as client:
        await client.publish("lab/motor", 1)
        async with client.watch("lab/*") as events:
            seq = await client.delete("lab/motor", history=True)
            event = await anext(aiter(events))
    assert isinstance(event, Deletion)
    assert (event.device_id, event.seq, event.scope) == ("lab/motor", seq, "history")


def test_the_javascript_client_deletes_a_history(server: Server, tmp_path: Path) -> None:
    httpx.post(f"{server.url}/api/data", json={"device_id": "lab/motor", "value": 1}).raise_for_status()
    program = tmp_path / "program.mjs"
    program.write_text(f"""
        const {{ Client }} = await import({json.dumps(CLIENT.as_uri())});
        const client = new Client({{ url: {json.dumps(server.ws_url)} }});
        const {{ event, pending }} = await client.deleteHistory("lab/motor");
        const refused = await client.deleteHistory("nobody").catch(({{ code }}) => code);
        console.log(JSON.stringify([event.scope, Array.isArray(pending), refused]));
        process.exit(0);
    """)
    ran = subprocess.run([node(), str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(ran.stdout or "null") == ["history", True, "no_such_device"], ran.stderr
