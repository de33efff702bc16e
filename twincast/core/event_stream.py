"""Server-sent events as the HTML standard defines them (section 9.2): lines, and an empty one behind each event."""

from collections.abc import Iterable

CONTENT_TYPE = "text/event-stream"


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
