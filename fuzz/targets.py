"""The targets: each takes bytes and raises only if something that is promised does not hold."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec
from msgspec import Raw

from fuzz.edge import HEAD, MESSAGE_MAX_BYTES, EdgeClient, standing_still
from fuzz.oracles import (
    REFUSAL_MAX_CHARS,
    Frame,
    TooLong,
    Understood,
    as_utf8,
    breaks,
    frames_of_server,
    glob,
    hold,
    read,
    read_object,
    read_value,
    understand,
)
from fuzz.talk import Talk
from tests.fakes import AnyonesVisit, CommittingStream, RecordingConnection
from twincast.access.origin import OriginPolicy
from twincast.core.keys import Key, Keyring
from twincast.core.model import KINDS, Control, DataUpdate, Deleted, Entry, Kind, Position
from twincast.core.names import NAME_MAX_CHARS
from twincast.core.pattern import Pattern, PatternSet
from twincast.core.times import read_time
from twincast.delivery.session import Session
from twincast.errors import BadMessage, Forbidden, TooLarge, UnsupportedMedia
from twincast.history.cursor import Cursor
from twincast.history.pointer import Pointer
from twincast.history.query import Place
from twincast.history.request import PARAMETERS, default_span, parse_request
from twincast.history.times import MAX_US, MIN_US, parse_moment, text_of
from twincast.history.widths import BUCKETS_MAX
from twincast.wire import client_messages, implementation, requests
from twincast.wire.assembler import CLOSE, TEXT, Assembler, Violation, close_code_of, not_text, too_large
from twincast.wire.frames import text_in_python as frames_in_python
from twincast.wire.messages import encode, encode_error
from twincast.wire.query import decode_query, decode_stream_query, ticket_of, wants_to_log_in
from twincast.wire.readings import in_python, plain_readings
from twincast.wire.subjects import name_of
from twincast.wire.values import check_value, compact

T = TypeVar("T")
CORPUS = Path(__file__).parent / "corpus"
_LINES_MAX = 4
ASSEMBLED_MAX_BYTES = 64
"""Small, so that mutations reach it."""
PING = 0x9
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
NOW_US = 1_795_600_800_000_000
_PLAIN_IN_SUBJECTS = "!\"#$&'()+,:;<=?@[\\]^`{|}"  # and letters, digits and `_-~`, which `quote` leaves; not its `.`
_decode_raw = msgspec.json.Decoder(Raw).decode


class Target(NamedTuple):
    """What is fuzzed.

    Args:
        name: also the directory of its examples.
        run: takes bytes.
        share: its part of all executions, beside the others' parts.
        max_bytes: how long an input may be.
    """

    name: str
    run: Callable[[bytes], None]
    share: int
    max_bytes: int = 8_192

    def examples(self) -> list[bytes]:
        """Return what mutations begin with."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]


def message(data: bytes) -> None:
    """One WebSocket message: shape, names, limits; telemetry and commands as the standard library reads them.

    What is taken together with the other messages of a read is the same.
    """
    payload = as_utf8(data)
    taken = _taken(lambda: client_messages.decode_message(payload), payload)
    together, _ = plain_readings([payload], "websocket", len(payload))
    if taken is None:
        hold(not together, "what is refused alone is not taken together with others", payload)
        return
    said = read(payload)
    hold(isinstance(said, dict), "a message is an object", payload)
    if taken.type in {"telemetry", "control", "delete", "ping", "subscribe", "unsubscribe", "auth"}:
        hold(said["type"] == taken.type, "the type is the one that was sent", payload)
        hold(client_messages.id_of(payload) == taken.id, "the id is the one that was sent", payload)
    if taken.type in {"telemetry", "control", "delete"}:
        entry = client_messages.draft(taken, "websocket")
        _hold_entry(entry, said, len(payload))
        hold(together in ([entry], []), "a reading is the same together with others", payload)
        again = client_messages.decode_message(_encoded(entry, type=taken.type))
        hold(client_messages.draft(again, "websocket") == entry, "an entry survives its own text", entry)


