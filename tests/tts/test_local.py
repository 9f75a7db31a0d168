"""The local synthesiser with eSpeak as it is; Piper's own tests stand beside."""

import re
import sys
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

import attrs
import numpy as np
import pytest
import soxr
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.recordings import word_error_rate
from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import ulaw_decode
from voice_fsm.errors import ClientError, ProviderError
from voice_fsm.fsm.options import TtsOptions, VoiceSettings
from voice_fsm.stt.listener import Listener, ListeningRules
from voice_fsm.stt.media import decode_recording
from voice_fsm.stt.moonshine import Moonshine
from voice_fsm.tts.base import Speech, SpeechAudio, SpokenText, TtsProvider, VoiceInfo
from voice_fsm.tts.engine import EngineError
from voice_fsm.tts.espeak import Espeak, parts
from voice_fsm.tts.local import LocalTts, cut, open_local_tts, speakable
from voice_fsm.vad.engines import ThoroughJudges

SENTENCE = "The quick brown fox jumps over the lazy dog."


async def written(*pieces: str) -> AsyncGenerator[str]:
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


async def say(tts: TtsProvider, *pieces: str, options: TtsOptions | None = None) -> list[Speech]:
    async with aclosing(written(*pieces)) as text, tts.speak(text, options or TtsOptions()) as speech:
        return [part async for part in speech]


def audio(speech: Iterable[Speech]) -> bytes:
    return b"".join(part.data for part in speech if isinstance(part, SpeechAudio))


def options(
    *, output_format: str = "pcm_24000", voice_id: str | None = None, speed: float | None = None
) -> TtsOptions:
    return TtsOptions(
        output_format=AudioFormat.parse(output_format),
        voice_id=voice_id,
        voice_settings=VoiceSettings(speed=speed),
    )


