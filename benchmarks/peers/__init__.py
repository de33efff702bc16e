"""The systems that are measured: how each is started, and how a client of each speaks."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.request import Request, urlopen

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.machine import ROOT, SERVER_CORE, ServerProcess, free_port, installed, python, started
from benchmarks.wire import BINARY, TEXT, frame

_USER, _PASSWORD = "bench@example.org", "bench-password"  # of a server that lives for seconds, on loopback


class Streaming(Protocol):
    """A system that casts what a publisher publishes to all subscribers."""

    name: str
    path: str
    """Where one connects that subscribes to everything."""
    publisher_path: str
    """Where one connects that gets nothing."""
    head: str
    """More lines of the handshake's head."""
    greeting: bytes
    """What a subscriber sends first, framed."""
    publisher_greeting: bytes
    """What a publisher sends first, framed."""
    ready: bytes
    """What is in the bytes that the server sends once the client is in."""

    def running(self, *, core: int | None = SERVER_CORE) -> AbstractContextManager[tuple[ServerProcess, int]]:
        """Start it; gives the process and its port."""

    def publish(self, reading: bytes) -> bytes:
        """Return the frame that publishes a reading: a telemetry message, as twincast and the naive server take it."""


@contextmanager
def _running(
    command: list[str], port: int, core: int | None, cwd: Path | None = None
) -> Iterator[tuple[ServerProcess, int]]:
    with started(command, port, core=core, **({"cwd": cwd} if cwd else {})) as process:
        yield process, port


class Twincast:
    """This project, as `twincast serve` runs it."""

    path, publisher_path = "/ws", "/ws?devices="
    head, greeting, publisher_greeting, ready = "", b"", b"", b'"hello"'

    def __init__(self, journal: str, root: Path = ROOT, *, name: str = "", flags: Sequence[str] = ()) -> None:
        self.name = name or f"twincast, {journal}"
        self._journal = journal
        self._flags = flags
        self.root = root

    @contextmanager
    def running(
        self, *, core: int | None = SERVER_CORE, file: Path | None = None
    ) -> Iterator[tuple[ServerProcess, int]]:
        """Start it, on a new journal unless a file is given."""
        port = free_port()
        with tempfile.TemporaryDirectory() as directory:
            journal = "memory:" if self._journal == "memory" else f"sqlite:{file or Path(directory) / 'journal.db'}"
            command = python("-m", "twincast", "serve", "--port", str(port), "--journal", journal, *self._flags)
            with _running(command, port, core, self.root) as both:
                yield both

    def publish(self, reading: bytes) -> bytes:
        """Publish as telemetry."""
        return frame(reading)


class TwincastWithLogin(Twincast):
    """The same, where every client has a token that lets it publish and read some devices, and every path asks."""

    def __init__(self, rate_updates_per_s: float = 1e9, root: Path = ROOT) -> None:
        super().__init__("memory", root)
        self.name = "twincast, memory, login"
        self._rate_updates_per_s = rate_updates_per_s
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.head = self.head_of("load")

    def head_of(self, subject: str, devices: str = "lab*") -> str:
        """Return the header by which a client logs in as somebody with rights to some devices."""
        rights = {"publish": [devices], "read": [devices]}
        claims = {"sub": subject, "iss": "bench", "aud": "bench", "exp": time.time() + 86_400, "twincast": rights}
        return f"Authorization: Bearer {jwt.encode(claims, self._key, algorithm='ES256')}\r\n"

    @contextmanager
    def running(
        self, *, core: int | None = SERVER_CORE, file: Path | None = None
    ) -> Iterator[tuple[ServerProcess, int]]:
        """Start it, with all clients as one identity, which may have as many and send as much as they can."""
        with tempfile.NamedTemporaryFile("wb", suffix=".pem") as pem:
            pem.write(self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
            pem.flush()
            settings = {
                "TWINCAST_JWT_KEY": pem.name,
                "TWINCAST_JWT_ISSUER": "bench",
                "TWINCAST_JWT_AUDIENCE": "bench",
                "TWINCAST_IDENTITY_CONNECTIONS_MAX": "100000",
                "TWINCAST_RATE_UPDATES_PER_S": str(self._rate_updates_per_s),
            }
            os.environ |= settings
            try:
                with super().running(core=core, file=file) as both:
                    yield both
            finally:
                for name in settings:
                    del os.environ[name]


class Naive:
    """FastAPI as tutorials show it: a set of sockets, and one `send_json` after another."""

    name = "naive FastAPI"
    path, publisher_path = "/ws", "/ws?devices="
    head, greeting, publisher_greeting, ready = "", b"", b"", b'"hello"'

    @contextmanager
    def running(self, *, core: int | None = SERVER_CORE) -> Iterator[tuple[ServerProcess, int]]:
        """Start it under uvicorn."""
        port = free_port()
        command = python(
            "-m", "uvicorn", "benchmarks.peers.naive_app:app", "--port", str(port), "--log-level", "warning"
        )
        with _running(command, port, core) as both:
            yield both

    def publish(self, reading: bytes) -> bytes:
        """Publish as telemetry."""
        return frame(reading)


class Nats:
    """NATS over WebSocket, with its own protocol inside the frames."""

    name, path, publisher_path, head, ready = "NATS", "/", "/", "", b"PONG"
    greeting = frame(b'CONNECT {"verbose":false,"pedantic":false,"echo":true}\r\nSUB bench 1\r\nPING\r\n', BINARY)
    publisher_greeting = frame(b'CONNECT {"verbose":false,"pedantic":false,"echo":true}\r\nPING\r\n', BINARY)

    @contextmanager
    def running(self, *, core: int | None = SERVER_CORE) -> Iterator[tuple[ServerProcess, int]]:
        """Start it with a WebSocket listener, without TLS and compression."""
        port = free_port()
        with tempfile.TemporaryDirectory() as directory:
            config = Path(directory) / "nats.conf"
            config.write_text(
                f'listen: "127.0.0.1:{free_port()}"\n'
                f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: false }}\n'
            )
            with _running([installed("nats-server"), "-c", str(config)], port, core) as both:
                yield both

    def publish(self, reading: bytes) -> bytes:
        """Publish on the subject that all subscribe to."""
        return frame(b"PUB bench %d\r\n%b\r\n" % (len(reading), reading), BINARY)


