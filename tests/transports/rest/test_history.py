"""REST: the log's past, as clients ask for it."""

import csv
import gzip
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from websockets.sync.client import connect

from tests.transports.problems import assert_problem
from twincast.testing import Clock, Server

START = "2026-11-25T10:00:00+00:00"
READINGS = 30


class Past:
    """A server whose device `lab/motor` reported once a minute for half an hour, from START on."""

    def __init__(self, journal: str) -> None:
        self.clock = Clock(START)
        self.server = Server(journal, clock=self.clock)
        self.http = httpx.Client(base_url=self.server.url)
        for number in range(READINGS):
            self.publish("lab/motor", {"rpm": number, "on": number % 2 == 0, "label": str(number)})
            self.clock.advance(60)

    def publish(self, device_id: str, value: Any, **more: str) -> None:
        body = {"device_id": device_id, "value": value, **more}
        self.http.post("/api/data", json=body).raise_for_status()

    def get(self, path: str, **headers: str) -> Any:
        answer = self.http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def history(self, **parameters: Any) -> Any:
        return self.ask(**parameters).raise_for_status().json()

    def ask(self, **parameters: Any) -> httpx.Response:
        query = {name.rstrip("_"): value for name, value in parameters.items()}
        return self.http.get("/api/data/lab%2Fmotor/history", params=query)

    def refused(self, status: int, code: str, **parameters: Any) -> str:
        return str(assert_problem(self.ask(**parameters), status, code)["detail"])

    def position(self) -> str:
        status = self.get("/api/status")
        return f"{status['epoch']}:{status['seq']}"

    def close(self) -> None:
        self.http.close()
        self.server.stop()


@pytest.fixture(params=["memory:", "sqlite:{}"])
def past(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Past]:
    past = Past(request.param.format(tmp_path / "journal.db"))
    yield past
    past.close()


def seqs(answer: Any) -> list[int]:
    return [entry["seq"] for entry in answer["entries"]]


def test_the_newest_entries_come_first_and_say_what_the_log_has(past: Past) -> None:
    answer = past.history(limit=2)
    assert answer == {
        "device_id": "lab/motor",
        "epoch": past.position().partition(":")[0],
        "seq": 30,
        "reaches_back_to": "2026-11-25T10:00:00.000000+00:00",
        "cursor": answer["cursor"],
        "entries": [
            {
                "seq": seq,
                "timestamp_utc": f"2026-11-25T10:{seq - 1}:00.000000+00:00",
                "value": {"rpm": seq - 1, "on": seq % 2 == 1, "label": str(seq - 1)},
                "source": "rest",
            }
            for seq in (30, 29)
        ],
    }


def test_a_range_has_its_beginning_and_not_its_end(past: Past) -> None:
    assert seqs(past.history(from_="2026-11-25T10:05:00Z", to="2026-11-25T10:07:00Z")) == [7, 6]
    assert seqs(past.history(from_="2026-11-25T11:05:00+01:00", to="2026-11-25T11:07:00+01:00", order="asc")) == [6, 7]
    assert seqs(past.history(from_="-2m")) == [30, 29]
    assert seqs(past.http.get("/api/data/lab%2Fmotor/history?from=2026-11-25T11:28:00+01:00").json()) == [30, 29]


def test_a_position_stands_behind_its_entry_in_a_range_too(past: Past) -> None:
    epoch = past.position().partition(":")[0]
    answer = past.history(from_=f"{epoch}:5", to=f"{epoch}:8", order="asc")
    assert seqs(answer) == [6, 7, 8]
    assert answer["seq"] == 8
    buckets = past.history(from_=f"{epoch}:5", to=f"{epoch}:8", every="1m", path="/rpm", agg="max,count", time="stored")
    assert (buckets["max"], buckets["count"], buckets["seq"]) == ([5, 6, 7], [1, 1, 1], 8)


