"""The targets of the fuzzer, for some seconds, and that faults would be seen."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from fuzz.mutations import mutate
from fuzz.targets import CONTROL, CORPUS, TARGETS, Target
from tests.running import ROOT
from twincast.core import pattern
from twincast.core.model import DataUpdate
from twincast.core.times import read_time
from twincast.delivery import session
from twincast.history import pointer as pointers
from twincast.history import request as questions
from twincast.history import times, widths
from twincast.wire import assembler, client_messages, frames, implementation, requests, subjects, values
from twincast.wire import query as wishes
from twincast.wire.readings import in_python

EXAMPLES = 100
MUTANTS = {"conversation": 3, "frames": 3, "wire": 3}  # the slower ones; of each example


def attack(target: Target, examples: int = EXAMPLES, *, is_repeatable: bool = False) -> None:
    """Run a target on its corpus, on random bytes and on changes of the corpus; what it raises is raised."""
    corpus = target.examples()
    for data in corpus:
        target.run(data)

    bounds = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=is_repeatable,
        suppress_health_check=list(HealthCheck),
    )

    @bounds
    @given(st.binary(max_size=200))
    def random_bytes(data: bytes) -> None:
        target.run(data)

    @bounds
    @given(st.integers(0, 2**32), st.sampled_from(corpus))
    def changes(seed: int, data: bytes) -> None:
        random = Random(seed)
        for _ in range(MUTANTS.get(target.name, 20)):
            target.run(mutate(data, corpus, random, target.max_bytes))

    random_bytes()
    changes()


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_what_comes_from_outside_is_taken_or_refused_as_promised(target: Target) -> None:
    attack(target)


def test_every_target_has_a_small_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {*TARGETS, CONTROL.name}
    for path in CORPUS.rglob("*/*"):
        assert path.stat().st_size < 1_024, path


def nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def accept_all(text: bytes) -> int:
    return text.count(b":")


def raise_at_null(payload: bytes, decode: Callable[[bytes], object] = client_messages.decode_message) -> object:
    if b"null" in payload:
        raise ValueError("null")
    return decode(payload)


def without_signs(payloads: Sequence[bytes], *rest: Any) -> tuple[list[DataUpdate], int]:
    """Take readings as Python does, but negative numbers."""
    readings, size_bytes = in_python(payloads, *rest)
    values = (Raw(bytes(reading.value).replace(b"-", b"")) for reading in readings)
    return [replace(reading, value=value) for reading, value in zip(readings, values, strict=True)], size_bytes


def first_place_only(self: pattern.Pattern, name: str) -> bool:
    """Match as if every part between stars stood at its first place in the whole name."""
    head, *inner, tail = [self._head, *self._inner, self._tail]
    return name.startswith(head) and name.endswith(tail) and all(part in name for part in inner)


def counting_from_one(self: pointers.Pointer, value: bytes) -> bytes | None:
    """Find what stands one place before what is meant."""
    shifted = re.sub(r"/([1-9])(?=/|$)", lambda index: f"/{int(index[1]) - 1}", self.text)
    return FIND(pointers.Pointer(shifted), value)


def without_zone(text: str, what: str) -> str:
    """Read a time as if it were in UTC, whatever it says."""
    return read_time(f"{text[:19]}Z", what)


FIND = pointers.Pointer.find
BREAKS = {
    "a parser raises something else": ("message", client_messages, "decode_message", raise_at_null),
    "values are not checked": ("message", client_messages, "check_value", accept_all),
    "numbers are not checked": ("value", values, "_check_number", nothing),
    "names may come twice": ("order", requests, "refuse_duplicate_names", nothing),
    "names may come twice in a reading": ("readings", requests, "refuse_duplicate_names", nothing),
    "names are not bounded": ("readings", requests, "check_id", nothing),
    "signs are lost in the compiled module": (
        *("compiled", implementation, "compiled"),
        SimpleNamespace(plain_readings=without_signs, text=frames.text_in_python),
    ),
    "patterns overlap": ("pattern", pattern.Pattern, "matches", first_place_only),
    "names in subjects are not bounded": ("subject", subjects, "check_id", nothing),
    "the zone of a time is left out": ("moment", times, "read_time", without_zone),
    "an index counts from one": ("pointer", pointers.Pointer, "find", counting_from_one),
    "cursors are of any query": ("past", questions, "digest_of", lambda *_: b"12345678"),
    "a bucket is left out": ("past", widths, "_fixed", lambda width, _, first, end, __: range(first + 1, end, width)),
    "numbers of an address are not checked": ("wish", wishes, "whole_number", lambda text, *_: int(text)),
    "an answer is no JSON": ("conversation", session, "encode_pong", lambda *_: b'{"type":"pong","seq":NaN}'),
    "pings are answered in part": ("frames", frames, "pong", lambda payload, whole=frames.pong: whole(payload[:3])),
    "a fragment is not checked": ("assembler", assembler.Assembler, "_check_part", nothing),
    "a close code is not checked": ("assembler", assembler, "CLOSE_CODES", range(1 << 16)),
    "a session raises": ("wire", session.Session, "receive", lambda *_: 1 // 0),
}


@pytest.mark.parametrize(("name", "where", "what", "instead"), BREAKS.values(), ids=list(BREAKS))
def test_a_part_that_is_broken_on_purpose_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, where: object, what: str, instead: object
) -> None:
    monkeypatch.setattr(where, what, instead)
    with pytest.raises(Exception, match=r".+"):
        attack(TARGETS[name], examples=5 * EXAMPLES, is_repeatable=True)


def test_the_script_tells_of_a_finding_and_of_none() -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "fuzz", "--executions"]
    found = subprocess.run([*command, "1000000", CONTROL.name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert re.search(r"control +[0-9,]+ +[0-9,]+ +[0-9]+  found; \S+", found.stdout)
    none = subprocess.run([*command, "500", "position"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert none.returncode == 0
    assert re.search(r"position +50[0-9] .*nothing found", none.stdout), none.stdout
