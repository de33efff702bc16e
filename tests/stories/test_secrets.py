"""No secret in any message: whatever is wrong with a credential, or wherever one stands that should not."""

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from tests import warm
from tests.conftest import StartServer
from tests.credentials import AUDIENCE, ISSUER, Issuer, add_key, certificate, revoke_key
from tests.raw_websocket import CLOSE, TEXT, RawWebSocket
from twincast.access.jwks import Jwks, StaticKey, fetch_from
from twincast.access.tokens import Tokens
from twincast.errors import BadMessage, LoginUnusable, TwincastError, Unauthenticated, masked
from twincast.logs import JsonFormatter, TextFormatter
from twincast.server.tls import Certificate
from twincast.wire.query import decode_stream_query

MARK = "thisIsTheSecretOfSomebody_0123456789-AbcdEf"
KEY = f"twc_00000000_{MARK}"


def parts_of(credential: str) -> list[str]:
    """Return what of a credential must not be seen: a key's secret, a token's claims and signature."""
    return [credential.rpartition("_00000000_")[2]] if credential.startswith("twc_") else credential.split(".")[1:]


def request(port: int, line: str, *headers: str, body: str = "") -> bytes:
    """Send one request as it is, and return all that comes back."""
    head = "".join(f"{each}\r\n" for each in (line, "Connection: close", f"Content-Length: {len(body)}", *headers))
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(f"{head}\r\n{body}".encode("latin-1"))
        came = b""
        while part := connection.recv(65_536):
            came += part
    return came


def heads_with(secret: str, host: str) -> list[tuple[str, ...]]:
    """Return heads of requests that have a credential somewhere, each of which is refused."""
    here = f"Host: {host}"
    by_header = [
        f"Authorization: Bearer {secret}",
        f"Authorization: Bearer {secret} and more",
        f"Authorization: Bearer {secret}\x01",
        f"Authorization: Bearer {secret}\tx",
        f"Authorization: Bearer {secret}\xff",
        f"Authorization: Bearer {secret}\r\n x",
        f"Authorization: {secret}",
        f"Authorization: Basic {secret}",
        f"Authorization: Bearer {secret}\r\nAuthorization: Bearer {secret}",
        f"Cookie: token={secret}",
        f"X-Api-Key: {secret}",
        f"Origin: https://{secret}",
        f"Origin: {secret}",
        f"X-Forwarded-For: {secret}",
        f"Idempotency-Key: {secret}",
        f"Last-Event-ID: {secret}",
        f"{secret}",
    ]
    by_target = [
        f"/api/data?token={secret}",
        f"/api/data?{secret}",
        f"/api/events?ticket={secret}",
        f"/api/events?since={secret}",
        f"/api/{secret}",
        f"/dashboard/{secret}",
        f"/ws?token={secret}",
        f"http://me:{secret}@{host}/api/data",
    ]
    return [
        *(("GET /api/data HTTP/1.1", here, each) for each in by_header),
        *((f"GET {target} HTTP/1.1", here) for target in by_target),
        ("GET /api/data HTTP/1.1", f"Host: {secret}"),
        ("POST /api/tickets HTTP/1.1", here, f"Authorization: Bearer {secret}", "Content-Type: application/json"),
        (f"{secret[:20]} /api/data HTTP/1.1", here),
    ]


