"""The AsyncAPI 3 document: what is said on the WebSocket and on the event stream (https://www.asyncapi.com/docs/reference)."""

from typing import Any

from msgspec import Struct

from twincast.transports.documents import shapes

_BEARER = {"$ref": "#/components/securitySchemes/bearer"}
_WISHES = {parameter["name"]: parameter for parameter in shapes.EVENTS_PARAMETERS if parameter["in"] == "query"}
_QUERY = {
    "type": "object",
    "properties": {
        name: {**parameter["schema"], "description": parameter["description"].removeprefix("stream: ")}
        for name, parameter in _WISHES.items()
        if name not in {"limit", "wait_s", "ticket"}
    }
    | {
        "auth": {"const": "message", "description": "the first message will be `auth`"},
        "ordered": {"const": "1", "description": "what comes behind an update that is not stored is refused too"},
    },
}


def document(version: str, host: str, prefix: str = "") -> dict[str, Any]:
    """Return the document of a server at `host`, all of whose paths are below `prefix`."""
    place = {"host": host, "pathname": prefix} if prefix else {"host": host}
    both = (*shapes.FROM_CLIENT, *shapes.TO_CLIENT)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "twincast",
            "version": version,
            "description": "A live state backend. openapi.json beside this has the REST calls, and the same shapes.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {**place, "protocol": "ws", "security": [_BEARER]},
            "http": {**place, "protocol": "http", "security": [_BEARER]},
        },
        "channels": {
            "websocket": _channel("/ws", "websocket", both, {"ws": {"method": "GET", "query": _QUERY}}),
            "events": _channel("/api/events", "http", shapes.TO_CLIENT, {}),
        },
        "operations": {
            "told": _operation("send", "websocket", shapes.TO_CLIENT, "What the server says on the WebSocket."),
            "said": _operation("receive", "websocket", shapes.FROM_CLIENT, "What a client may say on the WebSocket."),
            "streamed": _operation("send", "events", shapes.TO_CLIENT, "The same messages as server-sent events."),
        },
        "components": {
            "messages": {_name(kind): _message(kind) for kind in both},
            "schemas": shapes.components(*both),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "where the server asks for a login"}
            },
        },
    }


def _name(kind: type[Struct]) -> str:
    """Return a message's name: its type, and who says it where both sides have one of that type."""
    said = str(kind.__struct_config__.tag)
    return f"{said}_message" if kind is shapes.ControlMessage else said


def _channel(address: str, server: str, kinds: tuple[type[Struct], ...], bindings: dict[str, Any]) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {_name(kind): {"$ref": f"#/components/messages/{_name(kind)}"} for kind in kinds},
    }
    return channel | {"bindings": bindings} if bindings else channel


def _operation(action: str, channel: str, kinds: tuple[type[Struct], ...], summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{_name(kind)}"} for kind in kinds],
    }


def _message(kind: type[Struct]) -> dict[str, Any]:
    return {"name": _name(kind), "summary": (kind.__doc__ or "").partition("\n")[0], "payload": shapes.reference(kind)}
