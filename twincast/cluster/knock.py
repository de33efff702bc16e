"""Questions to a NATS server of this machine, one at a time and without a client: does it, and JetStream, answer?

The protocol is lines of text: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

_LINE_MAX_BYTES = 64 * 1024
_INBOX = "_INBOX.knock"


class NoAnswer(Exception):
    """Nobody listens, refuses, or is not ready yet; the text says which."""


def knock(port: int, token: str | None, *, timeout_s: float) -> None:
    """Return when a server takes connections.

    Raises:
        NoAnswer: it does not, or not in time.
    """
    _exchange(port, token, [], timeout_s)


def ask(port: int, token: str | None, what: str, body: object = None, *, timeout_s: float) -> dict[str, Any]:
    """Return the answer of JetStream's API, such as to `INFO` or `STREAM.INFO.NAME`.

    Raises:
        NoAnswer: there is none in time, or a refusal.
    """
    text = "" if body is None else json.dumps(body)
    lines = [f"SUB {_INBOX} 1", f"PUB $JS.API.{what} {_INBOX} {len(text.encode())}", text]
    data = _exchange(port, token, lines, timeout_s)
    try:
        answer: dict[str, Any] = json.loads(data)
    except ValueError:
        raise NoAnswer("it gave no answer of JetStream") from None
    if "error" in answer:
        raise NoAnswer(str(answer["error"].get("description", "JetStream is not on")))
    return answer


def _exchange(port: int, token: str | None, lines: list[str], timeout_s: float) -> bytes:
    """Return the first message that comes; without lines, none, once the server lets this client in."""
    options: dict[str, Any] = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
    if token is not None:
        options["auth_token"] = token
    lines = [f"CONNECT {json.dumps(options)}", *(lines or ["PING"])]
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as peer, peer.makefile("rb") as answers:
            peer.sendall("".join(f"{line}\r\n" for line in lines).encode())
            return _answer(iter(lambda: answers.readline(_LINE_MAX_BYTES), b""), answers.read)
    except OSError as error:
        raise NoAnswer(error.strerror or "no answer in time") from None


def _answer(lines: Iterator[bytes], read: Any) -> bytes:
    for line in lines:
        word, *words = line.split()
        if word == b"-ERR":
            raise NoAnswer(line[4:].decode(errors="replace").strip(" '\r\n"))
        if word == b"HMSG":  # the server itself says that nobody listens for the question
            raise NoAnswer("JetStream is not on")
        if word == b"PONG":
            return b""
        if word == b"MSG":
            return bytes(read(int(words[-1])))
    raise NoAnswer("it closed the connection")
