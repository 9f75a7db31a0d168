"""HTTP/1.1 as a client speaks it, without a socket: requests written, answers read by llhttp (httptools)."""

import re
from collections import deque
from typing import Final

import httptools
import httpx

_MAX_OVERHEAD_BYTES: Final = 100 * 1024
"""Of a head, and of what stands around pieces of the body without any of it: chunk extensions, trailers."""
_HEAD: Final = re.compile(
    rb"[A-Z]+ [!-~]+ HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\x00-\x08\n-\x1f\x7f]*\r\n)*\r\n"
)
_CHUNKED: Final = b"\r\nTransfer-Encoding: chunked\r\n"


def written(request: httpx.Request, content: bytes) -> tuple[bytes, bytes]:
    """Write a request: its head, and its body.

    Raises:
        httpx.LocalProtocolError: a header, or the address, cannot stand in a head.
    """
    fields = request.headers.raw
    head = b"".join(
        (
            b"%b %b HTTP/1.1\r\n" % (request.method.encode("ascii"), request.url.raw_path),
            *(b"%b: %b\r\n" % field for field in fields),
            b"\r\n",
        )
    )
    if _HEAD.fullmatch(head) is None or head.count(b"\n") != len(fields) + 2:
        raise httpx.LocalProtocolError("a header or the address has characters that cannot stand there")
    if _CHUNKED in head:
        return head, b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    return head, content


class AnswerReader:
    """One answer, as it comes in. The ``on_`` methods are for httptools."""

    def __init__(self, method: str) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = False
        self._is_over = False
        self._is_last = False
        """Whether no other answer can follow on this connection."""
        self._never_has_body = method == "HEAD"
        self._ends_with_connection = False
        self._overhead_bytes = 0
        self._pieces: deque[bytes] = deque()
        self._error: httpx.RemoteProtocolError | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,  # some servers pad the size
        )

    @property
    def can_be_followed(self) -> bool:
        """Whether all of it was read, and nothing else, from a connection that stays."""
        return self._is_over and not self._is_last and self._error is None

    def feed(self, data: bytes) -> None:
        """Take what has come; nothing is the end of the connection.

        Raises:
            httpx.RemoteProtocolError: it cannot be the head of an answer; what is wrong later, `take` tells.
        """
        try:
            if not data:
                self._disconnected()
            elif self._never_has_body:
                self._feed_head(data)
            else:
                self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._error = self._error or httpx.RemoteProtocolError(str(error))
        self._overhead_bytes += len(data)
        if self._error is None and not self._is_over and self._overhead_bytes > _MAX_OVERHEAD_BYTES:
            self._error = httpx.RemoteProtocolError("there is too much around the body")
        if self._error is not None and not self.has_head:
            raise self._error

    def _feed_head(self, data: bytes) -> None:
        """Find where a head ends that nothing may follow: llhttp would go on, into a body."""
        for at in range(len(data)):
            if self.has_head:
                self._is_last = True
                return
            self._parser.feed_data(data[at : at + 1])

    def take(self) -> bytes | None:
        """Give the next piece of the body: empty at its end, ``None`` where it has yet to come.

        Raises:
            httpx.RemoteProtocolError: it ends too early, or cannot be understood.
        """
        if self._pieces:
            return self._pieces.popleft()
        if self._is_over:
            return b""
        if self._error is not None:
            raise self._error
        return None

    def _disconnected(self) -> None:
        self._is_last = True
        if not self.has_head:
            self._error = httpx.RemoteProtocolError("Server disconnected without sending a response.")
        elif self._ends_with_connection:
            self._is_over = True
        else:
            self._error = httpx.RemoteProtocolError("peer closed connection before the end of its answer")

    def _says_goodbye(self) -> bool:
        return self._parser.get_http_version() != "1.1" or any(
            name.lower() == b"connection" and b"close" in value.lower() for name, value in self.headers
        )

    def on_message_begin(self) -> None:
        if self.has_head:
            self._is_last = True  # it says more than it was asked

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            self.headers.append((name, value.rstrip()))

    def on_headers_complete(self) -> None:
        if self.has_head:
            return
        self.status = self._parser.get_status_code()
        if httpx.codes.is_informational(self.status):
            self.headers.clear()
            return
        has_length = any(name.lower() == b"content-length" for name, _ in self.headers)
        codings = [value.lower() for name, value in self.headers if name.lower() == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            self._error = httpx.RemoteProtocolError("its transfer encoding is not known here")
            return
        self.has_head = True
        if self._never_has_body:  # of which llhttp knows nothing
            self._is_over = True
            self._is_last = self._says_goodbye()
        elif has_length and codings:  # one of them lies (RFC 9112, section 6.3)
            self._is_last = True
        elif not self._parser.should_keep_alive():
            self._is_last = True
            self._ends_with_connection = not (has_length or codings)

    def on_body(self, data: bytes) -> None:
        if not self._is_over:
            self._overhead_bytes = 0
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._is_over = self.has_head
