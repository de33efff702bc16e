"""What a client asks for by its address or by a message, made into a subscription."""

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple, cast
from urllib.parse import parse_qs

from twincast.core.model import Position
from twincast.core.subscription import Mode, Rule, Subscription, rules_of, subscription_to
from twincast.errors import ValidationFailed
from twincast.wire.client_messages import ClientMessage

PAGE_SIZE_MAX = 10_000
_PAGE_SIZE_BEFORE = "page"
"""The former name of `page_size`: everywhere else `page=2` is the second page. It is still taken."""
_PARAMETERS = frozenset(
    {"since", "devices", "kinds", "mode", "max_hz", "page_size", "auth", "ordered", "ticket", "lastEventId"}
)
_OFTEN = (("%2A", "*"), ("%2F", "/"), ("%2a", "*"), ("%2f", "/"))
"""What patterns and names are full of. The library decodes one at a time, which costs more than all the rest."""
_NO_PARAMETERS = "this address has no parameters"
_OF_NO_MEANING = frozenset({"_"})
"""What a request library adds, so that no cache on the way answers."""


class StreamQuery(NamedTuple):
    """What a client asks for as it connects: by the parameters of its address."""

    subscription: Subscription
    since: Position | None
    page_size: int
    """How many devices a page of the state holds; 0 if the client does not say."""
    names_devices: bool
    """Whether the client says which devices it wants, be it none."""
    ordered: bool
    """Whether the updates behind one that could not be stored must be refused too."""


def resubscribed(message: ClientMessage, current: Subscription) -> Subscription:
    """Return the subscription that a `subscribe` or `unsubscribe` message makes of the current one.

    Raises:
        ValidationFailed: the message says what is not possible.
    """
    if message.type == "unsubscribe":
        return current.removing(message.devices)
    rules = rules_of(message.devices or (), message.kinds)
    mode = current.mode if message.mode is None else cast("Mode", message.mode)
    max_hz = message.max_hz if message.max_hz is not None or mode == "every" else current.max_hz
    return replace(current.adding(rules), mode=mode, max_hz=max_hz)


def decode_stream_query(query: str, last_event_id: str = "") -> StreamQuery:
    """Read the parameters of an address that begins a stream; see docs/delivery.md.

    Args:
        query: what stands behind the question mark.
        last_event_id: the header of a browser that comes back; it wins over `since`, and so does the parameter by which
            polyfills of a browser's EventSource say the same.

    Raises:
        ValidationFailed: one of them is not what it must be, or is not known.
    """
    given = decode_query(query, _PARAMETERS, _PAGE_SIZE_BEFORE)
    since = last_event_id or given.get("lastEventId", [""])[-1] or given.get("since", [""])[-1]
    if _PAGE_SIZE_BEFORE in given and "page_size" in given:
        raise ValidationFailed("`page` is the former name of `page_size`; the address must have one of them")
    page_size = given.get("page_size") or given.get(_PAGE_SIZE_BEFORE) or ["0"]
    subscription = subscription_to(
        rules_of_query(given),
        cast("Mode", given.get("mode", ["latest"])[-1]),
        _number(given["max_hz"][-1], "`max_hz`") if "max_hz" in given else None,
    )
    return StreamQuery(
        subscription,
        Position.parse(since) if since else None,
        whole_number(page_size[-1], "`page_size`", PAGE_SIZE_MAX),
        "devices" in given,
        whole_number(given.get("ordered", ["0"])[-1], "`ordered`", 1) == 1,
    )


def wants_to_log_in(query: str) -> bool:
    """Whether an address says that the first message of its client will be `auth`."""
    return "auth=message" in query.split("&")


def ticket_of(query: str) -> str | None:
    """Return the ticket in an address; None if there is none."""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "ticket":
            return value
    return None


def decode_query(query: str, names: Collection[str], *former_names: str) -> dict[str, list[str]]:
    """Read the parameters behind a question mark.

    Args:
        query: what stands behind it.
        names: the parameters that are known.
        former_names: those that are still taken, and that no error names.

    Raises:
        ValidationFailed: not readable, or one that is not known; a misspelt filter must not select everything.
    """
    for encoded, plain in _OFTEN:  # neither means anything in the syntax of an address, so it may be done first
        query = query.replace(encoded, plain)
    try:
        given = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=2_000)
    except ValueError:
        raise ValidationFailed("an address must have at most 2,000 parameters, in percent-encoded UTF-8") from None
    if unknown := sorted(set(given).difference(names, former_names, _OF_NO_MEANING)):
        known = f"the parameters of this address are {', '.join(sorted(names))}" if names else _NO_PARAMETERS
        raise ValidationFailed(f"{known}; not {unknown[0][:40]!r}")
    return given


def rules_of_query(given: dict[str, list[str]]) -> frozenset[Rule]:
    """Return the patterns and kinds that parameters ask for; `devices=` alone asks for none."""
    return rules_of((text for text in given.get("devices", ["*"]) if text), given.get("kinds"))


def whole_number(text: str, what: str, maximum: int) -> int:
    """Read a parameter that is a number from 0 to a maximum.

    Raises:
        ValidationFailed: it is not.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= maximum):
        raise ValidationFailed(f"{what} must be a whole number from 0 to {maximum}, not {text[:40]!r}")
    return int(text)


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValidationFailed(f"{what} must be a number, not {text[:40]!r}") from None