def samples(pcm: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def duration_s(speech: Iterable[Speech], output_format: str = "pcm_24000") -> float:
    return AudioFormat.parse(output_format).duration_ms(len(audio(speech))) / 1000


@attrs.define
class ScriptedEngine:
    """Says a second of the same loud sample for each piece, and waits at a gate before it does."""

    sample_rate_hz: int = 24000
    speeds: tuple[float, float] = (0.5, 2.0)
    gate: threading.Event = attrs.field(factory=threading.Event)
    inside: int = 0
    most_inside: int = 0
    fails: bool = False

    def voices(self) -> tuple[VoiceInfo, ...]:
        return ()

    def find_voice(self, voice_id: str | None) -> str | None:
        return None if voice_id else "only"

    def synthesize(self, text: str, voice: str, speed: float) -> Iterator[bytes]:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        assert self.gate.wait(timeout=30)
        self.inside -= 1
        if self.fails:
            raise EngineError("scripted")
        yield b"\x10\x20" * self.sample_rate_hz


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    engine.gate.set()
    yield engine
    engine.gate.set()


def provider(engine: ScriptedEngine) -> LocalTts:
    return LocalTts(engine, trio.CapacityLimiter(1), default_voice="only")


# --- the voice ----------------------------------------------------------------------------------------


async def test_a_sentence_is_audible_and_not_clipped() -> None:
    """It lasts as long as a person would need, is loud enough, and stays below full scale."""
    async with open_local_tts() as tts:
        speech = await say(tts, SENTENCE)
    assert 2.0 < duration_s(speech) < 4.5
    heard = samples(audio(speech))
    assert np.sqrt(np.mean(heard**2)) > 1000
    assert np.max(np.abs(heard)) < 32000


async def test_silence_around_a_sentence_is_modest() -> None:
    """Speech starts at once, and the pause after a sentence is that of a reader."""
    async with open_local_tts() as tts:
        loud = np.nonzero(np.abs(samples(audio(await say(tts, SENTENCE)))) > 300)[0]
        total = len(audio(await say(tts, SENTENCE))) // 2
    assert loud[0] / 24000 < 0.1
    assert 0.1 < (total - loud[-1]) / 24000 < 0.5


@pytest.mark.parametrize(
    "name",
    ["pcm_8000", "pcm_16000", "pcm_22050", "pcm_24000", "pcm_32000", "pcm_44100", "pcm_48000", "ulaw_8000"],
)
async def test_every_plain_format_says_the_same(name: str) -> None:
    """Same duration, same loudness, whole samples, whatever the rate."""
    async with open_local_tts() as tts:
        own = await say(tts, SENTENCE, options=options(output_format="pcm_22050"))
        speech = await say(tts, SENTENCE, options=options(output_format=name))
    assert duration_s(speech, name) == pytest.approx(duration_s(own, "pcm_22050"), abs=0.05)
    pcm = ulaw_decode(audio(speech)) if name == "ulaw_8000" else audio(speech)
    loudness = [np.sqrt(np.mean(samples(sound) ** 2)) for sound in (pcm, audio(own))]
    assert loudness[0] == pytest.approx(loudness[1], rel=0.25)
    whole = AudioFormat.parse(name).bytes_per_sample
    assert all(len(part.data) % whole == 0 for part in speech if isinstance(part, SpeechAudio))


@pytest.mark.parametrize("name", ["mp3_44100_128", "mp3_22050_32"])
async def test_mp3_is_made_of_frames_of_the_right_rate(name: str) -> None:
    """The stream is MPEG audio from its first byte, and as long as its constant bit rate says."""
    async with open_local_tts() as tts:
        speech = await say(tts, SENTENCE, options=options(output_format=name))
        own = await say(tts, SENTENCE)
    data = audio(speech)
    assert data[0] == 0xFF
    assert data[1] & 0xE0 == 0xE0
    assert duration_s(speech, name) == pytest.approx(duration_s(own), abs=0.2)


@pytest.mark.parametrize("kbps", [32, 64, 192])
async def test_opus_comes_in_pages_as_it_is_made(kbps: int) -> None:
    """Ogg from its first byte; decoded it is as long as the PCM, and by its bit rate a little longer."""
    name = f"opus_48000_{kbps}"
    async with open_local_tts() as tts:
        speech = await say(tts, SENTENCE, options=options(output_format=name))
        own = await say(tts, SENTENCE)
    data = audio(speech)
    assert data.startswith(b"OggS")
    assert data.count(b"OggS") > 4 * duration_s(own)
    assert len(decode_recording(data, 16000, 60)) / 32000 == pytest.approx(duration_s(own), abs=0.05)
    assert duration_s(own) <= duration_s(speech, name) < 1.1 * duration_s(own)


async def test_an_empty_reply_is_silent_in_every_format() -> None:
    """No text, no sound, no error."""
    async with open_local_tts() as tts:
        for name in ("pcm_22050", "pcm_16000", "ulaw_8000", "opus_48000_64"):
            assert await say(tts, options=options(output_format=name)) == []
            assert await say(tts, " \n", options=options(output_format=name)) == [SpokenText(" \n")]
        assert (
            duration_s(await say(tts, options=options(output_format="mp3_44100_128")), "mp3_44100_128") < 0.2
        )


@pytest.mark.parametrize("speed", [0.5, 0.7, 1.2, 2.0, 4.0])
async def test_speed_is_honoured(speed: float) -> None:
    """Twice as fast is half as long."""
    async with open_local_tts() as tts:
        plain = await say(tts, SENTENCE)
        paced = await say(tts, SENTENCE, options=options(speed=speed))
    assert duration_s(plain) / duration_s(paced) == pytest.approx(speed, rel=0.15)


async def test_voices_differ() -> None:
    """A language or a variant named by the client is the one that speaks."""
    async with open_local_tts() as tts:
        sounds = [
            audio(await say(tts, SENTENCE, options=options(voice_id=voice)))
            for voice in ("en-us", "en-gb", "de", "en-us+f3")
        ]
    assert len(set(sounds)) == 4


async def test_every_listed_voice_can_be_asked_for() -> None:
    """The list has one voice a language, each by an id that is taken."""
    async with open_local_tts() as tts:
        voices = await tts.voices()
        for voice in voices:
            tts.check(options(voice_id=voice.id))
    assert len(voices) > 100
    assert VoiceInfo("en-gb", "English (Great Britain)", "en-gb") in voices


async def test_the_servers_voice_is_used_where_the_client_names_none() -> None:
    """The setting is the default; an id of ElevenLabs' form stands for it too."""
    async with open_local_tts(voice="de") as tts:
        german = len(audio(await say(tts, SENTENCE, options=options(voice_id="de"))))
        american = len(audio(await say(tts, SENTENCE, options=options(voice_id="en-us"))))
        plain = len(audio(await say(tts, SENTENCE)))
        blank = len(audio(await say(tts, SENTENCE, options=options(voice_id=""))))
        foreign = len(audio(await say(tts, SENTENCE, options=options(voice_id="JBFqnCBsd6RMkjVDRZzb"))))
    assert abs(german - american) > 5000
    assert abs(plain - german) < 2000
    assert abs(blank - german) < 2000
    assert abs(foreign - german) < 2000


def listen(speech: Iterable[Speech], output_format: str) -> str:
    """What the recogniser beside it makes of a reply, after a moment of silence as before any reply."""
    pcm = ulaw_decode(audio(speech)) if output_format == "ulaw_8000" else audio(speech)
    rate_hz = AudioFormat.parse(output_format).sample_rate_hz
    sound = soxr.resample(samples(pcm) / 32768, rate_hz, 16000).astype(np.float32)
    recogniser = Moonshine.load()
    listener = Listener(recogniser, ThoroughJudges().lend(), ListeningRules(commit_on_silence=False))
    listener.hear(np.concatenate((np.zeros(4800, np.float32), sound)))
    text = listener.commit().text
    recogniser.close()
    return text


@pytest.mark.parametrize("output_format", ["pcm_24000", "ulaw_8000"])
async def test_what_is_said_is_understood(output_format: str) -> None:
    """The local recogniser hears most of the words, over the telephone too."""
    sentences = [
        "Hello there, how are you doing today?",
        "The weather will be sunny tomorrow, with light wind from the west.",
        "I have booked a table for four people at seven o'clock.",
        "Would you like me to read the next message?",
    ]
    async with open_local_tts() as tts:
        speech = await say(tts, *sentences, options=options(output_format=output_format))
    heard = listen(speech, output_format)
    error_rate = word_error_rate(" ".join(sentences), heard)
    print(f"word error rate {error_rate:.3f}: {heard}")  # noqa: T201
    assert error_rate < 0.35


# --- the stream ---------------------------------------------------------------------------------------


def test_it_is_a_provider(scripted: ScriptedEngine) -> None:
    """The class satisfies the interface that the runtime knows."""
    tts: TtsProvider = provider(scripted)
    assert tts.name == "local"


async def test_each_piece_is_announced_before_its_audio() -> None:
    """The texts come back in order and unchanged, each followed by sound."""
    pieces = ["Hello there.", " How are *you*?", "Fine."]
    async with open_local_tts() as tts:
        speech = await say(tts, *pieces)
    assert [part.text for part in speech if isinstance(part, SpokenText)] == pieces
    kinds = "".join("t" if isinstance(part, SpokenText) else "a" for part in speech)
    assert re.fullmatch(r"(ta+){3}", kinds)


async def test_chunks_start_small_and_stay_bounded(scripted: ScriptedEngine) -> None:
    """The first is on its way soon, none is large, none empty, and none of the sound is lost."""
    speech = await say(provider(scripted), "one", "two")
    sizes_ms = [len(part.data) / 48 for part in speech if isinstance(part, SpeechAudio)]
    assert sizes_ms == [100, 200, 200, 200, 200, 100, 200, 200, 200, 200, 200]
    assert audio(speech) == b"\x10\x20" * 48000


@pytest.mark.parametrize("name", ["pcm_16000", "pcm_44100", "ulaw_8000"])
async def test_the_end_of_a_reply_is_not_swallowed(scripted: ScriptedEngine, name: str) -> None:
    """What the resampler held back comes at the end, to the sample."""
    speech = await say(provider(scripted), "one", "two", options=options(output_format=name))
    assert duration_s(speech, name) == pytest.approx(2.0, abs=0.0002)


async def test_the_end_of_an_mp3_is_not_swallowed(scripted: ScriptedEngine) -> None:
    """What the encoder held back comes at the end, in whole frames of 26 ms."""
    speech = await say(provider(scripted), "one", options=options(output_format="mp3_44100_128"))
    assert 1.0 <= duration_s(speech, "mp3_44100_128") < 1.1


def test_a_cut_keeps_whole_samples() -> None:
    """At 22,050 Hz as well, where a millisecond is no whole number of them."""
    chunks = list(cut(bytes(10**5), AudioFormat("pcm", 22050), 33))
    assert sum(map(len, chunks)) == 10**5
    assert all(len(chunk) % 2 == 0 for chunk in chunks)


async def test_the_first_piece_sounds_before_the_second_is_written() -> None:
    """A reply is spoken while the chat still writes it."""
    send, receive = trio.open_memory_channel[str](0)
    with trio.fail_after(10):
        async with (
            open_local_tts() as tts,
            send,
            trio.open_nursery() as nursery,
            tts.speak(receive, TtsOptions()) as speech,
        ):
            nursery.start_soon(send.send, "Hello there.")
            assert await speech.__anext__() == SpokenText("Hello there.")
            assert isinstance(await speech.__anext__(), SpeechAudio)


async def test_a_long_piece_streams_in_parts() -> None:
    """Twenty minutes of text come sentence by sentence, and leaving early costs one of them."""
    async with open_local_tts() as tts:
        text = (SENTENCE + " ") * 400
        with trio.fail_after(5):
            async with aclosing(written(text)) as pieces, tts.speak(pieces, TtsOptions()) as speech:
                await speech.__anext__()
                assert isinstance(await speech.__anext__(), SpeechAudio)


@given(st.text("ab .,\n", max_size=2000))
def test_parts_add_up_to_the_text(text: str) -> None:
    """None is long, none is blank, and nothing but space is lost between them."""
    cut_up = list(parts(text))
    assert "".join("".join(cut_up).split()) == "".join(text.split())
    assert all(0 < len(part) <= 300 for part in cut_up)


def test_parts_end_where_a_reader_would_pause() -> None:
    """At punctuation rather than at a space, at a space rather than within a word."""
    sentences = "A sentence of some length, with a comma in it. " * 10
    assert [part[-1] for part in parts(sentences)] == ["."] * 2
    assert all(set(part.split()) == {"word"} for part in parts("word " * 200))


async def test_no_word_is_lost_where_a_long_piece_is_parted() -> None:
    """Parts add up to the text, with or without punctuation or spaces to part at."""
    async with open_local_tts() as tts:
        single = duration_s(await say(tts, SENTENCE))
        assert duration_s(await say(tts, f"{SENTENCE} " * 20)) == pytest.approx(single * 20, rel=0.15)


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("Hello\x00 there.", "Hello there."),
        ("\x01500VHello there.\x02", "500VHello there."),
        ("Hello\ud800 there.", "Hello there."),
        ("Hello\ue000 there.", "Hello there."),
    ],
)
async def test_controls_never_reach_the_engine(text: str, same_as: str) -> None:
    """Some characters are commands to eSpeak; here they are spaces."""
    assert re.sub(r" +", " ", speakable(text)) == same_as
    async with open_local_tts() as tts:
        said, plain = await say(tts, text), await say(tts, same_as)
    assert duration_s(said) == pytest.approx(duration_s(plain), abs=0.15)