def test_buckets_that_go_by_measured_time_do_not_begin_at_a_position(past: Past) -> None:
    past.publish("lab/motor", {"rpm": 99}, measured_at_utc="2026-11-25T10:01:30Z")
    assert "time=stored" in past.refused(422, "bad_range", from_=past.position(), every="1h")
    assert "time=stored" in past.refused(422, "bad_range", from_=past.position(), points=10)


def test_buckets_up_to_a_position_have_every_reading_up_to_it_whenever_it_was_measured(past: Past) -> None:
    past.publish("lab/motor", {"rpm": 98}, measured_at_utc="2026-11-25T10:01:30Z")
    past.publish("lab/motor", {"rpm": 99}, measured_at_utc="2026-11-25T10:30:59Z")
    past.publish("lab/motor", {"rpm": 1})
    epoch = past.position().partition(":")[0]
    for seq, counted in ((32, 32), (31, 31), (30, 30)):
        for many in ({"every": "1s", "from": START}, {"every": "1h"}, {"points": 100}):
            question = {"path": "/rpm", "agg": "count", "to": f"{epoch}:{seq}", **many}
            assert sum(past.history(**question)["count"]) == counted
            several = past.get(f"/api/history?{urlencode({'devices': 'lab/*', **question})}")
            assert sum(several["series"][0]["count"]) == counted


def test_an_empty_range_has_no_buckets_as_it_has_no_entries(past: Past) -> None:
    at, position = "2026-11-25T10:05:30Z", f"{past.position().partition(':')[0]}:5"
    for bound, how in ((at, {}), ("now", {}), (position, {"time": "stored"})):
        for many in ({"every": "1h"}, {"points": 10}):
            answer = past.history(from_=bound, to=bound, path="/rpm", agg="count", fill="null", **many, **how)
            assert (answer["time_ms"], answer["count"]) == ([], [])
        assert past.history(from_=bound, to=bound)["entries"] == []


def test_nothing_is_carried_into_the_future(past: Past) -> None:
    answer = past.history(
        from_="2026-11-25T10:20:00Z",
        to="2026-11-25T13:00:00Z",
        every="1h",
        path="/rpm",
        agg="last,sum",
        fill="previous",
    )
    assert (answer["last"], answer["sum"]) == ([29, None, None], [435, None, None])


def test_pages_go_on_where_the_one_before_ended_while_more_is_stored(past: Past) -> None:
    found, answer = [], past.history(limit=7, from_="-1h")
    while True:
        found += seqs(answer)
        assert answer["seq"] == READINGS
        if "cursor" not in answer:
            break
        past.publish("lab/motor", {"rpm": -1})
        past.clock.advance(600)
        answer = past.history(limit=7, from_="-1h", cursor=answer["cursor"])
    assert found == list(range(READINGS, 0, -1))


def test_buckets_come_by_columns_whole_and_aligned(past: Past) -> None:
    answer = past.history(
        from_="2026-11-25T10:03:00Z",
        to="2026-11-25T10:11:00Z",
        every="5m",
        path="/rpm",
        agg="avg,min,max,count,last,min_t",
    )
    start_ms = 1_795_600_800_000
    assert answer == {
        **{"device_id": "lab/motor", "epoch": answer["epoch"], "seq": 30, "path": "/rpm", "every": "5m", "tz": "UTC"},
        "reaches_back_to": "2026-11-25T10:00:00.000000+00:00",
        "from": "2026-11-25T10:00:00.000000+00:00",
        "to": "2026-11-25T10:15:00.000000+00:00",
        "time_ms": [start_ms, start_ms + 300_000, start_ms + 600_000],
        **{"avg": [2.0, 7.0, 12.0], "min": [0, 5, 10], "max": [4, 9, 14], "count": [5, 5, 5], "last": [4, 9, 14]},
        "min_t": [start_ms, start_ms + 300_000, start_ms + 600_000],
        "open": False,
    }