class JetStream:
    """NATS with its log: one replica, in files, each acknowledged message synced to disk before (`sync_interval`)."""

    name = "JetStream R1, sync always"

    @contextmanager
    def running(self, *, core: int | None = SERVER_CORE) -> Iterator[tuple[ServerProcess, int]]:
        """Start it on a new store; gives the process and its port for NATS's own protocol over TCP."""
        port = free_port()
        with tempfile.TemporaryDirectory() as directory:
            config = Path(directory) / "nats.conf"
            config.write_text(
                f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{directory}/store", sync_interval: always }}\n'
            )
            with _running([installed("nats-server"), "-c", str(config)], port, core) as both:
                yield both


class Socketify:
    """uWebSockets (C++) through socketify: one topic, every message published to it."""

    name = "uWebSockets (socketify)"
    path, publisher_path = "/ws", "/publish"
    head, greeting, publisher_greeting, ready = "", b"", b"", b'"hello"'

    @contextmanager
    def running(self, *, core: int | None = SERVER_CORE) -> Iterator[tuple[ServerProcess, int]]:
        """Start it."""
        port = free_port()
        with _running(python("-m", "benchmarks.peers.socketify_app", str(port)), port, core) as both:
            yield both

    def publish(self, reading: bytes) -> bytes:
        """Publish; the application passes it on as it is."""
        return frame(reading, TEXT)


class PocketBase:
    """PocketBase: every create is on disk when it is answered."""

    name = "PocketBase"

    @contextmanager
    def running(self, *, core: int | None = SERVER_CORE) -> Iterator[tuple[ServerProcess, int, str]]:
        """Start it with a collection that anybody may add to; gives its process, port, and the path of a create."""
        port = free_port()
        with tempfile.TemporaryDirectory() as directory:
            program = [installed("pocketbase"), "--dir", f"{directory}/data"]  # it writes beside that, too
            subprocess.run([*program, "superuser", "upsert", _USER, _PASSWORD], check=True, capture_output=True)
            with started([*program, "serve", "--http", f"127.0.0.1:{port}"], port, core=core) as process:
                self._add_collection(port)
                yield process, port, "/api/collections/readings/records"

    @staticmethod
    def _add_collection(port: int) -> None:
        def call(path: str, body: object, token: str = "") -> dict[str, object]:
            headers = {"Content-Type": "application/json", "Authorization": token}
            request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
            with urlopen(request, timeout=10) as response:
                answer: dict[str, object] = json.load(response)
                return answer

        token = call("/api/collections/_superusers/auth-with-password", {"identity": _USER, "password": _PASSWORD})[
            "token"
        ]
        fields = [{"name": "device_id", "type": "text"}, {"name": "value", "type": "json"}]
        collection = {"name": "readings", "type": "base", "createRule": "", "fields": fields}
        call("/api/collections", collection, str(token))


class DurableStreams:
    """Durable Streams' reference server (Node.js), on files: an append is on disk when it is answered."""

    name = "Durable Streams"
    _FOLDER = Path(__file__).with_name("durable_streams")
    path = "/bench"

    @property
    def is_here(self) -> bool:
        """Whether its program and its packages are; npm installs them."""
        return shutil.which("node") is not None and (self._FOLDER / "node_modules").is_dir()

    @contextmanager
    def running(self, *, core: int | None = SERVER_CORE) -> Iterator[tuple[ServerProcess, int]]:
        """Start it, with one stream of JSON."""
        port = free_port()
        make = Request(f"http://127.0.0.1:{port}{self.path}", b"", {"Content-Type": "application/json"}, method="PUT")
        with (
            tempfile.TemporaryDirectory() as directory,
            _running(["node", "server.mjs", str(port), directory], port, core, self._FOLDER) as both,
        ):
            urlopen(make, timeout=10).close()
            yield both

    def stored(self, port: int) -> int:
        """Read the stream from its beginning, and return how many readings are in it."""
        offset, count = "-1", 0
        while True:
            with urlopen(f"http://127.0.0.1:{port}{self.path}?offset={offset}", timeout=60) as response:
                count += len(json.load(response))
                offset = response.headers["Stream-Next-Offset"]
                if response.headers["Stream-Up-To-Date"] == "true":
                    return count
