"""One client of OpenAI's Realtime protocol: frames to events, notices to frames."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.events import Added, Interrupt, PlaybackProgress, Respond
from voice_fsm.runtime.client_tools import ClientTools, ToolQuestion
from voice_fsm.runtime.context import FrontEndNotes
from voice_fsm.runtime.outgoing import Item as Told
from voice_fsm.runtime.session import VoiceSession
from voice_fsm.web.realtime import narration as told
from voice_fsm.web.realtime.errors import RealtimeRefusal, client_error
from voice_fsm.web.realtime.given import text_of, written
from voice_fsm.web.realtime.items import Item, Items, item_event, new_id
from voice_fsm.web.realtime.mapping import Terms
from voice_fsm.wire import codec
from voice_fsm.wire import realtime as wire
from voice_fsm.wire.realtime_session import SessionConfig, merged

_SHOWN_CHARS: Final = 512
"""How much of a client's own event id is repeated."""


class RealtimeDoor:
    """One connection."""

    def __init__(
        self,
        websocket: WebSocket,
        *,
        session_id: str,
        terms: Terms,
        config: SessionConfig,
        notes: FrontEndNotes,
        tools: ClientTools,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._websocket = websocket
        self._session_id = session_id
        self._terms = terms
        self._config = config
        self._notes = notes
        self._tools = tools
        self._items = Items()
        self._written_ms = 0.0
        self._narration = told.Narration(self._items, lambda: self._written_ms)
        self._expires_at = int(unix_s() + terms.hosted.services.limits.session_s)
        self._events_sent = 0
        self._odd_byte = b""
        """Of a sample that the client cut in two."""
        self._buffered_ms = 0.0
        """Audio since the client last ended an utterance."""
        self._outputs: dict[str, str] = {}
        """Of functions that a turn waits for, by the id of the call."""

    async def listen(self, session: VoiceSession) -> None:
        """Begin the session, then read frames until the client has gone."""
        self._tools.asked_by(partial(_ask_for_output, session))
        options = self._terms.options(self._config)
        session.answer(told.Adopted("session.created", self._config, options.stt, self._shown()))
        session.configure(self._session_id, options, tell_speech=self._is_told_of_speech)
        with suppress(WebSocketDisconnect):
            while True:
                await session.wait_for_room()
                self._read(session, await self._websocket.receive())

    async def tell(self, items: Sequence[Told]) -> None:
        """Send what the protocol has to say of these; nothing, once the client has gone."""
        for item in items:
            for message in self._narration.tell(item):
                self._events_sent += 1
                await self._send(wire.encode(message, f"event_{self._session_id[5:]}_{self._events_sent}"))

    async def close(self, code: int) -> None:
        """Close the socket, if the client has not."""
        if self._is_open:
            with suppress(WebSocketDisconnect):
                await self._websocket.close(code)

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

    @property
    def _is_told_of_speech(self) -> bool:
        return self._config.audio.input.turn_detection is not None

    def _shown(self) -> dict[str, Any]:
        return {
            "object": "realtime.session",
            "id": self._session_id,
            "expires_at": self._expires_at,
            **self._terms.shown(self._config),
        }

    # --- client to session --------------------------------------------------------------------------

    def _read(self, session: VoiceSession, frame: Any) -> None:  # noqa: ANN401  # as ASGI has it
        """Obey one frame, or tell what is wrong with it."""
        if frame["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(frame["code"])
        event_id: str | None = None
        try:
            document = _document(frame)
            given_id = document.get("event_id")
            event_id = given_id[:_SHOWN_CHARS] if isinstance(given_id, str) else None
            self._take(session, wire.structure(document))
        except (ClientError, RealtimeRefusal) as error:
            session.answer(client_error(error, event_id))

    def _take(self, session: VoiceSession, message: wire.ClientMessage) -> None:  # noqa: C901  # a flat table
        match message:
            case wire.SessionUpdate():
                self._update(session, message)
            case wire.InputAppend(audio=audio):
                self._append(session, audio)
            case wire.InputCommit():
                self._commit(session)
            case wire.InputClear():
                self._clear(session)
            case wire.ItemCreate():
                self._create_item(session, message)
            case wire.ItemTruncate():
                self._truncate(session, message)
            case wire.ItemDelete(item_id=item_id):
                self._items.find(item_id, "delete")
                raise RealtimeRefusal(
                    "item_delete_not_supported",
                    "This server does not take anything out of a conversation.",
                    field="item_id",
                )
            case wire.ItemRetrieve(item_id=item_id):
                session.answer(told.Retrieve(self._items.find(item_id, "retrieve")))
            case wire.ResponseCreate():
                self._respond(session, message)
            case wire.ResponseCancel():
                self._cancel(session, message)

    def _update(self, session: VoiceSession, message: wire.SessionUpdate) -> None:
        config = merged(self._config, message.session)
        if config.type != self._config.type:
            raise RealtimeRefusal(
                "invalid_value", "The type of a session cannot be changed.", field="session.type"
            )
        options, tools = self._terms.options(config), self._terms.tools(config)
        session.update(options, tell_speech=config.audio.input.turn_detection is not None)
        if config.audio.input.format != self._config.audio.input.format:
            self._odd_byte = b""
        self._config = config
        if tools is not None:
            self._tools.offer(tools)
        session.answer(told.Adopted("session.updated", config, options.stt, self._shown()))

    # --- what the user says

    def _append(self, session: VoiceSession, audio: bytes) -> None:
        audio_format = session.options.stt.audio_format
        audio = self._odd_byte + audio
        whole = len(audio) - len(audio) % audio_format.bytes_per_sample
        self._odd_byte = audio[whole:]
        session.hear(audio[:whole])
        duration_ms = audio_format.duration_ms(whole)
        self._written_ms += duration_ms
        self._buffered_ms += duration_ms

    def _commit(self, session: VoiceSession) -> None:
        if not self._buffered_ms:
            raise RealtimeRefusal(
                "input_audio_buffer_commit_empty", "Error committing input audio buffer: the buffer is empty."
            )
        item = told.user_audio(new_id("item"), self._buffered_ms)
        self._buffered_ms = 0.0
        for event in told.commit_events(self._items, item):
            session.answer(event)
        if session.is_heard:
            session.answer(told.UtteranceEnded(item))
            session.commit_audio()
        else:
            session.answer(told.not_transcribed(item))

    def _clear(self, session: VoiceSession) -> None:
        if self._buffered_ms:
            session.discard_audio()
        self._buffered_ms, self._odd_byte = 0.0, b""
        session.answer(told.Cleared())

    # --- items

    def _create_item(self, session: VoiceSession, message: wire.ItemCreate) -> None:
        given = message.item
        text = text_of(given)
        item = Item(given.id or new_id("item"), written(given))
        self._items.add(item, message.previous_item_id)
        session.answer(item_event("added", item))
        session.answer(item_event("done", item))
        match given.type, given.role:
            case "message", ("user" | "assistant") as role:
                if text.strip():
                    session.step(Added(at_s=trio.current_time(), role=role, text=text))
            case "message", _:
                self._notes.note(text, item.id)
            case "function_call_output", _:
                self._give_output(given.call_id or "", text)

    def _give_output(self, call_id: str, text: str) -> None:
        """For the turn that waits for it, else for the next: the client asks for a response by itself."""
        if self._tools.awaits(call_id):
            self._outputs[call_id] = text
        else:
            self._notes.note(text, call_id)

    def _truncate(self, session: VoiceSession, message: wire.ItemTruncate) -> None:
        item = self._items.find(message.item_id, "truncate")
        if item.turn_id is None or not item.audio_ms:
            raise RealtimeRefusal(
                "invalid_value", "Only spoken messages of the assistant can be truncated.", field="item_id"
            )
        if message.content_index:
            raise RealtimeRefusal("invalid_value", "`content_index` must be 0.", field="content_index")
        if message.audio_end_ms > item.audio_ms:
            raise RealtimeRefusal(
                "invalid_value",
                f"Audio content of {item.audio_ms:.0f}ms is already shorter than {message.audio_end_ms}ms",
                field="audio_end_ms",
            )
        now_s = trio.current_time()
        session.step(PlaybackProgress(at_s=now_s, turn_id=item.turn_id, played_ms=message.audio_end_ms))
        if self._narration.open_turn != item.turn_id:  # a client whose player holds all of it has emptied it
            session.step(Interrupt(at_s=now_s, turn_id=item.turn_id))
        item.fields["content"] = [{"type": "output_audio"}]
        place = {"item_id": item.id, "content_index": 0, "audio_end_ms": message.audio_end_ms}
        session.answer(wire.ServerEvent("conversation.item.truncated", place))

    # --- responses

    def _respond(self, session: VoiceSession, message: wire.ResponseCreate) -> None:
        if self._config.type == "transcription":
            raise RealtimeRefusal("invalid_event", "A transcription session makes no responses.")
        if self._gave_outputs():
            session.answer(told.OutputsGiven(message.response))
            return
        if session.is_replying:
            raise RealtimeRefusal(
                "conversation_already_has_active_response",
                "Conversation already has an active response in progress. "
                "Wait until the response is finished before creating a new one.",
            )
        options = self._terms.reply_options(session.options, message.response)
        self._terms.hosted.services.tts.check(options.tts)
        session.answer(told.ReplyAsked(message.response))
        session.step(Respond(at_s=trio.current_time(), options=options))

    def _gave_outputs(self) -> bool:
        """Let the turn that waits for outputs have them; those of a turn that is over are for the next."""
        outputs, self._outputs = self._outputs, {}
        awaited = [call_id for call_id in outputs if self._tools.awaits(call_id)]
        for call_id, output in outputs.items():
            if call_id in awaited:
                self._tools.answered(call_id, output, is_error=False)
            else:
                self._notes.note(output, call_id)
        return bool(awaited)

    def _cancel(self, session: VoiceSession, message: wire.ResponseCancel) -> None:
        asked_for, running = message.response_id, self._narration.open_response
        is_other = asked_for is not None and asked_for != running
        is_active = session.is_replying and not is_other
        if not session.is_replying:
            session.answer(told.ReplyAsked(None))
        if not is_other:  # what is still being heard of a response that is done ends too
            session.step(Interrupt(at_s=trio.current_time()))
        if not is_active:
            raise RealtimeRefusal(
                "response_cancel_not_active", "Cancellation failed: no active response found."
            )


def _document(frame: Any) -> dict[str, Any]:  # noqa: ANN401  # as above
    text = frame.get("text")
    if text is None:
        raise ClientError(ClientFault.MALFORMED_MESSAGE, "Events are JSON in text frames.")
    return codec.read_object(text)


def _ask_for_output(session: VoiceSession, question: ToolQuestion) -> None:
    session.answer_of_turn(question.turn_id, question)