def compiled(data: bytes) -> None:
    """Messages, a line each, that came together: what the compiled module takes of them Python takes, as the same.

    Frames of the lines are the same too. Nothing is held where it is not built, or TWINCAST_PURE leaves it out.
    """
    module = implementation.compiled
    if module is None:
        return
    payloads = as_utf8(data).split(b"\n")
    taken, size_bytes = module.plain_readings(payloads, "websocket", MESSAGE_MAX_BYTES)
    expected = in_python(payloads[: len(taken)], "websocket", MESSAGE_MAX_BYTES)
    hold((taken, size_bytes) == expected, "a reading is the same compiled", payloads, taken, expected)
    hold(module.text(payloads) == frames_in_python(payloads), "frames are the same compiled", payloads)


def readings(data: bytes) -> None:
    """The body of REST's readings: one, an array, and lines, each beside the others."""
    one = _taken(lambda: requests.decode_reading(data, "rest"), data)
    array = _taken(lambda: requests.decode_readings(data, "rest", _LINES_MAX), data)
    lines = _taken(lambda: requests.decode_reading_lines(data, "rest", _LINES_MAX), data)
    if one is not None:
        _hold_entry(one, read(data), len(data))
        hold(requests.decode_reading(_encoded(one), "rest") == one, "a reading survives its own text", one)
        hold(requests.decode_readings(b"[%b]" % data, "rest", 1) == [one], "an array of one is that one", data)
    if array is not None:
        _hold_entries(array, read(data), data)
        text = b"\n".join(map(_encoded, array))
        hold(requests.decode_reading_lines(text, "rest", _LINES_MAX) == array, "lines are what an array is", data)
    written = [line for line in data.split(b"\n") if line.strip()]
    if lines is not None:
        _hold_entries(lines, [read(line) for line in written], data)
        hold([requests.decode_reading(line, "rest") for line in written] == lines, "each line is a reading", data)
    if len(written) == 1 and data.strip() == data:
        hold((lines is None) == (one is None), "one line is what a reading is", data)


def order(data: bytes) -> None:
    """The body of REST's command."""
    taken = _taken(lambda: requests.decode_command(data, "rest"), data)
    if taken is not None:
        _hold_entry(taken, read(data), len(data))
        hold(requests.decode_command(_encoded(taken), "rest") == taken, "an order survives its own text", taken)
        by_nats = requests.decode_command_to(taken.target, data, "rest")
        hold(by_nats == taken, "an order whose target stands elsewhere is the same", taken, by_nats)


def value(data: bytes) -> None:
    """Which values are taken: exactly those that the standard library reads as I-JSON within the bounds."""
    payload = as_utf8(data)
    alone = _taken(lambda: requests.decode_value_of("lamp", payload, "nats"), payload)
    try:
        text = bytes(_decode_raw(payload))
    except (msgspec.DecodeError, RecursionError):
        hold(alone is None, "a payload that is no JSON is not taken", payload)
        return
    taken = _taken(lambda: (check_value(text), compact(text)), text)
    hold((alone and bytes(alone.value)) == (taken and taken[1]), "a value is the same where it stands alone", text)
    try:
        said = read_value(text)
    except ValueError as error:
        hold(taken is None, f"a value that is refused by its oracle ({error}) is not taken", text)
        return
    hold(taken is not None, "what the oracle takes is taken", text)
    if taken is not None:
        _, tight = taken
        hold(read_value(tight) == said and len(tight) <= len(text), "white space is all that a value loses", text)
        hold(compact(tight) == tight, "a compact value stays as it is", tight)


