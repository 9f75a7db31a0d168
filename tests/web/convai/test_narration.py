"""What a session does, told in the words of the Agents protocol."""

from typing import Any

import pytest

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm import effects as fx
from voice_fsm.runtime.outgoing import AudioChunk, Item, SpeechTiming, TextDelta
from voice_fsm.tts.base import Alignment
from voice_fsm.web.convai.errors import closing_message, error_message
from voice_fsm.web.convai.narration import UNTOLD, Narration
from voice_fsm.web.convai.pings import Pings
from voice_fsm.wire import convai as wire

PCM = AudioFormat("pcm", 16000)
ALL = frozenset(kind.type for kind in wire.ServerEvent.__subclasses__())


def told(*items: Item, events: frozenset[str] | None = None) -> list[wire.ServerMessage]:
    narration = Narration("conv_1", events, text_only=False)
    return [message for item in items for message in narration.tell(item)]


def audio(turn_id: int, duration_ms: float) -> AudioChunk:
    return AudioChunk(turn_id, PCM, bytes(PCM.size_bytes(duration_ms)))


def test_times_of_characters_count_from_the_start_of_their_own_message() -> None:
    """They come with the audio that they tell of, in whole milliseconds; audio without any has none."""
    messages = told(
        fx.TurnStarted(1, "", "user"),
        SpeechTiming(1, Alignment(("H", "i"), (0.0, 99.6), (99.6, 250.2))),
        audio(1, 250),
        audio(1, 100),
        SpeechTiming(1, Alignment(("!",), (349.0,), (400.0,))),  # a little before its audio
        audio(1, 100),
    )
    first, second, third = (message for message in messages if isinstance(message, wire.Audio))
    assert first.alignment == wire.Alignment(
        chars=("H", "i"), char_start_times_ms=(0, 100), char_durations_ms=(100, 151)
    )
    assert second.alignment is None
    assert third.alignment == wire.Alignment(chars=("!",), char_start_times_ms=(0,), char_durations_ms=(51,))
    assert '"alignment":null' not in wire.encode(second)


def test_what_is_kept_from_it_would_have_changed_nothing() -> None:
    """No message is made of what the session does not bring, at no point of a turn."""
    untold: tuple[Item, ...] = (
        fx.StateChanged(source="thinking", target="speaking", input="first_audio", at_ms=1.0),
        fx.SpeechBegan(),
        fx.SpeechEnded(),
        fx.AudioStarted(1, PCM),
        fx.AudioEnded(1, PCM),
        fx.TurnPaused(1, 1.0),
        fx.TurnResumed(1, 1.0),
    )
    assert {type(item) for item in untold} == UNTOLD
    turn: tuple[Item, ...] = (
        fx.TurnStarted(1, "Hi", "user"),
        TextDelta(1, "Well."),
        audio(1, 250),
        fx.ReplyTold(1, "Well.", {}),
        fx.TurnEnded(1, "completed"),
    )
    assert told(*(item for each in turn for item in (each, *untold)), events=ALL) == told(*turn, events=ALL)


def test_a_reply_that_was_told_and_then_cancelled_is_taken_back() -> None:
    """It was never spoken, so nothing of it was heard."""
    messages = told(
        fx.TurnStarted(1, "Hi", "user"),
        TextDelta(1, "Well."),
        fx.ReplyTold(1, "Well.", {}),
        fx.TurnEnded(1, "cancelled"),
    )
    assert messages[1:] == [
        wire.Interruption(event_id=1),
        wire.AgentResponseCorrection(
            original_agent_response="Well.", corrected_agent_response="", event_id=1
        ),
    ]
    assert told(fx.TurnStarted(1, "Hi", "user"), fx.TurnEnded(1, "cancelled")) == []


def test_what_may_be_asked_for_comes_when_it_is() -> None:
    """Metadata of the reply and of the recogniser, the text so far, and the parts."""
    messages = told(
        fx.SttStarted("stt-1", {"rate": 16000}),
        fx.TurnStarted(1, "Hi", "user"),
        TextDelta(1, "Well"),
        TextDelta(1, ", yes. "),
        fx.ReplyTold(1, "Well, yes.", {"model": "m"}),
        events=ALL,
    )
    assert [message.type for message in messages] == [
        "asr_initiation_metadata",
        "agent_chat_response_part",
        "agent_chat_response_part",
        "agent_chat_response_part",
        "internal_tentative_agent_response",
        "agent_chat_response_part",
        "agent_response",
        "agent_response_metadata",
    ]
    assert messages[0] == wire.AsrMetadata(session_id="stt-1", config={"rate": 16000})
    assert messages[4] == wire.TentativeAgentResponse(tentative_agent_response="Well, yes. ")
    assert messages[7] == wire.AgentResponseMetadata(metadata={"model": "m"}, event_id=1)


def test_a_blank_utterance_is_none() -> None:
    """Silence that was committed is no transcript; a blank reply is no response."""
    assert told(fx.UtteranceCommitted(" ", ()), fx.ReplyTold(1, " ", {})) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("malformed_message", (1008, "invalid_message")),
        ("override_not_allowed", (1008, "override_error")),
        ("missing_variable", (1008, "missing_dynamic_variable")),
        ("unauthorized", (1008, "invalid_message")),
        ("chat_timeout", (1002, "llm_timeout")),
        ("chat_server_error", (1002, "custom_llm_error")),
        ("stt_lost", (1002, "asr_transcription_error")),
        ("tts_stalled", (1002, "tts_cascade_error")),
        ("turn_timeout", (1002, "llm_timeout")),
        ("overloaded", (1002, "http_exception")),
        ("internal_error", (1011, "unknown_websocket_crash")),
    ],
)
def test_our_codes_in_their_words(code: str, expected: tuple[int, str]) -> None:
    """Each kind has a code and a name that the official clients know; ours stays beside them."""
    message = error_message(fx.ErrorTold(code=code, message="Sentence.", field="f", retryable=True))
    assert (message.code, message.error_type) == expected
    assert (message.reason, message.details["field"], message.details["retryable"]) == (code, "f", True)


def test_what_an_error_has_told_is_not_told_again() -> None:
    """Only endings without a fault need words of their own."""
    reasons: tuple[Any, ...] = ("idle", "max_duration", "draining", "policy", "error")
    assert [closing_message(reason) is not None for reason in reasons] == [True, True, True, False, False]


def test_pings_count_from_1_and_tell_how_long_the_last_pong_took() -> None:
    """A pong for an older ping, or for none, tells nothing."""
    pings = Pings()
    assert pings.next(10.0) == wire.Ping(event_id=1, ping_ms=None)
    pings.answered(7, 10.01)
    pings.answered(1, 10.0351)
    assert pings.next(15.0) == wire.Ping(event_id=2, ping_ms=35)
    pings.answered(1, 19.0)
    assert pings.next(20.0) == wire.Ping(event_id=3, ping_ms=35)


def test_a_written_reply_is_told_when_its_turn_is_over() -> None:
    """Whoever has read it can answer, and is not taken to go on with the question before."""
    narration = Narration("conv_1", None, text_only=True)
    narration.tell(fx.TurnStarted(1, "Hi", "user"))
    narration.tell(TextDelta(1, "Hello."))
    assert narration.tell(fx.ReplyTold(1, "Hello.", {})) == []
    told = narration.tell(fx.TurnEnded(1, "completed"))
    assert told[-1] == wire.AgentResponse(agent_response="Hello.", event_id=1)
