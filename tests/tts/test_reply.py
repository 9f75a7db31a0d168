"""One clock and one kind of error for all of a reply's answers."""

from collections.abc import Iterator, Sequence

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.tts.base import Alignment, SpeechAudio, SpokenText
from voice_fsm.tts.reply import Frame, FrameSource, Narrator, Request, speak_script
from voice_fsm.tts.script import Script, ungrouped
from voice_fsm.upstream.faults import provider_error
from voice_fsm.upstream.retry import RetryPolicy

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


@attrs.define
class Burst:
    """A request whose answer is here all at once."""

    log: list[str]
    untold: list[str] = attrs.field(factory=list)
    frames_left: int = 3

    async def has_text(self) -> bool:
        return True

    async def open(self) -> FrameSource:
        return self

    async def next_frames(self) -> Sequence[Frame]:
        self.log.append("read")
        self.frames_left -= 1
        return (Frame(b"ab", HI),) if self.frames_left >= 0 else ()

    async def aclose(self) -> None:
        pass


async def spoken_burst() -> list[str]:
    """What happened, in order, when a burst was spoken and handed on to another task."""
    log: list[str] = []

    async def plan(_: Script) -> Iterator[Request]:
        return iter([Burst(log)])

    async def write_out(items: trio.MemoryReceiveChannel[object]) -> None:
        await items.receive()
        log.append("written")

    out, items = trio.open_memory_channel[object](10)
    _, pieces = trio.open_memory_channel[str](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_out, items)
        await wait_all_tasks_blocked()
        async with out, speak_script(pieces, PCM, plan, RetryPolicy()) as speech:
            async for item in speech:
                if isinstance(item, SpeechAudio):
                    out.send_nowait(item)
    return log


async def test_the_first_audio_is_on_its_way_before_more_is_read() -> None:
    """The task that waits for it has it by then, in whichever order tasks run."""
    for _ in range(20):
        assert (await spoken_burst())[:3] == ["read", "written", "read"]


def test_frames_that_came_together_are_told_as_one() -> None:
    """Their audio up to half a second, and all that aligns it before."""
    narrator = Narrator(PCM)
    quarter = SECOND[:4000]

    said = narrator.tell_all(
        [Frame(quarter, HI), Frame(quarter, Alignment(("!",), (250.0,), (260.0,))), Frame(b"ab")], []
    )

    assert said == [
        Alignment(("H", "i", "!"), (0.0, 30.0, 250.0), (30.0, 70.0, 260.0)),
        SpeechAudio(quarter * 2),
        SpeechAudio(b"ab"),
    ]


def test_a_text_is_told_where_its_audio_begins() -> None:
    """However much came with it."""
    narrator = Narrator(PCM)

    said = narrator.tell_all([Frame(b"ab", text="One."), Frame(b"cd"), Frame(b"ef", text="Two.")], [])

    assert said == [SpokenText("One."), SpeechAudio(b"abcd"), SpokenText("Two."), SpeechAudio(b"ef")]
