"""A fleet that does not exist, with signals as real devices have them. Pure: time is an argument, chance is seeded."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

Signal = Callable[[float], Any]
"""Takes the time in seconds since the fleet began, returns the device's value at it."""

DAY_S = 86_400.0


def fleet(devices: int, seed: int = 0) -> Iterator[tuple[str, Signal]]:
    """Yield the names and signals of a fleet; the same seed makes the same fleet.

    Args:
        devices: how many.
        seed: of everything that is random in it.
    """
    kinds = tuple(_KINDS.items())
    for number in range(devices):
        place, make = kinds[number % len(kinds)]
        yield f"{place}/{number // len(kinds) + 1:03}", make(random.Random(f"{seed}/{number}"))


def thermometer(chance: random.Random) -> Signal:
    """Room temperature in °C: a daily curve, and noise that has a memory."""
    mean, swing, phase, drift = chance.uniform(18, 24), chance.uniform(1, 4), chance.uniform(0, math.tau), 0.0

    def at(time_s: float) -> float:
        nonlocal drift
        drift = 0.95 * drift + chance.gauss(0, 0.08)
        return round(mean + swing * math.sin(math.tau * time_s / DAY_S + phase) + drift, 2)

    return at


def climate(chance: random.Random) -> Signal:
    """Air in a greenhouse: warmth drives humidity down."""
    temperature, period_s = thermometer(chance), chance.uniform(300, 900)

    def at(time_s: float) -> dict[str, float]:
        celsius = temperature(time_s) + 2 * math.sin(math.tau * time_s / period_s)
        return {"celsius": round(celsius, 2), "humidity_percent": round(130 - 3 * celsius + chance.gauss(0, 0.4), 1)}

    return at


def machine(chance: random.Random) -> Signal:
    """A machine tool: it idles, runs, and now and then stops with a fault."""
    next_states = {"idle": ("idle", "running"), "running": ("running", "running", "idle", "fault"), "fault": ("idle",)}
    state, until_s, speed = "idle", 0.0, 0.0

    def at(time_s: float) -> dict[str, Any]:
        nonlocal state, until_s, speed
        if time_s >= until_s:
            state, until_s = chance.choice(next_states[state]), time_s + chance.expovariate(1 / 20)
        speed += 0.3 * ((1_480.0 if state == "running" else 0.0) - speed)
        vibration = 0.2 + speed / 1_000 + abs(chance.gauss(0, 0.1))
        return {"state": state, "rpm": round(speed), "vibration_mm_s": round(vibration, 2)}

    return at


def battery(chance: random.Random) -> Signal:
    """A battery in percent: it drains, and is charged when it is low."""
    level, is_charging, before_s = chance.uniform(30, 100), False, 0.0
    drain_per_s = chance.uniform(0.02, 0.1)

    def at(time_s: float) -> float:
        nonlocal level, is_charging, before_s
        level += (time_s - before_s) * (0.5 if is_charging else -drain_per_s)
        before_s = time_s
        is_charging = level < 15 or (is_charging and level < 95)
        level = min(100.0, max(0.0, level))
        return round(level, 1)

    return at


def meter(chance: random.Random) -> Signal:
    """An electricity meter: power that comes in steps, and the energy that it adds up to."""
    watts, energy_wh, before_s = chance.uniform(80, 400), chance.uniform(0, 1e6), 0.0

    def at(time_s: float) -> dict[str, float]:
        nonlocal watts, energy_wh, before_s
        if chance.random() < 0.02:
            watts = chance.choice((60, 120, 450, 900, 2_100)) * chance.uniform(0.9, 1.1)
        energy_wh += watts * (time_s - before_s) / 3_600
        before_s = time_s
        return {"watts": round(watts + chance.gauss(0, 3), 1), "energy_kwh": round(energy_wh / 1_000, 4)}

    return at


def vehicle(chance: random.Random) -> Signal:
    """A vehicle on its way around a town: position in degrees, speed in km/h."""
    latitude, longitude, heading = (
        48.137 + chance.gauss(0, 0.03),
        11.575 + chance.gauss(0, 0.04),
        chance.uniform(0, 360),
    )
    speed, before_s = chance.uniform(10, 50), 0.0

    def at(time_s: float) -> dict[str, float]:
        nonlocal latitude, longitude, heading, speed, before_s
        heading = (heading + chance.gauss(0, 8)) % 360
        speed = min(70.0, max(0.0, speed + chance.gauss(0, 3)))
        metres, before_s = speed / 3.6 * (time_s - before_s), time_s
        latitude += metres * math.cos(math.radians(heading)) / 111_320
        longitude += metres * math.sin(math.radians(heading)) / (111_320 * math.cos(math.radians(latitude)))
        return {"lat": round(latitude, 6), "lon": round(longitude, 6), "speed_kmh": round(speed, 1)}

    return at


_KINDS: dict[str, Callable[[random.Random], Signal]] = {
    "office/thermometer": thermometer,
    "greenhouse/climate": climate,
    "hall/machine": machine,
    "yard/battery": battery,
    "house/meter": meter,
    "town/van": vehicle,
}
