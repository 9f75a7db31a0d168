"""What went wrong upstream, as a `ProviderError`: from exceptions, HTTP statuses and error bodies.

Sentences are ours alone. An upstream's own words may hold secrets (a key it was sent, a prompt), so of an
error body only its codes are read.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.wire.upstream_json import read_upstream_json

_SUBJECTS: Final = {
    Upstream.STT: "The speech recogniser",
    Upstream.CHAT: "The chat backend",
    Upstream.TTS: "The voice service",
}
_PREDICATES: Final = {
    ProviderFault.UNREACHABLE: "cannot be reached",
    ProviderFault.TIMEOUT: "did not answer in time",
    ProviderFault.STALLED: "fell silent in the middle of its answer",
    ProviderFault.TRUNCATED: "broke off before the end of its answer",
    ProviderFault.BAD_RESPONSE: "gave an answer that cannot be understood",
    ProviderFault.SERVER_ERROR: "reported a fault of its own",
    ProviderFault.OVERLOADED: "has no capacity left",
    ProviderFault.RATE_LIMITED: "is being asked too often",
    ProviderFault.QUOTA_EXCEEDED: "has no quota left",
    ProviderFault.AUTH_FAILED: "refused the credentials",
    ProviderFault.REJECTED: "refused the request",
    ProviderFault.UNAVAILABLE: "is not set up on this server",
    ProviderFault.LOST: "was lost",
}

# The first that fits; what fits none is BAD_RESPONSE.
_EXCEPTION_FAULTS: Final[tuple[tuple[type[Exception], ProviderFault], ...]] = (
    (httpx.ConnectError, ProviderFault.UNREACHABLE),
    (httpx.ConnectTimeout, ProviderFault.UNREACHABLE),
    (httpx.ProxyError, ProviderFault.UNREACHABLE),
    (httpx.TimeoutException, ProviderFault.TIMEOUT),
    (httpx.NetworkError, ProviderFault.TRUNCATED),
    (httpx.LocalProtocolError, ProviderFault.REJECTED),
    (httpx.UnsupportedProtocol, ProviderFault.UNAVAILABLE),
    (httpx.InvalidURL, ProviderFault.UNAVAILABLE),
)

_STATUS_FAULTS: Final = {
    401: ProviderFault.AUTH_FAILED,
    402: ProviderFault.QUOTA_EXCEEDED,
    403: ProviderFault.AUTH_FAILED,
    408: ProviderFault.TIMEOUT,
    429: ProviderFault.RATE_LIMITED,
    498: ProviderFault.OVERLOADED,  # Groq: no capacity in the flex tier
    502: ProviderFault.OVERLOADED,
    503: ProviderFault.OVERLOADED,
    504: ProviderFault.TIMEOUT,
    522: ProviderFault.TIMEOUT,  # Cloudflare: the origin did not accept
    524: ProviderFault.TIMEOUT,  # Cloudflare: the origin did not answer
    529: ProviderFault.OVERLOADED,
}
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "quota_exceeded", "billing_hard_limit_reached"})

# The first that fits; an invalid_request_error may stand beside a more telling code.
_CODE_FAULTS: Final = (
    (_QUOTA_CODES, ProviderFault.QUOTA_EXCEEDED),
    (frozenset({"rate_limit_exceeded", "rate_limit_error"}), ProviderFault.RATE_LIMITED),
    (frozenset({"slow_down", "server_is_overloaded", "overloaded_error"}), ProviderFault.OVERLOADED),
    (frozenset({"context_length_exceeded", "invalid_request_error"}), ProviderFault.REJECTED),
)
_CODE_KEYS: Final = ("code", "type", "status", "status_code", "err_code", "error_code", "category")
_ERROR_STATUSES: Final = range(400, 600)
_REQUEST_ID_HEADERS: Final = ("x-request-id", "request-id", "dg-request-id", "x-trace-id")
_MAX_REQUEST_ID_CHARS: Final = 128


class RefusedError(ProviderError):
    """The upstream answered with a status that is no success; an adapter may look closer."""

    def __init__(
        self,
        upstream: Upstream,
        fault: ProviderFault,
        *,
        status: int,
        request_id: str | None,
        retry_after_s: float | None,
        body: bytes,
    ) -> None:
        super().__init__(
            upstream,
            fault,
            f"{_sentence(upstream, fault)[:-1]} (HTTP {status}).",
            status=status,
            request_id=request_id,
            retry_after_s=retry_after_s,
        )
        self.codes = codes_in(body)
        """The body's machine-readable codes in lower case, such as ``voice_not_found``."""
        self._body = body

    def told_as(self, message: str) -> ProviderError:
        """Give the same error with a sentence that says more, without the body."""
        return ProviderError(
            self.upstream,
            self.fault,
            message,
            status=self.status,
            request_id=self.request_id,
            retry_after_s=self.retry_after_s,
        )

    def mentions(self, word: str) -> bool:
        """Whether the body (its first 32 KiB) holds this lower-case ASCII word, in any case."""
        return word.encode() in self._body.lower()


