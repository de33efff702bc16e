"""What a client asks for by its address."""

import gc
import weakref
from collections.abc import Iterable

import pytest

from twincast.core import subscription
from twincast.core.subscription import Rule, Wanted
from twincast.errors import ValidationFailed
from twincast.wire.query import (
    PAGE_SIZE_MAX,
    decode_query,
    decode_stream_query,
    ticket_of,
    wants_to_log_in,
    whole_number,
)


def test_a_page_size_is_taken_by_its_former_name_too() -> None:
    assert decode_stream_query("page_size=7").page_size == decode_stream_query("page=7").page_size == 7
    assert decode_stream_query("").page_size == 0


def test_a_page_size_by_both_of_its_names_is_refused_even_if_they_agree() -> None:
    with pytest.raises(ValidationFailed, match="`page` is the former name of `page_size`"):
        decode_stream_query("page_size=7&page=7")


@pytest.mark.parametrize("name", ["page", "page_size"])
@pytest.mark.parametrize("text", ["-1", "x", "", "1.5", str(PAGE_SIZE_MAX + 1), "9" * 30])
def test_a_page_size_must_be_a_whole_number_within_its_limit(name: str, text: str) -> None:
    with pytest.raises(ValidationFailed, match=f"`page_size` must be a whole number from 0 to {PAGE_SIZE_MAX}"):
        decode_stream_query(f"{name}={text}")


def test_a_parameter_that_is_not_known_is_refused_by_the_names_that_are_and_former_names_are_not_told() -> None:
    with pytest.raises(ValidationFailed, match="not 'device'") as refusal:
        decode_stream_query("device=a")
    assert "page_size" in refusal.value.message and "page," not in refusal.value.message
    with pytest.raises(ValidationFailed, match="not 'page'"):
        decode_query("page=1", {"limit"})


@pytest.mark.parametrize("query", ["devices=%ff", "&".join(f"devices={number}" for number in range(2_001))])
def test_parameters_are_utf8_and_bounded(query: str) -> None:
    with pytest.raises(ValidationFailed, match="at most 2,000 parameters, in percent-encoded UTF-8"):
        decode_stream_query(query)


def test_stars_and_slashes_may_be_encoded_and_a_cache_breaker_means_nothing() -> None:
    given = decode_query("devices=lab%2F%2A&devices=%2a%2fdoor&_=123", {"devices"})
    assert given["devices"] == ["lab/*", "*/door"]


def test_a_ticket_and_the_wish_to_log_in_are_found_without_reading_the_rest() -> None:
    assert ticket_of("devices=a&ticket=t&x=%ff") == "t"
    assert ticket_of("devices=a") is None
    assert wants_to_log_in("devices=a&auth=message") and not wants_to_log_in("devices=auth=message")


@pytest.mark.parametrize("text", ["0", "7", "10"])
def test_a_whole_number_is_read_up_to_its_maximum(text: str) -> None:
    assert whole_number(text, "`x`", 10) == int(text)


def test_what_is_asked_for_alike_is_one_subscription_and_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0

    def read(rules: Iterable[Rule]) -> Wanted:
        nonlocal reads
        reads += 1
        return Wanted(rules)

    monkeypatch.setattr(subscription, "Wanted", read)
    first = decode_stream_query("devices=one/*&devices=two&mode=every").subscription
    for query in ("devices=two&devices=one/*&mode=every", "devices=one%2F*&devices=two&mode=every&page_size=7"):
        assert decode_stream_query(query).subscription is first
    assert first.inside(frozenset({"one/*"})) is first.inside(frozenset({"one/*"}))
    assert reads == 1
    assert decode_stream_query("devices=one/*&devices=two").subscription != first


def test_a_subscription_that_nobody_uses_is_forgotten() -> None:
    used = weakref.ref(decode_stream_query("devices=nobody/*").subscription)
    gc.collect()
    assert used() is None
