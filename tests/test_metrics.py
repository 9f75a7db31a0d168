import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from tests.fakes.scripted import RecordingDoor, ScriptedChat, ScriptedStt, ScriptedTts
from tests.speech.counting_tts import CountingTts, audio_of
from voice_fsm.errors import ClientError, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.events import Interrupt, TextPrompt
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.metrics import Metrics
from voice_fsm.runtime.microphone import KEEP_S
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.speech.cache import SpeechCache
from voice_fsm.speech.service import SpeechConfig, SpeechRequest, open_speech
from voice_fsm.upstream.breaker import FAILURES, Breaker

HELLO = "Hello there, my friend."


def shown(metrics: Metrics) -> dict[str, float]:
    """The samples above 0, without our prefix, such as ``turns_total{completed}``."""
    return {
        name: sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.value
        and (name := f"{sample.name.removeprefix('voice_fsm_')}{{{','.join(sample.labels.values())}}}")
        and sample.name.startswith("voice_fsm_")
        and not sample.name.endswith("_bucket")
    }


async def test_conversations_are_counted(autojump_clock: MockClock) -> None:
    """Turns by how they ended, what cut them short, and how long their first audio took."""
    chat = ScriptedChat(lambda _: [0.4, "Fine, thank you."])
    services = Services(stt=ScriptedStt(), chat=chat, tts=ScriptedTts(ms_per_char=10))

    async def act(session: VoiceSession) -> None:
        session.configure("s", SessionOptions())
        session.step(TextPrompt(at_s=trio.current_time(), text="How are you? My number is 5551234."))
        await trio.sleep(5)
        session.step(TextPrompt(at_s=trio.current_time(), text="And now?"))
        await trio.sleep(0.45)
        session.step(Interrupt(at_s=trio.current_time(), turn_id=None))
        await trio.sleep(5)
        chat.script = lambda _: [ProviderError(Upstream.CHAT, ProviderFault.TIMEOUT, "Too slow.")]
        session.step(TextPrompt(at_s=trio.current_time(), text="Are you there?"))
        await trio.sleep(5)
        with pytest.raises(ClientError):
            session.hear(bytes(32_000 * 11))

    await VoiceSession(services, RecordingDoor(act)).run()
    found = shown(services.metrics)
    assert found.pop("turn_first_text_seconds_sum{}") == pytest.approx(0.8, abs=0.1)
    assert found.pop("turn_first_audio_seconds_sum{}") > 0.4
    assert found == {
        "sessions_total{}": 1,
        "turns_total{completed}": 1,
        "turns_total{interrupted}": 1,
        "turns_total{failed}": 1,
        "interruptions_total{client}": 1,
        "errors_told_total{chat_timeout}": 1,
        "turn_first_text_seconds_count{}": 2,
        "turn_first_audio_seconds_count{}": 2,
        "microphone_dropped_seconds_total{too_fast}": 11,
    }
    assert b"5551234" not in services.metrics.text()


async def test_a_session_is_active_while_it_lasts(autojump_clock: MockClock) -> None:
    """And no longer."""
    services = Services(stt=ScriptedStt(), chat=ScriptedChat(), tts=ScriptedTts())
    active: list[float] = []

    async def act(session: VoiceSession) -> None:
        await trio.lowlevel.checkpoint()
        active.append(shown(services.metrics)["sessions_active{}"])

    await VoiceSession(services, RecordingDoor(act)).run()
    assert active == [1]
    assert "sessions_active{}" not in shown(services.metrics)


async def test_a_recogniser_that_is_away_is_counted(autojump_clock: MockClock) -> None:
    """Each link that fails, and what had to be dropped of the microphone meanwhile."""
    stt = ScriptedStt()

    async def refuse(_: int) -> None:
        raise ProviderError(Upstream.STT, ProviderFault.UNREACHABLE, "It is away.")

    stt.connecting = refuse
    services = Services(
        stt=stt, chat=ScriptedChat(), tts=ScriptedTts(), stt_give_up_s=60, max_audio_lead_s=1000
    )

    async def act(session: VoiceSession) -> None:
        session.configure("s", SessionOptions())
        for _ in range(int(KEEP_S) + 2):
            session.hear(bytes(32_000))
        await trio.sleep(1)

    await VoiceSession(services, RecordingDoor(act)).run()
    found = shown(services.metrics)
    assert found["microphone_dropped_seconds_total{recogniser_away}"] == 2
    assert found["upstream_errors_total{stt_unreachable,stt}"] >= 2


async def test_a_breaker_is_shown(autojump_clock: MockClock) -> None:
    """Every failure, and 1 while it is open."""
    metrics = Metrics()
    breaker = Breaker(Upstream.TTS, tell=metrics.upstream_failed)
    metrics.watch_breaker(Upstream.TTS, lambda: False)
    metrics.watch_breaker(Upstream.TTS, lambda: breaker.is_open)
    for number in range(FAILURES):
        assert "breaker_open{tts}" not in shown(metrics), number
        with pytest.raises(ProviderError), breaker.call():
            raise ProviderError(Upstream.TTS, ProviderFault.TIMEOUT, "Too slow.")
    assert shown(metrics) == {"breaker_open{tts}": 1, "upstream_errors_total{tts_timeout,tts}": FAILURES}


async def test_speech_is_counted(autojump_clock: MockClock) -> None:
    """Where the audio of each request came from, and how each synthesis ended."""
    metrics, tts = Metrics(), CountingTts()
    size = len(audio_of([HELLO]))

    async with open_speech(tts, SpeechConfig(), SpeechCache(100_000), metrics) as speech:

        async def ask(text: str = HELLO) -> None:
            async with speech.synthesize(SpeechRequest(text=text)) as synthesis:
                _ = [data async for data in synthesis.audio()]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        await trio.sleep(1)
        await ask()
        with trio.move_on_after(1.5):
            await ask("Another text is cut off.")
        tts.error = ProviderError(Upstream.TTS, ProviderFault.TIMEOUT, "Too slow.")
        with pytest.raises(ProviderError):
            await ask("A third one fails.")
        found = shown(metrics)
    assert found.pop("cache_memory_bytes{}") > size
    assert found.pop("synthesized_bytes_total{}") == size + len(audio_of(["Another text is cut off."])) // 5
    assert found == {
        "speech_requests_total{synthesis}": 2,
        "speech_requests_total{joined}": 1,
        "speech_requests_total{memory}": 1,
        "syntheses_total{completed}": 1,
        "syntheses_total{abandoned}": 1,
        "syntheses_total{failed}": 1,
        "cached_bytes_total{}": size,
    }


def test_a_worker_among_others_puts_its_name_on_all() -> None:
    """So that the processes behind one address are not taken for one that counts backwards."""
    metrics = Metrics(worker="123")
    metrics.upstream_failed(ProviderError(Upstream.STT, ProviderFault.LOST, "Lost."))
    samples = [line for line in metrics.text().decode().splitlines() if line and not line.startswith("#")]
    assert 'voice_fsm_upstream_errors_total{code="stt_lost",upstream="stt",worker="123"} 1.0' in samples
    assert all('worker="123"' in line for line in samples)