def test_the_server_chooses_a_width_for_so_many_points_and_says_whether_the_last_one_grows(past: Past) -> None:
    answer = past.history(from_="-30m", points=10, path="/rpm")
    assert (answer["every"], answer["open"]) == ("5m", False), "it is 10:30 sharp"
    past.clock.advance(1)
    answer = past.history(from_="-30m", points=10, path="/rpm", fill="null")
    assert answer["open"]
    assert answer["avg"][-1] is None
    assert answer["to"] == "2026-11-25T10:35:00.000000+00:00"


def test_texts_of_digits_are_no_numbers_but_have_a_last_value(past: Past) -> None:
    answer = past.history(points=2, path="/label")
    assert (answer["time_ms"], answer["avg"]) == ([], [])
    assert past.history(points=2, path="/label", agg="avg,last")["last"] == ["29"]
    assert past.history(points=2, path="/label", agg="avg,last")["avg"] == [None]


def test_a_path_that_is_nowhere_has_no_entries_and_empty_columns(past: Past) -> None:
    assert past.history(path="/nowhere")["entries"] == []
    answer = past.history(path="/nowhere", every="1h")
    assert (answer["time_ms"], answer["avg"], answer["min"], answer["max"]) == ([], [], [], [])


def test_paths_show_a_part_of_each_value(past: Past) -> None:
    assert [entry["value"] for entry in past.history(path="/rpm", limit=2)["entries"]] == [29, 28]
    both = past.history(path=["/rpm", "/on", "/nowhere"], limit=1)["entries"]
    assert [entry["value"] for entry in both] == [{"/rpm": 29, "/on": False}]
    series = past.history(path=["/rpm", "/nowhere"], points=2, agg="count")["series"]
    assert [(each["path"], each["count"]) for each in series] == [("/rpm", [30]), ("/nowhere", [])]


def test_several_devices_are_answered_by_device(past: Past) -> None:
    past.publish("lab/lamp", 5)
    past.publish("home", 6)
    answer = past.get("/api/history?devices=lab/*&limit=2")
    assert [(each["device_id"], seqs(each), "cursor" in each) for each in answer["devices"]] == [
        ("lab/lamp", [31], False),
        ("lab/motor", [30, 29], True),
    ]
    assert (answer["seq"], "cursor" in answer) == (32, False)
    cursor = answer["devices"][1]["cursor"]
    assert seqs(past.history(limit=2, cursor=cursor)) == [28, 27]
    buckets = past.get("/api/history?devices=lab/*&devices=nobody&every=1h&path=/rpm&path=&agg=max")
    assert [(each["device_id"], each["path"], each["max"]) for each in buckets["series"]] == [
        ("lab/lamp", "", [5]),
        ("lab/motor", "/rpm", [29]),
    ]
    assert past.get("/api/history?devices=nothing/*") == {**answer, "devices": []}


def test_a_device_is_named_in_the_path_or_by_a_parameter(past: Past) -> None:
    past.publish("lab/history", 1)
    past.publish("a?b=c&d#%", 2)
    assert past.get("/api/data/lab%2Fhistory")["value"] == 1, "a device, not the history of lab"
    assert seqs(past.get("/api/data/lab%2Fhistory/history")) == [31]
    for name in ("lab/motor", "lab/history", "a?b=c&d#%"):
        by_path, by_parameter = (
            past.get(f"/api/data/{quote(name, safe='')}/history"),
            past.get(f"/api/history?device_id={quote(name, safe='')}"),
        )
        assert by_path == by_parameter
        assert by_path["device_id"] == name
    problem = past.http.get("/api/data/lab/motor/history")
    assert_problem(problem, 404, "not_found")


@pytest.mark.parametrize(
    "query", ["", "device_id=a&devices=b", "device_id=a&device_id=b", "devices=", "devices=&every=1h"]
)
def test_history_is_of_one_device_or_of_patterns(past: Past, query: str) -> None:
    assert_problem(past.http.get(f"/api/history?{query}"), 422, "validation_failed")


