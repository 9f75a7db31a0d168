"""The official SDKs of ElevenLabs and OpenAI, as they are, against a served process with embedded engines."""

import asyncio
import base64
import io
import wave
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from elevenlabs import AsyncElevenLabs, ElevenLabs, VoiceSettings
from elevenlabs.core.api_error import ApiError
from elevenlabs.realtime import AudioFormat, CommitStrategy, RealtimeEvents
from openai import AuthenticationError, OpenAI

from tests.bench.round_trip import SENTENCES, error_rate, say_and_transcribe
from tests.fakes.recordings import BECKETT, load, to_pcm, word_error_rate
from tests.integration.speech_process import speech_server
from voice_fsm.client.demo import run_demo
from voice_fsm.config import load_settings
from voice_fsm.stt.media import decode_recording

KEY = "a-key-of-this-test"
TEXT = "Good morning. The train to London leaves at nine."
VOICE = "21m00Tcm4TlvDq8ikWAM"
"""One of theirs, as programs written for them name it."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with speech_server(tmp_path_factory.mktemp("speech"), SERVICE_API_KEYS=f"other,{KEY}") as address:
        yield address


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """Of the test, for ElevenLabs' clients do not close theirs."""
    with httpx.Client(timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def elevenlabs(url: str, http: httpx.Client) -> ElevenLabs:
    return ElevenLabs(api_key=KEY, base_url=url, httpx_client=http)


@pytest.fixture(scope="module")
def openai(url: str) -> Iterator[OpenAI]:
    with OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0) as client:
        yield client


def length_s(recording: bytes) -> float:
    """How long a file of any format sounds."""
    return len(decode_recording(recording, 16000, 60)) / 32000


def as_wav(pcm: bytes, sample_rate_hz: int = 16000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, sample_rate_hz, 0, "NONE", ""))
        writer.writeframes(pcm)
    return file.getvalue()


@pytest.fixture(scope="module")
def spoken(elevenlabs: ElevenLabs) -> bytes:
    """The text in PCM of 16 kHz; what all the other formats are compared with."""
    return b"".join(elevenlabs.text_to_speech.convert(VOICE, text=TEXT, output_format="pcm_16000"))


# --- ElevenLabs: text to speech ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["convert", "stream"])
def test_elevenlabs_speaks_mp3_unless_asked_for_another(
    elevenlabs: ElevenLabs, spoken: bytes, method: str
) -> None:
    """As long as the PCM, but for what MP3 adds at both ends."""
    mp3 = b"".join(getattr(elevenlabs.text_to_speech, method)(VOICE, text=TEXT))
    assert mp3[:2] == b"\xff\xfb"
    assert length_s(mp3) == pytest.approx(len(spoken) / 32000, abs=0.15)


def test_elevenlabs_converts_to_a_wav_file(elevenlabs: ElevenLabs, spoken: bytes) -> None:
    """Whose header tells its length; twice the pace takes half the time."""
    settings = VoiceSettings(speed=2.0, stability=0.5)
    chunks = elevenlabs.text_to_speech.convert(
        VOICE, text=TEXT, output_format="wav_16000", voice_settings=settings, seed=1, previous_text="Well."
    )
    with wave.open(io.BytesIO(b"".join(chunks))) as file:
        assert file.getframerate() == 16000
        assert file.getnframes() == pytest.approx(len(spoken) / 4, rel=0.2)


def test_elevenlabs_tells_when_each_character_sounds(elevenlabs: ElevenLabs, spoken: bytes) -> None:
    """All characters, in order, over all of the audio."""
    answer = elevenlabs.text_to_speech.convert_with_timestamps(VOICE, text=TEXT, output_format="pcm_16000")
    alignment = answer.alignment
    assert base64.b64decode(answer.audio_base_64) == spoken
    assert alignment is not None
    assert "".join(alignment.characters) == TEXT
    starts, ends = alignment.character_start_times_seconds, alignment.character_end_times_seconds
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert ends[-1] == pytest.approx(len(spoken) / 32000, abs=0.001)


def test_elevenlabs_streams_timestamps(elevenlabs: ElevenLabs, spoken: bytes) -> None:
    """In lines, one for each sentence, whose audio and characters together are the whole."""
    lines = list(
        elevenlabs.text_to_speech.stream_with_timestamps(VOICE, text=TEXT, output_format="pcm_16000")
    )
    assert len(lines) == 2
    assert b"".join(base64.b64decode(line.audio_base_64) for line in lines) == spoken
    assert "".join(c for line in lines if line.alignment for c in line.alignment.characters) == TEXT


@pytest.mark.filterwarnings("ignore:ConnectionClosed.code is deprecated")  # the client still reads it
def test_elevenlabs_speaks_text_as_it_is_written(elevenlabs: ElevenLabs, url: str, spoken: bytes) -> None:
    """Over the socket; the client forces TLS, so its address is put right."""
    elevenlabs.text_to_speech._ws_base_url = url.replace("http", "ws", 1)
    words = (f"{word} " for word in TEXT.split())
    audio = b"".join(elevenlabs.text_to_speech.convert_realtime(VOICE, text=words, output_format="pcm_16000"))
    assert len(audio) == pytest.approx(len(spoken), rel=0.05)


