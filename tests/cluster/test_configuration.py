"""What our own NATS server is told, read as text and held by the program itself."""

import stat
import subprocess
from pathlib import Path

import pytest

from twincast.cluster.configuration import ClusterBlock, Configuration, write_privately
from twincast.cluster.engine import program_path

ALONE = Configuration("one", "always", None, "")
OF_SEVERAL = Configuration(
    "two", "2m", ClusterBlock("lab", ["nats://127.0.0.1:7001"], 7000, "127.0.0.1:7009"), "debug: true"
)


def test_it_listens_on_this_machine_alone_and_syncs_before_it_acknowledges() -> None:
    lines = ALONE.text(Path("/data"), 4222, "secret").splitlines()
    assert 'host: "127.0.0.1"' in lines
    assert "port: 4222" in lines
    assert '  sync_interval: "always"' in lines
    assert f"max_payload: {8 << 20}" in lines
    assert 'authorization { token: "secret" }' in lines
    assert not any(line.startswith("cluster") for line in lines)


def test_any_free_port_and_no_token_can_be_had() -> None:
    text = ALONE.text(Path("/data"), 0, None)
    assert "port: -1" in text.splitlines()
    assert "authorization" not in text


@pytest.mark.parametrize("configuration", [ALONE, OF_SEVERAL], ids=["alone", "of several"])
@pytest.mark.parametrize("folder", ["plain", 'a "quoted" folder, {with} #signs'])
def test_the_program_takes_it(configuration: Configuration, folder: str, tmp_path: Path) -> None:
    path = tmp_path / "nats.conf"
    path.write_text(configuration.text(tmp_path / folder, 0, "0123"))
    command = [program_path(), "-c", str(path), "-t"]
    checked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert "is valid" in checked.stderr
    assert checked.returncode == 0


def test_a_file_is_replaced_at_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    write_privately(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
