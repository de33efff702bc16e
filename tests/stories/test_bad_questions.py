"""What cannot be asked of the past is refused with a code, on every way in, and harms nobody."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.cli.commands import assert_one_line, run
from tests.client.node_client import CLIENT, node
from twincast import Twincast
from twincast.client import Rest, connect, sync
from twincast.errors import TwincastError, ValidationFailed
from twincast.testing import Server

READINGS = 30
OF_ANOTHER_LOG = "5f0c9a1e-0b7d3c28:3"
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("bad_time", {"from_": "2026-11-25T10:00:00"}),
    ("bad_time", {"from_": "2026-11-25"}),
    ("bad_time", {"to": "teatime"}),
    ("bad_time", {"to": "2026-02-30T10:00:00Z"}),
    ("bad_time", {"to": "1700000000"}),
    ("bad_time", {"from_": "+1h"}),
    ("bad_time", {"from_": "-1fortnight"}),
    ("bad_range", {"from_": "now", "to": "-1h"}),
    ("bad_range", {"from_": "{epoch}:9", "to": "{epoch}:3"}),
    ("bad_range", {"from_": "2099-01-01T00:00:00Z", "every": "1h"}),
    ("bad_range", {"every": "5 minutes"}),
    ("bad_range", {"every": "0s"}),
    ("bad_range", {"every": "1.5h"}),
    ("bad_range", {"every": "1d", "tz": "Berlin"}),
    ("bad_range", {"points": 1}),
    ("bad_range", {"points": 5, "every": "1h"}),
    ("bad_path", {"path": "rpm"}),
    ("bad_path", {"path": "/a~2b"}),
    ("bad_path", {"path": [f"/{number}" for number in range(17)]}),
    ("unknown_aggregate", {"every": "1h", "agg": "median"}),
    ("unknown_aggregate", {"every": "1h", "agg": ["avg", "AVG"]}),
    ("too_much", {"every": "1s", "from_": "-7d"}),
    ("ahead", {"to": "{epoch}:31"}),
    ("ahead", {"from_": "{epoch}:999999999999", "every": "1h", "time": "stored"}),
    ("unknown_epoch", {"from_": OF_ANOTHER_LOG}),
    ("validation_failed", {"every": "1h", "fill": "cubic"}),
    ("validation_failed", {"order": "up"}),
    ("validation_failed", {"time": "local"}),
    ("validation_failed", {"kinds": ["readings"]}),
]
STATES = [
    ("bad_time", "2026-11-25T10:00:00"),
    ("bad_time", "soon"),
    ("bad_time", "-1"),
    ("ahead", "2099-01-01T00:00:00Z"),
    ("ahead", "{epoch}:31"),
    ("unknown_epoch", OF_ANOTHER_LOG),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose log has READINGS readings of a motor."""
    with Server(f"sqlite:{tmp_path_factory.mktemp('log') / 'journal.db'}") as server:
        with Rest(server.url) as rest:
            rest.publish_all([("lab/motor", {"rpm": number, "label": str(number)}) for number in range(READINGS)])
        yield server
        with Rest(server.url) as rest:
            assert rest.history("lab/motor", limit=1).entries[0].value["rpm"] == READINGS - 1
            assert rest.status()["ok"]


def epoch_of(server: Server) -> str:
    with Rest(server.url) as rest:
        return str(rest.status()["epoch"])


def filled(question: Any, epoch: str) -> Any:
    """Return a question, with the epoch of the log where it is named."""
    return json.loads(json.dumps(question).replace("{epoch}", epoch))


def code_of(ask: Any, *given: Any, **named: Any) -> str:
    try:
        return f"answered: {ask(*given, **named)}"[:80]
    except TwincastError as error:
        assert error.message and len(error.message) < 400
        return error.code


def checked(codes: list[str], asked: list[Any]) -> None:
    assert [(code, question) for code, (_, question) in zip(codes, asked, strict=True)] == asked