def stream_query(data: bytes) -> None:
    """The address of a stream: back and forth, and what its patterns select."""
    query = data.decode("latin-1")
    wants_to_log_in(query)
    ticket_of(query)
    taken = _taken(lambda: decode_stream_query(query), data)
    if taken is None:
        return
    shown = json.loads(encode(taken.subscription.described()))
    hold(not data or len(encode(shown)) < 12 * len(data) + 200, "what is shown stays in proportion", query)
    kinds: Sequence[Kind] = sorted({kind for _, kinds in taken.subscription.rules for kind in kinds}) or ["control"]
    asked = [("mode", shown["mode"]), *(("devices", text) for text in shown["devices"] or [""])]
    asked += [("kinds", kind) for kind in kinds] + [("page_size", str(taken.page_size))]
    asked += [("max_hz", repr(shown["max_hz"]))] if shown["max_hz"] is not None else []
    asked += [("since", str(taken.since))] if taken.since is not None else []
    again = decode_stream_query(urlencode(asked))
    hold(again == taken._replace(names_devices=True), "a wish survives its own address", query, again)
    patterns = [glob(text) for text in shown["devices"]]
    for name in (*list(shown["devices"])[:4], *re.split("[&=%]", query)[:4], "lab/lamp"):
        is_named = any(matches is not None and matches(name) for matches in patterns)
        for kind in KINDS:
            selected = taken.subscription.selects((kind, name))
            hold(selected == (is_named and kind in kinds), "what is selected", query, kind, name)


def pattern(data: bytes) -> None:
    """A device pattern, and names on the lines below it, beside a matcher that tries everything."""
    text, *names = data.decode(errors="replace").split("\n")
    matches = glob(text)
    taken = _taken(lambda: Pattern(text), data)
    hold((taken is None) == (matches is None), "what a pattern is", text)
    if taken is None or matches is None:
        return
    for name in [name[:128] for name in (*names[:6], text)]:
        hold(taken.matches(name) == matches(name), "which names a pattern selects", text, name)
        hold(PatternSet([taken]).has(name) == matches(name), "a set of one pattern is that pattern", text, name)


def position(data: bytes) -> None:
    """A place in the log, as text."""
    text = data.decode(errors="replace")
    taken = _taken(lambda: Position.parse(text), data)
    hold((taken is not None) == bool(re.fullmatch(r"(?s:.+):[0-9]{1,18}", text)), "what a position is", text)
    if taken is not None:
        hold(Position.parse(str(taken)) == taken, "a position survives its own text", text)
        hold(str(taken).rpartition(":")[0] == text.rpartition(":")[0], "the epoch is the one that was sent", text)


def moment(data: bytes) -> None:
    """A point in time, beside the standard library: what is RFC 3339 is taken, and as the same instant."""
    text = data.decode(errors="replace")
    taken = _taken(lambda: parse_moment(text, NOW_US), data)
    plain = re.fullmatch(
        r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-5][0-9])(\.[0-9]{1,6})?"
        r"([Zz]|[+-][0-9]{2}:[0-5][0-9])",
        text,
    )
    if plain is not None:
        day, time, fraction, zone = plain.groups()
        said = f"{day}T{time}{(fraction or '.').ljust(7, '0')}{'+00:00' if zone in 'Zz' else zone}"
        try:
            expected = (datetime.fromisoformat(said) - EPOCH) // MICROSECOND
        except ValueError:
            expected = None
        if expected is not None and not MIN_US <= expected <= MAX_US:
            expected = None
        hold(taken == expected, "which instant a time is", text, taken, expected)
    if taken is not None:
        hold(MIN_US <= taken <= MAX_US, "a time is in the years 1 to 9999", text, taken)
        hold(parse_moment(text_of(taken), 0) == taken, "a time survives its own text", text, taken)


def pointer(data: bytes) -> None:
    """A JSON Pointer on the first line, and a value below it, beside the standard library's reading of both."""
    text, _, below = data.decode(errors="replace").partition("\n")
    taken = _taken(lambda: Pointer(text), data)
    is_one = len(text) <= 1_024 and re.fullmatch(r"(/([^/~]|~[01])*)*", text, re.DOTALL) is not None
    hold((taken is not None) == is_one, "what a pointer is", text)
    payload = below.encode()
    if taken is None or _refused(lambda: requests.decode_value_of("lamp", payload, "nats")):
        return
    value = bytes(requests.decode_value_of("lamp", payload, "nats").value)
    part, found = read_value(value), taken.find(value)
    for token in text.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and name in part:
            part = part[name]
        elif isinstance(part, list) and re.fullmatch("0|[1-9][0-9]*", name) and len(name) < 9 and int(name) < len(part):
            part = part[int(name)]
        else:
            hold(found is None, "what is nowhere is not found", text, value, found)
            return
    hold(found is not None, "what is there is found", text, value)
    hold(found is None or read_value(found) == part, "the part is the one that is meant", text, value, found)


