from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from voice_fsm.audio import AudioFormat
from voice_fsm.chat.base import ChatRequest
from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import BackendOptions, SttOptions, TtsOptions
from voice_fsm.runtime.guards import (
    FallbackStt,
    FallbackTts,
    GuardedChat,
    GuardedStt,
    GuardedTts,
    with_fallback,
)
from voice_fsm.stt.recording import RecordedSpeech, Transcription
from voice_fsm.tts.base import Speech, SpeechAudio, SpokenText, TtsProvider
from voice_fsm.upstream.breaker import FAILURES, PAUSE_S, Breaker

STT_FAILS = ProviderError(Upstream.STT, ProviderFault.UNREACHABLE, "No connection.")
TTS_FAILS = ProviderError(Upstream.TTS, ProviderFault.SERVER_ERROR, "Broken.")


class Pieces:
    def __init__(self, *texts: str) -> None:
        self._texts = iter(texts)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        try:
            return next(self._texts)
        except StopIteration:
            raise StopAsyncIteration from None


async def spoken(tts: TtsProvider, *texts: str) -> list[Speech]:
    async with tts.speak(Pieces(*texts), TtsOptions()) as speech:
        return [item async for item in speech]


def texts(items: Sequence[Speech]) -> list[str]:
    return [item.text for item in items if isinstance(item, SpokenText)]


async def refuse(_: int) -> None:
    await trio.lowlevel.checkpoint()
    raise STT_FAILS


async def hang(_: int) -> None:
    await trio.sleep_forever()


async def test_the_second_recogniser_listens_while_the_first_refuses() -> None:
    """A refusal on connecting is made good by the other, and the next link asks the first again."""
    first, second = ScriptedStt(), ScriptedStt()
    stt = FallbackStt(first, second, patience_s=5)
    first.connecting = refuse
    async with stt.connect(SttOptions(model_id="firsts-own")) as link:
        assert link is second.links[0]
    first.connecting = None
    async with stt.connect(SttOptions()) as link:
        assert link is first.links[0]
    assert (first.open_links, second.open_links) == (0, 0)


async def test_the_second_recogniser_listens_when_the_first_hangs(autojump_clock: MockClock) -> None:
    """Connecting to the first is waited for no longer than its patience."""
    first, second = ScriptedStt(), ScriptedStt()
    first.connecting = hang
    began_s = trio.current_time()
    async with FallbackStt(first, second, patience_s=5).connect(SttOptions()) as link:
        assert link is second.links[0]
    assert trio.current_time() - began_s == pytest.approx(5)


async def test_a_link_that_breaks_later_is_not_changed_under_way() -> None:
    """Once listening, the failure is the session's to handle: it makes a new link."""
    first, second = ScriptedStt(), ScriptedStt()
    with pytest.raises(ProviderError, match="No connection"):  # noqa: PT012  # it is raised within
        async with FallbackStt(first, second, patience_s=5).connect(SttOptions()) as link:
            first.say(STT_FAILS)
            async for _ in link:
                pass
    assert not second.links


async def test_the_second_voice_speaks_all_of_a_reply_that_the_first_has_not_begun() -> None:
    """Pieces that the first took are not lost, and its announcements are not repeated."""
    first, second = ScriptedTts(error=TTS_FAILS), ScriptedTts()
    items = await spoken(FallbackTts(first, second), "One. ", "Two. ")
    assert texts(items) == ["One. ", "Two. "]
    assert second.spoken == ["One. ", "Two. "]
    assert (first.open_streams, second.open_streams) == (0, 0)


async def test_a_reply_that_has_begun_is_not_begun_again() -> None:
    """After audio the failure is told: nobody wants to hear the beginning twice."""
    first, second = ScriptedTts(error=TTS_FAILS, error_after_chunks=1), ScriptedTts()
    with pytest.raises(ProviderError, match="Broken"):
        await spoken(FallbackTts(first, second), "A long first piece.", "Two.")
    assert not second.spoken


async def test_the_first_voice_is_enough_when_it_works() -> None:
    """Order and number of items are the provider's own."""
    plain = await spoken(ScriptedTts(), "One.", "Two.")
    second = ScriptedTts()
    assert await spoken(FallbackTts(ScriptedTts(), second), "One.", "Two.") == plain
    assert sum(isinstance(item, SpeechAudio) for item in plain) > 2
    assert not second.spoken


async def test_guards_stop_asking_after_repeated_failures() -> None:
    """Each kind of provider is left alone once it has failed too often in a row."""
    stt, tts = ScriptedStt(), ScriptedTts(error=TTS_FAILS)
    chat = ScriptedChat(lambda _: [ProviderError(Upstream.CHAT, ProviderFault.TIMEOUT, "Slow.")])
    stt.connecting = refuse
    guarded_stt, guarded_tts, guarded_chat = GuardedStt(stt), GuardedTts(tts), GuardedChat(chat)

    async def ask(backend: BackendOptions) -> None:
        request = ChatRequest(session_id="s", turn_id=1, text="hello", backend=backend)
        async with guarded_chat.reply(request) as parts:
            async for _ in parts:
                pass

    for _ in range(FAILURES):
        with pytest.raises(ProviderError, match="No connection"):
            async with guarded_stt.connect(SttOptions()):
                pass
        with pytest.raises(ProviderError, match="Broken"):
            await spoken(guarded_tts, "One.")
        with pytest.raises(ProviderError, match="Slow"):
            await ask(BackendOptions())
    with pytest.raises(ProviderError, match="recover"):
        async with guarded_stt.connect(SttOptions()):
            pass
    with pytest.raises(ProviderError, match="recover"):
        await spoken(guarded_tts, "One.")
    with pytest.raises(ProviderError, match="recover"):
        await ask(BackendOptions())
    # A client's own backend is another upstream.
    with pytest.raises(ProviderError, match="Slow"):
        await ask(BackendOptions(registration_id="mine"))


