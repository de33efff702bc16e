"""The OpenAPI document held against the server by schemathesis: calls of every shape, and calls that follow others."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.credentials import add_key, until_known
from tests.running import ROOT
from twincast.testing import Server

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)
SECONDS = 45


def test_every_answer_is_one_that_the_document_knows(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    every: Any = {action: ["*"] for action in ("publish", "read", "command", "admin")}
    secret = add_key(path, rate_per_s=1e6, **every)
    # The checks send wrong credentials too; without room for them, all that comes after would be told to wait.
    with Server(f"sqlite:{path}", failed_logins_per_minute=1_000_000) as server:
        until_known(server, secret)
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        options = ["--header", f"Authorization: Bearer {secret}", "--checks", ",".join(CHECKS)]
        bounds = ["--max-examples", "40", "--max-time", str(SECONDS), "--request-timeout", "70", "--no-color"]
        # It throws away most names that a path may have, and calls that a fault of the document.
        bounds.append("--suppress-health-check=filter_too_much")
        result = subprocess.run(
            [*command, *options, *bounds],
            cwd=tmp_path,  # where it leaves what it remembers
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "SCHEMATHESIS_HOOKS": "tests.stories.schemathesis_hooks",
            },
            capture_output=True,
            text=True,
            timeout=4 * SECONDS,
            check=False,
        )
    assert result.returncode == 0, result.stdout[-8_000:] + result.stderr[-2_000:]
    assert re.search(r"Tested: 18", result.stdout), result.stdout
    for phase in ("Coverage", "Fuzzing", "Stateful"):
        assert re.search(rf"✅ {phase}", result.stdout), result.stdout