def past(data: bytes) -> None:
    """The address of a question about the past: its range, its buckets, and the cursor of its next page."""
    query = data.decode("latin-1")
    asked = _taken(lambda: parse_request(decode_query(query, PARAMETERS), NOW_US), data)
    if asked is None:
        return
    span = default_span(asked, NOW_US, 1_000)
    if asked.cursor:
        page = _taken(lambda: asked.page("lamp", "log"), data)
        hold(page is None or page.beyond is not None, "a cursor says where its page begins", query)
    if asked.buckets is None:
        cursor = Cursor(span.from_us, span.to_us, 0, 1_000, Place(NOW_US, 7))
        text = cursor.text(asked.digest("lamp", "log"))
        again = asked._replace(cursor=text).page("lamp", "log")
        hold(again == asked.entries(("lamp",), span)._replace(beyond=cursor.place), "a page goes on", query)
        other = asked._replace(cursor=text, identity=asked.identity[::-1])
        hold(asked.identity == asked.identity[::-1] or _refused(lambda: other.page("lamp", "log")), "not here", query)
    elif span.from_us <= span.to_us:
        buckets = asked.buckets
        found = _taken(lambda: asked.added_up(("lamp",), span, buckets), data)
        if found is not None:
            edges = found[1].edges
            hold(len(edges) <= BUCKETS_MAX + 1, "buckets are bounded", query, len(edges))
            hold(edges[0] <= span.from_us and edges[-1] >= span.to_us, "buckets cover the range", query, span)
            hold(all(left < right for left, right in pairwise(edges)), "buckets follow one another", query)


def subject(data: bytes) -> None:
    """A subject of NATS, beside an encoding by the standard library: exactly what that yields is taken."""
    text = data.decode(errors="replace")
    taken = _taken(lambda: name_of(text), data)
    name = "/".join("" if token == "%" else unquote(token) for token in text.split("."))
    is_name = 1 <= len(name) <= NAME_MAX_CHARS and not re.search("[\x00-\x1f\x7f-\x9f]", name)
    tokens = [quote(token, safe=_PLAIN_IN_SUBJECTS).replace(".", "%2E") or "%" for token in name.split("/")]
    hold(taken == (name if is_name and ".".join(tokens) == text else None), "what a subject is", text, taken)


def origin_policy(data: bytes) -> None:
    """The Host on the first line and the Origin on the second, where there is one."""
    host, *more = data.decode("latin-1").split("\n")
    origin = more[0] if more else None
    ours = OriginPolicy(allow_hosts=["twin.example"], allow_origins=["https://app.example"])
    passed = [_passes(ours, host, origin) for _ in range(2)]
    hold(passed[0] == passed[1], "the same request is answered the same", host, origin)
    plain = re.fullmatch(r"((?:[a-z0-9-]+\.)*[a-z0-9-]+)(\.?)(?::([0-9]{0,5}))?", host.lower())
    if plain is not None and len(plain[1]) < 250:
        name = plain[1]
        octets = re.fullmatch(r"127" + r"\.(0|[1-9][0-9]{0,2})" * 3, name)
        known = name == "localhost" or name.endswith(".localhost")
        known = known or (octets is not None and all(int(octet) < 256 for octet in octets.groups()))
        known = ((known and not plain[2]) or name == "twin.example") and int(plain[3] or 0) < 1 << 16
        hold(_passes(ours, host, None) == known, "which hosts are ours", host)
    if passed[0] and origin is not None:
        own = {_place(f"{scheme}://{host.rpartition('@')[2]}") for scheme in ("http", "https", "ws", "wss")}
        hold(_place(origin) in {*own, _place("https://app.example")}, "which origins may call", host, origin)


