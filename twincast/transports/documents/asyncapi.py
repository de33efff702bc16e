"""The AsyncAPI 3 document: the messages on the WebSocket and on the event stream (https://www.asyncapi.com/docs/reference)."""

from typing import Any

from msgspec import Struct

from twincast.transports.documents import parameters, shapes
from twincast.transports.documents.conversation import FROM_CLIENT, TO_CLIENT, ControlMessage

_BEARER = {"$ref": "#/components/securitySchemes/bearer"}
_PARAMETERS = (parameters.SINCE, parameters.DEVICES, parameters.KINDS, *parameters.STREAMS, *parameters.LAST_EVENT_ID)
_QUERY = {
    "type": "object",
    "properties": {
        each["name"]: {**each["schema"], "description": each["description"].removeprefix("stream: ")}
        for each in _PARAMETERS
        if each["in"] == "query"
    }
    | {
        "auth": {"const": "message", "description": "the first message will be `auth`"},
        "ordered": {"const": "1", "description": "what follows an update that is not stored is refused too"},
    },
}


def document(version: str, host: str, prefix: str = "") -> dict[str, Any]:
    """Return the document of a server at `host`, all of whose paths are below `prefix`."""
    place = {"host": host, "pathname": prefix} if prefix else {"host": host}
    both = (*FROM_CLIENT, *TO_CLIENT)
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
            "events": _channel("/api/events", "http", TO_CLIENT, {}),
        },
        "operations": {
            "sent": _operation("send", "websocket", TO_CLIENT, "What the server sends on the WebSocket."),
            "received": _operation("receive", "websocket", FROM_CLIENT, "What a client may send on the WebSocket."),
            "streamed": _operation("send", "events", TO_CLIENT, "The same messages as server-sent events."),
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
    """Return a message's name: its type; a client's has a suffix where both sides have a message of that type."""
    tag = str(kind.__struct_config__.tag)
    return f"{tag}_message" if kind is ControlMessage else tag


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