@pytest.mark.parametrize(
    ("text", "without"),
    [("Now <break time='20s'/> go.", 12.0), ("<prosody rate='x-slow'>Hello</prosody>", 8.0)],
)
async def test_markup_is_text(text: str, without: float) -> None:
    """SSML is read out rather than obeyed."""
    async with open_local_tts() as tts:
        assert 2.0 < duration_s(await say(tts, text)) < without


async def test_phoneme_brackets_are_text() -> None:
    """Double brackets don't switch to phoneme input: what stands in them is spelt out like the rest."""
    async with open_local_tts() as tts:
        bracketed = duration_s(await say(tts, "[[_:_:_:_:_:_:h@l'oU]]"))
        apart = duration_s(await say(tts, "[ [_:_:_:_:_:_:h@l'oU] ]"))
    assert bracketed == pytest.approx(apart, abs=0.4)


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused", "code", "field"),
    [
        (options(output_format="opus_24000_64"), "unsupported_format", "tts.output_format"),
        (options(output_format="alaw_8000"), "unsupported_format", "tts.output_format"),
        (options(output_format="mp3_44100_999"), "unsupported_format", "tts.output_format"),
        (options(voice_id="klingon-9"), "invalid_field", "tts.voice_id"),
        (options(voice_id="../../../../etc/passwd"), "invalid_field", "tts.voice_id"),
        (options(voice_id="en-us+../../x"), "invalid_field", "tts.voice_id"),
        (options(speed=0.1), "invalid_field", "tts.voice_settings.speed"),
        (options(speed=9.0), "invalid_field", "tts.voice_settings.speed"),
        (options(speed=float("nan")), "invalid_field", "tts.voice_settings.speed"),
    ],
)
async def test_what_it_cannot_do_is_refused_early(refused: TtsOptions, code: str, field: str) -> None:
    """`check` says so before anything is spoken, and speaking says the same."""
    async with open_local_tts() as tts:
        with pytest.raises(ClientError) as caught:
            tts.check(refused)
        assert (caught.value.code, caught.value.field) == (code, field)
        with pytest.raises(ClientError):
            await say(tts, SENTENCE, options=refused)
        tts.check(TtsOptions())


