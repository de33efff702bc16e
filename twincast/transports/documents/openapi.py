"""The OpenAPI document: what the framework writes of the routes, and what it cannot know."""

from collections.abc import Iterable
from typing import Any

from twincast.transports.documents import shapes
from twincast.transports.operation import Operation
from twincast.wire.problem import Problem

DESCRIPTION = """\
A live state backend: the newest state of every device, its history, and each change cast to everyone who watches.

**To try a call**, open it and press *Execute*: what stands in the fields works as it is. Where the server asks for a
login, press *Authorize* first and give an API key, which `twincast keys add NAME --may publish,read` prints.

Live changes come from `/api/events` as an event stream, and over the WebSocket at `/ws`: [its messages](asyncapi). The
same calls, to read: [reference](redoc). What goes wrong is answered as `application/problem+json`, with a `code` for
programs and a sentence for people.
"""

TAGS = {
    "State": "The newest reading of every device, and those before it: read them, add to them, delete a device.",
    "Commands": "Commands to devices. They are stored as readings are, and cast to everyone who watches.",
    "Streams": "Every event as it comes, or after a position, for programs that must miss nothing.",
    "Access": "Who may do what, and who did.",
    "Server": "How the server is.",
}
"""The tags of calls, in the order in which they are shown."""

_TAG_OF_PATH = {"/api/history": "State", "/api/data": "State", "/api/control": "Commands", "/api/events": "Streams"}
_TAG_OF_PATH |= {"/api/erasures": "State"}
_TAG_OF_PATH |= {"/api/tickets": "Access", "/api/audit": "Access", "/api/pair": "Access"}
_OURS = ("/api/", "/healthz", "/readyz", "/metrics")


def complete(document: dict[str, Any], operations: Iterable[Operation]) -> dict[str, Any]:
    """Complete the framework's document: the shapes that calls refer to, how to log in, and the calls by subject."""
    kinds = [kind for each in operations for kind in (*each.answers, *each.body_shapes, each.unready_shape)]
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(shapes.components(*kinds, Problem))
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "an API key or a JWT"}
    }
    document["security"] = [{"bearer": []}, {}]
    document["info"]["description"] = DESCRIPTION
    _sort_by_subject(document)
    return document


def _sort_by_subject(document: dict[str, Any]) -> None:
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    for path, item in document["paths"].items():
        if not path.startswith(_OURS):
            continue  # a route that a user has added
        tag = next((tag for start, tag in _TAG_OF_PATH.items() if path.startswith(start)), "Server")
        for operation in item.values():
            if isinstance(operation, dict):
                operation.setdefault("tags", [tag])