def test_elevenlabs_lists_and_finds_voices(elevenlabs: ElevenLabs) -> None:
    """Those of the engine; one of them speaks when it is named."""
    everything = elevenlabs.voices.get_all().voices
    found = elevenlabs.voices.search(search="scotland", page_size=5)
    assert {voice.voice_id for voice in found.voices} <= {voice.voice_id for voice in everything}
    (scottish,) = found.voices
    assert (found.total_count, found.has_more) == (1, False)
    assert elevenlabs.voices.get(scottish.voice_id).name == scottish.name
    assert b"".join(elevenlabs.text_to_speech.convert(scottish.voice_id, text="Aye.")).startswith(b"\xff\xfb")


def test_elevenlabs_is_told_of_its_mistakes(elevenlabs: ElevenLabs, url: str, http: httpx.Client) -> None:
    """By status and in its own shape."""
    speak = elevenlabs.text_to_speech.convert
    with pytest.raises(ApiError) as caught:
        b"".join(speak("no-such-voice", text="Hello."))
    assert (caught.value.status_code, caught.value.body["detail"]["status"]) == (404, "voice_not_found")
    with pytest.raises(ApiError) as caught:
        b"".join(speak(VOICE, text="x" * 5001))
    assert caught.value.body["detail"]["status"] == "max_character_limit_exceeded"
    with pytest.raises(ApiError) as caught:
        b"".join(speak(VOICE, text="Hello.", output_format="pcm_12345"))
    assert caught.value.status_code == 422
    stranger = ElevenLabs(api_key="wrong", base_url=url, httpx_client=http)
    with pytest.raises(ApiError) as caught:
        b"".join(stranger.text_to_speech.convert(VOICE, text="Hello."))
    assert (caught.value.status_code, caught.value.body["detail"]["status"]) == (401, "invalid_api_key")


# --- ElevenLabs: speech to text ---------------------------------------------------------------------


def test_elevenlabs_transcribes_a_recording(elevenlabs: ElevenLabs) -> None:
    """Human speech, with the times of its words."""
    pcm = to_pcm(load("beckett"))
    answer: Any = elevenlabs.speech_to_text.convert(
        file=("beckett.wav", as_wav(pcm)), model_id="scribe_v1", language_code="en"
    )
    assert word_error_rate(BECKETT, answer.text) < 0.25
    assert "".join(word.text for word in answer.words) == answer.text
    assert answer.audio_duration_secs == pytest.approx(len(pcm) / 32000, abs=0.01)
    assert 0 < answer.words[0].start < answer.words[-1].end < answer.audio_duration_secs
    with pytest.raises(ApiError) as caught:
        elevenlabs.speech_to_text.convert(file=b"not a recording", model_id="scribe_v1")
    assert caught.value.body["detail"]["status"] == "invalid_audio"


def test_elevenlabs_transcribes_what_was_spoken(elevenlabs: ElevenLabs, spoken: bytes) -> None:
    """Raw PCM, without a header: say, transcribe, compare."""
    answer: Any = elevenlabs.speech_to_text.convert(
        file=spoken, model_id="scribe_v1", file_format="pcm_s16le_16"
    )
    assert word_error_rate(TEXT, answer.text) < 0.4


