"""What the OpenAPI document says to people: what this is, how to try it, and which call belongs where."""

from typing import Any

DESCRIPTION = """\
A live state backend: the newest state of every device, its history, and each change cast to everyone who watches.

**To try a call**, open it and press *Execute*: what stands in the fields works as it is. Where the server asks for a
login, press *Authorize* first and give an API key, which `twincast keys add NAME --may publish,read` prints.

Live changes come from `/api/events` as an event stream, and over the WebSocket at `/ws`: [its messages](asyncapi). The
same calls, to read: [reference](redoc). What goes wrong is answered as `application/problem+json`, with a `code` for
programs and a sentence for people.
"""

TAGS = {
    "State": "The newest reading of every device: read it, add to it, delete a device.",
    "Commands": "Orders to devices. They are stored as readings are, and cast to everyone who watches.",
    "Streams": "Every change as it comes, or behind a position, for programs that must miss nothing.",
    "Access": "Who may do what, and who did.",
    "Server": "How the server is.",
}
"""What calls are sorted by, in this order, and what each is about."""

_TAG_OF_PATH = {"/api/data": "State", "/api/control": "Commands", "/api/events": "Streams"}
_TAG_OF_PATH |= {"/api/tickets": "Access", "/api/audit": "Access", "/api/pair": "Access"}
_OURS = ("/api/", "/healthz", "/readyz", "/metrics")


def complete(document: dict[str, Any]) -> None:
    """Sort the calls of an OpenAPI document by what they are about, and say what that is."""
    document["info"]["description"] = DESCRIPTION
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    for path, item in document["paths"].items():
        if not path.startswith(_OURS):
            continue  # a route of somebody's own
        tag = next((tag for start, tag in _TAG_OF_PATH.items() if path.startswith(start)), "Server")
        for operation in item.values():
            if isinstance(operation, dict):
                operation.setdefault("tags", [tag])
