"""The JavaScript client in Node, its clock, network and chance in the test's hands."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.tools import program

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "twincast" / "web" / "client" / "client.js"
LIMITS = {"message_max_bytes": 65_536, "value_max_bytes": 64_512}
NODE_ENV = "TWINCAST_NODE"


def node() -> str:
    """Return the path of Node, which is of version 20 or newer."""
    return program("node", env=NODE_ENV)


class NodeClient:
    """One `Client` at a time; `events` holds what it did since the last time that somebody looked."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.events: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.timers = 0

    def do(self, action: str, **how: Any) -> Any:
        """Let something happen; return what the action gives."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"action": action, **how}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "Node ended"
        answer = json.loads(line)
        assert "failed" not in answer, answer["failed"]
        self.events += answer["events"]
        self.state = answer["state"]
        self.timers = answer["timers"]
        return answer.get("result")

    def take(self, kind: str) -> list[Any]:
        """Return what happened of a kind, and forget all that happened."""
        found = [event[kind] for event in self.events if kind in event]
        self.events = []
        return found

    def make(self, **how: Any) -> Self:
        """Begin with a new client, and open it."""
        self.do("make", **how)
        self.events = []
        self.do("call", method="open")
        return self

    def accept(self, *messages: Any) -> None:
        """Let the connection open, and the server say something."""
        self.do("accept")
        self.say(*messages)

    def say(self, *messages: Any) -> None:
        """Let the server say something: messages, or texts as they are."""
        texts = [message if isinstance(message, str) else json.dumps(message) for message in messages]
        self.do("receive", texts=texts)

    @property
    def phase(self) -> str:
        return str(self.state["link"]["phase"])

    @property
    def wait_s(self) -> float:
        """How long the client waits at most before it tries again, with the worst of luck."""
        return float(self.do("evaluate", text="client.link.retryAtMs - Date.now()")["value"]) / 1_000

    def dial_again(self) -> None:
        """Let the wait between two attempts pass."""
        self.do("advance", ms=self.wait_s * 1_000)


def hello(seq: int = 0, **how: Any) -> dict[str, Any]:
    """Return a greeting with the state, or that it goes on."""
    message = {
        "type": "hello",
        "message": "connected",
        "timestamp_utc": "2026-11-23T16:24:00+00:00",
        "epoch": "aaaaaaaa-00000001",
        "seq": seq,
        "resumed": False,
        "subscription": {},
        "data_snapshot": {},
        "limits": LIMITS,
        "ordered": True,
    }
    return {**message, **how}


@contextmanager
def node_client(client: Path = CLIENT) -> Iterator[NodeClient]:
    """Run Node with the client."""
    driver = Path(__file__).with_name("node_client.mjs")
    with subprocess.Popen(
        [node(), "--no-warnings", str(driver), str(client)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield NodeClient(process)
        assert process.stdin
        process.stdin.close()
