"""Proves by numbers that the closed part of the log survives: kills and power cuts, by the tests that try a few always.

`scripts/soak --history [--kills 200] [--cuts 200]`. The tests have their controls, which must fail, with them.
"""

import argparse
import os
import sys

import pytest

HERE = "tests/journal/sqlite"
TESTS = (
    f"{HERE}/history/test_crash.py",
    f"{HERE}/history/test_power_cut.py",
    f"{HERE}/test_backup_crash.py",
    f"{HERE}/history/test_erasing.py::test_kill_9_at_any_moment_delays_it_and_loses_nothing",
    f"{HERE}/history/test_erasing_power_cut.py",
)


def main() -> int:
    """Run them; return pytest's status."""
    parser = argparse.ArgumentParser(prog="scripts/soak --history", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kill -9 so many times, in each way of keeping")
    parser.add_argument("--cuts", type=int, default=200, help="cut the power so many times, in each way of keeping")
    plan = parser.parse_args()
    os.environ.update(TWINCAST_TEST_KILLS=str(plan.kills), TWINCAST_TEST_CUTS=str(plan.cuts))
    return int(pytest.main([*TESTS, "-p", "no:cacheprovider", "--durations=0", "-v"]))


if __name__ == "__main__":
    sys.exit(main())
