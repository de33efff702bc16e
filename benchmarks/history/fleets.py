"""Logs of millions of entries, each a function of its number: SQL makes the same for twincast and for its peers."""

from typing import NamedTuple

import apsw

VERSION = 1
"""Of what is made here: files of another one are made anew."""
END_US = 1_793_491_200_000_000
"""When the last entry is stored: 2026-11-01. A month, a year and an open end reach back from it."""
PARTITION_ENTRIES = 1_000_000
_PRIME = 2_147_483_647
_NESTED = 5
"""Each so many devices, one sends an object, whose number is at `/motor/rpm`."""
_NUMBERS = "with recursive number (n) as (select {first} union all select n + 1 from number where n < {last})"


class Fleet(NamedTuple):
    """A log: so many devices, whose rates differ, and so many entries, the same time apart."""

    name: str
    devices: int
    entries: int
    step_us: int
    partition_entries: int = PARTITION_ENTRIES

    @property
    def begin_us(self) -> int:
        """The time behind which the first entry comes."""
        return END_US - self.entries * self.step_us

    @property
    def closed_entries(self) -> int:
        """How many are in partitions. Nearly as many as one has are open, the most that there ever are."""
        return self.entries - self.partition_entries * 99 // 100

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The first and last entry of each partition. The first one is not full, as one that was closed for its age."""
        lasts = list(range(self.closed_entries, 0, -self.partition_entries))[::-1]
        return [(before + 1, last) for before, last in zip([0, *lasts], lasts, strict=False)]

    def smaller(self, times: int) -> "Fleet":
        """Return one with so many times fewer entries: to see that everything works."""
        return self._replace(entries=self.entries // times, partition_entries=self.partition_entries // times)

    def device(self, number: int) -> str:
        """Return the name of a device."""
        return f"hall/{number:05}"

    @property
    def usual(self) -> int:
        """The number of a device that has about as many entries as the mean; its values are numbers."""
        return self.devices * 368 // 1_000

    @property
    def nested(self) -> int:
        """The number of one beside it that sends objects."""
        return self.usual // _NESTED * _NESTED + _NESTED - 1


A = Fleet("a thousand devices", 1_000, 10_000_000, 259_200)
"""A month; device 0 has 79,000 of the entries, a usual one 10,000."""
B = Fleet("one device at 1 Hz", 1, 31_536_000, 1_000_000)
"""A year."""
C = Fleet("ten thousand devices", 10_000, 10_000_000, 259_200)


def rows(fleet: Fleet, numbers: str, divide: str) -> str:
    """Return the SQL for entries: `n`, `at_us`, `device`, and the `whole` and the ten thousandths (`part`) of a number.

    Squares modulo a prime scatter; the product of two of them makes some devices ten times as busy as others.

    Args:
        fleet: the log.
        numbers: SQL that has the numbers of the entries as `n`.
        divide: the operator that divides integers.
    """
    return f"""
select n, {fleet.begin_us} + n * {fleet.step_us} as at_us,
       ((1 + h % 1000) * (1 + h {divide} 1000 % {fleet.devices}) - 1) {divide} 1000 as device,
       10 + g % 90 as whole, g {divide} 90 % 10000 as part
from (
    select n, h, h * 69621 % {_PRIME} as g
    from (select n, (n * 48271 % {_PRIME}) * (n * 48271 % {_PRIME}) % {_PRIME} as h from ({numbers}) numbers) hashed
) scattered
"""


def fill(db: apsw.Connection, fleet: Fleet, first: int, last: int, *, table: str = "log") -> None:
    """Add entries to the table `log` of a journal, as a server writes them, or to another one with such columns."""
    text = "(whole || '.' || substr(10000 + part, 2))"
    nested = f"""iif(device % {_NESTED} = {_NESTED - 1}, '{{"motor":{{"rpm":' || {text} || '}}}}', {text})"""
    time = "replace(datetime(at_us / 1000000, 'unixepoch'), ' ', 'T')"
    made = rows(fleet, "select n from number", "/")
    db.execute(
        f"insert into {table} (seq, type, device_id, value, timestamp_utc, source)"
        f" {_NUMBERS.format(first=first, last=last)}"
        f" select n, 'data_update', printf('hall/%05d', device), {nested},"
        f" {time} || '.' || substr(1000000 + at_us % 1000000, 2) || '+00:00', 'websocket' from ({made})"
    )
