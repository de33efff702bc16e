"""Every error that crosses a border, in one tree.

TwincastError
├── BadMessage               what a client sent cannot be taken
│   ├── MalformedJson        not JSON, or JSON that readers disagree about
│   ├── ValidationFailed     JSON, but not the shape that was asked for
│   │   ├── BadTime          not a time, or one without a zone
│   │   ├── BadRange         a range that is turned round, or none
│   │   ├── BadPath          not a JSON Pointer
│   │   ├── UnknownAggregate  an aggregate that there is not
│   │   ├── BadCursor        a cursor that is none, or of another query
│   │   └── TooMuch          a query whose answer would be larger than answers are
│   ├── TooLarge             over a limit in bytes, items, depth or keys
│   ├── UnsupportedMedia     a content type or a frame type that is not taken here
│   ├── KeyReused            an idempotency key came again with other content
│   ├── LinePassed           a numbered line that was not stored, behind one that was
│   ├── UnknownEpoch         a position of another log, or of a past that this one does not share
│   ├── MethodNotAllowed / UpgradeRequired
│   ├── NotFound             no such path, or no such device
│   │   ├── NoSuchDevice     a device that neither the state nor the log has
│   │   └── Ahead            a position, or a time, that the log has not come to
│   ├── Forbidden            a Host or Origin that is not ours
│   ├── Unauthenticated      no credential, or one that is not known here
│   │   └── CredentialExpired  it was good once
│   ├── NotPermitted         a good credential, without the right
│   └── TooSlow              a request that took too long to come in
├── Unavailable              nothing wrong with the request; try again later
│   ├── JournalUnavailable   the disk does not take the update; nothing was stored
│   ├── Stopping             the server is shutting down
│   ├── NotStarted           nobody has started it: it is mounted, and its lifespan does not run
│   ├── NotReady             the server is opening its log, and has not all of it yet
│   ├── LogReplaced          the log under a running server is another one now
│   ├── FellBehind           a client read too slowly; it is to reconnect
│   ├── OutOfOrder           an update behind one that was not stored, on a connection that keeps order
│   ├── NotYet               a position that the server has not reached
│   ├── RateLimited          more updates, or more failed logins, than are allowed in the time
│   ├── TooManyConnections   as many connections as the server, an address or an identity may have
│   ├── KeysNotFetched       a token's signer is not known yet; its keys are being fetched, or could not be
│   ├── BufferFull           a client that is offline holds as much as it may
│   │   └── SpoolFull        in its spool, or on the disk of that
│   └── ServerUnreachable    a client found nobody at the address, or not a twincast server
├── StateFull                more devices, or more state, than the server or an identity may have
├── HistoryDamaged           a closed partition that a question is about is not what was written
├── JournalUnusable          the journal cannot be opened: not one, read-only, newer, in use
├── BackupUnusable           a backup cannot be made there, or what is there cannot be put back
├── AddressUnusable          the server cannot, or should not, listen there
├── LoginUnusable            keys or tokens are not set up in a way that can work
├── CursorUnusable           the file that keeps how far a client is can be none, or another program has it
├── SpoolUnusable            the file that keeps what a client sends can be none, or another program has it
├── SettingUnusable          a setting is none that can be
├── WorkerFailed             a worker of several, or what they share, ends again and again
├── ExtraMissing             what this takes is not installed
├── WrongFingerprint         a client found another server than the one that it was told to trust
└── Truncated                a position that the journal no longer reaches back to

`code` is the same word on every wire: REST problem details, WebSocket `error` messages, the command line.
Close codes 4000-4499 mean "reconnect and resume", 4500-4999 "do not come back as you are".
"""

import re
from typing import ClassVar

LOGIN_NEEDED = (
    "this server asks for a login; `twincast keys add NAME --may publish,read` in the folder where it runs makes a key"
)
"""What everybody is told who comes without a credential; how to give it depends on the way."""

_SECRETS = re.compile(
    r"(?P<key>\btwc_[0-9A-Za-z]{1,16}_)[\w-]+"  # an API key; its id is none
    r"|(?P<token>(?<![\w-])eyJ)[\w-]+\.[\w-]+(?:\.[\w-]*)*"  # a JWT: `{"`, in Base64
    r"|(?P<header>\b[Bb]earer +)[\w.~+/=-]{8,}"
    r"|(?P<address>//)[^/\s@]+(?=@)"  # a name and password before a host
)


