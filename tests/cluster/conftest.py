"""A NATS server for the tests of a module."""

from collections.abc import Iterator

import pytest

from twincast.cluster.engine import Engine


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Run one NATS server."""
    with Engine(tmp_path_factory.mktemp("nats") / "nats", asks_token=False) as engine:
        yield engine