async def test_links_that_break_all_at_once_can_be_made_again_at_once() -> None:
    """A recogniser that hangs up on everybody has not refused anybody."""
    stt = ScriptedStt()
    guarded = GuardedStt(stt)
    links = [AsyncExitStack() for _ in range(FAILURES)]
    for link in links:
        await link.enter_async_context(guarded.connect(SttOptions()))
    for link in links:
        with pytest.raises(ProviderError, match="No connection"):
            async with link:
                raise STT_FAILS
    async with guarded.connect(SttOptions()) as next_link:
        assert next_link is stt.links[-1]


async def test_a_link_that_found_the_recogniser_well_does_not_stand_in_the_way_later(
    autojump_clock: MockClock,
) -> None:
    """While it lasts, the breaker may open again, and another call find out."""
    stt = ScriptedStt()
    guarded = GuardedStt(stt, Breaker(Upstream.STT))

    async def fall_ill() -> None:
        stt.connecting = refuse
        for _ in range(FAILURES):
            with pytest.raises(ProviderError, match="No connection"):
                async with guarded.connect(SttOptions()):
                    pass
        await trio.sleep(PAUSE_S)
        stt.connecting = None

    await fall_ill()
    async with guarded.connect(SttOptions()):
        await fall_ill()
        async with guarded.connect(SttOptions()) as link:
            assert link is stt.links[-1]


async def test_a_voice_that_is_heard_again_is_there_for_all(autojump_clock: MockClock) -> None:
    """As soon as it is heard, not once the reply is over; what else is heard of that reply tells nothing."""
    breaker = Breaker(Upstream.TTS)
    well, ill = GuardedTts(ScriptedTts(), breaker), GuardedTts(ScriptedTts(error=TTS_FAILS), breaker)

    async def fall_ill() -> None:
        for _ in range(FAILURES):
            with pytest.raises(ProviderError, match="Broken"):
                await spoken(ill, "One.")

    await fall_ill()
    await trio.sleep(PAUSE_S)
    async with well.speak(Pieces("Two."), TtsOptions()) as speech:
        assert isinstance(await anext(speech), SpokenText)
        with pytest.raises(ProviderError, match="recover"):
            await spoken(well, "Three.")
        assert isinstance(await anext(speech), SpeechAudio)
        assert texts(await spoken(well, "Three.")) == ["Three."]
        await fall_ill()
        assert isinstance(await anext(speech), SpeechAudio)
        with pytest.raises(ProviderError, match="recover"):
            await spoken(well, "Four.")


class PcmOnlyTts(ScriptedTts):
    """A voice that knows one format."""

    def check(self, options: TtsOptions) -> None:
        if options.output_format.codec != "pcm":
            raise ClientError(ClientFault.UNSUPPORTED_FORMAT, "No.", field="tts.output_format")


async def test_a_voice_that_lacks_the_format_does_not_step_in() -> None:
    """The client is told why the first failed, not what the second cannot do."""
    tts = FallbackTts(ScriptedTts(error=TTS_FAILS), PcmOnlyTts())
    assert texts(await spoken(tts, "Hello.")) == ["Hello."]

    mp3 = TtsOptions(output_format=AudioFormat.parse("mp3_44100_128"))
    with pytest.raises(ProviderError, match="Broken"):
        async with tts.speak(Pieces("Hello."), mp3) as speech:
            _ = [item async for item in speech]


async def test_a_recording_that_the_first_does_not_transcribe_goes_to_the_second() -> None:
    """What the client has done wrong does not: the second would say the same."""
    recorded = RecordedSpeech(pcm=b"")
    failures: list[Exception] = []
    asked: list[RecordedSpeech] = []

    async def first(_: RecordedSpeech) -> Transcription:
        await trio.lowlevel.checkpoint()
        raise failures[-1]

    async def second(recorded: RecordedSpeech) -> Transcription:
        await trio.lowlevel.checkpoint()
        asked.append(recorded)
        return Transcription(text="Hello.", words=(), segments=(), duration_s=0.0)

    transcribe = with_fallback(first, second)
    failures.append(ProviderError(Upstream.STT, ProviderFault.OVERLOADED, "Full."))
    assert (await transcribe(recorded)).text == "Hello."
    failures.append(ClientError(ClientFault.INVALID_FIELD, "No."))
    with pytest.raises(ClientError):
        await transcribe(recorded)
    assert asked == [recorded]
