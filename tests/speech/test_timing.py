"""When each character sounds: as told, or estimated."""

from collections.abc import AsyncIterator, Sequence

import pytest
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.speech.timing import TimedSpeech, with_timing
from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, SpokenText

PCM = AudioFormat("pcm", 16000)
SECOND = SpeechAudio(bytes(32000))


class Items:
    def __init__(self, items: Sequence[Speech]) -> None:
        self._items = iter(items)

    def __aiter__(self) -> AsyncIterator[Speech]:
        return self

    async def __anext__(self) -> Speech:
        await trio.lowlevel.checkpoint()
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None


async def timed(*items: Speech, estimate: bool = True) -> list[TimedSpeech]:
    async with with_timing(Items(items), PCM, estimate=estimate) as speech:
        return [item async for item in speech]


async def test_a_sentence_shares_its_time_among_its_characters() -> None:
    """From its first audio to its last, and so for each sentence; a space parts them."""
    first, second = await timed(SpokenText("Hi."), SECOND, SECOND, SECOND, SpokenText("Yes"), SECOND)
    assert (len(first.audio), len(second.audio)) == (96000, 32000)
    assert first.alignment == Alignment(("H", "i", "."), (0, 1000, 2000), (1000, 2000, 3000))
    assert second.alignment == Alignment(
        (" ", "Y", "e", "s"), (3000, 3250, 3500, 3750), (3250, 3500, 3750, 4000)
    )
    assert (first.start_ms, second.start_ms) == (0, 3000)
    assert first.estimated
    assert second.estimated


async def test_what_the_provider_tells_goes_with_the_next_audio() -> None:
    """Several tellings are one, and one after the last audio is not lost."""
    one, two = Alignment(("a",), (0,), (10,)), Alignment(("b",), (10,), (20,))
    first, plain, last = await timed(one, two, SECOND, SECOND, one)
    assert first.alignment == Alignment(("a", "b"), (0, 10), (10, 20))
    assert (plain.alignment, plain.start_ms) == (None, 1000)
    assert (last.audio, last.alignment) == (b"", one)
    assert not first.estimated


async def test_without_estimates_audio_comes_at_once() -> None:
    """Piece by piece, and without times."""
    pieces = await timed(SpokenText("Hi."), SECOND, SECOND, estimate=False)
    assert [(len(piece.audio), piece.alignment) for piece in pieces] == [(32000, None)] * 2


@pytest.mark.parametrize("items", [(), (SpokenText("Silent."),)])
async def test_no_audio_has_no_times(items: tuple[Speech, ...]) -> None:
    """A text that was announced and never sounded gives nothing."""
    assert await timed(*items) == []


async def test_a_text_without_sound_goes_to_the_next() -> None:
    """Its characters are not lost."""
    (both,) = await timed(SpokenText("A."), SpokenText("B."), SECOND)
    assert both.alignment is not None
    assert "".join(both.alignment.chars) == "A. B."
