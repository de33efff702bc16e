"""One question to a NATS server: to real ones, and to what only listens."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.running import free_port
from twincast.cluster.engine import Engine
from twincast.cluster.knock import NoAnswer, ask, knock


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Listen for one client, say this to it, and hang up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_server_answers_whoever_has_its_token(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine:
        knock(engine.port, engine.token, timeout_s=5)
        assert ask(engine.port, engine.token, "INFO", timeout_s=5)["streams"] == 0
        for question in (
            lambda: knock(engine.port, None, timeout_s=5),
            lambda: ask(engine.port, "x", "INFO", timeout_s=5),
        ):
            with pytest.raises(NoAnswer, match="Authorization Violation"):
                question()


def test_a_refusal_of_jetstream_is_said(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine, pytest.raises(NoAnswer, match="stream not found"):
        ask(engine.port, engine.token, "STREAM.INFO.none", timeout_s=5)


def test_a_question_may_have_a_body(tmp_path: Path) -> None:
    with Engine(tmp_path) as engine:
        config = {"name": "größe", "subjects": ["lab"]}
        made = ask(engine.port, engine.token, "STREAM.CREATE.größe", config, timeout_s=5)
        assert made["config"]["name"] == "größe"


def test_nobody_there_is_said() -> None:
    with pytest.raises(NoAnswer, match="refused"):
        knock(free_port(), None, timeout_s=1)


def test_who_says_nothing_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(NoAnswer, match="no answer in time"):
        knock(listener.getsockname()[1], None, timeout_s=0.1)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HMSG _INBOX.knock 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", "JetStream is not on"),
        (b'MSG _INBOX.knock 1 41\r\n{"error":{"description":"no quorum now"}}\r\n', "no quorum now"),
        (b"MSG _INBOX.knock 1 41\r\n{", "no answer of JetStream"),
        (b"", "closed the connection"),
    ],
)
def test_what_is_no_yes_is_no_answer(answer: bytes, why: str) -> None:
    with answering(answer) as port, pytest.raises(NoAnswer, match=why):
        ask(port, None, "INFO", timeout_s=5)
