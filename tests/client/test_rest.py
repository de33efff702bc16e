"""The client's REST calls."""

import pytest

from twincast.client import Rest
from twincast.errors import (
    TooLarge,
    ValidationFailed,
)
from twincast.testing import Server

pytestmark = pytest.mark.usefixtures("impatient")


def test_rest_stores_reads_and_commands(server: Server) -> None:
    with Rest(server.url) as rest:
        assert rest.publish("lamp", "on")["seq"] == 1
        assert rest.publish_all([("lamp", "off"), ("door", None)]) == range(2, 4)
        assert rest.control("lamp", "dim")["args"] == {}
        assert {name: twin["value"] for name, twin in rest.data()["data"].items()} == {"lamp": "off", "door": None}
        assert rest.status()["seq"] == 4
        with pytest.raises(ValidationFailed):
            rest.publish("", 1)


def test_a_request_that_is_too_large_is_refused_in_the_servers_words(server: Server, edge: str) -> None:
    with Server("memory:", edge=edge) as other, Rest(other.url) as rest:
        with pytest.raises(TooLarge):
            rest.publish("a", "x" * 65_000)
        with pytest.raises(TooLarge):
            rest.publish_all([("a", "x" * 60_000)] * 200)
        with pytest.raises(TooLarge):
            rest.publish_all([("a", 1)] * 10_001)
        assert rest.publish("a", 1)["seq"] == 1