def test_commands_and_deletions_are_marks_on_the_axis(past: Past) -> None:
    past.http.post("/api/control", json={"target": "lab/motor", "command": "stop", "args": {"now": True}})
    past.http.delete("/api/data/lab%2Fmotor")
    assert seqs(past.history(limit=1)) == [30], "readings alone, unless asked"
    marks = past.history(kinds="control,deleted", path="/rpm", order="asc")["entries"]
    assert [{**mark, "timestamp_utc": ""} for mark in marks] == [
        {"seq": 31, "type": "control", "timestamp_utc": "", "command": "stop", "args": {"now": True}, "source": "rest"},
        {"seq": 32, "type": "deleted", "timestamp_utc": "", "source": "rest"},
    ]
    assert seqs(past.history(limit=1)) == [30], "a deleted device has its history"
    past.http.delete("/api/data/lab%2Fmotor/history").raise_for_status()
    (mark,) = past.history(kinds="control,deleted")["entries"]
    assert (mark["seq"], mark["type"], mark["scope"]) == (33, "deleted", "history"), "of which this says that it went"


def test_a_measured_time_counts_and_says_what_is_late_and_what_is_not_believed(past: Past) -> None:
    for value, measured in ((100, "2026-11-25T10:03:30Z"), (101, "2030-01-01T00:00:00Z")):
        body = {"device_id": "lab/motor", "value": {"rpm": value}, "measured_at_utc": measured}
        past.http.post("/api/data", json=body).raise_for_status()
    around = past.history(from_="2026-11-25T10:03:00Z", to="2026-11-25T10:05:00Z", path="/rpm", order="asc")["entries"]
    assert [(entry["seq"], entry["value"], entry.get("late")) for entry in around] == [
        (4, 3, None),
        (31, 100, True),
        (5, 4, None),
    ]
    (off,) = past.history(limit=1)["entries"]
    assert (off["seq"], off["clock"], off["measured_at_utc"]) == (32, "off", "2030-01-01T00:00:00.000000+00:00")
    assert seqs(past.history(time="stored", limit=2)) == [32, 31]
    assert past.history(from_="2026-11-25T10:03:00Z", to="2026-11-25T10:04:00Z", every="1m", path="/rpm")["max"] == [
        100
    ]
    assert past.history(kinds="late", path="/rpm")["entries"][0]["value"] == 100
    assert past.get("/api/data?at=now")["data"]["lab/motor"]["seq"] == 32, "what is late is no state"


def test_a_device_that_never_was_is_told_from_one_that_has_nothing_here(past: Past) -> None:
    detail = assert_problem(past.http.get("/api/data/nobody/history"), 404, "no_such_device")["detail"]
    assert detail == "there is no device 'nobody', and no history of one"
    assert_problem(past.http.get("/api/history?device_id=nobody&points=5"), 404, "no_such_device")
    assert past.history(to="2020-01-01T00:00:00Z")["entries"] == []


