from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from tests.speech.counting_tts import CHUNKS_PER_PIECE, CountingTts, audio_of
from voice_fsm.errors import ClientError, ProviderError, ProviderFault, Upstream, VoiceError
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.speech.service import SpeechConfig, SpeechRequest, SpeechService, open_speech
from voice_fsm.tts.base import Alignment, SpeechAudio

HELLO = "Hello there, my friend."


@pytest.fixture
def tts() -> CountingTts:
    return CountingTts()


@pytest.fixture
async def speech(tts: CountingTts) -> AsyncIterator[SpeechService]:
    async with open_speech(tts, SpeechConfig(max_chars=1000, concurrency=2, max_waiting=1)) as service:
        yield service


async def heard(service: SpeechService, request: SpeechRequest) -> bytes:
    async with service.synthesize(request) as synthesis:
        return b"".join([data async for data in synthesis.audio()])


async def test_a_text_is_spoken_in_the_pieces_of_a_reply(
    autojump_clock: MockClock, speech: SpeechService
) -> None:
    """Long text is cleaned and cut into sentences; alignment comes with the audio."""
    text = "**This** is the first sentence of all. And here we have the second one."
    async with speech.synthesize(SpeechRequest(text=text)) as synthesis:
        items = [item async for item in synthesis]
        assert not synthesis.cached
        assert not synthesis.shared
    audio = b"".join(item.data for item in items if isinstance(item, SpeechAudio))
    assert audio == audio_of(["This is the first sentence of all.", "And here we have the second one."])
    assert sum(isinstance(item, Alignment) for item in items) == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_text"), (" \n", "empty_text"), ("...", "empty_text"), ("a" * 1001, "text_too_long")],
)
async def test_text_that_cannot_be_spoken(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts, text: str, code: str
) -> None:
    """Nothing to say, or too much of it, is told before the provider is asked."""
    with pytest.raises(ClientError) as caught:
        await heard(speech, SpeechRequest(text=text))
    assert (caught.value.code, caught.value.field) == (code, "text")
    assert tts.calls == 0


async def test_options_that_the_provider_refuses(autojump_clock: MockClock, speech: SpeechService) -> None:
    """The provider's own check is asked first."""
    with pytest.raises(ClientError, match="No such voice"):
        await heard(speech, SpeechRequest(text=HELLO, options=TtsOptions(voice_id="nobody")))


async def test_entering_waits_for_the_first_audio(autojump_clock: MockClock, speech: SpeechService) -> None:
    """Whoever has entered can begin an answer: there is something to send."""
    began_s = trio.current_time()
    async with speech.synthesize(SpeechRequest(text=HELLO)):
        assert trio.current_time() - began_s == pytest.approx(1)


async def test_many_ask_for_the_same(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts
) -> None:
    """Two hundred requests at various moments of one synthesis: one call, and each hears all of it."""
    results: list[bytes] = []

    async def ask(after_s: float) -> None:
        await trio.sleep(after_s)
        results.append(await heard(speech, SpeechRequest(text=HELLO)))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, number * 0.02)
    assert tts.calls == 1
    assert results == [audio_of([HELLO])] * 200