def test_nothing_that_a_server_refuses_shows_a_credential(
    server_process: StartServer, tmp_path: Path, edge: str
) -> None:
    issuer, other = Issuer(), Issuer()
    (tmp_path / "issuer.pem").write_text(issuer.pem())
    path = tmp_path / "journal.db"
    good, revoked = add_key(path, "good", read=["*"], publish=["*"]), add_key(path, "revoked", read=["*"])
    revoke_key(path, "revoked")
    server = server_process(
        f"sqlite:{path}",
        edge=edge,
        TWINCAST_LOG_LEVEL="debug",
        TWINCAST_FAILED_LOGINS_PER_MINUTE="100000",
        TWINCAST_JWT_KEY=str(tmp_path / "issuer.pem"),
        TWINCAST_JWT_ISSUER=ISSUER,
        TWINCAST_JWT_AUDIENCE=AUDIENCE,
    )
    tokens = [
        other.token(MARK),
        issuer.token(MARK, aud="others"),
        issuer.token(MARK, iss="https://evil.example"),
        issuer.token(MARK, lives_s=-100),
        issuer.token(MARK, nbf=1e12),
        issuer.token(MARK, exp=None),
        issuer.token(MARK, exp="soon"),
        issuer.token(MARK, sub=[MARK]),
        issuer.token(MARK, twincast={MARK: ["*"]}),
        issuer.token(MARK)[:-1] + "!",
    ]
    host = f"127.0.0.1:{server.port}"
    said = []
    for credential in (KEY, revoked, *tokens):
        answers = [request(server.port, *head) for head in heads_with(credential, host)]
        answers += [
            request(
                server.port, "GET /api/data?devices=%ff&x=1 HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {good}"
            ),
            request(
                server.port,
                "POST /api/data HTTP/1.1",
                f"Host: {host}",
                f"Authorization: Bearer {good}",
                "Content-Type: application/json",
                body=json.dumps({"token": credential, "device_id": 1, "value": credential}),
            ),
        ]
        for first in (
            json.dumps({"type": "auth", "token": credential}),
            json.dumps({"type": "auth", "token": [credential]}),
            json.dumps({"type": "auth", credential: 1}),
            json.dumps({"type": "auth", "token": f"{credential}\n"}),
            json.dumps({"type": "auth", "token": credential * 100}),
            credential,
        ):
            with RawWebSocket(server.port, "/ws?auth=message") as websocket:
                websocket.read()
                websocket.send(TEXT, first.encode())
                while (frame := websocket.read()).opcode != CLOSE:
                    answers.append(frame.payload)
                answers.append(frame.payload)
        said += [(part, answer) for part in parts_of(credential) for answer in answers]
    assert [(part, answer) for part, answer in said if part.encode() in answer] == []
    printed = server.stop()
    if edge == "picows":  # uvicorn by itself writes addresses with their queries, as its users expect
        assert [part for part, _ in said if part in printed] == []
        assert parts_of(good)[0].rpartition("_")[2] not in printed


