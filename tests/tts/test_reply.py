"""One clock and one kind of error for all of a reply's answers."""

import pytest
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.tts.base import Alignment, SpeechAudio, SpokenText
from voice_fsm.tts.reply import Frame, Narrator, ungrouped
from voice_fsm.upstream.faults import provider_error

HI = Alignment(("H", "i"), (0.0, 30.0), (30.0, 70.0))
PCM = AudioFormat("pcm", 8000)
SECOND = bytes(16000)


def test_frames_before_the_first_audio_decide_nothing() -> None:
    """An empty frame does not turn an aligned answer into an unaligned one."""
    narrator, untold = Narrator(PCM), ["Hi"]

    said = [item for frame in (Frame(), Frame(b"ab", HI)) for item in narrator.tell(frame, untold)]

    assert said == [HI, SpeechAudio(b"ab")]
    assert untold == []


def test_a_later_alignment_does_not_tell_twice() -> None:
    """Text that was announced for want of an alignment is not told again by a late one."""
    narrator, untold = Narrator(PCM), ["Hi"]

    said = [item for frame in (Frame(b"ab"), Frame(b"cd", HI)) for item in narrator.tell(frame, untold)]

    assert said == [SpokenText("Hi"), SpeechAudio(b"ab"), SpeechAudio(b"cd")]


def test_frames_without_alignment_among_aligned_ones_are_only_audio() -> None:
    """The text of the whole answer is told by the alignments that there are."""
    narrator = Narrator(PCM)

    said = [item for frame in (Frame(b"ab", HI), Frame(b"cd")) for item in narrator.tell(frame, ["more"])]

    assert said == [HI, SpeechAudio(b"ab"), SpeechAudio(b"cd")]


def test_half_a_sample_does_not_reach_the_next_answer() -> None:
    """What is left of a cut sample at an answer's end is dropped, and the clock does not count it."""
    narrator = Narrator(PCM)
    narrator.tell(Frame(SECOND + b"x"), [])

    narrator.begin_answer()
    said = narrator.tell(Frame(b"ab", HI), [])

    assert said[1] == SpeechAudio(b"ab")
    assert isinstance(said[0], Alignment)
    assert said[0].starts_ms == (1000.0, 1030.0)


async def cancelled_error() -> trio.Cancelled:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            return error
    raise AssertionError


async def test_one_error_is_taken_out_of_any_group() -> None:
    """However deep, and whatever was cancelled for it; but a fault of ours keeps its group."""
    error = provider_error(Upstream.TTS, ProviderFault.LOST)
    cancelled = await cancelled_error()
    nested = BaseExceptionGroup("", [cancelled, BaseExceptionGroup("", [GeneratorExit(), error])])
    mixed = BaseExceptionGroup("", [ZeroDivisionError(), error])

    with pytest.raises(ProviderError) as caught, ungrouped():
        raise nested
    assert caught.value is error
    for group in (mixed, BaseExceptionGroup("", [cancelled])):
        with pytest.raises(BaseExceptionGroup) as kept, ungrouped():
            raise group
        assert kept.value is group
