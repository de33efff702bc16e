"""Problem details (RFC 9457): an error as HTTP answers it."""

from http import HTTPStatus
from typing import Annotated

from msgspec import Meta, Struct

from twincast.errors import TwincastError
from twincast.wire.messages import encode

CONTENT_TYPE = "application/problem+json"


class Problem(Struct):
    """What went wrong: RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Meta(description="the same word on every wire")]
    retryable: bool


def problem_of(error: TwincastError) -> Problem:
    """Return an error as problem details."""
    status = error.http_status
    title = HTTPStatus(status).phrase
    return Problem("about:blank", title, status, error.message, error.code, error.retryable)


def encode_problem(error: TwincastError) -> bytes:
    """Encode an error as problem details."""
    return encode(problem_of(error))
