"""Operations as routes of the framework: for the OpenAPI document, and for an application that mounts this one."""

from collections.abc import MutableMapping, Sequence
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Match

from twincast.transports.answer import JSON
from twincast.transports.asgi import Receive, Scope, Send
from twincast.transports.documents import shapes
from twincast.transports.operation import Operation
from twincast.wire.problem import CONTENT_TYPE as PROBLEM
from twincast.wire.problem import Problem

_TEXT = {"type": "string"}
_NAMING = frozenset({"device_id", "at"})
"""Parameters that name what may not be there."""


def add_route(app: FastAPI, operation: Operation) -> None:
    """Add an operation to an application's routes and to its OpenAPI document."""
    path = operation.path.replace("}", ":name}")
    kind = _Below if operation.below else None
    if operation.method == "GET":
        app.router.add_api_route(
            path, _Respond(operation), methods=["HEAD"], include_in_schema=False, route_class_override=kind
        )
    summary, _, description = (operation.run.__doc__ or "").partition("\n")
    app.router.add_api_route(
        path,
        _Respond(operation),
        methods=[operation.method],
        status_code=operation.success,
        response_model=None,
        summary=summary.rstrip("."),
        description=" ".join(filter(None, (cleandoc(description), operation.details))),
        operation_id=operation.run.__name__,
        openapi_extra=_extra(operation),
        response_class=JSONResponse if operation.answer_type == JSON else PlainTextResponse,
        responses=_responses(operation),
        include_in_schema=not operation.is_between_servers,
        route_class_override=kind,
    )


def _extra(operation: Operation) -> dict[str, Any]:
    extra: dict[str, Any] = {"parameters": list(operation.parameters)} if operation.parameters else {}
    if not operation.needs_credential:
        extra["security"] = []
    if operation.bodies:
        extra["requestBody"] = {"required": True, "content": dict(operation.bodies)}
    return extra


def _responses(operation: Operation) -> dict[int | str, dict[str, Any]]:
    schema = shapes.reference(*operation.answers) if operation.answers else _TEXT
    content: dict[str, Any] = {operation.answer_type: {"schema": schema}}
    content |= {other: {"schema": _TEXT} for other in operation.other_types}
    success: dict[str, Any] = {"description": HTTPStatus(operation.success).phrase, "content": content}
    if operation.links:
        success["links"] = dict(operation.links)
    responses: dict[int | str, dict[str, Any]] = {operation.success: success}
    for status in _refusing_statuses(operation):
        shape = operation.unready_shape if status == HTTPStatus.SERVICE_UNAVAILABLE else Problem
        content = {PROBLEM: {"schema": shapes.reference(shape)}}
        responses[status] = {"description": HTTPStatus(status).phrase, "content": content}
    if any(parameter["name"] == "If-None-Match" for parameter in operation.parameters):
        responses[304] = {"description": HTTPStatus.NOT_MODIFIED.phrase}
    return responses


def _refusing_statuses(operation: Operation) -> Sequence[int]:
    # What a repeated key stands for may be trimmed, or erased.
    gone = (410,) if any(each["name"] == "Idempotency-Key" for each in operation.parameters) else ()
    if operation.method == "DELETE":
        return (400, 401, 403, 404, 408, *gone, 413, 415, 422, 429, 503)
    if operation.bodies:
        return (400, 401, 403, 408, *gone, 413, 415, 422, 429, 503, 507)
    names_something = operation.folder is not None or any(each["name"] in _NAMING for each in operation.parameters)
    return (401, 403, 404, 410, 422, 429, 503) if names_something else (401, 403, 410, 422, 429, 503)


class _Below(APIRoute):
    """A route below a name. A name may end as its path does, with a slash: only the path as it was sent tells."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, MutableMapping[str, Any]]:
        """See Route."""
        raw_path, ending = scope.get("raw_path"), self.path.rpartition("}")[2]
        if raw_path is not None and not raw_path.endswith(ending.encode()):
            return Match.NONE, {}
        return super().matches(scope)


class _Respond:
    """The endpoint of a route: an operation, reached through the framework."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self.__name__ = operation.run.__name__
        self.__doc__ = ""  # which the framework would show where an operation has no description

    async def __call__(self, request: Request) -> Response:
        return _Handed(self._operation)


class _Handed(Response):
    """A response that lets the operation answer by itself."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._operation(scope, receive, send)


class _Name(Convertor[str]):
    """Matches the rest of a path: which part of it is the name, only the path as it was sent can tell."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        """See Convertor."""
        return value

    def to_string(self, value: str) -> str:
        """See Convertor."""
        return value


register_url_convertor("name", _Name())
