"""The soak of servers on one log, in small: nothing is wrong with them, and each rule that is broken is found out."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster_soak.judge import Judge, differences
from tests.cluster_soak.ledger import Ack, Ledger
from tests.cluster_soak.machines import LOG, Machines
from tests.cluster_soak.run import Plan, Rule, run

LONGER = (1, 4)
"""A run that proves too little is made anew, so many times as long: a slow machine does less in a second."""
SMALL = Plan(seconds=25, faults_per_minute=20, seed=3)
TINY = Plan(seconds=4, faults_per_minute=0)


def test_the_servers_are_not_caught_lying(tmp_path: Path) -> None:
    for times in LONGER:
        wrong, soak = run(replace(SMALL, seconds=times * SMALL.seconds), made(tmp_path / f"{times}"))
        assert wrong == []
        if len(soak.ledger.faults) >= 3 and soak.ledger.replays and soak.copier.copies:
            break
    assert len(soak.ledger.faults) >= 3
    assert soak.ledger.replays
    assert soak.copier.copies
    assert {ack.by for ack in soak.ledger.acks} == {each.name for each in soak.publishers}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("keys", "stored twice"),
        ("numbers", "keyless"),
        ("early", "acknowledged, and not so"),
        ("watcher", "never came"),
        ("sync", "acknowledged, and not so"),
    ],
)
def test_a_rule_that_is_broken_on_purpose_is_found(tmp_path: Path, broken: Rule, expected: str) -> None:
    for times in LONGER:
        wrong, _ = run(replace(TINY, broken=broken, seconds=times * TINY.seconds), made(tmp_path / f"{times}"))
        if wrong:
            break
    assert any(expected in text for text in wrong), wrong


def test_a_stream_that_is_deleted_under_load_is_another_log_to_everyone(tmp_path: Path) -> None:
    def delete(machines: Machines) -> None:
        machines.nats.delete_stream(LOG)

    wrong, soak = run(Plan(seconds=8, faults_per_minute=0, incident=delete, is_replaced=True), tmp_path)
    assert wrong == []
    assert len({ack.epoch for ack in soak.ledger.acks}) == 2


def test_a_stream_that_is_put_back_under_load_is_another_log_from_there_on(tmp_path: Path) -> None:
    def put_back(machines: Machines) -> None:
        backup = machines.nats.backup()
        machines.wait_until_ready()
        before = machines.nats.last_seq(LOG) or 0
        while (machines.nats.last_seq(LOG) or 0) < before + 20:  # of which nothing comes back
            pass
        machines.nats.restore(backup)

    wrong, soak = run(Plan(seconds=10, faults_per_minute=0, incident=put_back, is_replaced=True), tmp_path)
    assert wrong == []
    assert len({ack.epoch for ack in soak.ledger.acks}) == 2


def test_a_power_cut_of_all_nodes_takes_nothing_back(tmp_path: Path) -> None:
    wrong, _ = run(Plan(**{**vars(TINY), "has_power_cut": True}), tmp_path)
    assert wrong == []


def history(*numbers: int, by: str = "rest 0", time: str = "12:00") -> list[bytes]:
    return [
        b'{"type":"data_update","device_id":"d","value":{"by":"%b","n":%d,"i":0},"timestamp_utc":"%b","source":"rest",'
        b'"seq":%d,"epoch":"e"}' % (by.encode(), number, time.encode(), seq)
        for seq, number in enumerate(numbers, 1)
    ]


def ledger(*acks: tuple[int, int], by: str = "rest 0") -> Ledger:
    return Ledger(sent={by: 10}, acks=[Ack(by, n, "e", seq, seq, False) for n, seq in acks])


@pytest.mark.parametrize(
    ("stored", "acks", "expected"),
    [
        ((0, 1, 2), [(0, 1), (2, 3)], ""),
        ((0, 1), [(0, 1), (2, 3)], "not so in the log"),
        ((0, 2, 1), [], "stands behind"),
        ((0, 1, 1), [], "stored twice"),
        ((0, 1), [(1, 1)], "not so in the log"),
        ((0, 99), [], "never sent"),
    ],
)
def test_the_log_is_held_against_what_publishers_were_told(
    stored: tuple[int, ...], acks: list[tuple[int, int]], expected: str
) -> None:
    wrong = Judge(history(*stored)).wrong(ledger(*acks))
    assert any(expected in text for text in wrong) if expected else wrong == []


def test_time_that_goes_back_positions_with_a_gap_and_half_a_batch_are_found() -> None:
    late = history(0, 1, time="12:01") + history(0, 1, 2)[2:]
    assert Judge(late).wrong(ledger()) == ["time goes back"]
    assert Judge(history(0, 1, 2)[1:]).wrong(ledger()) == ["the positions are not 1, 2, 3, … without gaps"]
    (text,) = Judge(history(0, by="batch 0")).wrong(ledger(by="batch 0"))
    assert text.startswith("a batch in parts")


def test_servers_that_hold_another_log_are_found() -> None:
    assert differences("log", {"s0": [b"a"], "s1": [b"a"]}) == []
    assert len(differences("log", {"s0": [b"a"], "s1": [b"b"], "s2": []})) == 2
