"""Why there is no connection, and whether that is final. docs/client.md has the rules.

The words are our own: a library's message may contain what was sent, credentials included, so none is passed on.
"""

import os
import socket
import ssl
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

import msgspec

from twincast import errors
from twincast.client.pin import NotPinned
from twincast.core.names import check_id
from twincast.errors import CredentialExpired, ServerUnreachable, TwincastError, Unauthenticated, WrongFingerprint

FINAL_CLOSE_CODES = range(4500, 5000)
PASSING_STATUSES = frozenset({408, 421, 425, 426, 429})
"""The statuses from 400 to 499 that can go away although this client stays as it is."""
WITHOUT_LOGIN = (
    f"{errors.LOGIN_NEEDED}; give it in the environment variable TWINCAST_TOKEN, or in a program as `token=…`"
)


class Retryable(Exception):
    """There is no connection, and another attempt may succeed."""

    def __init__(self, error: TwincastError) -> None:
        super().__init__(error.message)
        self.error = error
        """What to raise if there is no time for one."""


def error_of(code: str, message: str) -> TwincastError:
    """Return the error for a server's code; a plain TwincastError for a code that this version does not know."""
    kind = _KINDS.get(code)
    return kind(message) if kind else TwincastError(f"{code}: {message}")


def failure_of_status(base: str, status: int, body: bytes, location: str = "", *, credential: str) -> Exception:
    """Return what to raise for an answer to the handshake other than 101.

    Args:
        base: the server's address.
        status: the answer's status.
        body: the answer's body.
        location: the answer's `Location`, if it has one.
        credential: "none", "fixed", or "renewed" for each attempt.
    """
    error = _said(body)
    if 300 <= status < 400:
        return Retryable(redirected(base, location))
    if error is None:
        words = f"what answers at {base} does not speak like a twincast server: HTTP status {status}"
        return Retryable(ServerUnreachable(words))
    if isinstance(error, Unauthenticated):
        return failure_of_login(error, credential=credential)
    if not 400 <= status < 500 or status in PASSING_STATUSES:
        return Retryable(error if error.retryable else ServerUnreachable(error.message))
    return error


def failure_of_close(code: int | None, reason: str, said: TwincastError | None, *, credential: str) -> Exception:
    """Return what to raise for the end of a connection.

    Args:
        code: of the close frame; None if the connection was cut.
        reason: of the close frame.
        said: an error that the server sent before it, instead of a greeting.
        credential: see `failure_of_status`.
    """
    if said is None and reason:
        word, colon, words = reason.partition(": ")
        said = error_of(word, words) if colon and word in _KINDS else None
    if code not in FINAL_CLOSE_CODES:
        words = said.message if said else reason
        return Retryable(ServerUnreachable(f"the connection was lost{f': {words}' if words else ''}"))
    if code in {Unauthenticated.close_code, CredentialExpired.close_code}:
        kind = CredentialExpired if code == CredentialExpired.close_code else Unauthenticated
        return failure_of_login(said if isinstance(said, kind) else kind(reason), credential=credential)
    return said or TwincastError(f"the server closed the connection for good ({code}){f': {reason}' if reason else ''}")


def failure_of_login(error: TwincastError, *, credential: str) -> Exception:
    """Return what to raise for a refused credential: it is final, unless the next attempt has another one."""
    if credential == "renewed":
        return Retryable(error)
    return Unauthenticated(WITHOUT_LOGIN) if credential == "none" else error


def unreachable(base: str, error: BaseException, *, is_odd: bool = False) -> ServerUnreachable | WrongFingerprint:
    """Return the error for a request that failed before an answer; only a wrong server is final.

    Args:
        base: the server's address.
        error: what the library of the transport raised.
        is_odd: whether it did so for an answer that its protocol has not.
    """
    for cause in _chain(error):
        if isinstance(cause, NotPinned):
            return WrongFingerprint(
                f"what answers at {base} is not the server whose fingerprint you gave: {cause.args[0]}. If its key was"
                " made anew, give the one that it prints now; if not, someone is in between, and nothing was sent"
            )
    return ServerUnreachable(_words(base, error, is_odd=is_odd))


def not_twincast(base: str) -> Retryable:
    """Return the failure that what answers is not a twincast server."""
    return Retryable(ServerUnreachable(f"what answers at {base} does not speak like a twincast server"))


def _words(base: str, error: BaseException, *, is_odd: bool) -> str:
    chain = list(_chain(error))
    for cause in chain:
        if (said := _of_system(base, cause)) is not None:
            return said
    if is_odd:
        return f"what answers at {base} does not speak like a twincast server"
    system = next((cause.errno for cause in chain if isinstance(cause, OSError) and cause.errno), None)
    return f"{base} cannot be reached: {type(error).__name__ if system is None else os.strerror(system)}"


def _of_system(base: str, cause: BaseException) -> str | None:
    """Return the words for one of the usual causes; None for any other."""
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
        case TimeoutError():
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


def redirected(base: str, location: str) -> ServerUnreachable:
    """Return the error for a redirect. Its words leave out what may be secret in the new address."""
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


def kinds_of_errors(kind: type[TwincastError]) -> Iterable[type[TwincastError]]:
    """Return the kinds that have a code of their own, from one on."""
    if "code" in vars(kind):  # one that has its parent's is not what travels, and may be made otherwise
        yield kind
    for child in kind.__subclasses__():
        yield from kinds_of_errors(child)


_KINDS = {kind.code: kind for kind in kinds_of_errors(errors.TwincastError)}
