"""What must hold for pytest where the wheel alone is installed: it runs, and a fixture says what it lacks."""

import subprocess
import sys
from pathlib import Path

TESTS = """
def test_that_has_nothing_to_do_with_it():
    pass

def test_against_a_server(twincast_server):
    pass
"""


def main() -> None:
    """Run both."""
    Path("test_it.py").write_text(TESTS)
    ran = subprocess.run([sys.executable, "-m", "pytest", "test_it.py"], capture_output=True, text=True, check=False)
    assert "1 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "[testing]" in ran.stdout and "twincast.testing takes packages" in ran.stdout, ran.stdout


if __name__ == "__main__":
    main()
