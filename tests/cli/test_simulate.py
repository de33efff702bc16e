"""`twincast simulate`."""

from tests.cli.commands import interrupt, run, running
from tests.running import ServerProcess, eventually


def test_simulate_pushes_a_fleet_at_its_rate_for_its_time(server: ServerProcess) -> None:
    result = run(server.url, "simulate", "--devices", "30", "--rate", "500", "--seconds", "1")
    assert result.returncode == 0
    assert "readings of 30 devices stored" in result.stdout
    status = server.get("/api/status")
    assert status["devices_known"] == 30
    assert 30 <= status["seq"] <= 500
    assert f"{status['seq']} readings" in result.stdout


def test_simulate_ends_cleanly_at_ctrl_c(server: ServerProcess) -> None:
    with running(server.url, "simulate", "--devices", "5", "--rate", "100") as command:
        eventually(lambda: server.get("/api/status")["devices_known"] == 5, "the fleet is there")
        status, printed, _ = interrupt(command)
    assert status == 0
    assert "readings of 5 devices stored" in printed