async def with_http(act: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async with httpx.AsyncClient() as http:
        await act(http)


@pytest.mark.parametrize("strategy", [CommitStrategy.MANUAL, CommitStrategy.VAD])
def test_elevenlabs_transcribes_as_it_hears(
    url: str, elevenlabs: ElevenLabs, strategy: CommitStrategy
) -> None:
    """By a token, as a page would: partials, then the commit, with times where they are asked for."""
    heard: list[dict[str, Any]] = []
    token = elevenlabs.tokens.single_use.create("realtime_scribe").token

    async def listen(http: httpx.AsyncClient) -> None:
        done = asyncio.Event()
        connection = await AsyncElevenLabs(base_url=url, httpx_client=http).speech_to_text.realtime.connect(
            {
                "model_id": "scribe_v2_realtime",
                "token": token,
                "audio_format": AudioFormat.PCM_16000,
                "sample_rate": 16000,
                "commit_strategy": strategy,
                "include_timestamps": True,
            }
        )
        for event in RealtimeEvents:
            connection.on(event, lambda *data: heard.extend(data))
        connection.on(RealtimeEvents.COMMITTED_TRANSCRIPT_WITH_TIMESTAMPS, lambda _: done.set())
        pcm = to_pcm(load("beckett"))[: 3 * 32000] + bytes(2 * 32000)
        for start in range(0, len(pcm), 16000):
            await connection.send({"audio_base_64": base64.b64encode(pcm[start : start + 16000]).decode()})
        if strategy == CommitStrategy.MANUAL:
            await connection.commit()
        await asyncio.wait_for(done.wait(), 20)
        await connection.close()

    asyncio.run(with_http(listen))
    kinds = [message["message_type"] for message in heard if "message_type" in message]
    assert kinds[0] == "session_started"
    assert "partial_transcript" in kinds
    commit = kinds.index("committed_transcript")
    assert kinds[commit + 1] == "committed_transcript_with_timestamps"
    told = heard[commit + 1]
    assert told["text"].lower().startswith("ever tried")
    assert "".join(word["text"] for word in told["words"]) == told["text"] == heard[commit]["text"]


def test_elevenlabs_is_told_that_a_token_does_not_hold(url: str) -> None:
    """After the socket opened, as their service does it."""
    heard: list[dict[str, Any]] = []

    async def listen(http: httpx.AsyncClient) -> None:
        closed = asyncio.Event()
        connection = await AsyncElevenLabs(base_url=url, httpx_client=http).speech_to_text.realtime.connect(
            {
                "model_id": "scribe_v2_realtime",
                "token": "spent",
                "audio_format": AudioFormat.PCM_16000,
                "sample_rate": 16000,
            }
        )
        connection.on(RealtimeEvents.AUTH_ERROR, heard.append)
        connection.on(RealtimeEvents.CLOSE, heard.append)
        connection.on(RealtimeEvents.CLOSE, lambda _: closed.set())
        await asyncio.wait_for(closed.wait(), 10)

    asyncio.run(with_http(listen))
    assert [message.get("message_type") or message["code"] for message in heard] == ["auth_error", 1000]


def test_what_is_spoken_is_understood(url: str) -> None:
    """A few sentences of the bench that measures it (tests/bench/round_trip.py)."""
    headers = {"xi-api-key": KEY}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        assert error_rate([say_and_transcribe(client, sentence) for sentence in SENTENCES[3:6]]) < 0.1


# --- ourselves --------------------------------------------------------------------------------------


def test_our_own_adapters_take_this_server_for_elevenlabs(url: str) -> None:
    """A second instance hears and speaks through the first: a question aloud, and its answer."""
    settings = load_settings({"ELEVENLABS_API_KEY": KEY, "ELEVENLABS_BASE_URL": url})
    assert (settings.providers.stt, settings.providers.tts) == ("elevenlabs", "elevenlabs")
    ask = partial(run_demo, settings, url=None, wav=None, out=None, say=lambda _: None)
    result = trio.run(ask)
    assert result.errors == ()
    assert "seven" in result.transcript.lower()
    assert "84" in result.reply
    assert result.outcomes == ("completed",)
    assert result.audio_s > 1


# --- OpenAI -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "start"), [("mp3", b"\xff\xfb"), ("wav", b"RIFF")])
def test_openai_speaks(openai: OpenAI, spoken: bytes, name: Any, start: bytes) -> None:
    """A voice of theirs is the default one here."""
    audio = openai.audio.speech.create(
        model="gpt-4o-mini-tts", voice="alloy", input=TEXT, response_format=name
    ).content
    assert audio.startswith(start)
    assert length_s(audio) == pytest.approx(len(spoken) / 32000, abs=0.15)


def test_openai_streams_pcm_and_events(openai: OpenAI, spoken: bytes) -> None:
    """24 kHz; the events carry the same audio."""
    asked: dict[str, Any] = {"model": "m", "voice": "alloy", "input": TEXT, "response_format": "pcm"}
    with openai.audio.speech.with_streaming_response.create(**asked) as response:
        audio = b"".join(response.iter_bytes())
    assert len(audio) / 48000 == pytest.approx(len(spoken) / 32000, abs=0.01)
    with openai.audio.speech.with_streaming_response.create(**asked, stream_format="sse") as response:
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert sum(map(len, events)) > len(audio) * 4 / 3
    assert '"speech.audio.done"' in events[-1]


def test_openai_transcribes(openai: OpenAI) -> None:
    """In each of its shapes."""
    wav = as_wav(to_pcm(load("beckett"))[: 3 * 32000])

    def transcribe(**asked: Any) -> Any:
        return openai.audio.transcriptions.create(file=("speech.wav", wav), model="whisper-1", **asked)

    text = transcribe().text
    assert text.lower().startswith("ever tried")
    assert transcribe(response_format="text") == f"{text}\n"
    verbose = transcribe(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (verbose.language, verbose.duration) == ("english", 3.0)
    assert [word.word for word in verbose.words] == text.split()
    assert verbose.segments[0].text == text
    assert "00:00:00,3" in transcribe(response_format="srt")
    assert transcribe(response_format="vtt").startswith("WEBVTT\n\n00:00:00.")
    *deltas, done = transcribe(stream=True)
    assert ("".join(event.delta for event in deltas), done.text) == (text, text)


def test_openai_is_told_of_its_mistakes(openai: OpenAI, url: str) -> None:
    """In its own shape."""
    with (
        OpenAI(api_key="wrong", base_url=f"{url}/v1") as stranger,
        pytest.raises(AuthenticationError) as caught,
    ):
        stranger.audio.speech.create(model="m", voice="alloy", input="Hello.")
    assert caught.value.code == "invalid_api_key"
