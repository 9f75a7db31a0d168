"""The door ``/v1/speech-engine/ws``: ElevenLabs listens and speaks, and we are the chat server that it asks.

A newer transcript ends the reply to the one before it; nothing of that is sent any more. What was said is
data: control characters are taken out, its length is bounded, and it goes to the chat backend as the user's
words, never as instructions.

Source of the protocol: see `voice_fsm.wire.speech_engine`.
"""

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs
import structlog
import trio
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyText
from voice_fsm.errors import ClientError, ClientFault, VoiceError
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.sentences import SentenceSplitter
from voice_fsm.runtime.groups import first_error
from voice_fsm.upstream.speech_engine_token import HEADER, TokenError, verify_token
from voice_fsm.web.seats import NoSeat, Seats
from voice_fsm.wire.codec import encode
from voice_fsm.wire.speech_engine import (
    FROM_HOST,
    AgentResponse,
    Close,
    Error,
    HostMessage,
    Init,
    Ping,
    Pong,
    Said,
    ServerMessage,
    UserTranscript,
)

log = structlog.get_logger()

MAX_CHARS: Final = 8000
"""Of one entry of a transcript; its newest part is kept."""
PREDECESSOR_S: Final = 10.0
"""How long a reply waits for the one before it to be gone."""
NORMAL_CLOSURE: Final = 1000
DRAINING: Final = 1012
OVERLOADED: Final = 1013

_CUT_MARKS: Final = " .\u2026-\u2013\u2014"
"""What may end a text that was cut short."""


@attrs.frozen(kw_only=True)
class SpeechEnginePolicy:
    """Who may call, and how much."""

    api_key: str | None = attrs.field(default=None, repr=False)
    """Proves the calls; without one nobody is let in."""
    history_turns: int = 20


class SpeechEngineEndpoint:
    """Lets ElevenLabs in."""

    def __init__(
        self, chat: ChatProvider, policy: SpeechEnginePolicy, seats: Seats, draining: trio.Event
    ) -> None:
        self._chat = chat
        self._policy = policy
        self._seats = seats
        self._draining = draining

    async def __call__(self, websocket: WebSocket) -> None:
        """Serve one connection to its end."""
        refusal = self._why_not(websocket.headers.get(HEADER))
        if refusal is not None:
            await websocket.send_denial_response(PlainTextResponse(refusal, status_code=401))
            return
        await websocket.accept()
        try:
            with self._seats.seat(), structlog.contextvars.bound_contextvars(connection=secrets.token_hex(4)):
                await _Conversation(websocket, self._chat, self._policy).run(self._draining)
        except NoSeat:
            await websocket.close(OVERLOADED)

    def _why_not(self, token: str | None) -> str | None:
        """Say why the caller is turned away; what is wrong with its token is for the log alone."""
        if token is None:
            return "missing authorization header"
        if self._policy.api_key is None:
            log.warning("speech_engine_refused", reason="no SPEECH_ENGINE_API_KEY is set")
            return "authorization failed"
        try:
            verify_token(token, self._policy.api_key, now_s=time.time())
        except TokenError as error:
            log.warning("speech_engine_refused", reason=str(error))
            return "authorization failed"
        return None


@attrs.define
class _Reply:
    """The answer to one transcript, under way or given."""

    event_id: int | None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    gone: trio.Event = attrs.field(factory=trio.Event)
    sent: str = ""
    """What of it has been sent."""


