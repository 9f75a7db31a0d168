from collections.abc import Iterable

import httpx
import pytest

from voice_fsm.upstream.http_message import AnswerReader, written

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nTrailer: x\r\n\r\n"
ENDLESS = OK + b"\r\nhello"


def read(pieces: Iterable[bytes], method: str = "GET") -> tuple[AnswerReader, bytes]:
    """Feed an answer; gives what was read, and its body so far."""
    answer = AnswerReader(method)
    body = b""
    for piece in pieces:
        answer.feed(piece)
        while answer.has_head and (taken := answer.take()):
            body += taken
    return answer, body


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(
    ("method", "data", "body", "can_be_followed"),
    [
        ("GET", HELLO, b"hello", True),
        ("GET", HELLO.replace(b"\r\n", b"\n"), b"hello", True),
        ("GET", CHUNKS, b"onetwo", True),
        ("GET", CHUNKS.replace(b"Transfer", b"Content-Length: 3\r\nTransfer"), b"onetwo", False),
        ("GET", CHUNKS.replace(b"chunked", b"Chunked\r\nContent-Length: 3"), b"onetwo", False),
        ("GET", CHUNKS.replace(b"3\r\n", b"3  \r\n"), b"onetwo", True),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO, b"hello", True),
        ("GET", OK.replace(b"200 OK", b"204") + b"\r\n", b"", True),
        ("GET", HELLO.replace(b"Content", b"Connection: close\r\nContent"), b"hello", False),
        ("GET", HELLO.replace(b"1.1", b"1.0"), b"hello", False),
        ("GET", HELLO + b"x", b"hello", False),
        ("GET", HELLO + HELLO.replace(b"200", b"500"), b"hello", False),
        ("GET", HELLO + b"HTTP/1.1 2", b"hello", False),
        ("GET", HELLO.replace(b"5", b"5 \t"), b"hello", True),
        ("GET", CHUNKS + CHUNKS, b"onetwo", False),
        ("HEAD", OK + b"Content-Length: 5\r\n\r\n", b"", True),
        ("HEAD", OK + b"\r\n", b"", True),
        ("HEAD", HELLO, b"", False),
        ("HEAD", CHUNKS, b"", False),
        ("HEAD", CHUNKS[: CHUNKS.index(b"one")], b"", False),
        ("HEAD", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"\r\n", b"", True),
        ("HEAD", OK + b"Connection: Close\r\n\r\n", b"", False),
        ("HEAD", OK.replace(b"1.1", b"1.0") + b"\r\n", b"", False),
    ],
)
def test_an_answer_is_read_to_its_end(method: str, data: bytes, body: bytes, can_be_followed: bool) -> None:
    """However it was cut: its body, and whether its connection may serve again."""
    for pieces in ([data], singly(data)):
        answer, taken = read(pieces, method)
        assert (taken, answer.take(), answer.can_be_followed) == (body, b"", can_be_followed)
        assert answer.status in (200, 204)
        assert not {b"Link", b"Trailer"} & dict(answer.headers).keys()
        assert all(value == value.strip() for _, value in answer.headers)


def test_an_answer_may_end_with_its_connection() -> None:
    """One that does not say how long it is, and no other."""
    answer, body = read([ENDLESS])
    assert (body, answer.take()) == (b"hello", None)
    answer.feed(b"")
    assert (answer.take(), answer.can_be_followed) == (b"", False)


@pytest.mark.parametrize("data", [HELLO[:-1], CHUNKS[:-1], CHUNKS[:-20], HELLO.replace(b"1.1", b"1.0")[:-1]])
def test_an_answer_that_breaks_off_is_told_apart(data: bytes) -> None:
    """What has come of it can be had before."""
    answer, body = read([data])
    assert body
    answer.feed(b"")
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        answer.take()
    assert not answer.can_be_followed


def test_nonsense_within_a_body_comes_after_what_made_sense() -> None:
    """The chunk before it is whole."""
    answer = AnswerReader("GET")
    answer.feed(CHUNKS.replace(b"\r\n3\r\ntwo", b"\r\nsoon\r\ntwo"))
    assert answer.take() == b"one"
    with pytest.raises(httpx.RemoteProtocolError):
        answer.take()
    assert not answer.can_be_followed


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([b"<html>hello"], None),
        ([b""], "Server disconnected"),
        ([OK, b""], "Server disconnected"),
        ([OK, *[b"X: y\r\n" * 5000] * 5], "too much"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" * 5000], "too much"),
        ([CHUNKS.replace(b"chunked", b"gzip, chunked")], "transfer encoding"),
        ([CHUNKS.replace(b"chunked", b"chunked\r\nTransfer-Encoding: gzip")], "transfer encoding"),
        ([CHUNKS.replace(b"chunked", b"identity")], "transfer encoding"),
        ([b"HTTP/1.1 101 Over\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n"], None),
    ],
)
def test_what_is_no_head_is_refused(pieces: list[bytes], message: str | None) -> None:
    """At once, and without limit to its length if it never ends."""
    with pytest.raises(httpx.RemoteProtocolError, match=message):
        read(pieces)


@pytest.mark.parametrize("begin", [b"1;", b"0\r\nTrailer: ", b"5\r\nhello\r\n0\r\nTrailer: "])
def test_what_stands_around_a_body_has_an_end(begin: bytes) -> None:
    """A chunk's extensions and the trailers, which llhttp reads, or even keeps, for as long as they come."""
    answer = AnswerReader("GET")
    answer.feed(CHUNKS[: CHUNKS.index(b"3")] + begin)
    answer.take()
    answer.feed(b"x" * 60_000)
    assert answer.take() is None
    answer.feed(b"x" * 60_000)
    with pytest.raises(httpx.RemoteProtocolError, match="too much"):
        answer.take()
    assert not answer.can_be_followed


def test_much_may_stand_around_a_body_of_many_chunks() -> None:
    """What is bounded is what comes without any of it."""
    answer, body = read([CHUNKS[: CHUNKS.index(b"3")], *[b"1;%b\r\nx\r\n" % (b"y" * 50_000)] * 5])
    assert (body, answer.take()) == (b"xxxxx", None)


def test_a_request_is_written() -> None:
    """Its head as it is, and its body apart."""
    request = httpx.Request(
        "POST", "http://a.example/p?q=1", headers={b"X": "ü\t".encode()}, content=b"hello"
    )
    head, body = written(request, b"hello")
    assert head.startswith(b"POST /p?q=1 HTTP/1.1\r\nHost: a.example\r\nX: \xc3\xbc\t\r\n")
    assert head.endswith(b"\r\nContent-Length: 5\r\n\r\n")
    assert body == b"hello"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"X": "one\r\nY: two"}),
        ("GET", {"X": "one\r\n\r\n"}),
        ("GET", {"X": "one\nY: two"}),
        ("GET", {"X": "\0"}),
        ("GET", {"X\r\nY": "one"}),
        ("GET", {"": "one"}),
        ("GET / HTTP/1.1\r\nX:", {}),
    ],
)
def test_what_would_break_a_head_is_not_written(method: str, headers: dict[str, str]) -> None:
    """Whoever chose it cannot add a header, nor a request."""
    with pytest.raises(httpx.LocalProtocolError):
        written(httpx.Request(method, "http://a.example/", headers=headers), b"")
