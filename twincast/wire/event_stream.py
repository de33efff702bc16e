"""Server-sent events as the HTML standard defines them (section 9.2): lines, and an empty one behind each event."""

from collections.abc import Iterable

from twincast.wire.accept import weights_of
from twincast.wire.outgoing import Outgoing

CONTENT_TYPE = "text/event-stream"


def is_preferred(accept: str) -> bool:
    """Whether an Accept header names this type, and no JSON before it (RFC 9110, 12.5.1)."""
    weights = weights_of(accept)
    json = next((weights[kind] for kind in ("application/json", "application/*", "*/*") if kind in weights), 0.0)
    return weights.get(CONTENT_TYPE, 0.0) >= max(json, 0.001)


def encode(outgoing: Outgoing) -> bytes:
    """Return messages as one event each, whose id is the position that a client resumes from once it has the event."""
    if outgoing.entries:
        ids = [f"{entry.epoch}:{entry.seq}" for entry in outgoing.entries]
    else:
        ids = [""] * (len(outgoing.messages) - 1) + [str(outgoing.cursor or "")]
    return text(outgoing.messages, ids)


def text(messages: Iterable[bytes], ids: Iterable[str]) -> bytes:
    """Join messages, JSON in one line each, to the bytes of one event each; an empty id changes none."""
    return b"".join(
        [
            b"id: %b\ndata: %b\n\n" % (event_id.encode(), message) if event_id else b"data: %b\n\n" % message
            for message, event_id in zip(messages, ids, strict=True)
        ]
    )


def retry(delay_ms: int) -> bytes:
    """Tell the browser how long to wait before it comes back."""
    return b"retry: %d\n\n" % delay_ms


def heartbeat(event_id: str) -> bytes:
    """Show that the stream is alive. An event without data is not dispatched, but its id counts."""
    return b": still here\nid: %b\n\n" % event_id.encode() if event_id else b": still here\n\n"
