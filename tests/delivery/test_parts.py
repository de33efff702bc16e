"""The state in parts: none is longer than it may be, whatever it is made of."""

from typing import Any, get_args

import pytest
from msgspec import Raw

from twincast.core.model import Snapshot, Source, Twin
from twincast.core.state import State
from twincast.delivery.parts import StateParts

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"


@pytest.mark.parametrize("claims", [{}, {"measured_at_utc": NOW_UTC}, {"measured_at_utc": NOW_UTC, "clock": "off"}])
@pytest.mark.parametrize("source", get_args(Source))
def test_a_part_is_as_long_as_it_may_be_and_no_longer_by_whichever_way_its_changes_came(
    source: Source, claims: dict[str, Any]
) -> None:
    twins = {f"d{number}": Twin(Raw(b"1"), NOW_UTC, 100 + number, source, **claims) for number in range(500)}
    parts = StateParts(State(Snapshot("e", 999, twins)), tuple(twins), max_devices=0, max_bytes=2_000)
    start, sizes = 0, []
    while start < len(twins):
        part = parts.part(start)
        sizes.append(len(part.text))
        start = part.end
    assert max(sizes) <= 2_000
    assert min(sizes[:-1]) > 1_600
