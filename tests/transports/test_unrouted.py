"""Paths that do not exist, and methods that a path has not."""

import httpx

from tests.transports.problems import assert_problem
from twincast.testing import Server


def test_unknown_paths_and_methods_are_problems_too() -> None:
    with Server() as server, httpx.Client(base_url=server.url) as http:
        assert_problem(http.get("/nothing"), 404, "not_found")
        response = http.put("/api/data")
        assert_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, POST"
        response = http.put("/api/data/lab%2Ffan")
        problem = assert_problem(response, 405, "method_not_allowed")
        assert problem["detail"].startswith("/api/data/lab%2Ffan takes ")
        assert response.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"


def test_a_page_that_opens_the_websocket_is_asked_for_an_upgrade() -> None:
    with Server() as server:
        response = httpx.get(f"{server.url}/ws")
        assert_problem(response, 426, "upgrade_required")
        assert response.headers["upgrade"] == "websocket"
