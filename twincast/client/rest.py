"""A server's REST calls, for programs that need no stream."""

import os
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec

from twincast.client.address import http_url
from twincast.client.backoff import TIMEOUT_S
from twincast.client.credential import clean, given, headers_of
from twincast.client.encoding import Reading, Time, checked, encode_args, encode_time, encode_value, parts_of
from twincast.client.failures import WITHOUT_LOGIN, error_of, not_twincast, redirected, unreachable
from twincast.client.json_stream import members
from twincast.client.message import MEASURED, Message, decode, encode
from twincast.client.pin import trust_of
from twincast.core.audit import AuditRecord
from twincast.core.names import check_id, listed
from twincast.errors import BadMessage, NotReady, ServerUnreachable, Unauthenticated, ValidationFailed, WrongFingerprint
from twincast.later import later

if TYPE_CHECKING:  # a command that sends asks nothing of the past
    from twincast.client import history
    from twincast.client.history import History, Moment, Question, StateAt
else:
    history = later("twincast.client.history")

PIECE_BYTES = 64 * 1024
COPY_S = 600.0
"""How long a server may take to copy its log before it sends it."""
JSON = "application/json"
Found = TypeVar("Found")


class RawTwin(msgspec.Struct):
    """The newest state of one device, its value as JSON text."""

    value: msgspec.Raw
    updated_at_utc: str
    seq: int
    source: str
    measured_at_utc: str | msgspec.UnsetType = msgspec.UNSET
    clock: str | msgspec.UnsetType = msgspec.UNSET