def provider_error(
    upstream: Upstream,
    fault: ProviderFault,
    message: str | None = None,
    *,
    status: int | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """Make the error of one fault, with the common sentence unless ``message`` says it better."""
    sentence = _sentence(upstream, fault) if message is None else message
    return ProviderError(upstream, fault, sentence, status=status, request_id=request_id)


def refused(upstream: Upstream, status: int, headers: Mapping[str, str], body: bytes) -> RefusedError:
    """Make the error of an answer whose status is no success; ``headers`` look up in any case."""
    is_quota = not codes_in(body).isdisjoint(_QUOTA_CODES)
    fault = ProviderFault.QUOTA_EXCEEDED if is_quota else fault_of_status(status)
    return RefusedError(
        upstream,
        fault,
        status=status,
        request_id=request_id(headers),
        retry_after_s=retry_after_s(headers, now=datetime.now(UTC)),
        body=body,
    )


@contextmanager
def httpx_errors_as(upstream: Upstream) -> Iterator[None]:
    """Turn the exceptions of httpx into `ProviderError`.

    The cause is kept for the log only where its text is the operating system's: that of a protocol error
    quotes headers (with keys) or the peer's bytes.

    Raises:
        ProviderError: in place of any `httpx.HTTPError`, `httpx.StreamError` or `httpx.InvalidURL`.
    """
    try:
        yield
    except httpx.NetworkError as error:
        raise provider_error(upstream, _fault_of(error)) from error
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
        raise provider_error(upstream, _fault_of(error)) from None


def fault_of_status(status: int) -> ProviderFault:
    """Classify an HTTP status that is no success. A redirect is REJECTED: the address is a wrong one."""
    if status in _STATUS_FAULTS:
        return _STATUS_FAULTS[status]
    return (
        ProviderFault.SERVER_ERROR if status >= httpx.codes.INTERNAL_SERVER_ERROR else ProviderFault.REJECTED
    )


def bearer(upstream: Upstream, api_key: str) -> dict[str, str]:
    """Give the ``Authorization`` header of a key, or no header for a blank one.

    Raises:
        ProviderError: see `header_key`.
    """
    key = api_key.strip()
    return {"Authorization": f"Bearer {header_key(upstream, key)}"} if key else {}


def header_key(upstream: Upstream, api_key: str) -> str:
    """Give a key that can stand in a header.

    Raises:
        ProviderError: AUTH_FAILED: it cannot (httpx would quote it in its error).
    """
    if not (api_key.isascii() and api_key.isprintable()):
        raise provider_error(upstream, ProviderFault.AUTH_FAILED)
    return api_key


def codes_in(body: bytes) -> frozenset[str]:
    """Collect the codes of a JSON error body, in lower case; a body that is not JSON has none."""
    try:
        return _codes_of(read_upstream_json(body))
    except ValueError:
        return frozenset()


def fault_of_error(document: object) -> ProviderFault:
    """Classify an error that came as a JSON value inside an answer whose status was a success."""
    codes = _codes_of(document)
    for known, fault in _CODE_FAULTS:
        if codes & known:
            return fault
    statuses = (level.get(key) for level in _levels(document) for key in _CODE_KEYS)
    status = next(
        (status for status in statuses if isinstance(status, int) and status in _ERROR_STATUSES), 500
    )
    return fault_of_status(status)


def _codes_of(document: object) -> frozenset[str]:
    found = (level.get(key) for level in _levels(document) for key in _CODE_KEYS)
    return frozenset(code.lower() for code in found if isinstance(code, str))


def _levels(document: object) -> Iterator[dict[str, Any]]:
    """Give the objects that may hold codes: the top one, and those under ``error`` and ``detail``."""
    if isinstance(document, dict):
        yield document
        yield from (inner for key in ("error", "detail") if isinstance(inner := document.get(key), dict))


def request_id(headers: Mapping[str, str]) -> str | None:
    """Find the upstream's own id of a request among its answer's headers."""
    for name in _REQUEST_ID_HEADERS:
        value = headers.get(name, "")
        if value and value.isascii() and value.isprintable():
            return value[:_MAX_REQUEST_ID_CHARS]
    return None


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Read how long to wait, in seconds: ``Retry-After-Ms``, or ``Retry-After`` as a number or a date."""
    in_ms = _seconds(headers.get("retry-after-ms", ""))
    if in_ms is not None:
        return in_ms / 1000
    value = headers.get("retry-after", "")
    in_s = _seconds(value)
    if in_s is not None:
        return in_s
    try:
        then = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _sentence(upstream: Upstream, fault: ProviderFault) -> str:
    return f"{_SUBJECTS[upstream]} {_PREDICATES[fault]}."


def _fault_of(error: Exception) -> ProviderFault:
    if isinstance(error, httpx.RemoteProtocolError) and _says_the_peer_left(error):
        return ProviderFault.TRUNCATED
    return next(
        (fault for kind, fault in _EXCEPTION_FAULTS if isinstance(error, kind)), ProviderFault.BAD_RESPONSE
    )


def _says_the_peer_left(error: Exception) -> bool:
    """Tell a peer that closed early from one that sent nonsense: httpx has one class for both."""
    text = str(error)
    return text.startswith(("Server disconnected", "peer closed connection"))