class _Conversation:
    """One connection."""

    def __init__(self, websocket: WebSocket, chat: ChatProvider, policy: SpeechEnginePolicy) -> None:
        self._websocket = websocket
        self._chat = chat
        self._policy = policy
        self._id = ""
        self._close_code = NORMAL_CLOSURE
        self._asked = 0
        self._replies: list[_Reply] = []
        """The newest last; those before it have been cancelled and are on their way out."""

    async def run(self, draining: trio.Event) -> None:
        """Converse until either side hangs up."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._await_drain, draining)
                with suppress(WebSocketDisconnect):
                    await self._listen()
                self._nursery.cancel_scope.cancel(reason="the conversation is over")
        finally:
            if self._id:
                self._chat.forget(self._id)
        await self._websocket.close(self._close_code)

    async def _await_drain(self, draining: trio.Event) -> None:
        await draining.wait()
        self._close_code = DRAINING
        self._nursery.cancel_scope.cancel(reason="the server drains")

    async def _listen(self) -> None:
        while True:
            frame = await self._websocket.receive()
            if frame["type"] == "websocket.disconnect":
                log.info("speech_engine_disconnected", conversation_id=self._id, code=frame.get("code"))
                return
            try:
                message = FROM_HOST.decode(frame.get("text") or frame.get("bytes") or b"")
            except ClientError as error:
                if error.fault is not ClientFault.UNKNOWN_TYPE:  # which are for newer servers
                    log.warning("speech_engine_message_ignored", type=None, reason=error.code)
                continue
            if isinstance(message, Close):
                log.info("speech_engine_closed", conversation_id=self._id)
                return
            await self._take(message)

    async def _take(self, message: HostMessage) -> None:
        match message:
            case Ping():
                await self._send(Pong())
            case Init(conversation_id=conversation_id) if not self._id:
                self._id = conversation_id
                log.info("speech_engine_conversation", conversation_id=conversation_id)
            case UserTranscript() if self._id:
                self._answer(message)
            case Error():
                log.warning("speech_engine_error", conversation_id=self._id)
            case _:
                log.warning("speech_engine_message_ignored", type=message.type, reason="out of order")

    def _answer(self, transcript: UserTranscript) -> None:
        """Answer what was said last, unless that is no news."""
        newest = self._replies[-1] if self._replies else None
        if newest is not None and not _is_newer(transcript.event_id, newest.event_id):
            log.debug("speech_engine_repeated", event_id=transcript.event_id)
            return
        *earlier, question = conversation(transcript.user_transcript)
        if not question.user:
            log.warning("speech_engine_message_ignored", type=transcript.type, reason="nothing was said")
            return
        if newest is not None:
            newest.scope.cancel(reason="there is a newer transcript")
            if earlier and _is_cut(earlier[-1].assistant, newest.sent):
                earlier[-1] = attrs.evolve(earlier[-1], interrupted=True)
        leaving = [reply for reply in self._replies if not reply.gone.is_set()]
        reply = _Reply(transcript.event_id)
        self._replies = [*leaving, reply]
        self._nursery.start_soon(self._run_reply, reply, self._request(question.user, earlier), leaving)

    def _request(self, text: str, earlier: Sequence[Exchange]) -> ChatRequest:
        self._asked += 1
        kept = max(0, len(earlier) - self._policy.history_turns)
        return ChatRequest(session_id=self._id, turn_id=self._asked, text=text, history=tuple(earlier[kept:]))

    async def _run_reply(self, reply: _Reply, request: ChatRequest, leaving: Sequence[_Reply]) -> None:
        try:
            with reply.scope, suppress(WebSocketDisconnect):
                with trio.move_on_after(PREDECESSOR_S):
                    for before in leaving:
                        await before.gone.wait()
                await self._stream(reply, request)
                # The last word is owed even where the chat failed: the caller waits for it.
                await self._send(AgentResponse(event_id=reply.event_id, is_final=True))
        finally:
            reply.gone.set()

    async def _stream(self, reply: _Reply, request: ChatRequest) -> None:
        splitter = SentenceSplitter()
        try:
            async with self._chat.reply(request) as parts:
                async for part in parts:
                    if isinstance(part, ReplyText):
                        await self._say(reply, splitter.feed(part.text))
            await self._say(reply, splitter.finish())
        except* VoiceError as group:
            code = first_error(group).code
            log.warning("speech_engine_reply_failed", conversation_id=self._id, code=code)

    async def _say(self, reply: _Reply, pieces: Sequence[str]) -> None:
        for piece in pieces:
            text = f" {piece}" if reply.sent else piece
            await self._send(AgentResponse(content=text, event_id=reply.event_id))
            reply.sent += text

    async def _send(self, message: ServerMessage) -> None:
        await self._websocket.send_text(encode(message))


def conversation(transcript: Sequence[Said]) -> list[Exchange]:
    """Put what was said into exchanges; the last one is the question, of which the assistant's side is open.

    Neighbours of one role are joined. What the assistant said before any user stands in an exchange whose
    user is blank.
    """
    exchanges = [Exchange("", "")]
    for said in transcript:
        text, last = clean(said.content), exchanges[-1]
        if said.role != "user":
            exchanges[-1] = attrs.evolve(last, assistant=f"{last.assistant} {text}".strip())
        elif last.assistant:
            exchanges.append(Exchange(text, ""))
        else:
            exchanges[-1] = attrs.evolve(last, user=f"{last.user} {text}".strip())
    if exchanges[-1].assistant:
        exchanges.append(Exchange("", ""))
    return exchanges


def clean(text: str) -> str:
    """Take out control characters, and keep the newest part of what is too long."""
    return "".join(char if char.isprintable() else " " for char in text[-MAX_CHARS:]).strip()


def _is_newer(event_id: int | None, than: int | None) -> bool:
    """Transcripts without a number are always news."""
    return event_id is None or than is None or event_id > than


def _is_cut(heard: str, sent: str) -> bool:
    """Whether only the beginning of what was sent was heard."""
    beginning = " ".join(heard.rstrip(_CUT_MARKS).split())
    return len(beginning) < len(sent.rstrip(_CUT_MARKS)) and sent.startswith(beginning)
