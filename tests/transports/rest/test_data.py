"""REST: readings and commands, alone and in batches, and the refusal of everything else."""

import json
import re
from typing import Any

import pytest
import requests

from tests.conftest import StartServer
from tests.running import DEADLINE_S, ServerProcess
from tests.transports.problems import assert_problem
from twincast.settings import Settings

LIMITS = Settings()


@pytest.fixture
def rest(server_process: StartServer) -> ServerProcess:
    return server_process("memory:")


def readings(count: int) -> list[dict[str, Any]]:
    return [{"device_id": f"d{i}", "value": i} for i in range(count)]


def as_lines(items: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, items)) + "\n"


def test_an_array_is_stored_whole_and_in_order(rest: ServerProcess) -> None:
    answer = rest.post("/api/data", readings(3)).json()
    epoch = rest.get("/api/status")["epoch"]
    span = {"first_seq": 1, "last_seq": 3, "seq": 3}
    assert answer == {"ok": True, "stored": 3, "epoch": epoch, **span}
    twins = rest.get("/api/data")["data"]
    assert [(name, twin["value"], twin["seq"]) for name, twin in twins.items()] == [
        ("d0", 0, 1),
        ("d1", 1, 2),
        ("d2", 2, 3),
    ]


@pytest.mark.parametrize("end", ["\n", "", "\n\n", "\r\n"])
def test_lines_are_stored_whole_and_in_order(rest: ServerProcess, end: str) -> None:
    text = as_lines(readings(3)).rstrip("\n") + end
    answer = rest.post_text("/api/data", text, "application/x-ndjson").json()
    epoch = rest.get("/api/status")["epoch"]
    span = {"first_seq": 1, "last_seq": 3, "seq": 3}
    assert answer == {"ok": True, "stored": 3, "epoch": epoch, **span}


def test_one_line_is_a_batch_too(rest: ServerProcess) -> None:
    answer = rest.post_text("/api/data", as_lines(readings(1)), "application/x-ndjson").json()
    epoch = rest.get("/api/status")["epoch"]
    span = {"first_seq": 1, "last_seq": 1, "seq": 1}
    assert answer == {"ok": True, "stored": 1, "epoch": epoch, **span}


@pytest.mark.parametrize(
    "text",
    [
        '{"device_id":"a","value":1}{"device_id":"b","value":2}\n',
        '{"device_id":"a",\n"value":1}\n',
        '{"device_id":"a",\n"value":1}\n{"device_id":"b","value":2}{"device_id":"c","value":3}',
    ],
)
def test_a_line_is_one_reading_whole(rest: ServerProcess, text: str) -> None:
    problem = assert_problem(rest.post_text("/api/data", text, "application/x-ndjson"), 422, "malformed_json")
    assert "line 1" in problem["detail"]
    assert rest.get("/api/status")["seq"] == 0


def test_a_request_takes_as_many_updates_as_promised_and_no_more(rest: ServerProcess) -> None:
    most = LIMITS.request_max_updates
    assert rest.post("/api/data", readings(most)).json()["stored"] == most
    assert_problem(rest.post("/api/data", readings(most + 1)), 413, "too_large")
    assert_problem(rest.post_text("/api/data", as_lines(readings(most + 1)), "application/x-ndjson"), 413, "too_large")
    assert rest.get("/api/status")["seq"] == most


