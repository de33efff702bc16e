"""Fixtures for tests of what is done to journals that are open."""

import pytest

from tests.journal.sqlite.history.open_journals import Clock
from twincast.journal.sqlite.history import apart


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make partitions in a thread, which is begun faster than a process."""
    monkeypatch.setattr(apart, "made_apart", apart.made_here)
