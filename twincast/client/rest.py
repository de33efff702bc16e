"""A server's REST calls, for programs that need no stream."""

import ssl
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import httpx
import msgspec

from twincast.client.address import http_url
from twincast.client.backoff import TIMEOUT_S
from twincast.client.credential import clean, given, headers_of
from twincast.client.encoding import checked, encode_args, encode_value
from twincast.client.failures import WITHOUT_LOGIN, error_of, not_twincast, redirected, unreachable
from twincast.client.json_stream import members
from twincast.client.link import Message, decode, encode, trust_of
from twincast.core.audit import AuditRecord
from twincast.core.names import check_id
from twincast.errors import BadMessage, ServerUnreachable, Unauthenticated, ValidationFailed

PIECE_BYTES = 64 * 1024
JSON = "application/json"


class RawTwin(msgspec.Struct):
    """The newest state of one device, its value as JSON text."""

    value: msgspec.Raw
    updated_at_utc: str
    seq: int
    source: str


class Rest:
    """A server's REST calls, for programs that need no stream. Use it as a context, or call `close`."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Make a client.

        Args:
            url: the server's address.
            token: an API key or a JWT; the environment variable TWINCAST_TOKEN, if not given.
            tls: how to check the server's certificate, if not as the system does.
            fingerprint: of the one server that is trusted, instead of `tls`; see docs/client.md.

        Raises:
            ValidationFailed: `token` cannot be a credential, or `fingerprint` is not a fingerprint.
            ValueError: `url` is not an address.
        """
        self.url = http_url(url)
        headers = headers_of(given(token))
        self._has_login = bool(headers)
        self._http = _http(self.url, trust_of(self.url, tls, fingerprint), headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def status(self) -> Message:
        """Return the server's status: `ok`, the numbers of devices and clients, its position, its version.

        Raises:
            ServerUnreachable: nothing answers, or something that is not a twincast server. Every call may raise it.
            WrongFingerprint: another server answers than the one that is trusted. Every call may raise it.
        """
        return self._call("GET", "/api/status")

    def data(self, devices: Iterable[str] = (), *, min_seq: int = 0) -> Message:
        """Return the newest state of every device, or of those that patterns select, under `data`.

        Args:
            devices: patterns, such as `lab/*`; none for everything.
            min_seq: the seq that the answer must include, such as `publish` returned.

        Raises:
            NotYet: the server did not reach it within some seconds.
        """
        return self._call("GET", _data_path(devices, min_seq))

    def twins(self, devices: Iterable[str] = ()) -> Iterator[tuple[str, RawTwin]]:
        """Yield the newest state of every device, or of those that patterns select, one by one as it arrives.

        Only one device is in memory at a time, however large the state is. Takes and raises what `data` does.
        """
        try:
            with self._http.stream("GET", _data_path(devices)) as response:
                if not response.is_success:
                    response.read()
                    self._answer(response)
                    return
                for device_id, text in members(response.iter_text(PIECE_BYTES), "data"):
                    yield device_id, msgspec.json.decode(text, type=RawTwin)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise unreachable(self.url, error) from None
        except (ValueError, msgspec.DecodeError):
            raise not_twincast(self.url).error from None

    def publish(self, device_id: str, value: Any, *, key: str | None = None) -> Message:
        """Store a reading and return its event, once it is on the server's disk.

        Args:
            device_id: whose reading it is.
            value: what JSON has a form for, see docs/client.md.
            key: under the same key the server stores it once, so that you may try again after a lost answer.

        Raises:
            BadMessage: the value has no form in JSON, or the server refused it, in its own words.
            TwincastError: the server could not store it.
        """
        body = _reading(device_id, value)
        event: Message = self._call("POST", "/api/data", body, key)["event"]
        return event

    def publish_all(self, readings: Iterable[tuple[str, Any]], *, key: str | None = None) -> range:
        """Store up to 10,000 readings, all or none, and return their seqs. Takes and raises what `publish` does."""
        body = [_numbered(number, device_id, value) for number, (device_id, value) in enumerate(readings, 1)]
        answer = self._call("POST", "/api/data", body, key)
        return range(answer["first_seq"], answer["last_seq"] + 1)

    def control(self, target: str, command: str, args: Message | None = None, *, key: str | None = None) -> Message:
        """Send a command to everyone who watches, and return its event. Takes and raises what `publish` does."""
        names = {"target": checked(target, "`target`"), "command": checked(command, "`command`")}
        body = {**names, "args": encode_args(args)}
        event: Message = self._call("POST", "/api/control", body, key)["event"]
        return event

    def delete(self, device_id: str, *, key: str | None = None) -> Message:
        """Delete a device, until a later reading makes it anew; return the event. Its readings stay in the log.

        Raises:
            NotFound: there is no such device.
            TwincastError: see `publish`.
        """
        query = urlencode({"device_id": checked(device_id, "`device_id`")})
        event: Message = self._call("DELETE", f"/api/data?{query}", key=key)["event"]
        return event

    def audit(self, limit: int = 50) -> list[AuditRecord]:
        """Return the audit trail, newest first: commands, deletions, changes of keys. It needs the right `admin`.

        Args:
            limit: how many records at most.

        Raises:
            NotPermitted: the credential does not have it.
            ValidationFailed: `limit` is more than the server returns at once.
        """
        answer = self._call("GET", f"/api/audit?{urlencode({'limit': limit})}")
        try:
            return msgspec.convert(answer["records"], list[AuditRecord])
        except (KeyError, msgspec.ValidationError):
            raise not_twincast(self.url).error from None

    def _call(self, method: str, path: str, body: Any = None, key: str | None = None) -> Message:
        headers = {"Content-Type": JSON}
        if key is not None:
            headers["Idempotency-Key"] = _key_of(key)
        content = None if body is None else encode(body)
        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise unreachable(self.url, error) from None
        return self._answer(response)

    def _answer(self, response: httpx.Response) -> Message:
        try:
            return _answer(self.url, response)
        except Unauthenticated:
            if not self._has_login:
                raise Unauthenticated(WITHOUT_LOGIN) from None
            raise


def pair(url: str, code: str, *, tls: ssl.SSLContext | None = None, fingerprint: str | None = None) -> str:
    """Exchange a pairing code, as `twincast pair` shows it, for an API key. The server never shows the key again.

    Args:
        url: the server's address.
        code: as it was shown; dashes, spaces and case do not matter. It can be used once, within 5 minutes.
        tls: how to check the server's certificate, if not as the system does.
        fingerprint: of the one server that is trusted, instead of `tls`.

    Raises:
        Unauthenticated: the server does not know the code.
        CredentialExpired: it was used already, or its time is over.
        RateLimited: too many wrong codes were tried.
        ValidationFailed: `code` cannot be a code, or `fingerprint` is not a fingerprint.
        ServerUnreachable: nothing answers, or something that is not a twincast server.
        WrongFingerprint: another server answers than the one that is trusted; the code was not sent.
        ValueError: `url` is not an address.
    """
    base = http_url(url)
    if not isinstance(code, str):
        raise ValidationFailed(f"a code is text, not a {type(code).__name__}")
    with _http(base, trust_of(base, tls, fingerprint), {}) as http:
        try:
            response = http.post("/api/pair", content=encode({"code": code}), headers={"Content-Type": JSON})
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise unreachable(base, error) from None
        answer = _answer(base, response)
    try:
        return clean(answer["token"])
    except (KeyError, ValidationFailed):
        raise not_twincast(base).error from None


def _http(base: str, trust: ssl.SSLContext | None, headers: dict[str, str]) -> httpx.Client:
    verify = trust or False  # without TLS there is nothing to check
    return httpx.Client(base_url=base, timeout=TIMEOUT_S, trust_env=False, headers=headers, verify=verify)


def _answer(base: str, response: httpx.Response) -> Message:
    """Return a server's answer; raise its refusal."""
    if response.is_redirect:
        raise redirected(base, response.headers.get("Location", ""))
    try:
        answer = decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        words = f"what answers at {base} does not speak like a twincast server: HTTP status {response.status_code}"
        raise ServerUnreachable(words) from None
    if response.is_success:
        return answer
    raise error_of(str(answer.get("code")), str(answer.get("detail", f"HTTP status {response.status_code}")))


def _data_path(devices: Iterable[str], min_seq: int = 0) -> str:
    query = urlencode([("devices", text) for text in devices] + ([("min_seq", str(min_seq))] if min_seq else []))
    return f"/api/data?{query}" if query else "/api/data"


def _reading(device_id: str, value: Any) -> Message:
    return {"device_id": checked(device_id, "`device_id`"), "value": encode_value(value)}


def _numbered(number: int, device_id: str, value: Any) -> Message:
    try:
        return _reading(device_id, value)
    except BadMessage as error:
        raise type(error)(f"reading {number}: {error.message}") from None


def _key_of(key: str) -> str:
    """Check a key, which is sent in a header."""
    if not (isinstance(key, str) and key.isascii()):
        raise ValidationFailed("`key` must be ASCII, because it is sent in a header")
    check_id(key, "`key`")
    return key