def test_answers_come_as_lines_for_other_programs(past: Past) -> None:
    answer = past.ask(format="csv", limit=2, path="/rpm")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert next(iter(csv.DictReader(io.StringIO(answer.text)))) == {
        **{"device_id": "lab/motor", "seq": "30", "source": "rest", "value": "29", "number": "29"},
        **dict.fromkeys(("time", "stored_time"), "2026-11-25T10:29:00.000000+00:00"),
    }
    assert answer.headers["twincast-position"] == past.position()
    assert seqs(past.history(limit=2, path="/rpm", cursor=answer.headers["twincast-cursor"])) == [28, 27]
    lines = past.http.get("/api/history?devices=*&every=10m&path=/rpm", headers={"Accept": "application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in lines.text.splitlines()]
    assert [(row["device_id"], row["avg"]) for row in rows] == [
        ("lab/motor", 4.5),
        ("lab/motor", 14.5),
        ("lab/motor", 24.5),
    ]
    both = past.http.get("/api/data/lab%2Fmotor/history?format=json", headers={"Accept": "text/csv"})
    assert both.headers["content-type"] == "application/json"


def test_a_large_answer_is_sent_in_pieces_and_compressed(past: Past) -> None:
    for number in range(40):
        past.publish("large", f"{number}" + "x" * 10_000)
    answer = past.get("/api/data/large/history")
    assert [entry["value"][:2] for entry in answer["entries"]][:2] == ["39", "38"]
    with past.http.stream("GET", "/api/data/large/history", headers={"Accept-Encoding": "gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert json.loads(gzip.decompress(b"".join(packed.iter_raw()))) == answer


@pytest.mark.parametrize(
    ("code", "parameters"),
    [
        ("bad_time", {"from_": "2026-11-25T10:00:00"}),
        ("bad_time", {"to": "teatime"}),
        ("bad_range", {"from_": "now", "to": "-1h"}),
        ("bad_range", {"points": "5", "from_": "2026-11-25T12:00:00Z"}),
        ("bad_range", {"every": "5 minutes"}),
        ("bad_range", {"every": "1d", "tz": "Berlin"}),
        ("bad_path", {"path": "rpm"}),
        ("unknown_aggregate", {"points": "5", "agg": "median"}),
        ("bad_cursor", {"cursor": "x"}),
        ("validation_failed", {"every": "1h", "limit": "5"}),
        ("validation_failed", {"format": "parquet"}),
        ("validation_failed", {"form": "csv"}),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_code(past: Past, code: str, parameters: dict[str, str]) -> None:
    past.refused(422, code, **parameters)


def test_too_many_buckets_are_refused_with_the_smallest_width_that_fits(past: Past) -> None:
    detail = past.refused(422, "too_much", every="1s")
    assert detail.endswith("the smallest `every` of whole seconds that fits a range of this length is 9s")
    assert len(past.history(every="9s", fill="null")["time_ms"]) == 9_600
    past.refused(422, "too_much", every="8s")


def test_a_cursor_is_of_its_query_alone(past: Past) -> None:
    cursor = past.history(limit=1)["cursor"]
    assert "another query" in past.refused(422, "bad_cursor", cursor=cursor, order="asc")
    assert_problem(past.http.get(f"/api/data/other/history?cursor={cursor}"), 422, "bad_cursor")
    assert_problem(past.http.get(f"/api/history?devices=*&cursor={cursor}"), 422, "validation_failed")


def test_positions_that_are_not_of_this_log_are_refused(past: Past) -> None:
    epoch = past.position().partition(":")[0]
    past.refused(404, "ahead", to=f"{epoch}:31")
    past.refused(404, "ahead", from_=f"{epoch}:31", points="5", time="stored")
    past.refused(410, "unknown_epoch", from_="00000000-00000000:3")


def test_the_state_at_a_time_is_the_one_that_was_then(past: Past) -> None:
    past.publish("lamp", 1)
    past.http.delete("/api/data/lab%2Fmotor")
    epoch = past.position().partition(":")[0]
    then = past.get("/api/data?at=2026-11-25T10:04:59Z")
    assert (then["epoch"], then["seq"]) == (epoch, 5)
    assert {name: twin["value"]["rpm"] for name, twin in then["data"].items()} == {"lab/motor": 4}
    assert past.get(f"/api/data?at={epoch}:5")["data"] == then["data"]
    assert past.get("/api/data?at=now")["data"] == past.get("/api/data")["data"]
    assert past.get("/api/data?at=-30m")["seq"] == 1, "stored at that very instant"
    assert past.get("/api/data?at=2026-11-25T09:59:59Z") | {"timestamp_utc": ""} == {
        **{"timestamp_utc": "", "epoch": epoch, "seq": 0, "data": {}}
    }
    assert past.get(f"/api/data?at={epoch}:31&devices=la*p&devices=nobody")["data"].keys() == {"lamp"}
    assert past.get("/api/data/lab%2Fmotor?at=2026-11-25T10:04:59Z") == {
        **{"device_id": "lab/motor", "value": {"rpm": 4, "on": True, "label": "4"}, "source": "rest", "seq": 5},
        **{"updated_at_utc": "2026-11-25T10:04:00.000000+00:00", "epoch": epoch},
    }
    assert_problem(past.http.get(f"/api/data/lamp?at={epoch}:5"), 404, "not_found")
    assert_problem(past.http.get(f"/api/data/lab%2Fmotor?at={epoch}:32"), 404, "not_found")


@pytest.mark.parametrize("at", ["2026-11-25T10:30:01Z", "9999-12-31T23:59:59Z", "{epoch}:31", "{epoch}:999999999999"])
def test_a_state_of_the_future_is_refused_at_once_and_is_not_the_newest(past: Past, at: str) -> None:
    epoch = past.position().partition(":")[0]
    assert_problem(past.http.get(f"/api/data?at={at.format(epoch=epoch)}"), 404, "ahead")
    assert_problem(past.http.get(f"/api/data/lab%2Fmotor?at={at.format(epoch=epoch)}"), 404, "ahead")


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("at=2026-11-25T10:00:00", 422, "bad_time"),
        ("at=", 422, "bad_time"),
        ("at=soon", 422, "bad_time"),
        ("at=00000000-00000000:3", 410, "unknown_epoch"),
        ("at=now&min_seq=3", 422, "validation_failed"),
    ],
)
def test_a_state_at_no_time_is_refused(past: Past, query: str, status: int, code: str) -> None:
    assert_problem(past.http.get(f"/api/data?{query}"), status, code)
    assert_problem(past.http.get(f"/api/data/lab%2Fmotor?{query}"), status, code)


def test_what_a_log_in_memory_has_dropped_is_said() -> None:
    with Server("memory:", memory_journal_max_bytes=65_536) as server:
        for number in range(100):
            httpx.post(f"{server.url}/api/data", json={"device_id": f"d{number % 2}", "value": "x" * 1_000})
        answer = httpx.get(f"{server.url}/api/data/d1/history").json()
        oldest = answer["entries"][-1]
        assert oldest["seq"] > 10
        assert answer["reaches_back_to"] <= oldest["timestamp_utc"]
        epoch = answer["epoch"]
        problem = assert_problem(httpx.get(f"{server.url}/api/data?at={epoch}:3"), 410, "truncated")
        assert "known back to position" in problem["detail"]
        buckets = httpx.get(f"{server.url}/api/data/d1/history?every=1d&agg=last&time=stored&from={epoch}:3").json()
        assert buckets["last"] == ["x" * 1_000]


def test_a_chart_goes_live_without_a_gap_or_a_reading_twice(past: Past) -> None:
    """Read history while a writer writes, then go on with `since`: together they are what the log has."""
    stop = threading.Event()

    def write() -> None:
        with httpx.Client(base_url=past.server.url) as http:
            while not stop.is_set():
                http.post("/api/data", json={"device_id": "lab/motor", "value": {"rpm": 1}}).raise_for_status()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            answer = past.history(limit=10_000, order="asc")
            since = f"{answer['epoch']}:{answer['seq']}"
            counted = past.history(every="1d", path="/rpm", agg="count", to=since)
            with connect(f"{past.server.ws_url}?mode=every&since={since}") as socket:
                assert json.loads(socket.recv(timeout=10))["resumed"]
                live = [json.loads(socket.recv(timeout=10))["seq"] for _ in range(5)]
            together = seqs(answer) + live
            assert together == list(range(1, len(together) + 1))
            assert sum(counted["count"]) == answer["seq"] == counted["seq"]
    finally:
        stop.set()
        writer.join()