def conversation(data: bytes) -> None:
    """Whole conversations, a message a line; see Talk for the lines that are not messages."""
    talk = Talk(data[:1] == b"\x00")
    query, *lines = data.split(b"\n")
    talk.session.begin(query.lstrip(b"\x00").decode("latin-1"))
    talk.hears(len(query))
    for line in lines[:50]:
        talk.goes_on(line)
        talk.hears(len(line))
    talk.ends()


def frames(data: bytes) -> None:
    """Frames, well formed or not, beside a reader of RFC 6455.

    Up to each LF stands one frame: its first byte, then a payload. A CR before the LF makes it one without mask.
    """
    said = _frames_of(data)
    cut = 1 + len(data) % 61
    stream = b"".join(map(_framed, said))
    with standing_still():
        client = EdgeClient()
        client.says(HEAD)
        for at in range(0, len(stream), cut):
            client.says(stream[at : at + cut])
        client.leaves()
    head, _, written = client.heard().partition(b"\r\n\r\n")
    hold(head.startswith(b"HTTP/1.1 101 "), "an upgrade is answered", head)
    heard = list(frames_of_server(written))
    hold(all(frame.opcode != 8 for frame in heard[:-1]), "nothing follows a close frame", heard)
    due = [_due(understand(way, MESSAGE_MAX_BYTES)) for way in _ways_to_read(said)]
    hold(_sent(heard) in due, "messages, pings, closes and faults are answered", _sent(heard), due, said)


def assembler(data: bytes) -> None:
    """Frames that are right by themselves, in lines as for `frames`, beside the same reader: without an edge."""
    said = [frame for frame in _frames_of(data) if not breaks(_with_good_code(frame), ASSEMBLED_MAX_BYTES)]
    hold(_assembled(said) == understand(said, ASSEMBLED_MAX_BYTES), "messages, pings and the end", said)


def wire(data: bytes) -> None:
    """Raw bytes behind a good handshake, in pieces."""
    _talk_bytes(HEAD, data)


def handshake(data: bytes) -> None:
    """Raw bytes as the head of the request, with keys in force if the first byte is NUL."""
    key = Key("1", "one", "0" * 64, {"read": ["*"]}, "2026-11-23T16:24:00+00:00", None, None)
    keyring = Keyring(1, [key]) if data[:1] == b"\x00" else None
    _talk_bytes(b"", data.removeprefix(b"\x00"), keyring)


def control(data: bytes) -> None:
    """Fail on what a fuzzer can find only by looking: this shows that it would see a fault."""
    text = data.decode(errors="replace").lower()
    if "tele" in text and '"value"' in text:
        raise ValueError("found")


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("message", message, 15),
        Target("compiled", compiled, 9),
        Target("readings", readings, 9),
        Target("order", order, 12),
        Target("value", value, 20),
        Target("wish", stream_query, 6, 2_048),
        Target("pattern", pattern, 12, 400),
        Target("position", position, 10, 256),
        Target("moment", moment, 8, 256),
        Target("pointer", pointer, 8, 1_024),
        Target("past", past, 6, 1_024),
        Target("subject", subject, 6, 2_048),
        Target("door", origin_policy, 8, 512),
        Target("conversation", conversation, 3, 2_048),
        Target("frames", frames, 2, 1_024),
        Target("assembler", assembler, 10, 1_024),
        Target("wire", wire, 1, 2_048),
        Target("handshake", handshake, 2, 2_048),
    )
}
CONTROL = Target("control", control, 1)


def _taken(parse: Callable[[], T], given: bytes) -> T | None:
    """Return what a parser takes; None for what it refuses as it should."""
    try:
        return parse()
    except BadMessage as error:
        hold(0 < len(error.message) <= REFUSAL_MAX_CHARS, "a refusal is short", error.message, len(error.message))
        answer = read_object(encode_error(error, client_messages.id_of(given)))
        hold(answer["code"] == error.code, "a refusal is answered by its code", answer)
        return None


