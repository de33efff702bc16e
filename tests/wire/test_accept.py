import pytest

from twincast.wire.accept import preferred, weights_of

TYPES = ("application/json", "text/csv", "application/x-ndjson")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        *(("", "application/json"), ("*/*", "application/json"), ("text/csv", "text/csv"), ("TEXT/CSV", "text/csv")),
        ("text/csv, */*", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/html, application/xml;q=0.9, */*;q=0.8", "application/json"),
        ("text/*", "text/csv"),
        ("application/x-ndjson, application/json;q=0.9", "application/x-ndjson"),
        ("application/json;q=0, text/csv;q=0.1", "text/csv"),
        ("image/png", "application/json"),
        ("text/csv;q=much", "text/csv"),
    ],
)
def test_the_type_with_the_greatest_weight_is_preferred(accept: str, expected: str) -> None:
    assert preferred(accept, TYPES) == expected


def test_weights_are_those_that_the_header_says() -> None:
    assert weights_of("a/b;q=0.5, c/d; level=1;q=0.2 ,e/f") == {"a/b": 0.5, "c/d": 0.2, "e/f": 1.0}
