"""`twincast host`."""

from tests.cli.commands import interrupt, run, running
from tests.conftest import StartServer
from tests.running import ServerProcess, eventually, free_port
from twincast.wire import implementation


def test_host_pushes_this_machines_vitals(server: ServerProcess) -> None:
    result = run(server.url, "host", "--count", "2", "--interval", "0.1", "--device", "host/here")
    assert (result.returncode, result.stdout) == (0, "stored: 2 readings\n")
    vitals = server.get("/api/data")["data"]["host/here"]["value"]
    assert 0 < vitals["memory_percent"] <= 100
    assert set(vitals) >= {"cpu_percent", "disk_percent", "network_in_bytes_per_s", "disk_write_bytes_per_s"}


def test_host_waits_for_a_server_and_outlives_it(server_process: StartServer) -> None:
    port = free_port()
    with running(f"http://127.0.0.1:{port}", "host", "--interval", "0.05") as command:
        assert command.stderr is not None
        said = command.stderr.readline()
        assert "This machine is host/" in said and f"Messages are {implementation.described()}" in said
        assert "nobody answers" in command.stderr.readline()
        server = server_process("memory:", port=port)
        eventually(lambda: server.get("/api/status")["seq"] > 1, "readings arrive")
        server.kill()
        server = server_process("memory:", port=port)
        eventually(lambda: server.get("/api/status")["seq"] > 1, "readings arrive again")
        assert interrupt(command)[0] == 0
