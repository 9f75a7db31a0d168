"""What a session does, told in the words of the Agents protocol.

Each turn's number is the ``event_id`` of all that is said of it, so the numbers rise, and after an
interruption none of its turn follows.
"""

from collections.abc import Iterator
from typing import Final

import attrs

from voice_fsm.fsm import effects as fx
from voice_fsm.runtime.outgoing import Answer, AudioChunk, Item, SpeechTiming, TextDelta
from voice_fsm.tts.base import Alignment
from voice_fsm.web.convai.errors import closing_message, error_message
from voice_fsm.wire import convai as wire

UNTOLD: Final = frozenset(
    {
        fx.StateChanged,
        fx.SpeechBegan,
        fx.SpeechEnded,
        fx.AudioStarted,
        fx.AudioEnded,
        fx.TurnPaused,
        fx.TurnResumed,
    }
)
"""What this protocol has no word for, nor a transcript a place."""
_SENTENCE_ENDS: Final = ".!?\n"


@attrs.define
class _Told:
    """What the client knows of the turn in hand."""

    turn_id: int = 0
    text: str = ""
    """The reply as far as it has come."""
    response: str | None = None
    """The whole of it, once that has been told."""
    held: fx.ReplyTold | None = None
    """In a written conversation it is told when its turn is over: what its reader answers is then a turn of
    its own, and not taken for the end of the question before."""
    is_writing: bool = False
    """Whether a start of its parts has been told, and no stop."""
    audio_ms: float = 0.0
    timing: Alignment | None = None
    """Of the audio that comes next."""


class Narration:
    """Makes the messages for one client, which is told the events that it asked for and all errors."""

    def __init__(self, conversation_id: str, events: frozenset[str] | None, *, text_only: bool) -> None:
        """``events`` ``None``: the usual ones, and in a written conversation the parts of its replies."""
        self._conversation_id = conversation_id
        self._text_only = text_only
        parts = frozenset({"agent_chat_response_part"}) if text_only else frozenset[str]()
        self._events = wire.DEFAULT_EVENTS | parts if events is None else events
        self._turn = _Told()
        self._has_begun = False

    def tells(self, event: type[wire.ServerEvent]) -> bool:
        """Whether the client wants to be told of such."""
        return event.type in self._events

    def tell(self, item: Item) -> list[wire.ServerMessage]:
        """What is to be sent, in order."""
        return [message for message in self._messages(item) if self._is_wanted(message)]

    def _is_wanted(self, message: wire.ServerMessage) -> bool:
        match message:
            case wire.Metadata() | wire.Ping() | wire.Error() | wire.ClientToolCall():
                return True
            case wire.AgentResponseCorrection():
                return "agent_response" in self._events
        return self.tells(type(message))

    def _messages(self, item: Item) -> Iterator[wire.ServerMessage]:  # noqa: C901, PLR0912  # one flat table
        turn = self._turn
        match item:
            case Answer(message):
                yield message  # type: ignore[misc]  # only this door makes them
            case fx.Configured() if not self._has_begun:
                self._has_begun = True
                yield wire.Metadata(
                    conversation_id=self._conversation_id,
                    agent_output_audio_format=item.options.tts.output_format,
                    user_input_audio_format=item.options.stt.audio_format,
                )
            case fx.SttStarted(session_id, config):
                yield wire.AsrMetadata(session_id=session_id, config=config)
            case fx.PartialHeard(text):
                yield wire.TentativeUserTranscript(user_transcript=text, event_id=turn.turn_id + 1)
            case fx.UtteranceCommitted(text) if text.strip():
                yield wire.UserTranscript(user_transcript=text, event_id=turn.turn_id + 1)
            case fx.TurnStarted(turn_id):
                self._turn = _Told(turn_id)
            case TextDelta():
                yield from self._text(item.text)
            case fx.ReplyTold() if self._text_only:
                turn.held = item
            case fx.ReplyTold():
                yield from self._response(item)
            case SpeechTiming():
                turn.timing = item.alignment
            case AudioChunk():
                yield self._audio(item)
            case fx.TurnInterrupted():
                yield from self._cut_short(item.heard_text)
            case fx.TurnEnded(_, "completed") if turn.held is not None:
                yield from self._response(turn.held)
            case fx.TurnEnded(_, "cancelled") if turn.text:
                yield from self._cut_short("")
            case fx.TurnEnded():
                yield from self._stop_writing()
            case fx.ErrorTold():
                yield error_message(item)
            case fx.Closing(reason):
                if (closing := closing_message(reason)) is not None:
                    yield closing
            case _:  # this protocol has no word for the others
                pass

    def _text(self, text: str) -> Iterator[wire.ServerMessage]:
        turn = self._turn
        if not turn.is_writing:
            turn.is_writing = True
            yield wire.AgentChatResponsePart(kind="start", event_id=turn.turn_id)
        turn.text += text
        yield wire.AgentChatResponsePart(kind="delta", text=text, event_id=turn.turn_id)
        if any(end in text for end in _SENTENCE_ENDS):
            yield wire.TentativeAgentResponse(tentative_agent_response=turn.text)

    def _response(self, reply: fx.ReplyTold) -> Iterator[wire.ServerMessage]:
        turn = self._turn
        yield from self._stop_writing()
        if reply.text.strip():
            turn.response = turn.text = reply.text
            yield wire.AgentResponse(agent_response=reply.text, event_id=turn.turn_id)
        if reply.metadata:
            yield wire.AgentResponseMetadata(metadata=reply.metadata, event_id=turn.turn_id)

    def _stop_writing(self) -> Iterator[wire.ServerMessage]:
        if self._turn.is_writing:
            self._turn.is_writing = False
            yield wire.AgentChatResponsePart(kind="stop", event_id=self._turn.turn_id)

    def _cut_short(self, heard: str) -> Iterator[wire.ServerMessage]:
        """Of a reply that was not complete yet, the client is told first what is to be corrected."""
        turn = self._turn
        yield from self._stop_writing()
        if heard and turn.response is None:
            turn.response = turn.text
            yield wire.AgentResponse(agent_response=turn.text, event_id=turn.turn_id)
        yield wire.Interruption(event_id=turn.turn_id)
        if turn.response is not None:
            yield wire.AgentResponseCorrection(
                original_agent_response=turn.response,
                corrected_agent_response=heard,
                event_id=turn.turn_id,
            )

    def _audio(self, chunk: AudioChunk) -> wire.Audio:
        turn = self._turn
        timing, turn.timing = turn.timing, None
        start_ms = turn.audio_ms
        turn.audio_ms += chunk.output_format.duration_ms(len(chunk.data))
        return wire.Audio(
            audio_base_64=chunk.data,
            event_id=chunk.turn_id,
            alignment=None if timing is None else _relative(timing, start_ms),
        )


def _relative(timing: Alignment, start_ms: float) -> wire.Alignment:
    """Count from the start of the message's own audio, and in whole milliseconds."""
    spans = list(zip(timing.starts_ms, timing.ends_ms, strict=True))
    return wire.Alignment(
        chars=timing.chars,
        char_start_times_ms=tuple(max(round(start - start_ms), 0) for start, _ in spans),
        char_durations_ms=tuple(max(round(end - start), 0) for start, end in spans),
    )