@pytest.mark.parametrize("bad", [{"device_id": "x"}, {"device_id": "", "value": 1}, {"value": 1}, 7, None, "x"])
def test_one_bad_reading_keeps_the_whole_batch_out(rest: ServerProcess, bad: Any) -> None:
    batch = [*readings(5), bad]
    assert_problem(rest.post("/api/data", batch), 422, "validation_failed")
    lines = "\n".join(map(json.dumps, batch))
    problem = assert_problem(rest.post_text("/api/data", lines, "application/x-ndjson"), 422, "validation_failed")
    assert "line 6" in problem["detail"]
    assert rest.get("/api/status")["seq"] == 0


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("{", 422, "malformed_json"),
        ("", 422, "malformed_json"),
        ("nonsense", 422, "malformed_json"),
        ('{"device_id":"d","value":NaN}', 422, "malformed_json"),
        ('{"device_id":"d","value":Infinity}', 422, "malformed_json"),
        ('{"device_id":"d","value":1e999}', 422, "malformed_json"),
        ('{"device_id":"d","value":18446744073709551616}', 422, "malformed_json"),
        ('{"device_id":"d","value":[-9223372036854775809]}', 422, "malformed_json"),
        ('{"device_id":"d","value":{"a":1,"a":2}}', 422, "malformed_json"),
        ('{"device_id":"d","value":{"a":1,"\\u0061":2}}', 422, "malformed_json"),
        ('{"device_id":"d","device_id":"e","value":1}', 422, "malformed_json"),
        ('{"device_id":"d","value":1,"value":2}', 422, "malformed_json"),
        (b'{"device_id":"d","value":"\xff"}', 422, "malformed_json"),
        ('{"device_id":"d","value":' + "[" * 33 + "]" * 33 + "}", 413, "too_large"),
        ('{"device_id":"d","value":' + "[" * 100_000 + "]" * 100_000 + "}", 413, "too_large"),
        (json.dumps({"device_id": "d", "value": {str(i): i for i in range(1025)}}), 413, "too_large"),
        (json.dumps({"device_id": "d" * 129, "value": 1}), 422, "validation_failed"),
        ('{"device_id":"a\\u0000b","value":1}', 422, "validation_failed"),
        ('{"device_id":"a\\nb","value":1}', 422, "validation_failed"),
        ('"text"', 422, "validation_failed"),
        ("[]", 422, "validation_failed"),
        ("[[]]", 422, "validation_failed"),
    ],
)
def test_what_is_no_reading_is_refused_and_nothing_is_stored(
    rest: ServerProcess, text: str | bytes, status: int, code: str
) -> None:
    assert_problem(rest.post_text("/api/data", text), status, code)
    assert rest.get("/api/status")["seq"] == 0


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("{", 422, "malformed_json"),
        ('{"target":"t"}', 422, "validation_failed"),
        ('{"target":"t","command":"c","args":[1]}', 422, "validation_failed"),
        ('{"target":"t","command":"c","args":"x"}', 422, "validation_failed"),
        ('{"target":"t","command":"c","args":{"a":1,"a":2}}', 422, "malformed_json"),
        ('{"target":"t","target":"u","command":"c"}', 422, "malformed_json"),
        (json.dumps({"target": "t" * 129, "command": "c"}), 422, "validation_failed"),
    ],
)
def test_what_is_no_command_is_refused(rest: ServerProcess, text: str, status: int, code: str) -> None:
    assert_problem(rest.post_text("/api/control", text), status, code)
    assert rest.get("/api/status")["seq"] == 0


@pytest.mark.parametrize("text", ["18446744073709551615", "-9223372036854775808", "1e3", "1.50", "0.1e-7", '"\\u00e9"'])
def test_a_value_comes_back_as_the_text_that_it_was(rest: ServerProcess, text: str) -> None:
    response = rest.post_text("/api/data", '{"device_id":"d","value":' + text + "}")
    assert f'"value":{text},' in response.text
    assert f'"value":{text},' in requests.get(f"{rest.url}/api/data", timeout=DEADLINE_S).text


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.parametrize("path", ["/api/data", "/api/control"])
def test_only_json_is_taken_so_no_foreign_form_can_write(rest: ServerProcess, path: str, content_type: str) -> None:
    assert_problem(rest.post_text(path, '{"device_id":"d","value":1}', content_type), 415, "unsupported_media_type")


def test_json_may_name_its_charset(rest: ServerProcess) -> None:
    response = rest.post_text("/api/data", '{"device_id":"d","value":1}', "application/json; charset=utf-8")
    assert response.json()["ok"] is True


def test_a_compressed_body_is_refused_in_words(rest: ServerProcess) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = requests.post(f"{rest.url}/api/data", data=b"\x1f\x8b", headers=headers, timeout=DEADLINE_S)
    assert_problem(response, 415, "unsupported_media_type")