def _refused(parse: Callable[[], object]) -> bool:
    try:
        parse()
    except BadMessage:
        return True
    return False


def _hold_entry(entry: Entry, said: dict[str, Any], said_bytes: int) -> None:
    event = encode(entry)
    stored = read_value(event) if len(event) < 100 else read(event)
    for name in ("device_id", "target", "command"):
        hold(name not in stored or stored[name] == said[name], "a name is the one that was sent", name, event)
        hold(name not in stored or 1 <= len(stored[name]) <= 128, "a name is bounded", event)
    claim = said.get("measured_at_utc") if isinstance(entry, DataUpdate) else None
    hold(entry.claim == (read_time(claim, "it") if claim is not None else ""), "a claim is the one that was sent", said)
    if not isinstance(entry, Deleted):
        text = bytes(entry.payload)
        expected = said["value"] if isinstance(entry, DataUpdate) else said.get("args") or {}
        hold(read_value(text) == expected, "a value is the one that was sent", text, said)
    hold(len(event) <= 2 * said_bytes + 200, "an event stays in proportion", event)


def _hold_entries(entries: Sequence[DataUpdate], said: list[dict[str, Any]], body: bytes) -> None:
    hold(1 <= len(entries) == len(said) <= _LINES_MAX, "a batch is taken whole", body)
    for entry, reading in zip(entries, said, strict=True):
        _hold_entry(entry, reading, len(body))


def _encoded(entry: Entry, **more: str) -> bytes:
    fields: dict[str, Any]
    if isinstance(entry, DataUpdate):
        fields = {"device_id": entry.device_id, "value": entry.value}
        fields |= {"measured_at_utc": entry.claim} if entry.claim else {}
    elif isinstance(entry, Control):
        fields = {"target": entry.target, "command": entry.command, "args": entry.args}
    else:
        fields = {"device_id": entry.subject}
    return encode(more | fields)


def _place(origin: str) -> tuple[str, str, int]:
    parts = urlsplit(origin.lower())
    name = parts.hostname or ""
    with suppress(ValueError):
        name = str(getattr(ip_address(name), "ipv4_mapped", None) or ip_address(name.partition("%")[0]))
    return parts.scheme, name, parts.port or {"http": 80, "ws": 80}.get(parts.scheme, 443)


def _passes(ours: OriginPolicy, host: str, origin: str | None) -> bool:
    try:
        ours.check(host, origin)
    except Forbidden as error:
        hold(len(error.message) <= REFUSAL_MAX_CHARS, "a refusal is short", error.message)
        return False
    return True


def _frames_of(data: bytes) -> list[Frame]:
    lines = [line for line in data.split(b"\n") if line]
    return [Frame(line[0], line[1:].removesuffix(b"\r"), not line.endswith(b"\r")) for line in lines]


def _with_good_code(frame: Frame) -> Frame:
    """Return a frame whose close code, if it has one, is no fault: that one is left to the assembler."""
    has_code = frame.opcode == CLOSE and len(frame.payload) > 1
    return frame._replace(payload=b"\x03\xe8" + frame.payload[2:]) if has_code else frame


def _assembled(said: Sequence[Frame]) -> Understood:
    """Return what an assembler makes of frames, up to the close."""
    ours, messages, pongs = Assembler(ASSEMBLED_MAX_BYTES), list[bytes | str | TooLong](), list[bytes]()
    message: bytes | str | None
    for frame in said:
        try:
            message = ours.take(frame.opcode, frame.fin, frame.payload, bool(frame.first & 0x70))
        except Violation as violation:
            return Understood(messages, pongs, violation.code)
        except TooLarge as error:
            is_whole = frame.opcode == TEXT and frame.fin
            return Understood([*messages, TooLong(frame.payload if is_whole else b"")], pongs, error.close_code)
        except UnsupportedMedia:
            message = "binary"
        if message is not None:
            messages.append(message)
        elif frame.opcode == PING:
            pongs.append(frame.payload)
        elif frame.opcode == CLOSE:
            return Understood(messages, pongs, close_code_of(frame.payload) or 0)
    return Understood(messages, pongs, None)


