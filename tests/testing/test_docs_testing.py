"""The examples of docs/testing.md pass as tests of somebody's own."""

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_pass(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(**{f"test_{number}": code for number, code in enumerate(EXAMPLES)})
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=len(EXAMPLES))
