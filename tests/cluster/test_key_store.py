"""`twincast keys`, `pair` and `audit` on a log that servers share: a real NATS server, and no server of twincast."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import warm
from tests.journal.jetstream.test_key_changes import key
from tests.running import DEADLINE_S, ROOT
from twincast.cluster.engine import Engine
from twincast.cluster.key_store import KeyStore
from twincast.cluster.local import held
from twincast.core.audit import Actor
from twincast.errors import JournalUnusable
from twincast.journal.jetstream.address import TOKEN
from twincast.journal.local import LocalLog
from twincast.journal.sqlite.access_file import AccessFile

ACTOR = Actor("local:me", "command line")
WITHOUT_NATS = "import sys; sys.modules['nats'] = None; from twincast.cli.main import main; main()"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("nats")) as engine:
        yield engine


@pytest.fixture
def log(engine: Engine, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{engine.url}/{request.node.name[:60]}?copy={tmp_path / 'copy.db'}"


def run(engine: Engine, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    return warm.run(
        [sys.executable, "-m", "twincast", *words],
        cwd=ROOT,
        env={**os.environ, TOKEN: token or engine.token or ""},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def lines(ran: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_keys_are_made_listed_and_ended_without_a_server(engine: Engine, log: str) -> None:
    added = run(engine, "keys", "add", "lab/gateway", "--may", "publish,read", "--devices", "lab/*", "--journal", log)
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("twc_") and added.stdout.count("\n") == 1
    assert "now there is" in added.stderr and "every server" in added.stderr
    again = run(engine, "keys", "add", "lab/gateway", "--may", "read", "--journal", log)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1) and "already" in again.stderr
    (key,) = lines(run(engine, "keys", "list", "--json", "--journal", log))
    assert (key["name"], key["grants"]) == ("lab/gateway", {"publish": ["lab/*"], "read": ["lab/*"]})
    revoked = run(engine, "keys", "revoke", "lab/gateway", "--journal", log)
    assert revoked.returncode == 0 and "every server" in revoked.stderr
    assert "revoked" in run(engine, "keys", "list", "--journal", log).stdout
    assert "1 key is forgotten" in run(engine, "keys", "clear", "--yes", "--journal", log).stderr
    assert "No keys" in run(engine, "keys", "list", "--journal", log).stdout
    audit = run(engine, "audit", "--json", "--journal", log)
    assert [record["action"] for record in lines(audit)] == ["keys add", "keys revoke", "keys clear"]
    assert "--url URL" in audit.stderr and "sqlite:COPY" in audit.stderr


def test_a_code_is_made_without_a_server(engine: Engine, log: str) -> None:
    made = run(engine, "pair", "lab/fan", "--may", "publish", "--journal", log)
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) == 9
    assert "twincast join URL CODE" in made.stderr
    made = run(engine, "pair", "lab/fan", "--may", "publish", "--journal", log, "--url", "http://192.0.2.1:8000")
    assert f"twincast join http://192.0.2.1:8000 {made.stdout.strip()}" in made.stderr
    records = lines(run(engine, "audit", "--json", "--journal", log))
    assert [(record["action"], record["detail"]) for record in records] == [("pair", "lab/fan publish *")] * 2


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("keys", "list"), "there is no log"),
        (("keys", "revoke", "a"), "there is no log"),
        (("keys", "clear", "--yes"), "there is no log"),
        (("audit",), "there is no log"),
    ],
    ids=["list", "revoke", "clear", "audit"],
)
def test_a_mistyped_log_is_one_line(engine: Engine, log: str, words: tuple[str, ...], part: str) -> None:
    ran = run(engine, *words, "--journal", f"{engine.url}/nothing")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran
    assert part in ran.stderr


def test_a_wrong_credential_and_a_wrong_url_are_one_line(engine: Engine, log: str) -> None:
    for journal, part in ((log, TOKEN), ("nats://n1", "the name of a shared log"), ("nats://127.0.0.1:9/x", "reached")):
        ran = run(engine, "keys", "list", "--journal", journal, token="wrong")
        assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran
        assert part in ran.stderr


@pytest.mark.parametrize("words", [("keys", "list"), ("pair", "a", "--may", "read"), ("audit",)], ids=" ".join)
def test_what_is_not_installed_is_named_with_the_line_that_brings_it(engine: Engine, words: tuple[str, ...]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_NATS, *words, "--journal", f"{engine.url}/lab"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ran.returncode == 1, ran
    assert "[cluster]" in ran.stderr and "Traceback" not in ran.stderr


# Of the log that workers of one machine share.


def test_the_keys_of_workers_are_changed_whether_they_run_or_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    workers, plain = KeyStore(f"workers:{path}"), KeyStore(f"sqlite:{path}")
    assert not workers.has_keys() and not plain.is_shared
    with pytest.raises(JournalUnusable, match="no workers have a log"), workers.open():
        pass
    assert list(tmp_path.iterdir()) == []
    with workers.open(make=True) as access:
        assert access.is_new
        access.add(key(1, "a"), ACTOR)
    workers, plain = KeyStore(f"workers:{path}"), KeyStore(f"sqlite:{path}")
    assert plain.is_shared and workers.has_keys() and plain.has_keys()
    assert not path.exists() and workers.is_served is False
    with held(LocalLog.beside(str(path))):
        assert workers.is_served
        with plain.open() as access:
            access.add(key(2, "b"), ACTOR)
    with workers.open() as access:
        by_name = access.keys()
        assert [each.id for each in by_name] == ["id1", "id2"]
    assert TOKEN not in os.environ


def test_keys_of_one_server_are_seen_before_its_journal_is_moved(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with AccessFile(str(path), make=True) as file:
        file.add(key(1, "a"), ACTOR)
    assert KeyStore(f"workers:{path}").has_keys()


def test_workers_that_start_for_the_first_time_are_seen_before_they_have_made_their_log(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with held(LocalLog.beside(str(path))):
        with KeyStore(f"sqlite:{path}").open(make=True) as access:
            access.add(key(1, "a"), ACTOR)
        assert KeyStore(f"workers:{path}").has_keys()
    assert not path.exists()