def _framed(frame: Frame) -> bytes:
    size = len(frame.payload)
    mask = frame.masked << 7
    if size < 126:
        head = bytes((frame.first, mask | size))
    elif size < 1 << 16:
        head = bytes((frame.first, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((frame.first, mask | 127)) + size.to_bytes(8, "big")
    if not frame.masked:
        return head + frame.payload
    key = b"\x0f\xf0\xaa\x00"
    whole = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(frame.payload, "big") ^ int.from_bytes(whole, "big")
    return head + key + masked.to_bytes(size, "big")


def _ways_to_read(said: list[Frame]) -> list[tuple[Frame, ...]]:
    """Return frames as they were said, and as picows may take them.

    It reads a frame ahead, and closes before the frame before a broken one has been looked at; that one is then not
    taken. Whole texts that came before it in the same read are taken, but nothing may follow the close frame, so they
    are not answered. A second close frame is broken too.
    """
    ways = [tuple(said)]
    closes = [at for at, frame in enumerate(said) if frame.opcode == 8][1:2]
    broken = [at for at, frame in enumerate(said) if at in closes or breaks(frame, MESSAGE_MAX_BYTES)]
    for at in broken[:2]:  # a close frame with a strange code may be one that picows leaves to us
        if at > 0:
            wrong = said[at] if breaks(said[at], MESSAGE_MAX_BYTES) else Frame(0x83, b"")
            unread = at - 1
            ways.append((*said[:unread], wrong))
            while unread > 0 and said[unread - 1].opcode == TEXT and said[unread - 1].fin:
                unread -= 1
                ways.append((*said[:unread], wrong))
    return ways


def _sent(heard: Sequence[Frame]) -> tuple[list[bytes], list[bytes], list[int]]:
    """Return the texts, the pongs and the close codes that came back."""
    closes = [int.from_bytes(frame.payload[:2], "big") for frame in heard if frame.opcode == 8]
    texts, pongs = ([frame.payload for frame in heard if frame.opcode == opcode] for opcode in (1, 10))
    return texts, pongs, closes


def _due(understood: Understood) -> tuple[list[bytes], list[bytes], list[int]]:
    """Return what should come back, by a session without an edge."""
    stream, connection = CommittingStream(), RecordingConnection()
    session = Session(connection, stream, AnyonesVisit, outbox_max_bytes=64 * 1024)
    session.begin()
    for said in understood.messages:
        if isinstance(said, bytes):
            session.receive(said)
        elif said == "binary":
            session.refuse(not_text())
        elif isinstance(said, TooLong):
            session.refuse(too_large(MESSAGE_MAX_BYTES), said.payload)
    return connection.taken(), understood.pongs, [] if understood.close is None else [understood.close]


def _talk_bytes(head: bytes, data: bytes, keyring: Keyring | None = None) -> None:
    cut = 1 + len(data) % 509
    with standing_still():
        client = EdgeClient(keyring)
        client.says(head)
        for at in range(0, len(data), cut):
            client.says(data[at : at + cut])
        client.leaves()
    written = client.heard()
    hold(len(written) <= 16 * len(data) + 4_096, "what is sent stays in proportion", len(written))
    answer, blank, stream = written.partition(b"\r\n\r\n")
    status = answer[9:12]
    hold(not answer or (blank != b"" and answer.startswith(b"HTTP/1.1 ")), "an answer is HTTP", answer)
    hold(status in {b"", b"101"} or b"400" <= status < b"500", "a bad request is the client's fault", answer, stream)
    if status == b"101":
        hold(keyring is None or b'"auth_required"' in stream, "who has no credential is asked for it", stream)
        for frame in frames_of_server(stream):
            if frame.opcode == 1:
                read_object(frame.payload)
