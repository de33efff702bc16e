"""The past of a simulated fleet: a reading a device and minute, once, however often it is begun."""

from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from typing import Any

from tests.cli.commands import run
from tests.running import ServerProcess
from twincast.cli.backfill import BATCH_MIN, MAX_S, SLOT_S, Span, batches, lacking, span_until
from twincast.cli.fleet import fleet

NOON_S = 1_795_867_200
"""A whole number of slots."""


def test_a_span_is_of_the_last_whole_minutes() -> None:
    assert span_until(NOON_S + 59.9, 3_600) == Span(NOON_S - 3_600, NOON_S)
    assert span_until(NOON_S + 60.0, 90) == Span(NOON_S, NOON_S + 60)


def test_each_device_has_each_minute_once_and_the_oldest_come_first() -> None:
    members = list(fleet(7))
    span = Span(NOON_S - 86_400 - 180, NOON_S + 120)
    sent = list(batches(members, span, {}, 0.0))
    readings = list(chain.from_iterable(sent))
    assert len(readings) == lacking([name for name, _ in members], span, {}) == 7 * (86_400 + 300) // 60
    assert all(BATCH_MIN <= len(batch) < BATCH_MIN + SLOT_S // 60 for batch in sent[:-1])
    for name, _ in members:
        times = [at for device_id, _, at in readings if device_id == name]
        assert times == sorted(set(times))
        assert datetime.fromisoformat(str(times[0])).timestamp() == span.from_s
        assert datetime.fromisoformat(str(times[-1])).timestamp() == span.to_s - 60


def test_slots_that_a_device_has_readings_in_are_left_out_of_it_alone() -> None:
    members = list(fleet(2))
    (has, _), (lacks, _) = members
    span = Span(NOON_S, NOON_S + 3 * SLOT_S)
    known = {has: {NOON_S + SLOT_S}}
    readings = list(chain.from_iterable(batches(members, span, known, 0.0)))
    assert len(readings) == lacking([has, lacks], span, known) == 50
    assert sum(device_id == lacks for device_id, _, _ in readings) == 30
    assert not any(at.startswith("2026-11-28T12:1") for device_id, _, at in readings if device_id == has)


def simulate(server: ServerProcess, *more: str) -> str:
    result = run(server.url, "simulate", "--devices", "6", "--rate", "60", "--seconds", "0.3", *more)
    assert result.returncode == 0, result
    return str(result.stdout)


def history(server: ServerProcess, device_id: str) -> list[dict[str, Any]]:
    answer = server.get(f"/api/history?device_id={device_id}&order=asc&limit=10000")
    return list(answer["entries"])


def test_a_fleet_has_its_past_before_it_goes_on_live_and_its_last_reading_is_its_state(server: ServerProcess) -> None:
    assert "1,440 past readings of 6 devices stored" in simulate(server, "--backfill", "4h")
    entries = history(server, "yard/battery/001")
    past = [entry for entry in entries if "measured_at_utc" in entry]
    assert len(past) == 240
    times = [datetime.fromisoformat(entry["measured_at_utc"]) for entry in past]
    assert {after - before for before, after in pairwise(times)} == {timedelta(minutes=1)}
    assert datetime.now(UTC) - times[-1] < timedelta(minutes=3)
    assert not any(entry.get("late") for entry in entries)
    twin = server.get("/api/data/yard%2Fbattery%2F001")
    assert twin["seq"] == max(entry["seq"] for entry in entries)
    assert "measured_at_utc" not in twin


def test_a_second_start_sends_only_what_is_not_there_and_a_longer_past_is_added_before(server: ServerProcess) -> None:
    simulate(server, "--backfill", "2h")
    before = server.get("/api/status")["seq"]
    said = simulate(server, "--backfill", "2h")
    again = int(said.split(" past reading")[0].replace(",", ""))
    assert again <= 6 * 2  # a minute may have begun meanwhile, and with it a slot
    twin = server.get("/api/data/yard%2Fbattery%2F001")
    simulate(server, "--backfill", "6h")
    past = [entry["measured_at_utc"] for entry in history(server, "yard/battery/001") if "measured_at_utc" in entry]
    assert len(past) == len(set(past))
    assert 350 <= len(past) <= 363
    assert server.get("/api/data/yard%2Fbattery%2F001")["seq"] > twin["seq"] > before - 6 * 125


def test_what_is_no_past_is_refused_in_one_line(server: ServerProcess) -> None:
    for text, said in (("soon", "a duration is a number"), ("30s", "--backfill is from a minute"), ("90d", "to 69d")):
        result = run(server.url, "simulate", "--backfill", text)
        assert result.returncode == 2
        assert said in " ".join(result.stderr.split())
    assert MAX_S // 86_400 == 69
