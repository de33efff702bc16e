"""Changes of the keys add up to the same table on every server, wherever its fold began."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.core.audit import AuditRecord
from twincast.core.keys import Key, Pairing
from twincast.errors import JournalUnusable
from twincast.journal.jetstream.key_changes import CODES_KEPT_S, KeyChange, KeyTable, decode_change

BEGAN = datetime.now(UTC).replace(microsecond=0)
"""Now: where changes go through NATS, that stamps them, and codes of more than a day ago are forgotten."""
BEGAN_S = int(BEGAN.timestamp())
GRANTS = {"publish": ["lab/*"]}

WISHES = st.lists(
    st.tuples(
        st.sampled_from(["add", "revoke", "clear", "code", "use", "note"]),
        st.integers(0, 5),
        st.integers(0, CODES_KEPT_S),
        st.sampled_from(["", "n1", "n2"]),
    ),
    max_size=40,
)
"""What is done, to which key or name, how many seconds after the one before, and by which server."""


def at(s: float) -> str:
    return (BEGAN + timedelta(seconds=s)).isoformat(timespec="microseconds")


def key(number: int, name: str = "a", **more: object) -> Key:
    return Key(f"id{number}", name, f"{number:064}", GRANTS, "2000-01-01T00:00:00.000000+00:00", **more)  # type: ignore[arg-type]


def code(number: int, name: str = "a", *, until_s: int = BEGAN_S + 300) -> Pairing:
    return Pairing(f"code{number}", name, GRANTS, 5.5, 3_600, until_s)


def change(server: str = "", /, **what: object) -> KeyChange:
    return KeyChange("local:me", "command line", "keys add", "key:1", "a publish lab/*", server, **what)  # type: ignore[arg-type]


def log_of(wishes: list[tuple[str, int, int, str]]) -> list[tuple[bytes, int, str]]:
    """Return messages that follow from each other, as servers that check before they send make them."""
    table, messages, now_s = KeyTable(), [], 0
    for number, (verb, which, later_s, server) in enumerate(wishes):
        now_s += later_s
        good = [each for each in table.keyring().keys if each.revoked_at_utc is None]
        unused = [each for each in table.codes() if not each.is_used]
        what: dict[str, object] = {}
        if verb == "add":
            what["add"] = key(number, f"name{which}")
        elif verb == "revoke" and good:
            what["revoke"] = good[which % len(good)].id
        elif verb == "clear":
            what["clear"] = True
        elif verb == "code":
            what["code"] = code(number, f"name{which}", until_s=BEGAN_S + now_s + 300)
        elif verb == "use" and unused:
            what |= {"used": unused[which % len(unused)].pairing.digest, "add": key(number, f"name{which}")}
        message = change(server, **what).encoded(), 3 * number + 1, at(now_s)
        table.apply(decode_change(message[0]), *message[1:])
        messages.append(message)
    return messages


@given(WISHES, st.data())
def test_any_two_folds_are_equal_wherever_they_began(
    wishes: list[tuple[str, int, int, str]], data: st.DataObject
) -> None:
    log = log_of(wishes)
    whole, stored, records = KeyTable(), [KeyTable().rows()], list[AuditRecord]()
    for message, seq, at_utc in log:
        records += whole.apply(decode_change(message), seq, at_utc)
        stored.append(whole.rows())
    begin = data.draw(st.integers(0, len(log)))
    later = KeyTable.of(msgspec.json.decode(msgspec.json.encode(stored[begin]), type=type(stored[begin])))
    said = [
        record for message, seq, at_utc in log[begin:] for record in later.apply(decode_change(message), seq, at_utc)
    ]
    assert said == records[begin:]
    assert later.rows() == whole.rows()
    assert later.keyring() == whole.keyring()
    assert later.version == (log[-1][1] if log else 0)


def test_a_table_begins_empty_at_version_0() -> None:
    assert KeyTable().keyring() == (0, ())


def test_the_times_of_a_key_are_those_of_the_stream() -> None:
    table = KeyTable()
    (record,) = table.apply(change("n1", add=key(1, revoked_at_utc="1999")), 7, at(0))
    assert (record.at_utc, record.server, record.seq) == (at(0), "n1", None)
    (added,) = table.keyring().keys
    assert (added.created_at_utc, added.revoked_at_utc) == (at(0), None)
    table.apply(change(revoke="id1"), 9, at(60))
    version, (ended,) = table.keyring()
    assert (version, ended.created_at_utc, ended.revoked_at_utc) == (9, at(0), at(60))


def test_clearing_forgets_all_keys_and_leaves_the_codes() -> None:
    table = KeyTable()
    table.apply(change(add=key(1)), 1, at(0))
    table.apply(change(code=code(1)), 2, at(0))
    table.apply(change(clear=True), 3, at(0))
    assert table.keyring() == (3, ())
    assert table.code("code1") is not None
    table.apply(change(add=key(1)), 4, at(0))
    assert [each.id for each in table.keyring().keys] == ["id1"]


def test_a_code_replaces_unused_ones_of_its_name_and_those_of_yesterday() -> None:
    table = KeyTable()
    table.apply(change(code=code(1, "a")), 1, at(0))
    table.apply(change(code=code(2, "b")), 2, at(0))
    table.apply(change(used="code2", add=key(2, "b")), 3, at(1))
    table.apply(change(code=code(3, "a")), 4, at(2))
    assert {each.pairing.digest: each.is_used for each in table.codes()} == {"code2": True, "code3": False}
    table.apply(change(code=code(4, "c")), 5, at(300 + CODES_KEPT_S))
    assert table.code("code2") is not None, "it is kept for a day"
    table.apply(change(code=code(5, "d")), 6, at(301 + CODES_KEPT_S))
    assert {each.pairing.digest for each in table.codes()} == {"code5"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"add": key(1, "b")},
        {"add": msgspec.structs.replace(key(2), digest=key(1).digest)},
        {"revoke": "id2"},
        {"revoke": "id0"},
        {"revoke": "id1", "clear": True},
        {"code": code(1)},
        {"used": "code2"},
        {"used": "code0"},
    ],
)
def test_what_does_not_follow_is_taken_by_none(wrong: dict[str, object]) -> None:
    table = KeyTable()
    for number in (0, 1):
        table.apply(change(code=code(number, f"name{number}")), 2 * number + 1, at(0))
        table.apply(change(add=key(number)), 2 * number + 2, at(0))
    table.apply(change(revoke="id0", used="code0"), 5, at(0))
    before = table.rows()
    with pytest.raises(JournalUnusable, match="contradicts"):
        table.apply(change("", **wrong), 6, at(1))
    assert table.rows() == before


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"[]",
        b"{}",
        b'{"who":"a","address":"b","action":"c","target":"d","detail":"e","later":1}',
        change(add=key(1)).encoded().replace(b'"name"', b'"nickname":"b","name"'),
        change(code=code(1)).encoded().replace(b'"name"', b'"nickname":"b","name"'),
        change(add=key(1)).encoded().replace(b'"publish"', b'"fly"'),
        change(code=code(1)).encoded().replace(b'"lab/*"', b'""'),
        change(add=key(1, rate_per_s=1.5)).encoded().replace(b"1.5", b"1e999"),
        change(add=key(1, expires_s=1 << 63)).encoded(),
        change(code=code(1, until_s=-(1 << 70))).encoded(),
        change(add=key(1)).encoded().replace(b"lab", b"\\ud800"),
    ],
)
def test_a_message_of_a_newer_twincast_is_taken_by_none(message: bytes) -> None:
    with pytest.raises(JournalUnusable, match=r"newer twincast|none of twincast"):
        decode_change(message)


def test_a_message_says_only_what_it_changes() -> None:
    message = change(revoke="id1").encoded()
    assert msgspec.json.decode(message).keys() == {"who", "address", "action", "target", "detail", "revoke"}
    assert decode_change(message) == change(revoke="id1")
