"""When a journal takes nothing: what is known of it, and what is said."""

import logging

import pytest

from twincast.errors import JournalUnavailable
from twincast.journal.outage import Outage


def test_an_outage_is_said_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    outage.end()
    assert outage.problem is None
    for _ in range(2):
        caplog.clear()
        for reason in "the disk is full", "the disk is still full":
            outage.begin(JournalUnavailable(reason))
            assert str(outage.problem) == reason
        for _ in range(2):
            outage.end()
            assert outage.problem is None
        assert [(each.levelno, each.getMessage()) for each in caplog.records] == [
            (logging.ERROR, "nothing is stored or cast until the journal works again: the disk is full"),
            (logging.WARNING, "the journal works again"),
        ]
