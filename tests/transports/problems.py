"""Problem details, as tests expect them."""

from typing import Any, Protocol


class Response(Protocol):
    """Of httpx or requests."""

    status_code: int

    @property
    def headers(self) -> Any:
        """Names to values."""

    def json(self) -> Any:
        """Return the body, decoded."""


def assert_problem(response: Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is RFC 9457 problem details of this kind, and return them."""
    problem: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert problem["type"] == "about:blank" and problem["title"] and problem["detail"]
    assert problem["retryable"] is (status == 503)
    return problem
