"""The JavaScript client's trust in one server by its public key: in Node, with the package ws."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.client.node_client import CLIENT, node
from tests.client.npm import node_modules
from tests.client.test_pin import eavesdropper
from tests.credentials import certificate, fingerprint_of
from twincast.testing import Server

OTHER = f"sha256:{'0' * 64}"
SECRET = "twc_00000000_secret"


def told(folder: Path, url: str, fingerprint: str, *, has_ws: bool = True, token: str = SECRET) -> list[Any]:
    """Return how a program with a pinned client went: the phases with their reasons, or what it threw."""
    program = folder / "program.mjs"
    program.write_text(f"""
        import {{ createRequire }} from "node:module";
        const {{ WebSocket }} = createRequire({json.dumps(str(node_modules()))} + "/")("ws");
        globalThis.WebSocket = {"WebSocket" if has_ws else "class { close() {} }"};
        const {{ Client }} = await import({json.dumps(CLIENT.as_uri())});
        const seen = [];
        const end = (...more) => {{ console.log(JSON.stringify([...seen, ...more])); process.exit(0); }};
        try {{
          const client = new Client({{
            url: {json.dumps(url)}, token: {json.dumps(token)}, fingerprint: {json.dumps(fingerprint)},
            onLink: ({{ phase, reason }}) => {{
              seen.push([phase, reason]);
              if (phase === "refused" || (phase === "waiting" && reason)) setTimeout(end, 0);
            }},
          }});
          client.open();
          const {{ seq }} = await client.publish("lamp", 1);
          end(["stored", seq]);
        }} catch (error) {{
          end(["threw", error.message]);
        }}
    """)
    ran = subprocess.run([node(), str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    seen: list[Any] = json.loads(ran.stdout)
    return seen


def test_a_server_whose_key_is_pinned_is_talked_to(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with Server(f"sqlite:{tmp_path / 'journal.db'}", tls_cert=str(cert), tls_key=str(key)) as server:
        token = server.add_key("me", publish=["*"], read=["*"])
        seen = told(tmp_path, server.ws_url, fingerprint_of(cert), token=token)
        assert seen[-1] == ["stored", 1]
        seen = told(tmp_path, server.ws_url, fingerprint_of(cert).upper(), token="twc_00000000_wrong")
        assert [phase for phase, reason in seen if "not known" in str(reason) and phase == "refused"] == ["refused"]


def test_another_server_is_told_nothing_and_that_is_final(tmp_path: Path) -> None:
    with eavesdropper(certificate(tmp_path)) as (port, heard):
        seen = told(tmp_path, f"wss://127.0.0.1:{port}/ws", OTHER)
        refused = [reason for phase, reason in seen if phase == "refused"]
        assert len(refused) == 1
        assert fingerprint_of(tmp_path / "cert.pem") in refused[0]
    assert heard == []


def test_a_server_that_is_down_is_waited_for(tmp_path: Path) -> None:
    phase, reason = told(tmp_path, "wss://127.0.0.1:1/ws", OTHER)[-1]
    assert (phase, "nobody answers" in reason) == ("waiting", True)


def test_a_websocket_that_would_take_no_notice_is_not_used(tmp_path: Path) -> None:
    phase, reason = told(tmp_path, "wss://127.0.0.1:1/ws", OTHER, has_ws=False)[-1]
    assert (phase, "package `ws`" in reason) == ("waiting", True)


@pytest.mark.parametrize(
    ("url", "fingerprint", "words"),
    [
        ("ws://127.0.0.1:1/ws", OTHER, "begins with wss://"),
        ("wss://127.0.0.1:1/ws", "sha256:12", "64 hexadecimal digits"),
        ("wss://127.0.0.1:1/ws", "sha1:" + "0" * 40, "64 hexadecimal digits"),
    ],
)
def test_a_fingerprint_that_cannot_be_one_is_refused_in_words(
    tmp_path: Path, url: str, fingerprint: str, words: str
) -> None:
    assert words in told(tmp_path, url, fingerprint)[-1][1]