def test_over_http_the_answer_is_a_problem_with_a_code(server: Server) -> None:
    epoch, codes = epoch_of(server), []
    with httpx.Client(base_url=server.url) as http:
        for _, question in QUESTIONS:
            params = {name.rstrip("_"): value for name, value in filled(question, epoch).items()}
            for path in (
                "/api/data/lab%2Fmotor/history",
                "/api/history?device_id=lab/motor",
                "/api/history?devices=lab/*",
            ):
                answer = http.get(httpx.URL(path).copy_merge_params(params))
                assert answer.headers["content-type"] == "application/problem+json"
                problem = answer.json()
                assert problem["status"] == answer.status_code and 400 <= answer.status_code < 500
                assert problem["detail"]
            codes.append(problem["code"])
        checked(codes, QUESTIONS)
        states = [http.get("/api/data", params={"at": filled(at, epoch)}).json()["code"] for _, at in STATES]
        checked(states, STATES)


def test_the_clients_raise_the_same(server: Server) -> None:
    epoch = epoch_of(server)
    with Rest(server.url) as rest, sync.connect(server.url, ()) as client:
        for each in (rest, client):
            checked(
                [code_of(each.history, "lab/motor", **filled(question, epoch)) for _, question in QUESTIONS], QUESTIONS
            )
            checked([code_of(each.state_at, filled(at, epoch)) for _, at in STATES], STATES)


async def test_so_do_the_asynchronous_client_and_a_program_that_has_the_server_inside(server: Server) -> None:
    twin = Twincast("memory:")
    async with connect(server.url, ()) as client, twin.running():
        for number in range(READINGS):
            await twin.publish("lab/motor", {"rpm": number})
        for each, epoch in ((client, epoch_of(server)), (twin, twin.position.epoch)):
            for expected, question in QUESTIONS:
                with pytest.raises(TwincastError) as refused:
                    await each.history("lab/motor", **filled(question, epoch))
                assert refused.value.code == expected, question
            for expected, at in STATES:
                with pytest.raises(TwincastError) as refused:
                    await each.state_at(filled(at, epoch))
                assert refused.value.code == expected, at


