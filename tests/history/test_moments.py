from msgspec import UNSET, Raw, UnsetType

from twincast.core.model import Control, DataUpdate, Late
from twincast.history.moments import at_us, place_of, stored_us
from twincast.history.times import MIN_US

STORED, MEASURED = "2026-11-25T10:00:00.000000+00:00", "2026-11-25T09:00:00.000000+00:00"
TEN_US, NINE_US = 1_795_600_800_000_000, 1_795_597_200_000_000


def reading(measured: str | UnsetType = UNSET, stored: str = STORED, **changes: str) -> DataUpdate:
    return DataUpdate("a", Raw(b"1"), stored, "rest", 7, measured_at_utc=measured, **changes)  # type: ignore[arg-type]


def test_without_a_measured_time_the_stored_one_counts() -> None:
    assert at_us(reading()) == stored_us(reading()) == TEN_US
    command = Control("a", "go", Raw(b"{}"), STORED, "rest", 8)
    assert at_us(command) == stored_us(command) == TEN_US


def test_a_measured_time_counts_where_it_is_believed() -> None:
    assert (at_us(reading(MEASURED)), stored_us(reading(MEASURED))) == (NINE_US, TEN_US)
    late = Late("a", Raw(b"1"), STORED, "rest", MEASURED, 7)
    assert (at_us(late), stored_us(late)) == (NINE_US, TEN_US)
    assert at_us(reading("2099-01-01T00:00:00.000000+00:00", clock="off")) == TEN_US


def test_a_place_is_by_the_time_that_is_asked_for() -> None:
    assert place_of(reading(MEASURED), by_stored=False) == (NINE_US, 7)
    assert place_of(reading(MEASURED), by_stored=True) == (TEN_US, 7)


def test_another_programs_time_counts_whatever_its_zone() -> None:
    assert stored_us(reading(stored="2026-11-25T11:00:00+01:00")) == TEN_US
    assert stored_us(reading(stored="yesterday")) == at_us(reading(stored="yesterday")) == MIN_US
