"""A server's REST calls, for programs that need no stream."""

import os
import ssl
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import httpx
import msgspec

from twincast.client.link import TIMEOUT_S, Message, decode, encode, error_of, http_url, unreachable


class Rest:
    """A server's REST calls, for programs that need no stream. Use as a context, or call `close`."""

    def __init__(self, url: str, *, token: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        """Make a client.

        Args:
            url: the server's address.
            token: an API key or a JWT; what the environment variable TWINCAST_TOKEN says, if not given.
            tls: how to check the server's certificate, if not as usual.
        """
        self.url = http_url(url)
        text = token or os.environ.get("TWINCAST_TOKEN", "")
        headers = {"Authorization": f"Bearer {text}"} if text else {}
        verify = True if tls is None else tls
        self._http = httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False, headers=headers, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def status(self) -> Message:
        """Return how the server is: `ok`, how many devices and clients, its position, its version.

        Raises:
            ServerUnreachable: nobody answers, or not a twincast server. Every other call raises it too.
        """
        return self._call("GET", "/api/status")

    def data(self, devices: Iterable[str] = (), *, min_seq: int = 0) -> Message:
        """Return the newest state of every device, or of those that patterns select, under `data`.

        Args:
            devices: patterns, such as `lab/*`; none for everything.
            min_seq: the position that the answer must have reached, such as a publish returned.

        Raises:
            NotYet: the server did not reach it within some seconds.
        """
        query = urlencode([("devices", text) for text in devices] + ([("min_seq", str(min_seq))] if min_seq else []))
        return self._call("GET", f"/api/data?{query}" if query else "/api/data")

    def publish(self, device_id: str, value: Any, *, key: str | None = None) -> Message:
        """Store a reading and return its event, once it is on the server's disk.

        Args:
            device_id: whose reading it is.
            value: any JSON.
            key: the same key again stores nothing twice, so that you may try again after a lost answer.

        Raises:
            TwincastError: the server refused it, in its own words.
        """
        event: Message = self._call("POST", "/api/data", {"device_id": device_id, "value": value}, key)["event"]
        return event

    def publish_all(self, readings: Iterable[tuple[str, Any]], *, key: str | None = None) -> range:
        """Store up to 10,000 readings, all or none, and return their seqs. Takes and raises what `publish` does."""
        body = [{"device_id": device_id, "value": value} for device_id, value in readings]
        answer = self._call("POST", "/api/data", body, key)
        return range(answer["first_seq"], answer["last_seq"] + 1)

    def control(self, target: str, command: str, args: Message | None = None, *, key: str | None = None) -> Message:
        """Send a command to everyone who watches, and return its event. Takes and raises what `publish` does."""
        body = {"target": target, "command": command, "args": args or {}}
        event: Message = self._call("POST", "/api/control", body, key)["event"]
        return event

    def _call(self, method: str, path: str, body: Any = None, key: str | None = None) -> Message:
        content = None if body is None else encode(body)
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        try:
            response = self._http.request(method, path, content=content, headers=headers)
            answer = decode(response.content)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise unreachable(self.url, error) from None
        if response.is_success:
            return answer
        raise error_of(str(answer.get("code")), str(answer.get("detail", f"HTTP status {response.status_code}")))