def test_the_javascript_client_rejects_with_the_same(server: Server) -> None:
    epoch = epoch_of(server)
    asked = [{name.rstrip("_"): value for name, value in filled(question, epoch).items()} for _, question in QUESTIONS]
    states = [filled(at, epoch) for _, at in STATES]
    program = f"""
        import {{ Client }} from {json.dumps(CLIENT.as_uri())};
        globalThis.WebSocket ??= class {{}};
        const client = new Client({{ url: {json.dumps(server.ws_url)} }});
        const codes = {{ history: [], states: [] }};
        const code = (promise) => promise.then(() => "answered", (error) => error.code ?? String(error));
        for (const how of {json.dumps(asked)}) codes.history.push(await code(client.history("lab/motor", how)));
        for (const at of {json.dumps(states)}) codes.states.push(await code(client.stateAt(at)));
        console.log(JSON.stringify(codes));
    """
    done = subprocess.run(
        [node(), "--input-type=module", "-e", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    checked(codes["history"], QUESTIONS)
    checked(codes["states"], STATES)


FLAGS = {"from_", "to", "path", "every", "agg", "tz"}
TYPED = [
    (code, asked) for code, asked in QUESTIONS if asked.keys() <= FLAGS and not isinstance(asked.get("path"), list)
]


@pytest.mark.parametrize(("code", "question"), TYPED[::2], ids=[code for code, _ in TYPED[::2]])
def test_the_command_line_says_it_in_one_line(server: Server, code: str, question: dict[str, Any]) -> None:
    asked = filled(question, epoch_of(server))
    with Rest(server.url) as rest, pytest.raises(TwincastError) as refused:
        rest.history("lab/motor", **asked)
    assert refused.value.code == code
    status = 2 if isinstance(refused.value, ValidationFailed) else 1  # wrong arguments, or what is not there
    words = [
        f"--{name.rstrip('_')}={each}"
        for name, given in asked.items()
        for each in ([given] if isinstance(given, str) else given)
    ]
    assert_one_line(run(server.url, "history", "lab/motor", *words), status, refused.value.message)


def test_what_is_there_but_not_what_was_thought_is_an_empty_answer(server: Server) -> None:
    with Rest(server.url) as rest:
        nowhere = rest.history("lab/motor", path="/no/where", every="1h", agg=["count", "avg"])
        texts = rest.history("lab/motor", path="/label", every="1h", agg=["count", "avg", "last"])
        none = rest.history("lab/motor", path="/no/where")
    assert (nowhere.series[0]["count"], nowhere.series[0]["avg"], len(nowhere.series[0])) == ([], [], 0)
    assert (texts.series[0]["count"], texts.series[0]["avg"]) == ([0], [None]), "a text of digits is no number"
    assert texts.series[0]["last"] == [str(READINGS - 1)]
    assert list(none.entries) == []


def test_more_points_than_allowed_name_the_smallest_width_that_fits(server: Server) -> None:
    with Rest(server.url) as rest:
        with pytest.raises(TwincastError, match=r"that fits a range of this length is 61s$"):
            rest.history("lab/motor", every="1s", from_="-7d", to="now", tz="UTC", path="/rpm")
        assert len(rest.history("lab/motor", every="61s", from_="-7d", to="now", fill="null").series[0]) > 9_900
        with pytest.raises(TwincastError, match=r"is 61s$"):
            rest.history("lab/motor", every="60s", from_="-7d", to="now")


def test_a_cursor_that_was_changed_is_refused_whatever_was_changed(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        page = http.get("/api/data/lab%2Fmotor/history?limit=3").json()
        cursor = page["cursor"]
        for index in range(len(cursor)):
            changed = f"{cursor[:index]}{'A' if cursor[index] != 'A' else 'B'}{cursor[index + 1 :]}"
            answer = http.get("/api/data/lab%2Fmotor/history", params={"limit": 3, "cursor": changed})
            if answer.status_code == 200:  # a bound or a place: it is a question that might have been asked
                assert {entry["seq"] for entry in answer.json()["entries"]} <= set(range(1, READINGS + 1))
            else:
                assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor"), changed
        for wrong in ("", "x", cursor + cursor, cursor[:-1], "💥", "A" * 75):
            answer = http.get("/api/data/lab%2Fmotor/history", params={"limit": 3, "cursor": wrong})
            assert answer.status_code == 200 if not wrong else answer.json()["code"] == "bad_cursor"
        again = http.get("/api/data/lab%2Fmotor/history", params={"limit": 3, "cursor": cursor}).json()
        assert [entry["seq"] for entry in again["entries"]] == [27, 26, 25]


async def test_live_traffic_goes_on_beside_all_of_them(server: Server) -> None:
    epoch, is_over = epoch_of(server), threading.Event()

    def ask_badly() -> int:
        asked = 0
        with httpx.Client(base_url=server.url) as http:
            while not is_over.is_set():
                for _, question in QUESTIONS:
                    params = {name.rstrip("_"): value for name, value in filled(question, epoch).items()}
                    assert http.get("/api/data/lab%2Fmotor/history", params=params).status_code < 500
                    asked += 1
        return asked

    asking = [asyncio.create_task(asyncio.to_thread(ask_badly)) for _ in range(2)]
    try:
        async with connect(server.url, ()) as client, client.watch("live", mode="every") as events:
            iterating, told = aiter(events), []
            for number in range(300):
                await client.publish("live", number)
                told.append((await anext(iterating)).value)
    finally:
        is_over.set()
        asked = await asyncio.gather(*asking)
    assert told == list(range(300))
    assert min(asked) > 0
