"""What a session does, told in the words of OpenAI's Realtime protocol.

A turn is a response: ``response.created`` when it begins, ``response.done`` once when all of it has been sent
or it was cut short, and nothing of it after that, though its audio may still be playing. A turn that asks the
client for a function's output is several responses, as the client expects.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import attrs

from voice_fsm.errors import Upstream
from voice_fsm.fsm import effects as fx
from voice_fsm.fsm.options import SttOptions
from voice_fsm.runtime.client_tools import ToolQuestion
from voice_fsm.runtime.outgoing import Answer, AudioChunk, SpeechTiming, TextDelta
from voice_fsm.runtime.outgoing import Item as Told
from voice_fsm.web.realtime.errors import failure, session_expired, told_error
from voice_fsm.web.realtime.items import Item, Items, item_event, message, new_id
from voice_fsm.wire.codec import write_object
from voice_fsm.wire.realtime import AudioDelta, ServerEvent, ServerMessage
from voice_fsm.wire.realtime_session import ResponseConfig, SessionConfig

EXPIRED: Final = "Your session hit the maximum duration."
UNTOLD: Final = frozenset(
    {
        fx.Configured,
        fx.SttStarted,
        fx.StateChanged,
        fx.PartialHeard,
        fx.ReplyTold,
        fx.TurnPaused,
        fx.TurnResumed,
        fx.TurnTimed,
        SpeechTiming,
    }
)
"""What this protocol has no word for."""
Why = Literal["turn_detected", "client_cancelled"]


@attrs.frozen
class Adopted:
    """Settings are in force; ``shown`` is how the client sees them."""

    event: Literal["session.created", "session.updated"]
    config: SessionConfig
    stt: SttOptions
    shown: dict[str, Any]


@attrs.frozen
class ReplyAsked:
    """The client asked for the response that begins next; ``None``: not any more."""

    response: ResponseConfig | None


@attrs.frozen
class UtteranceEnded:
    """The client ended an utterance, which is this item."""

    item: Item


@attrs.frozen
class Cleared:
    """The client takes back what it sent since the last utterance."""


@attrs.frozen
class OutputsGiven:
    """The turn goes on with the outputs of functions."""

    response: ResponseConfig


@attrs.frozen
class Retrieve:
    """The client wants to see an item as it is by then."""

    item: Item


@attrs.define
class Response:
    """One response under way."""

    id: str
    turn_id: int
    is_text: bool
    shown: dict[str, Any]
    output: list[Item] = attrs.field(factory=list)
    message: Item | None = None
    """The message that is being said."""
    text: str = ""


class Narration:
    """Makes the events for one client. ``written_ms`` tells how much audio it has sent so far."""

    def __init__(self, items: Items, written_ms: Callable[[], float]) -> None:
        self._items = items
        self._written_ms = written_ms
        self._conversation_id = new_id("conv")
        self._config = SessionConfig()
        self._stt = SttOptions()
        self._asked: ResponseConfig | None = None
        self._turn_id = 0
        """Of the turn in hand; 0 between turns."""
        self._response: Response | None = None
        self._is_audible = False
        """Whether audio of the turn has begun and the turn is not over, so that clients may be playing it."""
        self._speech: Literal["silence", "untold", "told"] = "silence"
        self._speaking = user_audio(new_id("item"), 0.0)
        self._speaking_since_ms = 0.0
        self._spoken: deque[Item] = deque()
        """Items of speech that has ended and whose words are to come."""
        self._ended: deque[Item] = deque()
        """Items whose utterance the client ended and whose words are to come."""

    @property
    def open_turn(self) -> int | None:
        """The turn of the response under way."""
        return None if self._response is None else self._response.turn_id

    @property
    def open_response(self) -> str | None:
        """The id of the response under way."""
        return None if self._response is None else self._response.id

    def tell(self, item: Told) -> Iterator[ServerMessage]:  # noqa: C901, PLR0912  # one flat table
        """What is to be sent, in order."""
        match item:
            case Answer(answer):
                yield from self._answer(answer)
            case fx.SpeechBegan():
                yield from self._speech_began()
            case fx.SpeechEnded():
                yield from self._speech_ended()
            case fx.UtteranceCommitted(text):
                yield from self._committed(text)
            case fx.TurnStarted(turn_id, _, cause):
                self._turn_id = turn_id
                if cause == "silence":
                    yield from self._timed_out()
                yield self._begin(self._asked or ResponseConfig())
                self._asked = None
            case TextDelta(turn_id, text) if turn_id == self._turn_id:
                yield from self._text(text)
            case AudioChunk() if item.turn_id == self._turn_id:
                yield from self._audio(item)
            case fx.AudioStarted():
                self._is_audible = True
            case fx.AudioEnded(_, _, whole) if whole:
                yield from self._finish("completed")
            case fx.TurnInterrupted(_, reason):
                if reason == "speech":
                    yield from self._tell_speech()
                why: Why = "turn_detected" if reason == "speech" else "client_cancelled"
                yield from self._finish("cancelled", why)
            case fx.ErrorTold(turn_id=turn_id) if turn_id is not None and self._response is not None:
                yield from self._finish("failed", error=failure(item))
            case fx.ErrorTold():
                yield told_error(item)
                if item.code.startswith(Upstream.STT):
                    yield from map(not_transcribed, self._ended)
                    self._ended.clear()
            case fx.TurnEnded(_, outcome):
                yield from self._turn_ended(outcome)
            case fx.Closing("max_duration"):
                yield session_expired(EXPIRED)
            case _:  # this protocol has no word for the others
                pass

    def _answer(self, answer: object) -> Iterator[ServerMessage]:
        match answer:
            case ServerEvent():
                yield answer
            case Adopted(event, config, stt, shown):
                if stt != self._stt:  # nobody will answer for what the old link heard
                    self._stt = stt
                    self._ended.clear()
                    self._spoken.clear()
                self._config = config
                yield ServerEvent(event, {"session": shown})
            case ReplyAsked(response):
                self._asked = response
            case UtteranceEnded(item):
                self._ended.append(item)
                self._spoken.clear()
            case Cleared():
                self._spoken.clear()
                yield ServerEvent("input_audio_buffer.cleared")
            case Retrieve(item):
                yield ServerEvent("conversation.item.retrieved", {"item": item.as_json()})
            case ToolQuestion(turn_id=turn_id) if turn_id == self._turn_id:
                yield from self._call(answer)
            case OutputsGiven(response) if self._response is None and self._turn_id:
                yield self._begin(response)
            case _:
                pass

    # --- the user ------------------------------------------------------------------------------------

    def _speech_began(self) -> Iterator[ServerMessage]:
        """Clients stop their players at this: while one is heard it has to interrupt before it is told."""
        detection = self._config.audio.input.turn_detection
        if detection is None:
            return
        self._speech = "untold"
        if not (self._is_audible and detection.interrupt_response):
            yield from self._tell_speech()

    def _tell_speech(self) -> Iterator[ServerMessage]:
        """Tell it, and again if what it is to stop began only after it was told."""
        detection = self._config.audio.input.turn_detection
        if detection is None:
            return
        start_ms = max(self._written_ms() - detection.prefix_padding_ms, 0)
        if self._speech != "told":
            self._speaking, self._speaking_since_ms = user_audio(new_id("item"), 0.0), start_ms
        self._speech = "told"
        yield ServerEvent(
            "input_audio_buffer.speech_started",
            {"audio_start_ms": round(start_ms), "item_id": self._speaking.id},
        )

    def _speech_ended(self) -> Iterator[ServerMessage]:
        was_told, self._speech = self._speech == "told", "silence"
        if was_told:
            end_ms = self._written_ms()
            self._speaking.audio_ms = end_ms - self._speaking_since_ms
            self._spoken.append(self._speaking)
            yield ServerEvent(
                "input_audio_buffer.speech_stopped",
                {"audio_end_ms": round(end_ms), "item_id": self._speaking.id},
            )

    def _committed(self, text: str) -> Iterator[ServerMessage]:
        if self._ended:
            yield from self._transcribed(self._ended.popleft(), text)
            return
        if not self._spoken and text.strip() and self._speech != "told":
            yield from self._tell_speech()
        if not self._spoken:
            yield from self._speech_ended()
        if not self._spoken:
            return
        detection = self._config.audio.input.turn_detection
        if detection is not None and detection.type == "semantic_vad":
            item = self._spoken.pop()  # the recogniser joins what was said between pauses
            self._spoken.clear()
        else:
            item = self._spoken.popleft()
        yield from commit_events(self._items, item)
        yield from self._transcribed(item, text)

    def _transcribed(self, item: Item, text: str) -> Iterator[ServerMessage]:
        if self._config.audio.input.transcription is None:
            return
        item.fields["content"] = [{"type": "input_audio", "transcript": text}]
        name = "conversation.item.input_audio_transcription"
        place = {"item_id": item.id, "content_index": 0}
        if text:
            yield ServerEvent(f"{name}.delta", {**place, "delta": text})
        yield ServerEvent(
            f"{name}.completed",
            {
                **place,
                "transcript": text,
                "usage": {"type": "duration", "seconds": round(item.audio_ms / 1000, 1)},
            },
        )

    def _timed_out(self) -> Iterator[ServerMessage]:
        end_ms = round(self._written_ms())
        detection = self._config.audio.input.turn_detection
        idle_ms = detection.idle_timeout_ms if detection else None
        start_ms = max(end_ms - (idle_ms or 0), 0)
        item = user_audio(new_id("item"), end_ms - start_ms)
        yield ServerEvent(
            "input_audio_buffer.timeout_triggered",
            {"audio_start_ms": start_ms, "audio_end_ms": end_ms, "item_id": item.id},
        )
        yield from commit_events(self._items, item)

    # --- the assistant -------------------------------------------------------------------------------

    def _begin(self, asked: ResponseConfig) -> ServerEvent:
        is_text = self._config.is_text
        if asked.output_modalities is not None:
            is_text = asked.output_modalities == ("text",)
        output = self._config.audio.output
        shown: dict[str, Any] = {
            "object": "realtime.response",
            "id": new_id("resp"),
            "conversation_id": self._conversation_id,
            "output_modalities": ["text"] if is_text else ["audio"],
            "max_output_tokens": asked.max_output_tokens or self._config.max_output_tokens or "inf",
            "audio": {"output": {"format": output.format.as_json(), "voice": output.voice}},
            "usage": None,
            "metadata": asked.metadata,
        }
        self._response = Response(shown["id"], self._turn_id, is_text, shown)
        fields = {**shown, "status": "in_progress", "status_details": None, "output": []}
        return ServerEvent("response.created", {"response": fields})

    def _text(self, text: str) -> Iterator[ServerMessage]:
        yield from self._open_message()
        response = self._opened
        response.text += text
        kind = "output_text" if response.is_text else "output_audio_transcript"
        yield ServerEvent(f"response.{kind}.delta", {**self._place(), "delta": text})

    def _audio(self, chunk: AudioChunk) -> Iterator[ServerMessage]:
        yield from self._open_message()
        response, item = self._opened, self._saying
        item.audio_ms += chunk.output_format.duration_ms(len(chunk.data))
        yield AudioDelta(response_id=response.id, item_id=item.id, delta=chunk.data)

    def _open_message(self) -> Iterator[ServerMessage]:
        if self._response is None:  # the turn goes on after it asked for a function's output
            yield self._begin(ResponseConfig())
        response = self._opened
        if response.message is None:
            item = response.message = Item(
                new_id("item"), message("assistant", [], status="in_progress"), response.turn_id
            )
            response.text = ""
            yield from self._add_output(item)
            yield ServerEvent("response.content_part.added", {**self._place(), "part": self._part("")})

    def _add_output(self, item: Item) -> Iterator[ServerMessage]:
        response = self._opened
        response.output.append(item)
        self._items.add(item)
        yield ServerEvent(
            "response.output_item.added",
            {
                "response_id": response.id,
                "output_index": len(response.output) - 1,
                "item": item.as_json(),
            },
        )
        yield item_event("added", item)

    def _close_output(self, item: Item) -> Iterator[ServerMessage]:
        response = self._opened
        yield item_event("done", item)
        yield ServerEvent(
            "response.output_item.done",
            {
                "response_id": response.id,
                "output_index": response.output.index(item),
                "item": item.as_json(),
            },
        )

    def _close_message(self, status: str) -> Iterator[ServerMessage]:
        response = self._opened
        item = response.message
        if item is None:
            return
        place, text = self._place(), response.text
        if response.is_text:
            yield ServerEvent("response.output_text.done", {**place, "text": text})
            part = {"type": "output_text", "text": text}
        else:
            yield ServerEvent("response.output_audio.done", place)
            yield ServerEvent("response.output_audio_transcript.done", {**place, "transcript": text})
            part = {"type": "output_audio", "transcript": text}
        yield ServerEvent("response.content_part.done", {**place, "part": self._part(text)})
        item.fields |= {"status": status, "content": [part]}
        yield from self._close_output(item)
        response.message = None

    def _call(self, question: ToolQuestion) -> Iterator[ServerMessage]:
        """The response ends with a call; what the model says to its output is another one."""
        if self._response is None:
            yield self._begin(ResponseConfig())
        yield from self._close_message("completed")
        call = {"call_id": question.call_id, "name": question.name}
        item = Item(
            new_id("item"),
            {"type": "function_call", "status": "in_progress", **call, "arguments": ""},
            question.turn_id,
        )
        yield from self._add_output(item)
        arguments = write_object(question.arguments)
        place = {
            "response_id": self._opened.id,
            "item_id": item.id,
            "output_index": len(self._opened.output) - 1,
            "call_id": question.call_id,
        }
        yield ServerEvent("response.function_call_arguments.delta", {**place, "delta": arguments})
        yield ServerEvent(
            "response.function_call_arguments.done",
            {**place, "name": question.name, "arguments": arguments},
        )
        item.fields |= {"status": "completed", "arguments": arguments}
        yield from self._close_output(item)
        yield from self._finish("completed")

    def _finish(
        self, status: str, why: Why | None = None, *, error: dict[str, Any] | None = None
    ) -> Iterator[ServerMessage]:
        """End the response under way, if there is one."""
        if self._response is None:
            return
        yield from self._close_message("completed" if status == "completed" else "incomplete")
        response, self._response = self._opened, None
        details: dict[str, Any] | None = None
        if status == "cancelled":
            details = {"type": status, "reason": why}
        elif status == "failed":
            details = {"type": status, "error": error}
        shown = {
            **response.shown,
            "status": status,
            "status_details": details,
            "output": [item.as_json() for item in response.output],
        }
        yield ServerEvent("response.done", {"response": shown})

    def _turn_ended(self, outcome: fx.Outcome) -> Iterator[ServerMessage]:
        if outcome == "completed":
            yield from self._finish("completed")
        elif outcome == "cancelled":
            yield from self._finish("cancelled", "turn_detected")
        self._turn_id, self._is_audible = 0, False
        if self._speech == "untold":
            yield from self._tell_speech()

    @property
    def _opened(self) -> Response:
        assert self._response is not None  # noqa: S101  # the caller has begun one
        return self._response

    @property
    def _saying(self) -> Item:
        assert self._opened.message is not None  # noqa: S101  # as above
        return self._opened.message

    def _place(self) -> dict[str, Any]:
        response = self._opened
        return {
            "response_id": response.id,
            "item_id": self._saying.id,
            "output_index": response.output.index(self._saying),
            "content_index": 0,
        }

    def _part(self, text: str) -> dict[str, str]:
        return (
            {"type": "text", "text": text} if self._opened.is_text else {"type": "audio", "transcript": text}
        )


def user_audio(item_id: str, audio_ms: float) -> Item:
    """What the user said, before its words are known."""
    return Item(item_id, message("user", [{"type": "input_audio", "transcript": None}]), audio_ms=audio_ms)


def commit_events(items: Items, item: Item) -> Iterator[ServerEvent]:
    """Tell of an utterance that has ended, and make it an item."""
    items.add(item)
    place = {"previous_item_id": item.previous_id, "item_id": item.id}
    yield ServerEvent("input_audio_buffer.committed", place)
    yield item_event("added", item)
    yield item_event("done", item)


def not_transcribed(item: Item) -> ServerEvent:
    """Tell that an utterance's words will not come."""
    error = {
        "type": "transcription_error",
        "code": "transcription_failed",
        "message": "The audio could not be transcribed.",
        "param": None,
    }
    return ServerEvent(
        "conversation.item.input_audio_transcription.failed",
        {"item_id": item.id, "content_index": 0, "error": error},
    )