def run(folder: Path, *words: str, **env: str) -> str:
    """Run a command that fails, and return all that it prints."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TWINCAST_")}
    done = warm.run(
        [sys.executable, "-m", "twincast", *words],
        cwd=folder,
        env=clean | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {1, 2}, done
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


COMMANDS = [
    (("status", "--url", f"http://me:{MARK}@127.0.0.1:1"), {}),
    (("status", "--url", f"ftp://me:{MARK}@127.0.0.1:1"), {}),
    (("status",), {"TWINCAST_URL": f"http://me:{MARK}@127.0.0.1:1"}),
    (("keys", "list", "--journal", f"postgres://me:{MARK}@db.example/twin"), {}),
    (("keys", "list"), {"TWINCAST_JOURNAL": f"postgres://me:{MARK}@db.example/twin"}),
    (("serve", "--port", "0", "--journal", f"postgres://me:{MARK}@db.example/twin"), {}),
    (("keys", "revoke", KEY, "--journal", "sqlite:there.db"), {}),
    (("keys", "add", KEY, "--may", "read"), {}),
    (("keys", "add", "a", "--may", KEY), {}),
    (("keys", "list", KEY), {}),
    ((KEY,), {}),
    (("serve", "--token", KEY), {}),
    (("serve", "--allow-origin", f"https://me:{MARK}@a.example"), {}),
    (("serve", "--allow-host", f"me:{MARK}@a.example"), {}),
    (("serve", "--jwt-jwks", f"http://me:{MARK}@a.example/keys?code={MARK}", "--port", "0"), {}),
    (("serve", "--port", "0"), {"TWINCAST_TLS_KEY": f"-----BEGIN PRIVATE KEY-----\n{MARK}\n"}),
    (("serve", "--port", "0"), {"TWINCAST_JWT_KEY": f"-----BEGIN PUBLIC KEY-----\n{MARK}\n"}),
    (("serve",), {"TWINCAST_ALLOW_HOST": f"[{KEY}]"}),
    (("serve",), {"TWINCAST_PORT": KEY}),
]


@pytest.mark.parametrize(("words", "env"), COMMANDS, ids=range(len(COMMANDS)))
def test_nothing_that_a_command_refuses_shows_a_credential(
    tmp_path: Path, words: tuple[str, ...], env: dict[str, str]
) -> None:
    add_key(tmp_path / "there.db", read=["*"])
    assert MARK not in run(tmp_path, *words, **env)


def test_no_log_shows_a_credential_whoever_wrote_the_line() -> None:
    token = Issuer().token("alice")
    for formatter in (TextFormatter(), JsonFormatter()):
        for credential in (KEY, token, f"Bearer {MARK}", f"https://me:{MARK}@a.example"):
            error = ValueError(f"Illegal header value b'{credential}\\n'")
            line = formatter.format(record_of(credential, error))
            assert not [part for part in (MARK, *token.split(".")[1:]) if part in line]


def record_of(text: str, error: Exception) -> logging.LogRecord:
    info = (type(error), error, None)
    return logging.LogRecord("anybody", logging.WARNING, "here", 1, f"it said {text}: %s", (text,), info)


def test_what_is_no_credential_stays_as_it_is() -> None:
    for text in ("Authorization: Bearer …", 'Bearer realm="twincast"', "https://a.example/b@c", "key:1a2b3c4d", "eyJ"):
        assert masked(text) == text


LIBRARY_WORDS = ["Errno", "SSL", "_ssl.c", "Client error", "for url", "codec can't", "Not enough segments", "padding"]


def in_our_words(error: TwincastError) -> str:
    assert not [words for words in LIBRARY_WORDS if words in error.message], error.message
    return error.message


def test_why_a_token_is_not_good_is_said_in_our_own_words() -> None:
    issuer = Issuer()
    tokens = Tokens(StaticKey(issuer.pem()), issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256"], rate=None)
    for token, words in {
        Issuer().token(): "signature",
        issuer.token(aud="others"): "--jwt-audience",
        issuer.token(iss="others"): "--jwt-issuer",
        issuer.token(exp=None): "exp, iss, aud and sub",
        issuer.token(nbf=1e12): "not good yet",
        issuer.token(iat="x"): "claim",
        "a.b.c": "no JSON Web Token",
        "ü": "no JSON Web Token",
        "\ud800": "no JSON Web Token",
        "": "no JSON Web Token",
    }.items():
        with pytest.raises(Unauthenticated) as refused:
            tokens.verify(token)
        assert words in in_our_words(refused.value)


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_why_no_key_set_came_is_said_without_its_address(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"https://me:{MARK}@login.example.org/keys?code={MARK}"

    class Answering(httpx.AsyncClient):
        def __init__(self, **how: float) -> None:
            super().__init__(transport=httpx.MockTransport(lambda _: httpx.Response(status)), timeout=how["timeout"])

    monkeypatch.setattr(httpx, "AsyncClient", Answering)
    with pytest.raises(LoginUnusable, match=f"answers {status}") as refused:
        await Jwks(fetch_from(address), lambda: 0.0).refresh()
    assert MARK not in in_our_words(refused.value)


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b'{"keys":1}', b"[" * 100_000, b"\xff", b'{"keys":[{"kty":"x"}]}']
)
async def test_why_a_file_is_no_key_set_is_said_in_our_own_words(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(LoginUnusable, match=r"No such file|no key set with a key") as refused:
        await Jwks(fetch_from(str(tmp_path / "keys.json")), lambda: 0.0).refresh()
    in_our_words(refused.value)


@pytest.mark.parametrize(
    "content", [None, b"", b"junk", b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
)
def test_a_file_that_is_no_public_key_is_refused_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "issuer.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoginUnusable, match=r"--jwt-key .*issuer\.pem") as refused:
        StaticKey.of_file(str(path))
    in_our_words(refused.value)
    path.write_text(Issuer().pem())
    assert StaticKey.of_file(str(path))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no certificate", "cert.pem cannot be read: No such file"),
        ("no key", "key.pem cannot be read: No such file"),
        ("junk", "both in PEM"),
        ("another's key", "another certificate's"),
        ("a password", "locked by a password"),
    ],
)
def test_why_a_certificate_cannot_be_used_is_said_in_our_own_words(tmp_path: Path, fault: str, words: str) -> None:
    cert, key = certificate(tmp_path)
    other = ec.generate_private_key(ec.SECP256R1())
    match fault:
        case "no certificate":
            cert.unlink()
        case "no key":
            key.unlink()
        case "junk":
            cert.write_text("junk")
        case "another's key":
            key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        case _:
            locked = BestAvailableEncryption(MARK.encode())
            key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(LoginUnusable, match=words) as refused:
        Certificate(str(cert), str(key))
    in_our_words(refused.value)


def test_the_word_for_a_parameter_that_cannot_be_read_is_ours() -> None:
    for query in ("devices=%ff", "&".join(["devices=a"] * 3_000)):
        with pytest.raises(BadMessage, match="percent-encoded") as refused:
            decode_stream_query(query)
        in_our_words(refused.value)