def _not_told(done: int, total: int) -> None:
    """Take how far it is."""


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

        Of a server that is not ready, too: it reads its log, `ok` is false, and it says how far it is, in `at_seq` and
        `of_seq`. Every other call raises NotReady meanwhile.

        Raises:
            ServerUnreachable: nothing answers, or something that is not a twincast server. Every call may raise it.
            WrongFingerprint: another server answers than the one that is trusted. Every call may raise it.
        """
        response = self._send("GET", "/api/status")
        if response.status_code == NotReady.http_status:
            try:
                said = decode(response.content)
            except ValueError:
                said = {}
            if said.get("code") == NotReady.code and "ok" in said:
                return said
        return self._answer(response)

    def cluster(self) -> Message:
        """Return the servers on the log, under `servers`. It needs the right `admin` on `*`.

        Raises:
            NotPermitted: the credential does not have it.
        """
        return self._call("GET", "/api/cluster")

    def copy_log(self, path: str, progress: Callable[[int, int], None] = _not_told) -> None:
        """Write the server's copy of a shared log into a new file. It needs the right `admin` on `*`.

        Only by TLS, or from this machine: the file has all that there is, and what it says is believed.

        Args:
            path: of the file; its folder must be there.
            progress: is told how many bytes are there, and of how many.

        Raises:
            NotPermitted: the credential does not have it.
            NotFound: the server shares its log with no other.
            RateLimited: another copy is being taken.
            ValidationFailed: the server is another machine, and the connection is not encrypted.
            ServerUnreachable: it ended before all of it was there.
        """
        parts = urlsplit(self.url)
        if parts.scheme != "https" and not _is_here(parts.hostname):
            raise ValidationFailed(f"a log is fetched by TLS, https://…, or from this machine; not from {self.url}")
        request = self._http.build_request("GET", "/api/cluster/copy", headers={"Accept-Encoding": "identity"})
        request.extensions["timeout"] = httpx.Timeout(TIMEOUT_S, read=COPY_S).as_dict()
        try:
            response = self._http.send(request, stream=True)
            with closing(response):
                if not response.is_success:
                    response.read()
                    self._answer(response)
                total, done = int(response.headers.get("Content-Length", 0)), 0
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as file:
                    for piece in response.iter_raw():
                        file.write(piece)
                        done += len(piece)
                        progress(done, total)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unreachable(self.url, error) from None

    def data(self, devices: str | Iterable[str] = (), *, min_seq: int = 0) -> Message:
        """Return the newest state of every device, or of those that patterns select, under `data`.

        Args:
            devices: patterns, such as `lab/*`, or one of them; none for everything.
            min_seq: the seq that the answer must include, such as `publish` returned.

        Raises:
            NotYet: the server did not reach it within some seconds.
        """
        return self._call("GET", _data_path(devices, min_seq))

    def history(self, device_id: str | None = None, **question: "Unpack[Question]") -> "History":
        """Return the past of a device, or of several: entries, or with `every` or `points` buckets of time.

        Args:
            device_id: the device; or patterns as `devices`.
            question: what is asked of it; see docs/history.md, which has the same names. `from` is `from_` here.

        Raises:
            NoSuchDevice: neither the state nor the log has it.
            ValidationFailed: what is asked cannot be; its subclasses say what.
        """
        return self._get(history.asking(device_id, question))

    def history_lines(
        self, device_id: str, format: Literal["csv", "ndjson"], **question: "Unpack[Question]"
    ) -> Iterator[str]:
        """Yield the past of a device as lines, as the server writes them; of CSV the first is the header.

        Takes and raises what `history` does. Only a page is in memory at a time.
        """
        paths = history.export_paths(device_id, format, question)
        path, is_first = next(paths), True
        while True:
            response = self._send("GET", path)
            if not response.is_success:
                self._answer(response)
            lines = response.text.splitlines(keepends=True)
            yield from lines if is_first or format != "csv" else lines[1:]
            is_first = False
            try:
                path = paths.send(response.headers.get("Twincast-Cursor"))
            except StopIteration:
                return

    def state_at(self, at: "Moment", *devices: str) -> "StateAt":
        """Return the state of all devices as it was, or of those that patterns select; values are decoded.

        Args:
            at: a time or a position; see docs/history.md.
            devices: patterns; none for everything.

        Raises:
            Ahead: it is in the future.
            Truncated: the log no longer reaches back to it.
        """
        return self._get(history.asking_state(at, devices))

    def twins(self, devices: str | Iterable[str] = ()) -> Iterator[tuple[str, RawTwin]]:
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
            raise _unreachable(self.url, error) from None
        except (ValueError, msgspec.DecodeError):
            raise not_twincast(self.url).error from None

    def publish(
        self, device_id: str, value: Any, *, key: str | None = None, measured_at: Time | None = None
    ) -> Message:
        """Store a reading and return its event, once it is on the server's disk.

        Args:
            device_id: whose reading it is.
            value: what JSON has a form for, see docs/client.md.
            key: under the same key the server stores it once, so that you may try again after a lost answer.
            measured_at: when it was measured, with a zone. Of a reading from before the newest one of its device the
                event is `late`, and it does not become the device's state.

        Raises:
            BadTime: `measured_at` is not a time with a zone.
            BadMessage: the value has no form in JSON, or the server refused it, in its own words.
            TwincastError: the server could not store it.
        """
        body = _reading(device_id, value, measured_at)
        event: Message = self._call("POST", "/api/data", body, key)["event"]
        return event

    def publish_all(self, readings: Iterable[Reading], *, key: str | None = None) -> range:
        """Store up to 10,000 readings, all or none, and return their seqs. Takes and raises what `publish` does.

        A reading is a device, a value, and perhaps the time at which it was measured.
        """
        body = [_numbered(number, reading) for number, reading in enumerate(readings, 1)]
        answer = self._call("POST", "/api/data", body, key)
        return range(answer["first_seq"], answer["last_seq"] + 1)

    def control(self, target: str, command: str, args: Message | None = None, *, key: str | None = None) -> Message:
        """Send a command to everyone who watches, and return its event. Takes and raises what `publish` does."""
        names = {"target": checked(target, "`target`"), "command": checked(command, "`command`")}
        body = {**names, "args": encode_args(args)}
        event: Message = self._call("POST", "/api/control", body, key)["event"]
        return event

    def delete(self, device_id: str, *, history: bool = False, key: str | None = None) -> Message:
        """Delete a device, until a later reading makes it anew; return the event. Its readings stay in the log.

        Args:
            device_id: which.
            history: whether all that the log has of it goes as well, for good; it needs the right `admin`. From then
                on no answer has it; `erasures` says whether files still do.
            key: see `publish`.

        Raises:
            NotFound: there is no such device.
            TwincastError: see `publish`.
        """
        event: Message = self._call("DELETE", deletion_path(device_id, history=history), key=key)["event"]
        return event

    def erasures(self) -> list[Message]:
        """Return the deletions of histories that files, or a shared log's stream, still have something of.

        Each has `device_id`, `seq` and, under `pending`, what has it. It needs the right `admin`.

        Raises:
            NotPermitted: the credential does not have it.
        """
        found: list[Message] = self._call("GET", "/api/erasures")["erasures"]
        return found

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

    def _get(self, paths: Generator[str, Message, Found]) -> Found:
        try:
            path = next(paths)
            while True:
                path = paths.send(self._call("GET", path))
        except StopIteration as end:
            found: Found = end.value
            return found

    def _call(self, method: str, path: str, body: Any = None, key: str | None = None) -> Message:
        return self._answer(self._send(method, path, body, key))

    def _send(self, method: str, path: str, body: Any = None, key: str | None = None) -> httpx.Response:
        headers = {"Content-Type": JSON}
        if key is not None:
            headers["Idempotency-Key"] = _key_of(key)
        content = None if body is None else encode(body)
        try:
            return self._http.request(method, path, content=content, headers=headers)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unreachable(self.url, error) from None

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
            raise _unreachable(base, error) from None
        answer = _answer(base, response)
    try:
        return clean(answer["token"])
    except (KeyError, ValidationFailed):
        raise not_twincast(base).error from None


def deletion_path(device_id: str, *, history: bool) -> str:
    """Return where a device is deleted, with its history or without.

    Raises:
        ValidationFailed: no device can have that name.
    """
    query = urlencode({"device_id": checked(device_id, "`device_id`")})
    return f"/api/history?{query}" if history else f"/api/data?{query}"


async def delete(base: str, path: str, *, token: str, trust: ssl.SSLContext | None) -> Message:
    """Delete what is at a path, and return what the server says. Takes and raises what `get` does."""
    verify = trust or False  # without TLS there is nothing to check
    async with httpx.AsyncClient(
        base_url=base, timeout=TIMEOUT_S, trust_env=False, headers=headers_of(token), verify=verify
    ) as http:
        try:
            return _answer(base, await http.delete(path))
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unreachable(base, error) from None


async def get(base: str, paths: Generator[str, Message, Found], *, token: str, trust: ssl.SSLContext | None) -> Found:
    """Get what is at some paths, one after another, and return what comes of it.

    Args:
        base: the server's address.
        paths: yields them, and takes the answer to each.
        token: the credential; empty for none.
        trust: how to check the server's certificate.

    Raises:
        ServerUnreachable: nothing answers, or something that is not a twincast server.
        TwincastError: the server refused one of them, in its own words.
    """
    verify = trust or False  # without TLS there is nothing to check
    async with httpx.AsyncClient(
        base_url=base, timeout=TIMEOUT_S, trust_env=False, headers=headers_of(token), verify=verify
    ) as http:
        try:
            path = next(paths)
            while True:
                path = paths.send(_answer(base, await http.get(path)))
        except StopIteration as end:
            found: Found = end.value
            return found
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unreachable(base, error) from None


def _is_here(host: str | None) -> bool:
    """Whether a host, of an address, is this machine and no other."""
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def _http(base: str, trust: ssl.SSLContext | None, headers: dict[str, str]) -> httpx.Client:
    verify = trust or False  # without TLS there is nothing to check
    return httpx.Client(base_url=base, timeout=TIMEOUT_S, trust_env=False, headers=headers, verify=verify)


def _unreachable(base: str, error: Exception) -> ServerUnreachable | WrongFingerprint:
    cause = TimeoutError() if isinstance(error, httpx.TimeoutException) else error
    return unreachable(base, cause, is_odd=isinstance(error, httpx.ProtocolError))


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


def _data_path(devices: str | Iterable[str], min_seq: int = 0) -> str:
    query = urlencode(
        [("devices", text) for text in listed(devices)] + ([("min_seq", str(min_seq))] if min_seq else [])
    )
    return f"/api/data?{query}" if query else "/api/data"


def _reading(device_id: str, value: Any, measured_at: Time | None) -> Message:
    body = {"device_id": checked(device_id, "`device_id`"), "value": encode_value(value)}
    return body if measured_at is None else {**body, MEASURED: encode_time(measured_at)}


def _numbered(number: int, reading: Reading) -> Message:
    try:
        return _reading(*parts_of(reading))
    except BadMessage as error:
        raise type(error)(f"reading {number}: {error.message}") from None


def _key_of(key: str) -> str:
    """Check a key, which is sent in a header."""
    if not (isinstance(key, str) and key.isascii()):
        raise ValidationFailed("`key` must be ASCII, because it is sent in a header")
    check_id(key, "`key`")
    return key
