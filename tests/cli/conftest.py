"""The server that commands are run against."""

import pytest

from tests.conftest import StartServer
from tests.running import ServerProcess


@pytest.fixture
def server(server_process: StartServer) -> ServerProcess:
    return server_process("memory:")
