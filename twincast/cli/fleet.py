"""A fleet that does not exist, with signals as real devices have them. Pure: time is an argument, chance is seeded."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

Signal = Callable[[float], Any]
"""Takes a time, returns the device's value at it. Times rise from call to call, by as little or as much as it may be.

They are seconds by the clock on the wall of the place, counted from a midnight: days and nights follow from them.
"""

DAY_S, HOUR_S = 86_400.0, 3_600.0
CITY = (48.137, 11.575)
CITY_M = 5_000.0
DEGREE_M = 111_320.0


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


def daylight(time_s: float) -> float:
    """Return how much of a day it is: 0 at three in the morning, 1 at three in the afternoon."""
    return 0.5 - 0.5 * math.cos(math.tau * (time_s / DAY_S - 0.125))


def thermometer(chance: random.Random) -> Callable[[float], float]:
    """Room temperature in °C: warmer by day, and from one day to the next as the weather is."""
    mean, swing = chance.uniform(18, 24), chance.uniform(1, 3)
    weather, draught = _wander(chance, 1.0, 2 * DAY_S), _wander(chance, 0.2, 0.5 * HOUR_S)

    def at(time_s: float) -> float:
        by_day = swing * (2 * daylight(time_s) - 1)
        return round(mean + by_day + weather(time_s) + draught(time_s) + chance.gauss(0, 0.03), 2)

    return at


def climate(chance: random.Random) -> Signal:
    """Air in a greenhouse: warmth drives humidity down."""
    temperature, period_s = thermometer(chance), chance.uniform(300, 900)

    def at(time_s: float) -> dict[str, float]:
        celsius = temperature(time_s) + 6 * daylight(time_s) + 0.5 * math.sin(math.tau * time_s / period_s)
        humidity = min(100.0, max(5.0, 140 - 3 * celsius + chance.gauss(0, 0.4)))
        return {"celsius": round(celsius, 2), "humidity_percent": round(humidity, 1)}

    return at


def machine(chance: random.Random) -> Signal:
    """A machine tool: it idles, runs, and now and then stops with a fault; at night it rests."""
    lasts_s = {"idle": 90.0, "running": 240.0, "fault": 60.0}
    state, until_s, speed, elapsed = "idle", 0.0, 0.0, _elapsed()

    def after(state: str, time_s: float) -> str:
        if state == "running":
            return chance.choice(("running", "running", "idle", "fault"))
        is_wanted = chance.random() < (0.8 if 6 * HOUR_S <= time_s % DAY_S < 22 * HOUR_S else 0.1)
        return "running" if state == "idle" and is_wanted else "idle"

    def at(time_s: float) -> dict[str, Any]:
        nonlocal state, until_s, speed
        if time_s >= until_s:
            state = after(state, time_s)
            until_s = time_s + chance.expovariate(1 / lasts_s[state])
        speed += (1 - math.exp(-elapsed(time_s) / 3)) * ((1_480.0 if state == "running" else 0.0) - speed)
        vibration = 0.2 + speed / 1_000 + abs(chance.gauss(0, 0.1))
        return {"state": state, "rpm": round(speed), "vibration_mm_s": round(vibration, 2)}

    return at


def battery(chance: random.Random) -> Signal:
    """A battery in percent: it drains, by day faster, and is charged when it is low."""
    level, is_charging, elapsed = chance.uniform(30, 100), False, _elapsed()
    drain_per_h = chance.uniform(4, 10)

    def at(time_s: float) -> float:
        nonlocal level, is_charging
        per_h = 40.0 if is_charging else -drain_per_h * (0.5 + daylight(time_s))
        level = min(100.0, max(0.0, level + per_h * elapsed(time_s) / HOUR_S))
        is_charging = level < 15 or (is_charging and level < 95)
        return round(level, 2)

    return at


def meter(chance: random.Random) -> Signal:
    """An electricity meter: power that comes in steps, most of it by day, and the energy that it adds up to."""
    watts, energy_wh, elapsed = chance.uniform(80, 400), chance.uniform(0, 1e6), _elapsed()

    def at(time_s: float) -> dict[str, float]:
        nonlocal watts, energy_wh
        past_s = elapsed(time_s)
        energy_wh += watts * past_s / 3_600
        if chance.random() < 1 - math.exp(-past_s / 120):
            is_much = chance.random() < 0.05 + 0.5 * daylight(time_s)
            watts = chance.choice((450, 900, 2_100) if is_much else (60, 120)) * chance.uniform(0.9, 1.1)
        return {"watts": round(watts + chance.gauss(0, 3), 1), "energy_kwh": round(energy_wh / 1_000, 4)}

    return at


def vehicle(chance: random.Random) -> Signal:
    """A vehicle that drives around a town by day: position in degrees, speed in km/h."""
    east_m, north_m, heading = chance.gauss(0, 2_000), chance.gauss(0, 2_000), chance.uniform(0, math.tau)
    traffic, elapsed, speed = _wander(chance, 12, 60), _elapsed(), 0.0

    def at(time_s: float) -> dict[str, float]:
        nonlocal east_m, north_m, heading, speed
        past_s = min(elapsed(time_s), 60.0)
        is_out = 6 * HOUR_S <= time_s % DAY_S < 20 * HOUR_S
        speed = min(70.0, max(0.0, 30 + traffic(time_s))) if is_out else 0.0
        if math.hypot(east_m, north_m) > CITY_M:
            heading = math.atan2(-north_m, -east_m)
        heading += chance.gauss(0, 0.14) * math.sqrt(past_s)
        east_m += speed / 3.6 * past_s * math.cos(heading)
        north_m += speed / 3.6 * past_s * math.sin(heading)
        latitude = CITY[0] + (north_m + chance.gauss(0, 1)) / DEGREE_M
        longitude = CITY[1] + (east_m + chance.gauss(0, 1)) / (DEGREE_M * math.cos(math.radians(CITY[0])))
        return {"lat": round(latitude, 6), "lon": round(longitude, 6), "speed_kmh": round(speed, 1)}

    return at


def _elapsed() -> Callable[[float], float]:
    """Return what says how long it is since the last call, in seconds; 0 at the first."""
    before_s = math.inf

    def at(time_s: float) -> float:
        nonlocal before_s
        past_s, before_s = max(0.0, time_s - before_s), time_s
        return past_s

    return at


def _wander(chance: random.Random, spread: float, memory_s: float) -> Callable[[float], float]:
    """Noise around 0 that has a memory (an Ornstein-Uhlenbeck process): the same at whichever times it is asked."""
    now, elapsed = chance.gauss(0, spread), _elapsed()

    def at(time_s: float) -> float:
        nonlocal now
        kept = math.exp(-elapsed(time_s) / memory_s)
        now = kept * now + chance.gauss(0, spread * math.sqrt(1 - kept * kept))
        return now

    return at


_KINDS: dict[str, Callable[[random.Random], Signal]] = {
    "office/thermometer": thermometer,
    "greenhouse/climate": climate,
    "hall/machine": machine,
    "yard/battery": battery,
    "house/meter": meter,
    "town/van": vehicle,
}
