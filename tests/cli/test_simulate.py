"""`twincast simulate`."""

from tests.cli.commands import interrupt, run, running
from tests.conftest import StartServer
from tests.running import DEADLINE_S, ServerProcess, eventually, free_port


def test_simulate_pushes_a_fleet_at_its_rate_for_its_time(server: ServerProcess) -> None:
    result = run(server.url, "simulate", "--devices", "30", "--rate", "500", "--seconds", "1")
    assert result.returncode == 0
    assert "readings of 30 devices stored" in result.stdout
    status = server.get("/api/status")
    assert (status["devices_known"], status["seq"]) == (30, 500)
    assert "500 readings" in result.stdout


def test_the_time_of_a_fleet_begins_once_there_is_a_server(server_process: StartServer) -> None:
    port = free_port()
    brief = ("--devices", "2", "--rate", "50", "--seconds", "0.2")
    with running(f"http://127.0.0.1:{port}", "simulate", *brief) as command:
        assert command.stderr is not None and "nobody answers" in command.stderr.readline()
        server = server_process("memory:", port=port)
        printed, _ = command.communicate(timeout=DEADLINE_S)
    assert "10 readings of 2 devices stored" in printed
    assert server.get("/api/status")["seq"] == 10


def test_simulate_ends_cleanly_at_ctrl_c(server: ServerProcess) -> None:
    with running(server.url, "simulate", "--devices", "5", "--rate", "100") as command:
        eventually(lambda: server.get("/api/status")["devices_known"] == 5, "the fleet is there")
        status, printed, _ = interrupt(command)
    assert status == 0
    assert "readings of 5 devices stored" in printed
