"""Heads of answers as bytes, and how the body behind them ends."""

import pytest

from twincast.server.answer_head import AnswerHead, Framing, answer_head

TEXT = (b"content-type", b"text/plain")


def head(status: int = 200, *headers: tuple[bytes, bytes], method: str = "GET", version: str = "1.1") -> AnswerHead:
    return answer_head(status, headers, method=method, version=version, keep_alive=version == "1.1")


def test_a_head_has_its_lines_in_order_and_names_in_lower_case() -> None:
    assert head(404, (b"X-A", b"B c"), (b"content-length", b"3")).text == (
        b"HTTP/1.1 404 Not Found\r\nx-a: B c\r\ncontent-length: 3\r\n\r\n"
    )
    assert head(599, (b"content-length", b"0")).text.startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize(
    ("made", "framing", "length"),
    [
        (head(200, (b"Content-Length", b"12")), Framing.LENGTH, 12),
        (head(200, (b"content-length", b"12"), (b"transfer-encoding", b"Chunked")), Framing.CHUNKS, 0),
        (head(200, TEXT), Framing.CHUNKS, 0),
        (head(200, TEXT, version="1.0"), Framing.CLOSE, 0),
        (head(200, (b"content-length", b"12"), version="1.0"), Framing.LENGTH, 12),
        (head(204), Framing.LENGTH, 0),
        (head(304), Framing.LENGTH, 0),
        (head(200, TEXT, method="HEAD"), Framing.LENGTH, 0),
    ],
    ids=["length", "both", "neither", "1.0", "1.0 with a length", "no content", "not modified", "HEAD"],
)
def test_a_reader_sees_where_the_body_ends(made: AnswerHead, framing: Framing, length: int) -> None:
    assert (made.framing, made.length) == (framing, length)
    assert (b"chunked" in made.text.lower()) == (framing is Framing.CHUNKS)


@pytest.mark.parametrize("value", [b"close", b"Close", b"x, close", b"close ,x"])
def test_a_header_may_end_the_connection(value: bytes) -> None:
    made = head(200, (b"connection", value), (b"content-length", b"0"))
    assert made.closes and made.text.count(b"connection: ") == 1
    assert not head(200, (b"connection", b"Upgrade"), (b"content-length", b"0")).closes


def test_a_connection_that_ends_says_so() -> None:
    made = head(200, (b"content-length", b"0"), version="1.0")
    assert made.closes and b"\r\nconnection: close\r\n" in made.text


@pytest.mark.parametrize(
    "pair", [(b"x-a", b"b\r\nx: y"), (b"x-a", b"b\n"), (b"x-a", b"\0"), (b"x a", b"b"), (b"x:", b"b")]
)
def test_no_header_breaks_out_of_its_line(pair: tuple[bytes, bytes]) -> None:
    for _ in range(2):  # what is refused is not remembered
        with pytest.raises(RuntimeError, match="Invalid HTTP header"):
            head(200, pair)
