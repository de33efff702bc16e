"""Why there is no connection, in our own words, and whether that is final. docs/client.md has the rules.

What a library says never gets through: it may hold what was sent, credentials too.
"""

import os
import socket
import ssl
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import httpx
import msgspec
from websockets.exceptions import InvalidMessage, InvalidStatus

from twincast import errors
from twincast.client.pin import NotPinned
from twincast.core.names import check_id
from twincast.errors import CredentialExpired, ServerUnreachable, TwincastError, Unauthenticated, WrongFingerprint

FINAL_CLOSE_CODES = range(4500, 5000)
PASSING_STATUSES = frozenset({408, 421, 425, 426, 429})
"""Of those from 400 on, the ones that can become right without this client."""
WITHOUT_LOGIN = f"{errors.LOGIN_NEEDED}; give it as `token=…` or in the environment variable TWINCAST_TOKEN"


class Retried(Exception):
    """There is no connection, and another attempt is worth while."""

    def __init__(self, error: TwincastError) -> None:
        super().__init__(error.message)
        self.error = error
        """What to raise if there is no time for another attempt."""


def error_of(code: str, message: str) -> TwincastError:
    """Return the error that a server means by a code; a plain TwincastError for one that this version does not know."""
    kind = _KINDS.get(code)
    return kind(message) if kind else TwincastError(f"{code}: {message}")


def of_status(base: str, status: int, body: bytes, location: str = "", *, credential: str) -> Exception:
    """Judge an answer to a handshake that is none: what to raise.

    Args:
        base: the server's address.
        status: of the answer.
        body: of the answer.
        location: where the answer points, if it does.
        credential: "none", "fixed", or "renewed" for one that is another one with each attempt.
    """
    error = _said(body)
    if 300 <= status < 400:
        return Retried(elsewhere(base, location))
    if error is None:
        words = f"what answers at {base} does not speak like a twincast server: HTTP status {status}"
        return Retried(ServerUnreachable(words))
    if isinstance(error, Unauthenticated):
        return of_login(error, credential=credential)
    if not 400 <= status < 500 or status in PASSING_STATUSES:
        return Retried(error if error.retryable else ServerUnreachable(error.message))
    return error


def of_close(code: int | None, reason: str, said: TwincastError | None, *, credential: str) -> Exception:
    """Judge the end of a connection: what to raise.

    Args:
        code: of the close frame; None if the connection was cut.
        reason: of the close frame.
        said: an error that the server gave before it, instead of a greeting.
        credential: as `of_status` takes it.
    """
    if said is None and reason:
        word, colon, words = reason.partition(": ")
        said = error_of(word, words) if colon and word in _KINDS else None
    if code not in FINAL_CLOSE_CODES:
        words = said.message if said else reason
        return Retried(ServerUnreachable(f"the connection was lost{f': {words}' if words else ''}"))
    if code in {Unauthenticated.close_code, CredentialExpired.close_code}:
        kind = CredentialExpired if code == CredentialExpired.close_code else Unauthenticated
        return of_login(said if isinstance(said, kind) else kind(reason), credential=credential)
    return said or TwincastError(f"the server closed the connection for good ({code}){f': {reason}' if reason else ''}")


def of_login(error: TwincastError, *, credential: str) -> Exception:
    """Judge that a credential is not good: it is final, unless the next attempt has another one."""
    if credential == "renewed":
        return Retried(error)
    return Unauthenticated(WITHOUT_LOGIN) if credential == "none" else error


def unreachable(base: str, error: BaseException) -> ServerUnreachable | WrongFingerprint:
    """Say in our own words why a server could not be talked to; that it is another one is final."""
    for cause in _chain(error):
        if isinstance(cause, NotPinned):
            return WrongFingerprint(
                f"what answers at {base} is not the server whose fingerprint you gave: {cause.args[0]}. If its key was"
                " made anew, give the one that it prints now; if not, somebody stands between, and nothing was sent"
            )
    return ServerUnreachable(_words(base, error))


def odd(base: str) -> Retried:
    """Say that what answers does not speak as a server does."""
    return Retried(ServerUnreachable(f"what answers at {base} does not speak like a twincast server"))


def _words(base: str, error: BaseException) -> str:
    chain = list(_chain(error))
    for cause in chain:
        if (said := _of_system(base, cause)) is not None:
            return said
    if isinstance(error, InvalidStatus | InvalidMessage | httpx.ProtocolError):
        return f"what answers at {base} does not speak like a twincast server"
    system = next((cause.errno for cause in chain if isinstance(cause, OSError) and cause.errno), None)
    return f"{base} cannot be reached: {type(error).__name__ if system is None else os.strerror(system)}"


def _of_system(base: str, cause: BaseException) -> str | None:
    """Say what a cause means, if it is one of the usual ones."""
    match cause:
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of {base} is not trusted here: {cause.verify_message};"
                " `tls` takes an ssl.SSLContext that trusts it, `fingerprint` what a server with --self-signed prints,"
                " SSL_CERT_FILE a file of those who sign"
            )
        case ssl.SSLError():
            return f"what answers at {base} does not agree on TLS ({cause.reason or 'it ends'}); is it http://?"
        case socket.gaierror():
            return f"the name in {base} is not known"
        case TimeoutError() | httpx.TimeoutException():
            return f"what is at {base} does not answer in time"
        case OSError() if isinstance(cause, ConnectionRefusedError) or "Connect call failed" in str(cause):
            return f"nobody answers at {base}; `twincast serve` starts a server there"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from _chain(part)
        error = error.__cause__ or error.__context__


def elsewhere(base: str, location: str) -> ServerUnreachable:
    """Say that clients are sent to another address, without what may be secret in it."""
    parts = urlsplit(location)
    path = parts.path.partition("/ws")[0].partition("/api")[0].rstrip("/")
    where = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{path}" if parts.hostname else ""
    advice = f"; if {where} is the server's address, use that" if where else ""
    return ServerUnreachable(f"what answers at {base} sends its clients on, and this one does not follow{advice}")


def _said(body: bytes) -> TwincastError | None:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
        check_id(problem.code, "`code`")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TwincastError):
        return None
    return error_of(problem.code, problem.detail)


class _Problem(msgspec.Struct):
    code: str
    detail: str


def _kinds(kind: type[TwincastError]) -> Iterable[type[TwincastError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


_KINDS = {kind.code: kind for kind in _kinds(errors.TwincastError)}
