"""The fleet that does not exist: as many devices as asked for, the same at each run, values as real ones."""

import json
from collections import Counter
from itertools import pairwise

import pytest

from twincast.cli.fleet import fleet


@pytest.mark.parametrize("devices", [1, 6, 7, 100])
def test_a_fleet_has_as_many_devices_as_asked_for_each_with_its_own_name(devices: int) -> None:
    assert len({name for name, _ in fleet(devices)}) == devices


def test_the_same_seed_makes_the_same_fleet_and_another_one_another() -> None:
    def history(seed: int) -> list[object]:
        return [signal(time_s) for _, signal in fleet(12, seed) for time_s in range(20)]

    assert history(1) == history(1)
    assert history(1) != history(2)


def test_every_signal_is_json_that_changes_and_stays_in_bounds() -> None:
    for name, signal in fleet(60):
        values = [signal(float(time_s)) for time_s in range(600)]
        texts = [json.dumps(value, allow_nan=False) for value in values]
        assert len(set(texts)) > 10, name
        assert max(map(len, texts)) < 200, name


def test_a_battery_drains_and_is_charged_again() -> None:
    levels = next(signal for name, signal in fleet(6) if name.startswith("yard/battery"))
    seen = [levels(float(time_s)) for time_s in range(0, 3 * 86_400, 60)]
    assert all(0 <= level <= 100 for level in seen)
    assert any(after < before for before, after in pairwise(seen))
    assert any(after > before for before, after in pairwise(seen))


def test_a_machine_runs_idles_and_fails() -> None:
    machines = [signal for name, signal in fleet(120) if name.startswith("hall/machine")]
    states = Counter(signal(time_s)["state"] for signal in machines for time_s in range(0, 3_600, 5))
    assert set(states) == {"idle", "running", "fault"}
    assert states["running"] > states["fault"]


def test_days_are_warmer_than_nights_and_machines_rest_at_night() -> None:
    signals = list(fleet(60))
    hours: dict[int, list[float]] = {hour: [] for hour in range(24)}
    running = dict.fromkeys(range(24), 0)
    for time_s in range(0, 7 * 86_400, 600):
        for name, signal in signals:
            value = signal(float(time_s))
            if name.startswith("office"):
                hours[time_s // 3_600 % 24].append(value)
            elif name.startswith("hall"):
                running[time_s // 3_600 % 24] += value["state"] == "running"
    means = {hour: sum(values) / len(values) for hour, values in hours.items()}
    assert max(means, key=means.__getitem__) in range(12, 19)
    assert min(means, key=means.__getitem__) in {23, *range(7)}
    assert running[12] > 3 * running[3]


def test_signals_stay_what_they_are_however_far_apart_they_are_asked() -> None:
    for name, signal in fleet(12):
        values = [signal(time_s * 3_600.0) for time_s in range(24 * 30)]
        if name.startswith("town"):
            assert all(abs(value["lat"] - 48.137) < 0.2 for value in values), name
        if name.startswith("office"):
            assert all(5 < value < 40 for value in values), name