def masked(text: str) -> str:
    """Return a text without the credentials in it, by whatever way they came there."""
    return _SECRETS.sub(lambda found: f"{found[found.lastgroup or 0]}…", text)


class TwincastError(Exception):
    """Carry what a person needs to know, and what each wire needs to say it."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    close_code: ClassVar[int] = 1011
    retryable: ClassVar[bool] = False

    @property
    def message(self) -> str:
        """Say what was expected and what came, in one sentence; never a credential."""
        return masked(str(self))

    @property
    def reason(self) -> str:
        """The reason of a close frame that ends a connection with it: its code and its message."""
        return f"{self.code}: {self.message}"


class BadMessage(TwincastError):
    """What a client sent cannot be taken; sending it again will not help."""

    code = "bad_message"
    http_status = 400
    close_code = 4500


class MalformedJson(BadMessage):
    """Not JSON, or JSON that two readers would understand differently (RFC 7493)."""

    code = "malformed_json"
    http_status = 422


class ValidationFailed(BadMessage):
    """JSON, but not the shape that was asked for."""

    code = "validation_failed"
    http_status = 422


class BadTime(ValidationFailed):
    """Not a time, or one without a zone."""

    code = "bad_time"


class BadRange(ValidationFailed):
    """A range that is turned round, or a width or number of buckets that cannot be."""

    code = "bad_range"


class BadPath(ValidationFailed):
    """Not a JSON Pointer (RFC 6901), or more of them than a query may have."""

    code = "bad_path"


class UnknownAggregate(ValidationFailed):
    """An aggregate that there is not."""

    code = "unknown_aggregate"


class BadCursor(ValidationFailed):
    """A cursor that is none, or that another query answered."""

    code = "bad_cursor"


class TooMuch(ValidationFailed):
    """A query whose answer would be larger than answers are; the message says what would fit."""

    code = "too_much"


class TooLarge(BadMessage):
    """Over a limit in bytes, items, depth or keys."""

    code = "too_large"
    http_status = 413
    close_code = 1009


class UnsupportedMedia(BadMessage):
    """A content type, or a kind of frame, that is not taken here."""

    code = "unsupported_media_type"
    http_status = 415
    close_code = 1003


class KeyReused(BadMessage):
    """An idempotency key came again, with other content than the first time."""

    code = "key_reused"
    http_status = 422


class LinePassed(BadMessage):
    """A numbered line that is not stored, when a later one of its producer is: it would be stored out of order."""

    code = "line_passed"
    http_status = 409


class UnknownEpoch(BadMessage):
    """A position of another log, or of a past that this one does not share. It will never come here."""

    code = "unknown_epoch"
    http_status = 410


class NotFound(BadMessage):
    """No such path, or no such device."""

    code = "not_found"
    http_status = 404


class NoSuchDevice(NotFound):
    """Neither the state nor the log has such a device; the same for one that the caller may not read."""

    code = "no_such_device"


class Ahead(NotFound):
    """A position or a time that the log has not come to. Nothing waits for it."""

    code = "ahead"


class MethodNotAllowed(BadMessage):
    """The path exists, but not for this method."""

    code = "method_not_allowed"
    http_status = 405


class UpgradeRequired(BadMessage):
    """The path is a WebSocket's, and the request does not ask for one."""

    code = "upgrade_required"
    http_status = 426


class Forbidden(BadMessage):
    """A Host or an Origin that is not ours: DNS rebinding, or another site's page."""

    code = "forbidden"
    http_status = 403


class Unauthenticated(BadMessage):
    """No credential where one is needed, or one that is not known here."""

    code = "unauthenticated"
    http_status = 401
    close_code = 4501


class CredentialExpired(Unauthenticated):
    """A credential that was good once: expired, or revoked."""

    code = "credential_expired"
    close_code = 4502


class NotPermitted(BadMessage):
    """A good credential, but not the right to do this."""

    code = "not_permitted"
    http_status = 403
    close_code = 4503