def test_a_body_over_the_limit_is_refused(rest: ServerProcess) -> None:
    text = '{"device_id":"d","value":"' + "x" * LIMITS.body_max_bytes + '"}'
    assert_problem(rest.post_text("/api/data", text), 413, "too_large")


def test_what_the_document_promises_is_what_the_calls_answer(rest: ServerProcess) -> None:
    document = rest.get("/openapi.json")
    taken = document["paths"]["/api/data"]["post"]["requestBody"]["content"]
    for media in taken.values():
        for example in media.get("examples", {}).values():
            sent = example["value"]
            text = sent if isinstance(sent, str) else json.dumps(sent)
            kind = "application/x-ndjson" if isinstance(sent, str) else "application/json"
            assert rest.post_text("/api/data", text, kind).status_code == 200
    assert set(taken) == {"application/json", "application/x-ndjson"}
    assert {"403", "413", "415", "422", "503"} <= set(document["paths"]["/api/data"]["post"]["responses"])


def test_the_hot_calls_carry_every_field_that_their_schema_requires(rest: ServerProcess) -> None:
    document = rest.get("/openapi.json")

    def required(path: str, method: str) -> list[set[str]]:
        schema = document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
        kinds = schema.get("anyOf", [schema])
        return [set(resolve(kind).get("required", ())) for kind in kinds]

    def resolve(schema: dict[str, Any]) -> dict[str, Any]:
        name = re.fullmatch(r"#/components/schemas/(\w+)", schema.get("$ref", ""))
        resolved: dict[str, Any] = document["components"]["schemas"][name[1]] if name else schema
        return resolved

    assert required("/api/status", "get")[0] <= set(rest.get("/api/status"))
    assert required("/api/data", "get")[0] <= set(rest.get("/api/data"))
    single, batch = required("/api/data", "post")
    assert single <= set(rest.post("/api/data", {"device_id": "d", "value": 1}).json())
    assert batch <= set(rest.post("/api/data", readings(2)).json())
    order = {"target": "t", "command": "c"}
    assert required("/api/control", "post")[0] <= set(rest.post("/api/control", order).json())


LARGEST = LIMITS.value_max_bytes


@pytest.mark.parametrize("form", ["one", "array", "lines", "command"])
def test_a_value_has_one_limit_on_every_way_in(rest: ServerProcess, form: str) -> None:
    def post(size_bytes: int) -> requests.Response:
        item = {"device_id": "lamp", "value": "x" * (size_bytes - 2)}
        if form == "one":
            return rest.post("/api/data", item)
        if form == "array":
            return rest.post("/api/data", [item, *readings(2)])
        if form == "lines":
            return rest.post_text("/api/data", as_lines([*readings(2), item]), "application/x-ndjson")
        args = {"x": "x" * (size_bytes - len('{"x":""}'))}
        return rest.post("/api/control", {"target": "lamp", "command": "on", "args": args})

    assert_problem(post(LARGEST + 1), 413, "too_large")
    assert rest.get("/api/status")["seq"] == 0, "all or nothing"
    assert post(LARGEST).json()["ok"]


def test_white_space_does_not_count_as_a_value(rest: ServerProcess) -> None:
    spaced = '{"device_id": "lamp", "value": [' + " " * LARGEST + "1]}"
    assert rest.post_text("/api/data", spaced, "application/json").json()["ok"]


@pytest.mark.parametrize("path", ["/api/data", "/api/data?devices=*7", "/api/events"])
def test_a_state_of_many_parts_is_one_document(rest: ServerProcess, path: str) -> None:
    for start in range(0, 6_000, 3_000):
        batch = [{"device_id": f'ü"{n}', "value": [n, "x" * 200]} for n in range(start, start + 3_000)]
        assert rest.post("/api/data", batch).ok
    answer = requests.get(rest.url + path, timeout=DEADLINE_S)
    assert len(answer.content) > (150_000 if "?" in path else 1_500_000)
    document = answer.json()
    twins = document.get("data") or document["data_snapshot"]
    wanted = [n for n in range(6_000) if path != "/api/data?devices=*7" or n % 10 == 7]
    assert [twin["value"][0] for twin in twins.values()] == wanted
    assert (document["seq"], document.get("events", [])) == (6_000, [])