async def test_a_pace_that_it_cannot_keep_is_refused_with_those_that_it_can() -> None:
    """Clients may ask for 0.25, which other voices can do; the sentence says what this one can."""
    async with open_local_tts() as tts:
        with pytest.raises(ClientError, match=r"This voice takes a speed from 0\.5 to 4\."):
            tts.check(options(speed=0.25))


async def test_mp3_without_its_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without the encoder says what else there is."""
    monkeypatch.setattr("voice_fsm.tts.encoding.find_spec", lambda _: None)
    async with open_local_tts() as tts:
        with pytest.raises(ClientError, match="pcm_24000 or ulaw_8000"):
            tts.check(options(output_format="mp3_44100_128"))


async def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ProviderError, match=r"install voice-fsm\[local\]") as caught:
        async with open_local_tts():
            pass
    assert caught.value.code == "tts_unavailable"


async def test_an_unknown_voice_in_the_settings_stops_the_start() -> None:
    """The operator learns of it before the first reply."""
    with pytest.raises(ProviderError, match="no voice 'klingon'"):
        async with open_local_tts(voice="klingon"):
            pass


async def test_a_failing_engine_is_a_providers_error(scripted: ScriptedEngine) -> None:
    """The turn is told, and the next one may do better."""
    tts = provider(scripted)
    scripted.fails = True
    with pytest.raises(ProviderError) as caught:
        await say(tts, SENTENCE)
    assert caught.value.code == "tts_server_error"
    scripted.fails = False
    assert await say(tts, SENTENCE)


# --- many at once, and ends ---------------------------------------------------------------------------


async def test_twenty_replies_at_once_are_as_good_as_one() -> None:
    """Voices and speeds don't mix, though the library keeps one state for all."""
    asked = [options(voice_id=voice, speed=speed) for voice in ("en-us", "de") for speed in (1.0, 2.0)] * 5
    durations: list[tuple[TtsOptions, float]] = []

    async with open_local_tts() as tts:

        async def one(wanted: TtsOptions) -> None:
            durations.append((wanted, duration_s(await say(tts, SENTENCE, SENTENCE, options=wanted))))

        async with trio.open_nursery() as nursery:
            for wanted in asked:
                nursery.start_soon(one, wanted)
        alone = {
            wanted: duration_s(await say(tts, SENTENCE, SENTENCE, options=wanted)) for wanted in asked[:4]
        }
    assert len(durations) == 20
    for wanted, duration in durations:
        assert duration == pytest.approx(alone[wanted], rel=0.03)


