import pytest

from voice_fsm.fsm.events import SpokenSpan
from voice_fsm.runtime.turn import Words
from voice_fsm.tts.base import Alignment


def aligned(text: str, start_ms: float) -> Alignment:
    starts = tuple(start_ms + 10 * index for index in range(len(text)))
    return Alignment(tuple(text), starts, tuple(start + 10 for start in starts))


@pytest.mark.parametrize("cut", range(12))
def test_words_are_whole_wherever_the_frames_are_cut(cut: int) -> None:
    """A word that two frames share is one word, with the first one's start and the second's end."""
    text, words = "Hello there.", Words()
    spans = [*words.feed(aligned(text[:cut], 0)), *words.feed(aligned(text[cut:], 10 * cut))]
    assert [*spans, *words.finish()] == [SpokenSpan("Hello ", 0, 60), SpokenSpan("there.", 60, 120)]
    assert words.finish() == ()
