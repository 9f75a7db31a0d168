"""Chat by a Speech Engine server: one that was written to answer ElevenLabs' hosted voice.

We are its voice host. A conversation has one connection, which is opened by its first question and kept for
the next ones. An interruption is not told: what still comes of the old reply is dropped by its ``event_id``.

Source of the protocol: see `voice_fsm.wire.speech_engine`.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, Self

import attrs
import structlog
import trio
from trio_websocket import ConnectionClosed

from voice_fsm.chat.base import ChatRequest, ReplyText
from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import BackendOptions
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import provider_error
from voice_fsm.upstream.http import Deadlines, Patience
from voice_fsm.upstream.speech_engine_token import HEADER, sign_token
from voice_fsm.upstream.websocket import background_nursery, closed_error, open_websocket
from voice_fsm.wire.codec import encode
from voice_fsm.wire.speech_engine import (
    FROM_SERVER,
    AgentResponse,
    Close,
    HostMessage,
    Init,
    Ping,
    Said,
    UserTranscript,
)

log = structlog.get_logger()

_PING_S: Final = 10.0
"""After so much silence the server is asked whether it is there; it has as long to answer."""
_GOODBYE_S: Final = 1.0
_WAITING_RESPONSES: Final = 256


@attrs.frozen(kw_only=True)
class SpeechEngineConfig:
    """Which server answers."""

    url: str
    """The exact address of its WebSocket."""
    api_key: str = attrs.field(default="", repr=False)
    """Signs the token by which the server knows us; blank for servers that ask for none."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Further headers of the upgrade request."""
    idle_s: float = 600.0
    """After so long without a question a conversation's connection is closed."""
    deadlines: Deadlines = attrs.field(factory=Deadlines)


@asynccontextmanager
async def open_speech_engine_chat(config: SpeechEngineConfig) -> AsyncIterator["SpeechEngineChat"]:
    """Make the provider; leaving closes its connections."""
    async with background_nursery() as nursery:
        yield SpeechEngineChat(config, nursery)


class SpeechEngineChat:
    """A Speech Engine server, streamed (`ChatProvider`)."""

    name = "speech_engine"

    def __init__(self, config: SpeechEngineConfig, nursery: trio.Nursery) -> None:
        self._config = config
        self._nursery = nursery
        self._lines: dict[str, _Line] = {}

    def check(self, chosen: BackendOptions) -> None:
        """Say early that there is nothing to choose.

        Raises:
            ClientError: a client asks for a backend of its own.
        """
        if chosen != BackendOptions():
            raise ClientError(
                ClientFault.INVALID_FIELD,
                "`backend` cannot be chosen on this server: a Speech Engine server answers.",
                field="backend",
            )

    def forget(self, session_id: str) -> None:
        """The conversation is over: tell its server, and hang up."""
        line = self._lines.get(session_id)
        if line is not None and not line.busy:
            line.end()

    @asynccontextmanager
    async def reply(self, request: ChatRequest) -> AsyncIterator["_Replies"]:
        """Ask; see `ChatProvider.reply`. Entering waits for the first words.

        Raises:
            ProviderError: on entering or while iterating.
            ClientError: on entering: as `check`.
        """
        self.check(request.backend)
        async with AsyncExitStack() as stack:
            yield await self._ask(stack, request)

    async def _ask(self, stack: AsyncExitStack, request: ChatRequest) -> "_Replies":
        kept = self._lines.get(request.session_id)
        if kept is not None and not kept.busy:
            with suppress(_UnansweredError):  # it died unseen since the last question
                return await _put(stack, kept, request)
        try:
            return await _put(stack, await self._open_line(request.session_id), request)
        except _UnansweredError as error:
            raise error.reason from None

    async def _open_line(self, session_id: str) -> "_Line":
        with trio.move_on_after(self._config.deadlines.connect_s):
            line: _Line = await self._nursery.start(self._keep_line, session_id)
            return line
        raise provider_error(Upstream.CHAT, ProviderFault.TIMEOUT)

    async def _keep_line(self, session_id: str, *, task_status: trio.TaskStatus["_Line"]) -> None:
        """Hold a conversation's connection until it ends."""
        config = self._config
        headers = dict(config.headers)
        if config.api_key:
            headers[HEADER] = sign_token(config.api_key, now_s=time.time())
        async with open_websocket(
            config.url, upstream=Upstream.CHAT, headers=list(headers.items())
        ) as connection:
            line = _Line(connection, config)
            await line.begin(session_id)
            self._lines[session_id] = line
            task_status.started(line)
            try:
                await line.listen()
            finally:
                if self._lines.get(session_id) is line:
                    del self._lines[session_id]