class TooSlow(BadMessage):
    """A request that did not come in whole in the time it has."""

    code = "too_slow"
    http_status = 408


class Unavailable(TwincastError):
    """Nothing is wrong with the request; the same one may succeed later."""

    code = "unavailable"
    http_status = 503
    close_code = 1013
    retryable = True

    retry_after_s: float = 1.0
    """When to try again. A full disk takes longer, but one request a second costs nothing."""


class JournalUnavailable(Unavailable):
    """The disk does not take the update; nothing of it was stored."""

    code = "journal_unavailable"


class Stopping(Unavailable):
    """The server is shutting down and takes nothing new."""

    code = "stopping"
    close_code = 1012


class NotStarted(Unavailable):
    """Nobody has started it: an application that mounts it has to run its lifespan."""

    code = "not_started"


class NotReady(Unavailable):
    """The server is opening its log, and serves nothing from it before it has all of it."""

    code = "not_ready"


class LogReplaced(Unavailable):
    """The log under a running server is another one now: deleted and made anew, put back, or without its end.

    Nothing more is served from what was read of the log before.
    """

    code = "log_replaced"
    close_code = 1012


class FellBehind(Unavailable):
    """A client read so slowly that what waits for it passed its bound."""

    code = "fell_behind"
    close_code = 4008


class OutOfOrder(Unavailable):
    """An update behind one that was not stored, on a connection that asked for its order to be kept."""

    code = "out_of_order"


class NotYet(Unavailable):
    """The server has not reached a position that a read asked for."""

    code = "not_yet"


class RateLimited(Unavailable):
    """More than is allowed in the time: of updates by one identity, or of failed logins from one address."""

    code = "rate_limited"
    http_status = 429

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyConnections(Unavailable):
    """As many connections as there may be: in all, from one address, or of one identity."""

    code = "too_many_connections"


class KeysNotFetched(Unavailable):
    """The signer of a token is not known yet; the issuer's keys are being fetched, or could not be."""

    code = "keys_not_fetched"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BufferFull(Unavailable):
    """A client without connection holds as many updates as it may."""

    code = "buffer_full"


class SpoolFull(BufferFull):
    """A client's spool holds as much as it may, or its disk is full; what did not fit was not accepted."""

    code = "spool_full"


class StateFull(TwincastError):
    """More devices, or more bytes of state, than this server or this identity may have. Deleting makes room."""

    code = "state_full"
    http_status = 507


class HistoryDamaged(TwincastError):
    """A closed partition that a question is about is not what was written: it stays so until its file is put back."""

    code = "history_damaged"
    http_status = 500


class JournalUnusable(TwincastError):
    """The journal cannot be opened: not one, read-only, from a newer version, or in use."""

    code = "journal_unusable"


class BackupUnusable(TwincastError):
    """A backup cannot be made in that folder, or what is in it cannot be put back."""

    code = "backup_unusable"


class AddressUnusable(TwincastError):
    """The server cannot listen at the address, or should not as it is."""

    code = "address_unusable"


class LoginUnusable(TwincastError):
    """Keys or tokens are not set up in a way that can work."""

    code = "login_unusable"


class CursorUnusable(TwincastError):
    """The file that keeps how far a client is can be none, or another program has it."""

    code = "cursor_unusable"


class SpoolUnusable(TwincastError):
    """The file that keeps what a client sends can be none, or another program has it."""

    code = "spool_unusable"


class SettingUnusable(TwincastError):
    """A setting, by flag, environment or file, is none that can be."""

    code = "setting_unusable"


class WorkerFailed(TwincastError):
    """A process of a server that has several ends before it serves, again and again."""

    code = "worker_failed"


class ExtraMissing(TwincastError):
    """What this takes comes with an extra of the package that is not installed."""

    code = "extra_missing"


class WrongFingerprint(TwincastError):
    """Whoever answers at an address has another key than the one whose fingerprint a client was given."""

    code = "wrong_fingerprint"


class Truncated(TwincastError):
    """A position that the journal no longer reaches back to."""

    code = "truncated"
    http_status = 410


class ServerUnreachable(Unavailable):
    """A client found nobody at the address, or somebody who is not a twincast server."""

    code = "server_unreachable"
