"""One call to an upstream over HTTP: sent, awaited and closed, within its deadlines.

async with ask(client, request, upstream=Upstream.TTS, deadlines=deadlines) as answer:
    async for chunk in answer: ...
"""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final, Self, TypeVar
from urllib.request import getproxies

import attrs
import httpx
import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.faults import RefusedError, httpx_errors_as, provider_error, refused, request_id
from voice_fsm.upstream.http_pool import BODY, AnswerBody, HttpPool
from voice_fsm.wire.upstream_json import read_upstream_json

T = TypeVar("T")

MAX_ERROR_BODY_BYTES: Final = 32 * 1024
_PROXY_SCHEMES: Final = frozenset({"http", "https", "all"})
_ERROR_BODY_S: Final = 2.0
_DRAIN_S: Final = 0.1
_GOODBYE_S: Final = 1.0


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long one call may take, in seconds. Only waiting counts, not the caller's own work in between."""

    connect_s: float = 5.0
    """Until there is a connection, TLS included, or a free place in the pool."""
    first_byte_s: float = 15.0
    """From asking to the first byte of the answer's body."""
    stall_s: float = 10.0
    """From one chunk of the body to the next."""
    total_s: float = 120.0


def open_client(
    *, max_connections: int = 1000, verify: ssl.SSLContext | bool = True, trust_env: bool = True
) -> httpx.AsyncClient:
    """Make the HTTP client that all adapters of the process share; it is closed by ``async with``.

    It keeps no cookies, which would travel from one session to another, follows no redirects, which could
    lead away from the addresses that the operator allowed, and asks for uncompressed answers, which stream
    without delay. ``trust_env`` honours the usual proxy and certificate variables; where there are proxies,
    the transport is that of httpx, which knows how to speak to them.
    """
    tls = httpx.create_ssl_context(verify=verify, trust_env=trust_env)
    tls.set_alpn_protocols(["http/1.1"])
    has_proxies = trust_env and not _PROXY_SCHEMES.isdisjoint(getproxies())
    pool = None if has_proxies else HttpPool(tls, max_connections=max_connections)
    return _PlainClient(
        pool,
        transport=pool,
        verify=tls,
        trust_env=trust_env,
        follow_redirects=False,
        limits=httpx.Limits(
            max_connections=max_connections, max_keepalive_connections=100, keepalive_expiry=30
        ),
        timeout=httpx.Timeout(10.0),
        headers={"User-Agent": f"voice-fsm/{version('voice-fsm')}", "Accept-Encoding": "identity"},
    )


class _NoCookies(httpx.Cookies):
    """Takes none, without a look at what came, and has none to give."""

    def extract_cookies(self, response: httpx.Response) -> None:
        pass


class _PlainClient(httpx.AsyncClient):
    """A client of httpx that parses no cookies, where a jar that refuses them would.

    With a pool, it hands requests straight to it: nothing that httpx does on the way has a use here.
    """

    def __init__(self, pool: HttpPool | None, **how: Any) -> None:  # noqa: ANN401  # those of httpx
        super().__init__(**how)
        self._pool = pool

    @property  # type: ignore[misc]  # read-only, since there is nothing to set
    def cookies(self) -> httpx.Cookies:
        return _NoCookies()

    async def send(self, request: httpx.Request, *, stream: bool = False, **how: Any) -> httpx.Response:  # noqa: ANN401  # those of httpx
        if self._pool is None or not stream or request.url.userinfo or self.is_closed:
            return await super().send(request, stream=stream, **how)
        response = await self._pool.handle_async_request(request)
        response.request = request
        return response


@attrs.frozen
class JsonPost:
    """A POST of JSON to one address, with the same headers each time; made once, since that is most of it."""

    _url: httpx.URL
    _headers: httpx.Headers = attrs.field(repr=False)

    @classmethod
    def to(cls, client: httpx.AsyncClient, url: str, headers: Mapping[str, str]) -> Self:
        """Prepare for requests of this client."""
        model = client.build_request(
            "POST", _parsed(url), headers={**headers, "Content-Type": "application/json"}
        )
        del model.headers["Content-Length"]
        return cls(model.url, model.headers)

    def request(self, body: Mapping[str, Any]) -> httpx.Request:
        """Make a request, in ASCII: escaped, even half a surrogate pair of a transcript can be sent."""
        content = json.dumps(body).encode("ascii")
        request = httpx.Request("POST", self._url, headers=self._headers, stream=_Body(content))
        request.headers["Content-Length"] = str(len(content))
        return request