@pytest.mark.parametrize(
    "other",
    [
        SpeechRequest(text=HELLO + " "),
        SpeechRequest(text=HELLO, cache=False),
        SpeechRequest(text=HELLO, options=TtsOptions(voice_id="anna")),
        SpeechRequest(text=HELLO, options=TtsOptions(voice_settings=VoiceSettings(speed=1.1))),
    ],
)
async def test_who_asks_for_something_else_gets_it(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts, other: SpeechRequest
) -> None:
    """Another text, voice or setting is another synthesis; so is one that asks for its own."""
    async with speech.synthesize(SpeechRequest(text=HELLO)), speech.synthesize(other) as second:
        assert not second.shared
        assert tts.calls == 2


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_whoever_leaves_the_others_hear_on(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts, leaver: int
) -> None:
    """The first to ask or a later one is cancelled midway: no matter to the others."""
    results: list[bytes] = []

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            results.append(await heard(speech, SpeechRequest(text=HELLO)))

    scopes = [trio.CancelScope() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for scope in scopes:
            nursery.start_soon(ask, scope)
            await trio.sleep(0.5)
        await trio.sleep(1)
        scopes[leaver].cancel()
    assert results == [audio_of([HELLO])] * 2
    assert tts.calls == tts.ended == 1


async def test_when_all_have_left_the_synthesis_ends(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts
) -> None:
    """Nobody pays for speech that nobody hears; whoever asks again gets a new one from its start."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heard, speech, SpeechRequest(text=HELLO))
        nursery.start_soon(heard, speech, SpeechRequest(text=HELLO))
        await trio.sleep(2.5)
        nursery.cancel_scope.cancel()
    # Asked at once, while the old one is on its way out.
    assert await heard(speech, SpeechRequest(text=HELLO)) == audio_of([HELLO])
    assert (tts.calls, tts.ended, tts.running) == (2, 1, 0)


async def test_a_listener_does_not_set_the_pace(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts
) -> None:
    """One that takes its time hears all of it, and the call to the provider has long ended."""
    async with speech.synthesize(SpeechRequest(text=HELLO)) as synthesis:
        await trio.sleep(100)
        assert tts.ended == 1
        assert b"".join([data async for data in synthesis.audio()]) == audio_of([HELLO])


@pytest.mark.parametrize("fail_at", [0, 3])
async def test_a_failure_is_told_to_all(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts, fail_at: int
) -> None:
    """Every listener learns that the provider failed; the next request asks it again."""
    tts.error = ProviderError(Upstream.TTS, ProviderFault.SERVER_ERROR, "It failed.")
    tts.fail_at = fail_at
    codes: list[str] = []

    async def ask() -> None:
        with pytest.raises(ProviderError) as caught:
            await heard(speech, SpeechRequest(text=HELLO))
        codes.append(caught.value.code)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert codes == ["tts_server_error"] * 3
    assert tts.calls == 1
    tts.error = None
    assert await heard(speech, SpeechRequest(text=HELLO)) == audio_of([HELLO])


async def test_a_fault_of_ours_is_raised_to_who_listens(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts
) -> None:
    """A crash in an adapter ends its own requests; the service goes on."""
    tts.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        await heard(speech, SpeechRequest(text=HELLO))
    tts.error = None
    assert await heard(speech, SpeechRequest(text=HELLO)) == audio_of([HELLO])


async def test_the_end_of_the_service_is_told(autojump_clock: MockClock, tts: CountingTts) -> None:
    """Whoever still listens when the service stops learns it, and does not wait for ever."""
    codes: list[str] = []

    async def ask(service: SpeechService) -> None:
        with pytest.raises(VoiceError) as caught:
            await heard(service, SpeechRequest(text=HELLO))
        codes.append(caught.value.code)

    async with trio.open_nursery() as nursery, open_speech(tts, SpeechConfig()) as service:
        nursery.start_soon(ask, service)
        await trio.sleep(2.5)
    assert codes == ["tts_unavailable"]
    assert tts.running == 0


async def test_syntheses_wait_for_their_turn(
    autojump_clock: MockClock, speech: SpeechService, tts: CountingTts
) -> None:
    """Two run, one waits, and one more is refused: with these settings."""
    codes: list[str] = []
    began_s = trio.current_time()

    async def ask(number: int) -> None:
        try:
            await heard(speech, SpeechRequest(text=f"This is the text number {number}."))
        except ProviderError as error:
            codes.append(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(ask, number)
    assert tts.most_running == 2
    assert (tts.ended, codes) == (3, ["tts_overloaded"])
    assert trio.current_time() - began_s == pytest.approx(2 * CHUNKS_PER_PIECE)


async def test_slow_listeners_do_not_fill_the_memory(autojump_clock: MockClock, tts: CountingTts) -> None:
    """While too much is held for those who listen, nothing new is begun; who wants the same may join."""
    other = SpeechRequest(text="Something else is asked for.")
    async with open_speech(tts, SpeechConfig(max_heard_bytes=1)) as speech:
        async with speech.synthesize(SpeechRequest(text=HELLO)):
            with pytest.raises(ProviderError) as caught:
                await heard(speech, other)
            assert caught.value.code == "tts_overloaded"
            assert await heard(speech, SpeechRequest(text=HELLO)) == audio_of([HELLO])
        assert await heard(speech, other) == audio_of([other.text])
