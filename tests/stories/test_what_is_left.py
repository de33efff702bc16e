"""What is kept no longer leaves its sums: charts by the hour go on reaching back, entries do not, and both say so."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from tests.running import eventually
from twincast.client import Rest
from twincast.testing import Server

DEADLINE_S = 30
READINGS = 120


def ask(server: Server, address: str, **parameters: str) -> dict[str, Any]:
    answer = requests.get(f"{server.url}{address}", params=parameters, timeout=DEADLINE_S)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_buckets_of_hours_reach_back_behind_the_oldest_entry_and_say_how_far(tmp_path: Path) -> None:
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    kept: dict[str, Any] = {"keep": 1.0, "keep_rollups": 86_400.0, "partition_entries": 50, "resume_max_entries": 10}
    with Server(journal, **kept) as server, Rest(server.url) as rest:
        first = rest.publish("lab/gone", 7)["timestamp_utc"]
        rest.publish_all([("lab/lamp", n) for n in range(1, READINGS)])
        eventually(lambda: rest.status()["space"]["oldest_seq"] > 100, "what is too old goes")
        entries = ask(server, "/api/data/lab%2Flamp/history", limit="1000")
        assert len(entries["entries"]) < 50
        oldest = entries["reaches_back_to"]
        assert oldest >= first

        hours = ask(server, "/api/data/lab%2Flamp/history", every="1h", agg="count,sum,max", **{"from": "-1d"})
        assert sum(hours["count"]) == READINGS - 1
        assert sum(hours["sum"]) == sum(range(1, READINGS))
        assert max(hours["max"]) == READINGS - 1
        assert datetime.fromisoformat(hours["reaches_back_to"]) == datetime.fromisoformat(first)

        minutes = ask(server, "/api/data/lab%2Flamp/history", every="1m", agg="count", **{"from": "-1h"})
        assert sum(minutes["count"]) == len(entries["entries"])
        assert minutes["reaches_back_to"] == oldest

        days = ask(server, "/api/history", devices="lab/*", every="1d", agg="count", **{"from": "-7d"})
        assert {each["device_id"]: sum(each["count"]) for each in days["series"]} == {
            "lab/gone": 1,
            "lab/lamp": READINGS - 1,
        }


def test_where_sums_alone_are_left_the_oldest_state_that_is_known_is_named(tmp_path: Path) -> None:
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    kept: dict[str, Any] = {"keep": 1.0, "keep_rollups": 86_400.0, "partition_entries": 50, "resume_max_entries": 10}
    with Server(journal, **kept) as server, Rest(server.url) as rest:
        rest.publish("lab/still", 7)
        rest.publish_all([("lab/lamp", n) for n in range(1, 100)] + [("lab/fan", n) for n in range(20)])
        eventually(lambda: rest.status()["space"]["oldest_seq"] == 101, "what is too old goes")
        epoch = rest.status()["epoch"]

        def at(moment: str, *devices: str) -> requests.Response:
            parameters = {"at": moment, "devices": devices}
            return requests.get(f"{server.url}/api/data", params=parameters, timeout=DEADLINE_S)

        for moment in f"{epoch}:100", f"{epoch}:3", "-1d":
            for devices, oldest in ((), 101), (("lab/fan",), 101), (("lab/still", "lab/lamp"), 100):
                if (moment, oldest) == (f"{epoch}:100", 100):
                    continue
                refused = at(moment, *devices)
                assert (refused.status_code, refused.json()["code"]) == (410, "truncated")
                named = re.search(r"position (\d+)", refused.json()["detail"])
                assert named and int(named[1]) == oldest, refused.json()
        assert at(f"{epoch}:101").json()["data"].keys() == {"lab/still", "lab/lamp", "lab/fan"}
        assert at(f"{epoch}:100", "lab/still", "lab/lamp").json()["data"].keys() == {"lab/still", "lab/lamp"}
