import base64
import json
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError, ProviderFault
from voice_fsm.fsm.events import Word
from voice_fsm.stt.base import CommittedTranscript
from voice_fsm.stt.elevenlabs_protocol import (
    CommitLedger,
    Interpreter,
    Timeline,
    decode_message,
    encode_chunk,
    message_type,
    silence,
)

# --- messages ---------------------------------------------------------------------------------------


@hypothesis.given(
    audio=st.binary(max_size=100),
    rate_hz=st.integers(1, 48000),
    commit=st.booleans(),
    text=st.text(min_size=1),
)
@hypothesis.settings(deadline=None)
def test_a_chunk_is_json(audio: bytes, rate_hz: int, commit: bool, text: str) -> None:
    """Although it is not written by JSON's encoder."""
    assert json.loads(encode_chunk(audio, rate_hz, commit=commit, previous_text=text)) == {
        "message_type": "input_audio_chunk",
        "audio_base_64": base64.b64encode(audio).decode(),
        "commit": commit,
        "sample_rate": rate_hz,
        "previous_text": text,
    }
    assert "previous_text" not in json.loads(encode_chunk(audio, rate_hz))


@pytest.mark.parametrize(("name", "sample"), [("pcm_16000", b"\0\0"), ("ulaw_8000", b"\xff\xff")])
def test_silence_is_what_its_format_takes_for_zero(name: str, sample: bytes) -> None:
    """A zero byte is the loudest there is in mu-law."""
    assert silence(AudioFormat.parse(name), 4) == sample * 2


@pytest.mark.parametrize("frame", ["", "{", "[]", "null", "7", b"\xff\xfe", "[" * 100_000, "1" * 5000])
def test_what_is_no_json_object_is_a_bad_response(frame: str | bytes) -> None:
    """Of whatever shape, length or depth."""
    with pytest.raises(ProviderError) as caught:
        decode_message(frame)
    assert caught.value.fault is ProviderFault.BAD_RESPONSE


@pytest.mark.parametrize("message", [{}, {"message_type": None}, {"message_type": ["error"]}])
def test_a_message_may_have_no_type(message: dict[str, Any]) -> None:
    """It is then none that we know."""
    assert message_type(decode_message(json.dumps(message))) == ""


# --- commits ----------------------------------------------------------------------------------------


def test_a_commit_is_padded_to_the_least_length() -> None:
    """What was sent since the last commit counts."""
    ledger = CommitLedger(min_bytes=100)
    assert not ledger.has_uncommitted
    ledger.note_audio(60)
    assert (ledger.has_uncommitted, ledger.padding_bytes) == (True, 40)
    ledger.note_audio(60)
    assert ledger.padding_bytes == 0
    ledger.note_commit(9.0)
    assert (ledger.has_uncommitted, ledger.padding_bytes) == (False, 100)


def test_an_answer_is_awaited_until_it_comes() -> None:
    """The oldest first; a blank of ours has no deadline."""
    ledger = CommitLedger(min_bytes=0)
    assert ledger.answer_due_at_s == math.inf
    ledger.note_commit(0.0)
    ledger.note_commit(8.0)
    assert ledger.note_blank_commit() == 0
    assert ledger.answer_due_at_s == 0.0
    assert ledger.note_answer() == 0
    assert ledger.answer_due_at_s == 8.0
    assert ledger.note_answer() == 1
    assert ledger.answer_due_at_s == math.inf
    assert ledger.note_blank_commit() == 1


# --- time -------------------------------------------------------------------------------------------


@hypothesis.given(
    pieces=st.lists(st.tuples(st.booleans(), st.integers(1, 5000)), max_size=20), offset=st.integers(0, 100)
)
@hypothesis.settings(deadline=None)
def test_the_callers_time_leaves_our_silence_out(pieces: list[tuple[bool, int]], offset: int) -> None:
    """A word after any mix of audio and silence is where it is in the audio alone."""
    timeline = Timeline(bytes_per_second=1000)
    ours = theirs = 0
    for is_silence, size in pieces:
        if is_silence:
            timeline.note_silence(size)
            ours += size
        else:
            timeline.note_audio(size)
            theirs += size
    assert timeline.caller_s((ours + theirs + offset) / 1000) == pytest.approx(
        (theirs + offset) / 1000, abs=1e-3
    )


def test_words_without_a_time_are_left_out() -> None:
    """Their utterance stands all the same."""
    fine = {"type": "word", "text": "fine", "start": 1, "end": 1.5}
    broken: list[Any] = [
        None,
        "word",
        {**fine, "type": "audio_event"},
        {**fine, "text": None},
        {**fine, "start": None},
        {**fine, "end": "2"},
        {**fine, "end": math.nan},
        {**fine, "start": math.inf},
    ]
    interpreter = Interpreter(Timeline(bytes_per_second=32000), timed=True)
    message: dict[str, Any] = {
        "message_type": "committed_transcript_with_timestamps",
        "text": "fine",
        "words": broken,
    }
    assert interpreter.interpret(message, 0.0) == CommittedTranscript("fine")
    message["words"] = [*broken, fine]
    assert interpreter.interpret(message, 0.0) == CommittedTranscript("fine", (Word("fine", 1.0, 1.5),))
    message["words"] = None
    assert interpreter.interpret(message, 0.0) == CommittedTranscript("fine")
