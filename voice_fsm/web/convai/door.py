"""One client of the Agents protocol: frames to events, notices to frames."""

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm import effects as fx
from voice_fsm.fsm.events import TextPrompt, UserActive
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.runtime.client_tools import ClientTools, ToolQuestion
from voice_fsm.runtime.context import FrontEndNotes
from voice_fsm.runtime.outgoing import Item
from voice_fsm.runtime.session import VoiceSession
from voice_fsm.runtime.transcript import Transcript
from voice_fsm.web.convai.errors import NORMAL, OPERATIONAL
from voice_fsm.web.convai.narration import Narration
from voice_fsm.web.convai.opening import Opening, receive_frame
from voice_fsm.web.convai.pings import PING_EVERY_S, Pings
from voice_fsm.wire import convai as wire

log = structlog.get_logger()

AFTER_METADATA_S: Final = 0.05
"""The JavaScript client in Node loses what comes in one packet with the metadata."""
_CLOSE_CODES: Final[dict[str, int]] = {"max_duration": NORMAL, "idle": OPERATIONAL}
"""Where the protocol has a code of its own for a reason; the others end with the session's."""


class ConvaiDoor:
    """One connection."""

    def __init__(
        self,
        websocket: WebSocket,
        *,
        conversation_id: str,
        opening: Opening,
        options: SessionOptions,
        narration: Narration,
        notes: FrontEndNotes,
        tools: ClientTools,
        transcript: Transcript,
    ) -> None:
        self._websocket = websocket
        self._conversation_id = conversation_id
        self._opening = opening
        self._options = options
        self._narration = narration
        self._notes = notes
        self._tools = tools
        self._transcript = transcript
        self._pings = Pings()
        self._close_code: int | None = None
        self._close_reason = ""

    async def listen(self, session: VoiceSession) -> None:
        """Begin the conversation, then read frames until the client has gone."""
        self._tools.asked_by(partial(_ask_for_tool, session))
        wants_scores = self._narration.tells(wire.VadScore)
        session.configure(
            self._conversation_id,
            self._options,
            tell_score=partial(_tell_score, session) if wants_scores else None,
        )
        for message in self._opening.early:
            self._take_or_refuse(session, message)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ping, session)
            with suppress(WebSocketDisconnect):
                await self._read(session)
            nursery.cancel_scope.cancel(reason="the client has gone")

    async def tell(self, items: Sequence[Item]) -> None:
        """Send what the protocol has to say of these; nothing, once the client has gone."""
        for item in items:
            await self._tell(item)

    async def _tell(self, item: Item) -> None:
        if isinstance(item, fx.Closing):
            self._close_code = _CLOSE_CODES.get(item.reason)
        self._transcript.note(item, trio.current_time())
        for message in self._narration.tell(item):
            if isinstance(message, wire.Error):
                self._close_reason = message.message
            await self._send(wire.encode(message))
            if isinstance(message, wire.Metadata):
                await trio.sleep(AFTER_METADATA_S)

    async def close(self, code: int) -> None:
        """Close the socket, if the client has not; clients show the reason to their users."""
        if self._is_open:
            reason = self._close_reason if code != NORMAL else ""
            with suppress(WebSocketDisconnect):
                await self._websocket.close(self._close_code or code, reason)

    @property
    def _is_open(self) -> bool:
        sides = {self._websocket.client_state, self._websocket.application_state}
        return sides == {WebSocketState.CONNECTED}

    async def _send(self, text: str) -> None:
        if not self._is_open:
            await trio.lowlevel.checkpoint()
            return
        with suppress(WebSocketDisconnect):
            await self._websocket.send({"type": "websocket.send", "text": text, "bytes": None})

    async def _ping(self, session: VoiceSession) -> None:
        while True:
            session.answer(self._pings.next(trio.current_time()))
            await trio.sleep(PING_EVERY_S)

    # --- client to session --------------------------------------------------------------------------

    async def _read(self, session: VoiceSession) -> None:
        while True:
            await session.wait_for_room()
            frame = await receive_frame(self._websocket)
            try:
                message = wire.decode(frame)
            except ClientError as error:
                session.refuse(error)
            else:
                self._take_or_refuse(session, message)

    def _take_or_refuse(self, session: VoiceSession, message: wire.ClientMessage | wire.Unknown) -> None:
        try:
            self._take(session, message)
        except ClientError as error:
            session.refuse(error)

    def _take(self, session: VoiceSession, message: wire.ClientMessage | wire.Unknown) -> None:  # noqa: C901  # a flat table
        now_s = trio.current_time()
        match message:
            case wire.UserAudioChunk(user_audio_chunk=audio):
                session.hear(audio)
            case wire.UserMessage():
                self._prompt(session, message)
            case wire.MultimodalMessage():
                if message.text is not None:
                    self._prompt(session, message.text)
                if message.file or message.files:
                    raise ClientError(ClientFault.INVALID_FIELD, "This server takes no files.", field="files")
            case wire.ContextualUpdate():
                self._notes.note(message.text, message.context_id)
            case wire.Pong():
                self._pings.answered(message.event_id, now_s)
            case wire.Initiation():
                raise ClientError(
                    ClientFault.OUT_OF_ORDER, "The conversation has begun; its settings stay as they are."
                )
            case wire.UserActivity():
                session.step(UserActive(at_s=now_s))
            case wire.Feedback():
                self._transcript.judged(message.event_id, message.score)
            case wire.ClientToolResult():
                self._tools.answered(
                    message.tool_call_id, _as_text(message.result), is_error=message.is_error
                )
            case wire.Unknown(name=name):
                log.debug("unknown_message", type=name[:60])

    def _prompt(self, session: VoiceSession, message: wire.UserMessage) -> None:
        text = message.text or ""
        if len(text) > wire.TEXT_CHARS:
            raise ClientError(
                ClientFault.INVALID_FIELD,
                f"`text` must be at most {wire.TEXT_CHARS} characters.",
                field="text",
            )
        if text.strip():
            self._transcript.typed(text, trio.current_time())
            session.step(TextPrompt(at_s=trio.current_time(), text=text))


def _tell_score(session: VoiceSession, probability: float) -> None:
    session.mention(wire.VadScore(vad_score=probability))


def _ask_for_tool(session: VoiceSession, question: ToolQuestion) -> None:
    call = wire.ClientToolCall(
        tool_name=question.name,
        tool_call_id=question.call_id,
        parameters=question.arguments,
        event_id=question.turn_id,
        expects_response=question.expects_response,
    )
    session.answer_of_turn(question.turn_id, call)


def _as_text(result: object) -> str:
    """What a tool gave; the Python client sends whatever JSON it was."""
    return result if isinstance(result, str) else json.dumps(result)