async def test_one_thread_at_a_time_is_in_the_engine(scripted: ScriptedEngine) -> None:
    """Replies take turns."""
    tts = provider(scripted)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(say, tts, "one", "two")
    assert scripted.most_inside == 1


async def test_leaving_a_reply_does_not_wait_for_its_piece(scripted: ScriptedEngine) -> None:
    """A barge-in ends the reply at once; the engine is free when the piece in hand is done."""
    tts = provider(scripted)
    scripted.gate.clear()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, tts, SENTENCE)
            while not scripted.inside:  # threads set no trio.Event
                await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
        scripted.gate.set()
        assert await say(tts, "next")
    assert scripted.most_inside == 1


async def test_closing_waits_for_a_piece_that_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is left in the engine when the provider has gone."""
    engine = ScriptedEngine()
    monkeypatch.setattr("voice_fsm.tts.local.Espeak.load", lambda: engine)
    closed = trio.Event()

    async def finish_the_piece() -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not closed.is_set()
        engine.gate.set()

    with trio.fail_after(5):
        async with trio.open_nursery() as finisher:
            async with open_local_tts() as tts:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(say, tts, SENTENCE)
                    while not engine.inside:  # threads set no trio.Event
                        await trio.sleep(0.001)
                    nursery.cancel_scope.cancel()
                finisher.start_soon(finish_the_piece)
            closed.set()
    assert engine.inside == 0


async def test_two_providers_share_the_one_library() -> None:
    """The library is one for the process: voices of two providers don't mix either."""
    async with open_local_tts(voice="en-us") as english, open_local_tts(voice="de") as german:
        alone = [duration_s(await say(tts, SENTENCE)) for tts in (english, german)]
        durations: list[tuple[int, float]] = []

        async def one(which: int) -> None:
            durations.append((which, duration_s(await say((english, german)[which], SENTENCE))))

        async with trio.open_nursery() as nursery:
            for index in range(60):
                nursery.start_soon(one, index % 2)
    for which, duration in durations:
        assert duration == pytest.approx(alone[which], rel=0.03)


def test_the_library_is_initialised_once() -> None:
    """A second time would free what the voice in use points to: noise, or a crash some replies later."""
    first, second = Espeak.load(), Espeak.load()
    assert first._library is second._library


async def test_many_replies_leave_no_threads_behind() -> None:
    """Fifty replies, half of them left early, share one worker thread."""
    async with open_local_tts() as tts:
        await say(tts, SENTENCE)
        before = threading.active_count()
        for index in range(50):
            async with aclosing(written(SENTENCE)) as pieces, tts.speak(pieces, TtsOptions()) as speech:
                async for _ in speech:
                    if index % 2:
                        break
    assert threading.active_count() <= before + 1