class _UnansweredError(Exception):
    """The connection ended before it brought anything of a reply."""

    def __init__(self, reason: ProviderError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class _Line:
    """One conversation's connection; one question at a time."""

    def __init__(self, connection: UpstreamSocket, config: SpeechEngineConfig) -> None:
        self._connection = connection
        self._config = config
        self._event_id = 0
        self._answers: trio.MemorySendChannel[AgentResponse] | None = None
        self._asked_s = trio.current_time()
        self._listening = trio.CancelScope()
        self.lost: ProviderError | None = None
        """Why it cannot be used any more."""

    @property
    def busy(self) -> bool:
        return self._answers is not None

    def end(self) -> None:
        """Say goodbye and hang up, soon."""
        self._listening.cancel()

    async def begin(self, session_id: str) -> None:
        """Name the conversation.

        Raises:
            ProviderError: the server hung up.
        """
        try:
            await self._send(Init(conversation_id=session_id))
        except ConnectionClosed as closed:
            raise closed_error(Upstream.CHAT, closed) from None

    async def listen(self) -> None:
        """Take what the server says until it hangs up or `end` is called."""
        try:
            with self._listening:
                await self._read()
            with trio.move_on_after(_GOODBYE_S):
                await self._send(Close())
        except ConnectionClosed as closed:
            self.lost = closed_error(Upstream.CHAT, closed)
        except ProviderError as error:
            log.warning("speech_engine_lost", code=error.code)
            self.lost = error
        finally:
            self.lost = self.lost or provider_error(Upstream.CHAT, ProviderFault.LOST)
            if self._answers is not None:
                self._answers.close()

    @asynccontextmanager
    async def ask(self, transcript: tuple[Said, ...]) -> AsyncIterator["_Replies"]:
        """Put a question; leaving drops what still comes of its answer.

        Raises:
            _UnansweredError: on entering.
        """
        self._event_id += 1
        self._asked_s = trio.current_time()
        self._answers, answers = trio.open_memory_channel[AgentResponse](_WAITING_RESPONSES)
        try:
            with answers:
                try:
                    await self._send(UserTranscript(user_transcript=transcript, event_id=self._event_id))
                except ConnectionClosed as closed:
                    raise _UnansweredError(closed_error(Upstream.CHAT, closed)) from None
                yield _Replies(self, answers, Patience(Upstream.CHAT, self._config.deadlines))
        finally:
            self._answers = None
            self._asked_s = trio.current_time()

    async def _read(self) -> None:
        """Take messages until there was no question for long; see that the server is there meanwhile."""
        pinged = False
        while True:
            frame = None
            with trio.move_on_after(_PING_S):
                frame = await self._connection.get_message()
            if frame is not None:
                pinged = False
                await self._take(frame)
            elif pinged:
                raise provider_error(Upstream.CHAT, ProviderFault.STALLED)
            elif not self.busy and trio.current_time() - self._asked_s > self._config.idle_s:
                return
            else:
                pinged = True
                await self._send(Ping())

    async def _take(self, frame: str | bytes) -> None:
        try:
            message = FROM_SERVER.decode(frame)
        except ClientError as error:
            if error.fault is ClientFault.UNKNOWN_TYPE:
                return
            raise provider_error(Upstream.CHAT, ProviderFault.BAD_RESPONSE) from None
        if isinstance(message, AgentResponse) and message.event_id == self._event_id and self._answers:
            with suppress(trio.BrokenResourceError):
                await self._answers.send(message)

    async def _send(self, message: HostMessage) -> None:
        await self._connection.send_message(encode(message))


class _Replies:
    """The parts of one reply. Iterating raises `ProviderError`."""

    def __init__(
        self, line: _Line, answers: trio.MemoryReceiveChannel[AgentResponse], patience: Patience
    ) -> None:
        self._line = line
        self._answers = answers
        self._patience = patience
        self._peeked: AgentResponse | None = None
        self._ended = False
        self._is_empty = True

    def __aiter__(self) -> Self:
        return self

    async def peek(self) -> None:
        """Wait for the first response.

        Raises:
            ProviderError: it did not come in time.
            _UnansweredError: the connection ended instead.
        """
        try:
            self._peeked = await self._receive()
        except trio.EndOfChannel:
            raise _UnansweredError(self._why_lost()) from None

    async def __anext__(self) -> ReplyText:
        while not self._ended:
            response, self._peeked = self._peeked, None
            if response is None:
                try:
                    response = await self._receive()
                except trio.EndOfChannel:
                    raise self._why_lost() from None
            self._ended = response.is_final
            if response.content:
                self._is_empty = False
                return ReplyText(response.content)
        if self._is_empty:
            raise provider_error(
                Upstream.CHAT, ProviderFault.BAD_RESPONSE, "The chat backend gave an empty answer."
            )
        raise StopAsyncIteration

    async def _receive(self) -> AgentResponse:
        response = await self._patience.wait_for(self._answers.receive)
        self._patience.has_begun()
        return response

    def _why_lost(self) -> ProviderError:
        return self._line.lost or provider_error(Upstream.CHAT, ProviderFault.LOST)


async def _put(stack: AsyncExitStack, line: _Line, request: ChatRequest) -> _Replies:
    """Put a question and wait for the first of the answer."""
    replies = await stack.enter_async_context(line.ask(_transcript(request)))
    await replies.peek()
    return replies


def _transcript(request: ChatRequest) -> tuple[Said, ...]:
    """All that was said, as far as it was heard, and the question."""
    said = [
        Said(role=role, content=text)
        for exchange in request.history
        for role, text in (("user", exchange.user), ("agent", exchange.assistant))
        if text.strip()
    ]
    return (*said, Said(role="user", content=request.text))