def json_request(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> httpx.Request:
    """Make a single request of a `JsonPost`."""
    return JsonPost.to(client, url, headers).request(body)


@lru_cache(maxsize=100)
def _parsed(url: str) -> httpx.URL:
    """Parse an address: most of the work of making a request, and the same for each."""
    return httpx.URL(url)


class Answer:
    """An upstream's answer: its status was a success, its body comes as an iterator of chunks.

    Iterating raises `ProviderError`: STALLED or TIMEOUT by the deadlines, TRUNCATED, BAD_RESPONSE.
    """

    def __init__(self, response: httpx.Response, upstream: Upstream, patience: "Patience") -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        """Without parameters, in lower case; blank if the upstream gave none."""
        self._response = response
        self._upstream = upstream
        self._patience = patience
        self._has_ended = False
        self._body: AnswerBody | None = response.extensions.get(BODY)
        self._chunks = self._body or response.aiter_raw()

    @property
    def request_id(self) -> str | None:
        """The upstream's own id of this call, for the operator's log."""
        return request_id(self.headers)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with httpx_errors_as(self._upstream):
            chunk = None if self._body is None else self._body.take()
            if chunk is None:
                chunk = await self._patience.wait_for(lambda: anext(self._chunks, b""))
        if not chunk:
            self._has_ended = True
            raise StopAsyncIteration
        self._patience.has_begun()
        return chunk

    async def read(self, limit_bytes: int) -> bytes:
        """Read the whole body.

        Raises:
            ProviderError: as by iterating; BAD_RESPONSE too if it is longer than ``limit_bytes``.
        """
        body = bytearray()
        async for chunk in self:
            body += chunk
            if len(body) > limit_bytes:
                raise self.error(ProviderFault.BAD_RESPONSE)
        return bytes(body)

    async def read_json(self, limit_bytes: int) -> object:
        """Read the whole body as one JSON value.

        Raises:
            ProviderError: as `read`; BAD_RESPONSE too if it is not JSON.
        """
        body = await self.read(limit_bytes)
        try:
            value: object = read_upstream_json(body)
        except ValueError:
            raise self.error(ProviderFault.BAD_RESPONSE) from None
        return value

    async def drain(self) -> None:
        """Take the little that is left once the answer is known, so that its connection can serve again."""
        if self._has_ended:
            return
        with trio.move_on_after(_DRAIN_S), suppress(ProviderError):
            async for _ in self:
                pass

    def error(self, fault: ProviderFault, message: str | None = None) -> ProviderError:
        """Make the error of this answer; raising it is the caller's."""
        return provider_error(self._upstream, fault, message, status=self.status, request_id=self.request_id)

    async def aclose(self) -> None:
        """Give the connection back, or close it if the body is unfinished."""
        if self._body is not None:
            self._body.close()
            return
        with trio.move_on_after(_GOODBYE_S, shield=True):
            await self._response.aclose()
            await self._exhaust()

    async def _exhaust(self) -> None:
        """Run the iterator into the closed connection.

        It is six nested async generators of httpx and httpcore, which closing does not end;
        those left for the garbage collector each cost a ResourceWarning and a task of Trio's.
        """
        with suppress(httpx.HTTPError, httpx.StreamError):
            async for _ in self._chunks:
                pass


@asynccontextmanager
async def ask(
    client: httpx.AsyncClient, request: httpx.Request, *, upstream: Upstream, deadlines: Deadlines
) -> AsyncIterator[Answer]:
    """Do as `open_answer`; leaving the context ends the call, finished or not."""
    async with aclosing(await open_answer(client, request, upstream=upstream, deadlines=deadlines)) as answer:
        yield answer


async def open_answer(
    client: httpx.AsyncClient, request: httpx.Request, *, upstream: Upstream, deadlines: Deadlines
) -> Answer:
    """Send a request of ``client.build_request`` and wait for the answer's head; the caller closes it.

    Raises:
        RefusedError: the status is no success.
        ProviderError: no answer; see `httpx_errors_as` and `Deadlines`.
    """
    patience = Patience(upstream, deadlines)
    if not isinstance(request.stream, _Body):
        request.stream = _Body(request.read())
    request.extensions["timeout"] = {"connect": deadlines.connect_s, "pool": deadlines.connect_s}
    with httpx_errors_as(upstream):
        response = await patience.wait_for(lambda: client.send(request, stream=True))
    answer = Answer(response, upstream, patience)
    if response.is_success and response.headers.get("content-encoding", "identity").lower() == "identity":
        return answer
    async with aclosing(answer):
        if response.is_success:
            raise answer.error(ProviderFault.BAD_RESPONSE)
        raise await _refusal(answer, upstream)


async def _refusal(answer: Answer, upstream: Upstream) -> RefusedError:
    body = bytearray()
    with trio.move_on_after(_ERROR_BODY_S), suppress(ProviderError):
        async for chunk in answer:
            body += chunk
            if len(body) >= MAX_ERROR_BODY_BYTES:
                break
    return refused(upstream, answer.status, answer.headers, bytes(body[:MAX_ERROR_BODY_BYTES]))


class _Body(httpx.AsyncByteStream):
    """The bytes of a request. In httpx they are an async generator, left unfinished by a cancelled call."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._is_taken = False

    def __aiter__(self) -> "_Body":
        return _Body(self._content)

    async def __anext__(self) -> bytes:
        if self._is_taken:
            raise StopAsyncIteration
        self._is_taken = True
        return self._content


class Patience:
    """What is left of one call's deadlines, once there is a connection."""

    def __init__(self, upstream: Upstream, deadlines: Deadlines) -> None:
        self._upstream = upstream
        self._left_s = deadlines.total_s
        self._step_s = deadlines.first_byte_s
        self._stall_s = deadlines.stall_s
        self._begun = False

    def has_begun(self) -> None:
        """Note that content came: from now on the time between two chunks counts."""
        self._begun = True
        self._step_s = self._stall_s

    async def wait_for(self, step: Callable[[], Awaitable[T]]) -> T:
        """Wait for one step of the call.

        Raises:
            ProviderError: TIMEOUT or STALLED.
        """
        started_at = trio.current_time()
        with trio.move_on_after(min(self._step_s, self._left_s)):
            result = await step()
            self._spend(trio.current_time() - started_at)
            return result
        stalled = self._begun and self._step_s < self._left_s
        raise provider_error(self._upstream, ProviderFault.STALLED if stalled else ProviderFault.TIMEOUT)

    def _spend(self, waited_s: float) -> None:
        self._left_s = max(0.0, self._left_s - waited_s)
        if not self._begun:
            self._step_s = max(0.0, self._step_s - waited_s)
