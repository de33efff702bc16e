"""Answers for what no operation serves: paths that do not exist, methods that a path does not have, and OPTIONS."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from twincast.errors import BadMessage, MethodNotAllowed, NotFound, TwincastError, UpgradeRequired
from twincast.transports.asgi import SAFE_HEADERS
from twincast.transports.refusal import PROBLEM, problem, refusing_headers

_SAFE = {name.decode(): value.decode() for name, value in SAFE_HEADERS}


def answer_unrouted(app: FastAPI) -> None:
    """Have an application answer in problem details where its framework would use pages of its own."""
    app.add_route("/ws", _ask_for_upgrade, include_in_schema=False)
    app.add_exception_handler(HTTPException, _as_problem)


async def _ask_for_upgrade(_: Request) -> Response:
    """Answer a plain request for `/ws`: of a person, or by a proxy that was not told to pass the upgrade on."""
    return _problem_response(
        UpgradeRequired(
            "here is the WebSocket, and this request asks for none; a proxy on the way has to pass on the headers"
            " Connection and Upgrade, as deploy/nginx.conf does"
        )
    )


async def _as_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path_here"]
    is_wrong_method = error.status_code == MethodNotAllowed.http_status
    if request.method == "OPTIONS" and (is_wrong_method or path.endswith("*")):
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"allow": _allowed(request, path), **_SAFE})
    if is_wrong_method:
        allow = _allowed(request, path)
        return _problem_response(
            MethodNotAllowed(f"{_as_sent(request)} takes {allow}, not {request.method}"), {"allow": allow}
        )
    if error.status_code == NotFound.http_status:
        return _nothing_here(request, path)
    return _problem_response(BadMessage(error.detail))


def _as_sent(request: Request) -> str:
    """Return the path of a request as its address has it: a `/` in a name is `%2F`, where the server says so."""
    raw_path: bytes | None = request.scope.get("raw_path")
    return quote(request.scope["path"]) if raw_path is None else raw_path.partition(b"?")[0].decode("latin-1")


def _nothing_here(request: Request, path: str) -> Response:
    place = _other_place(request, path)
    if place is not None:
        return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"location": place, **_SAFE})
    whole = request.scope["path"]
    first = f"{whole.removesuffix(path)}/"
    return _problem_response(NotFound(f"there is nothing at {whole}; {first} lists what there is"))


def _other_place(request: Request, path: str) -> str | None:
    """Return where a path with a slash too many or too few leads; None if there is nothing either.

    Relative: the scheme, the host and the prefix that the client sees are those of the first proxy.
    """
    if request.method not in {"GET", "HEAD"}:
        return None
    if not path:  # where this application is mounted, and not in it
        return quote(request.scope["path"].rpartition("/")[2]) + "/"
    if path.endswith("/") and _routes(request, path[:-1], Match.FULL):
        return f"../{quote(path[:-1].rpartition('/')[2])}"
    return None


def _routes(request: Request, path: str, *matches: Match) -> list[Route]:
    """Return the routes that match a path in this application in one of these ways."""
    scope = {**request.scope, "root_path": "", "path": path}
    return [route for route in _all_routes(request) if route.matches(scope)[0] in matches]


def _all_routes(request: Request) -> list[Route]:
    return [route for route in request.app.routes if isinstance(route, Route)]


def _allowed(request: Request, path: str) -> str:
    """Return the methods of a path, or of the whole server for `*`; a folder of files can be read, as every path."""
    routes = _all_routes(request) if path.endswith("*") else _routes(request, path, Match.FULL, Match.PARTIAL)
    methods = {method for route in routes for method in route.methods or ()}
    return ", ".join(sorted({*(methods or ("GET", "HEAD")), "OPTIONS"}))


def _problem_response(error: TwincastError, headers: Mapping[str, str] | None = None) -> Response:
    response = Response(problem(error), status_code=error.http_status, media_type=PROBLEM, headers=headers)
    response.raw_headers.extend(refusing_headers(error))
    return response
