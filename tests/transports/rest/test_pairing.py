"""POST /api/pair: a code for a key, once, in time, and not for who guesses."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.credentials import add_key, bearer, revoke_key
from tests.running import DEADLINE_S, eventually
from twincast.access.pairing import CODE_LIFE_S, CODES_MAX, make_pairing
from twincast.core.audit import Actor
from twincast.core.rights import Rights
from twincast.errors import ValidationFailed
from twincast.hub.hub import system_now_utc
from twincast.journal.sqlite.access_file import AccessFile
from twincast.testing import Server

ACTOR = Actor("local:test", "test")
WRONG = "0000-0000"


def make_code(path: Path, name: str = "lab/fan", *, age_s: int = 0, lives_s: int | None = None, **grants: Any) -> str:
    rights = Rights.of(grants or {"publish": ["lab/*"]})
    made, code = make_pairing(name, rights, now_s=int(time.time()) - age_s, rate_per_s=7.0, lives_s=lives_s)
    with AccessFile(str(path), make=True, has_codes=True) as file:
        file.pair(made, system_now_utc(), ACTOR, life_s=CODE_LIFE_S, waiting_max=CODES_MAX)
    return code


def brought(server: Server, code: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}/api/pair", json={"code": code}, headers=headers)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def server(path: Path, edge: str) -> Iterator[Server]:
    add_key(path, "owner", read=["*"], admin=["*"])
    with Server(f"sqlite:{path}", edge=edge) as server:
        yield server


def key_of(path: Path, name: str) -> Any:
    with AccessFile(str(path)) as file:
        keys = file.keys()
    return next((key for key in keys if key.name == name), None)


def test_a_code_becomes_a_key_of_its_own_that_is_good_at_once_and_can_be_revoked(server: Server, path: Path) -> None:
    code = make_code(path, lives_s=3_600)
    answer = brought(server, code.lower().replace("-", " "))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    its = bearer(told["token"])

    def stored(name: str) -> int:
        return httpx.post(f"{server.url}/api/data", json={"device_id": name, "value": 1}, headers=its).status_code

    assert (stored("lab/fan"), stored("hall")) == (200, 403)
    status = httpx.get(f"{server.url}/api/status", headers=its).json()
    assert (status["identity"], status["rights"]) == (told["identity"], told["rights"])
    assert told["rights"] == {"publish": ["lab/*"]}
    key = key_of(path, "lab/fan")
    assert (f"key:{key.id}", key.rate_per_s, told["name"]) == (told["identity"], 7.0, "lab/fan")
    assert 3_500 < key.expires_s - time.time() <= 3_600
    revoke_key(path, "lab/fan")
    eventually(lambda: stored("lab/fan") == 401, "it is revoked")


def test_a_code_is_good_once_however_many_come_with_it_at_once(server: Server, path: Path) -> None:
    code = make_code(path)
    with ThreadPoolExecutor(6) as together:
        answers = list(together.map(lambda _: brought(server, code), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401, 401, 401]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 401} == {"credential_expired"}
    assert "used already" in brought(server, code).json()["detail"]
    with AccessFile(str(path)) as file:
        keys = file.keys()
    assert [key.name for key in keys] == ["lab/fan", "owner"]


@pytest.mark.parametrize("age_s", [CODE_LIFE_S, CODE_LIFE_S + 3_600, -3_600])
def test_a_code_that_is_late_or_of_a_clock_that_was_set_back_is_good_no_longer(
    server: Server, path: Path, age_s: int
) -> None:
    answer = brought(server, make_code(path, age_s=age_s))
    assert (answer.status_code, answer.json()["code"]) == (401, "credential_expired")
    assert "5 minutes" in answer.json()["detail"] and "twincast pair" in answer.json()["detail"]
    assert key_of(path, "lab/fan") is None


def test_a_new_code_for_a_name_makes_the_one_before_it_worthless(server: Server, path: Path) -> None:
    first, second = make_code(path), make_code(path)
    assert brought(server, first).status_code == 401
    assert brought(server, second).status_code == 200


def test_a_name_that_is_in_use_meanwhile_takes_no_key_and_the_code_stays_good(server: Server, path: Path) -> None:
    code = make_code(path)
    add_key(path, "lab/fan", read=["*"])
    answer = brought(server, code)
    assert (answer.status_code, "already" in answer.json()["detail"]) == (422, True)
    with pytest.raises(ValidationFailed, match="already"):
        make_code(path)
    revoke_key(path, "lab/fan")
    assert brought(server, code).status_code == 200


def test_a_wrong_code_says_what_to_do_and_is_nowhere_in_what_is_said(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answer = brought(server, WRONG)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert "twincast pair NAME --may publish" in answer.json()["detail"]
    assert "0000" not in answer.text
    assert WRONG not in caplog.text
    assert "a pairing from 127.0.0.1 failed" in caplog.text


def test_who_guesses_a_hundred_times_a_second_is_locked_out_and_logs_in_no_more(path: Path, edge: str) -> None:
    add_key(path, "owner", read=["*"])
    good = make_code(path)
    with Server(f"sqlite:{path}", edge=edge, failed_logins_per_minute=5) as server:
        began_s = time.monotonic()
        with httpx.Client(base_url=server.url, timeout=DEADLINE_S) as client, ThreadPoolExecutor(20) as together:
            codes = ({"code": f"ZZZZ-{number:04}"} for number in range(100))
            statuses = list(together.map(lambda code: client.post("/api/pair", json=code).status_code, codes))
        more = int((time.monotonic() - began_s) / 12)  # five a minute, so one in each twelve seconds
        assert 5 <= statuses.count(401) <= 5 + more
        assert statuses.count(401) + statuses.count(429) == 100
        locked = brought(server, good)
        assert (locked.status_code, locked.json()["code"]) == (429, "rate_limited")
        assert int(locked.headers["retry-after"]) >= 1
        assert httpx.get(f"{server.url}/api/status", headers=bearer("twc_00000000_x")).status_code == 429


def test_failed_logins_and_wrong_codes_are_counted_together(path: Path) -> None:
    add_key(path, "owner", read=["*"])
    good = make_code(path)
    with Server(f"sqlite:{path}", failed_logins_per_minute=3) as server:
        for _ in range(3):
            httpx.get(f"{server.url}/api/status", headers=bearer("twc_00000000_x"))
        assert brought(server, good).status_code == 429


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
        ({"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 422),
        ({"json": {}}, 422),
        ({"json": {"code": 7}}, 422),
        ({"json": {"code": "short"}}, 422),
        ({"json": {"code": WRONG, "name": "mine"}}, 422),
        ({"json": {"code": WRONG}, "params": {"code": WRONG}}, 422),
        ({"json": {"code": "0" * 2_000}}, 413),
        ({"data": {"code": WRONG}}, 415),
        ({"json": {"code": WRONG}, "headers": {"Origin": "https://elsewhere.example.org"}}, 403),
        ({"json": {"code": WRONG}, "headers": {"Origin": "null"}}, 403),
        ({"json": {"code": WRONG}, "headers": {"Host": "rebound.example.org"}}, 403),
    ],
)
def test_what_can_be_no_code_or_comes_from_elsewhere_is_refused_and_costs_nothing(
    server: Server, path: Path, how: Any, status: int
) -> None:
    good = make_code(path)
    for _ in range(11):
        answer = httpx.post(f"{server.url}/api/pair", **how)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert brought(server, good).status_code == 200


def test_only_a_post_pairs(server: Server) -> None:
    answer = httpx.get(f"{server.url}/api/pair")
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")


def test_a_credential_beside_a_code_says_nothing(server: Server, path: Path) -> None:
    assert brought(server, make_code(path), **bearer("twc_00000000_x")).status_code == 200


def test_pairing_is_in_the_audit_trail_by_who_made_the_code_and_from_where_it_came(server: Server, path: Path) -> None:
    identity = brought(server, make_code(path)).json()["identity"]
    with AccessFile(str(path)) as file:
        paired, made = file.audit(2)
    assert (made.who, made.action, made.target, made.detail) == ("local:test", "pair", "", "lab/fan publish lab/*")
    assert (paired.who, paired.address, paired.action, paired.target) == (identity, "127.0.0.1", "paired", identity)
    assert "by a code of local:test" in paired.detail


def test_the_first_code_closes_an_open_server_as_the_first_key_does(path: Path) -> None:
    with Server(f"sqlite:{path}") as server:
        token = brought(server, make_code(path)).json()["token"]
        assert httpx.get(f"{server.url}/api/status").status_code == 401
        assert httpx.get(f"{server.url}/api/status", headers=bearer(token)).status_code == 200


def test_a_journal_in_memory_knows_no_code() -> None:
    with Server() as server:
        answer = brought(server, WRONG)
        assert (answer.status_code, "in memory" in answer.json()["detail"]) == (401, True)


def test_no_more_codes_wait_than_the_reckoning_has(path: Path) -> None:
    for number in range(3):
        made, _ = make_pairing(f"a{number}", Rights.of({"read": ["*"]}), now_s=100, rate_per_s=None, lives_s=None)
        with AccessFile(str(path), make=True, has_codes=True) as file:
            if number < 2:
                file.pair(made, system_now_utc(), ACTOR, life_s=CODE_LIFE_S, waiting_max=2)
            else:
                with pytest.raises(ValidationFailed, match="2 codes wait"):
                    file.pair(made, system_now_utc(), ACTOR, life_s=CODE_LIFE_S, waiting_max=2)


def test_a_code_survives_a_restart_and_the_clients_that_are_connected_too(server: Server, path: Path) -> None:
    code = make_code(path)
    server.restart()
    assert brought(server, code).status_code == 200
