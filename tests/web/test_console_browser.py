"""The test page in a real browser, against the scripted server.

Tests that ask for `console` alone hold for any server of `/v1/voice/ws`: override `voice_url` to run them
against another one. Those that ask for `server` too need it scripted.
"""

import re
import time
import wave
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, expect

from tests.fakes.voice_server import SPEECH_HZ, FakeVoiceServer, Script, run_voice_server
from tests.web.chromium import (
    DESKTOP,
    PHONE,
    SPEECH_WAV,
    WAITING_DEVICE_HZ,
    Console,
    Viewport,
    open_console,
    run_chromium,
)
from voice_fsm.audio.samples import Resampler
from voice_fsm.fsm.chart import SessionChart
from voice_fsm.web.console import console_routes, describe_machine

Samples = npt.NDArray[np.float64]

TONE_HZ: Final = 1000
TONE_S: Final = 2.0
LONG_S: Final = 60.0
"""A reply in whose middle one is, however late: it goes on for longer than the patience of a test."""
AUDIBLE_RMS: Final = 0.05
SPEECH_WAV_HZ: Final = 48000
MACHINE: Final = describe_machine(SessionChart)


def tone(duration_s: float = TONE_S) -> bytes:
    """A sine at a quarter of full scale, as the scripted server speaks it."""
    times = np.arange(round(duration_s * SPEECH_HZ)) / SPEECH_HZ
    return (8000 * np.sin(2 * np.pi * TONE_HZ * times)).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with run_chromium() as chromium:
        yield chromium


@pytest.fixture
def server() -> Iterator[FakeVoiceServer]:
    with run_voice_server(Script(speech=tone()), console_routes(MACHINE)) as fake:
        yield fake


@pytest.fixture
def voice_url(server: FakeVoiceServer) -> str:
    """Where the page under test is; http://host:port."""
    return server.url


@pytest.fixture
def console(browser: Browser, voice_url: str) -> Iterator[Console]:
    with open_console(browser, voice_url) as page:
        yield page


def eventually(condition: Callable[[], object]) -> None:
    """Wait until the server's thread has come so far.

    Raises:
        AssertionError: it has not, after 10 s.
    """
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


# --- connecting and settings ------------------------------------------------------------------------


def test_connecting_reaches_listening(console: Console) -> None:
    """One click connects, configures and says so, in words and in the drawing."""
    console.connect()
    expect(console.page.locator("#connection")).to_have_text("connected")
    expect(console.page.locator("#state")).to_have_text("listening")
    expect(console.page.locator(".node.current")).to_have_attribute("data-state", "listening")
    assert console.look("voiceTest.sessionId")
    assert console.look("voiceTest.violations") == []


def test_settings_become_session_configure(server: FakeVoiceServer, console: Console) -> None:
    """Every field of the form is in the message, and the extra events are asked for."""
    console.connect(
        {
            "Audio format": "pcm_44100",
            "Audio to the page": "json",
            "Utterances end by": "manual",
            "Barge-in": "off",
            "Language": "de",
            "Voice id": "anna",
            "Speed": "1.1",
            "Registration id": "reg-7",
        }
    )
    assert server.received("session.configure") == [
        {
            "type": "session.configure",
            "audio_out": "json",
            "events": ["state", "text.delta", "metrics", "alignment"],
            "backend": {"registration_id": "reg-7"},
            "stt": {
                "sample_rate": 16000,
                "audio_format": "pcm_16000",
                "commit_strategy": "manual",
                "language_code": "de",
            },
            "tts": {"output_format": "pcm_44100", "voice_id": "anna", "voice_settings": {"speed": 1.1}},
            "turn": {"barge_in": "off", "pausable": True},
        }
    ]


def test_empty_fields_are_left_to_the_server(server: FakeVoiceServer, console: Console) -> None:
    """What the user does not choose is not in the message."""
    console.connect()
    (message,) = server.received("session.configure")
    assert set(message) == {"type", "audio_out", "events", "stt", "tts", "turn"}
    assert message["tts"] == {"output_format": "pcm_24000"}


def test_apply_configures_again(server: FakeVoiceServer, console: Console) -> None:
    """Settings can be changed within a session."""
    console.connect()
    expect(console.page.get_by_role("button", name="Apply")).to_be_disabled()
    console.set("Audio format", "pcm_48000")
    console.press("Apply")
    eventually(lambda: len(server.received("session.configure")) == 2)
    assert server.received("session.configure")[1]["tts"]["output_format"] == "pcm_48000"
    assert server.connections == 1


def test_closing_reason_is_shown_and_reconnecting_resumes(server: FakeVoiceServer, console: Console) -> None:
    """The user reads why the server hung up; one click comes back with the token it left."""
    server.script.resume = "come-back"
    console.connect()
    server.hang_up("draining", 1012)
    console.wait_for("voiceTest.status === 'disconnected'")
    expect(console.page.locator("#close-reason")).to_have_text("draining (1012)")
    expect(console.page.locator(".node.current")).to_have_attribute("data-state", "closed")
    console.press("Reconnect")
    console.wait_for("voiceTest.state === 'listening'")
    assert server.received("session.configure")[1]["resume"] == "come-back"


def test_disconnecting_ends_everything(server: FakeVoiceServer, console: Console) -> None:
    """After Disconnect the socket is closed, the microphone is off and nothing sounds."""
    server.script.speech = tone(LONG_S)
    console.connect()
    console.press("Start microphone")
    console.prompt("Speak.")
    console.wait_for(f"voiceTest.outputRms() > {AUDIBLE_RMS}")
    console.press("Disconnect")
    console.wait_for("voiceTest.status === 'disconnected'")
    eventually(lambda: server.connections == 0)
    expect(console.page.get_by_role("button", name="Start microphone")).to_be_disabled()
    console.wait_for("voiceTest.outputRms(20) === 0")
    assert console.look("voiceTest.micLevel") == 0


def test_unreachable_server_is_told(console: Console) -> None:
    """A failed connection ends in a message, and one may try again."""
    console.set("Voice endpoint", console.look("location.origin.replace('http', 'ws') + '/nowhere'"))
    console.press("Connect")
    expect(console.page.get_by_role("alert")).to_contain_text("connection lost")
    expect(console.page.get_by_role("button", name="Connect")).to_be_enabled()
    assert [re.sub(r"'.*'", "…", complaint) for complaint in console.complaints] == [
        "WebSocket connection to … failed: Error during WebSocket handshake: Unexpected response code: 403"
    ]
    console.complaints.clear()


# --- the microphone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["binary", "json"])
def test_microphone_arrives_as_16_khz_pcm(server: FakeVoiceServer, console: Console, mode: str) -> None:
    """The speech arrives whole and at its own pace: each second of it is found where it belongs.

    To 20 ms, a fifth of a frame: on a busy machine the browser's device may fall silent for its buffer of 10.
    """
    console.connect({"Audio from the microphone": mode})
    console.press("Start microphone")
    eventually(lambda: len(server.microphone) >= 2 * 16000 * 4)
    console.press("Stop microphone")

    assert {how for how, _ in server.microphone_frames} == {mode}
    assert {size for _, size in server.microphone_frames[:-1]} == {3200}
    heard = np.frombuffer(bytes(server.microphone), "<i2").astype(float)
    lags_s, likenesses = [], []
    for start_s in (0.5, 1.5, 2.5):
        start = round(start_s * 16000)
        at, likeness = find(heard[start : start + 16000], recording())
        lags_s.append(at / 16000 - start_s)
        likenesses.append(likeness)
    assert min(likenesses) > 0.3, likenesses  # the browser's noise suppression takes its share
    assert max(lags_s) - min(lags_s) < 0.02, lags_s
    assert np.sqrt(np.mean(heard**2)) > 300


RECORD_S: Final = 4
RECORD: Final = """async (recorded) => {
    const { Microphone } = await import("/test/capture.js");
    const { SampleDecoder, fromBase64, toBase64 } = await import("/test/codec.js");
    const samples = new SampleDecoder("pcm").decode(fromBase64(recorded));
    const context = new OfflineAudioContext(1, samples.length, 48000);
    const buffer = context.createBuffer(1, samples.length, 48000);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    context.createMediaStreamSource = () => source;
    navigator.mediaDevices.getUserMedia = async () => new MediaStream();
    await Microphone.prepare(context);
    const microphone = new Microphone(context);
    const frames = [];
    let level = 0;
    microphone.addEventListener("frame", ({ detail }) => frames.push(toBase64(detail)));
    microphone.addEventListener("level", () => (level += 1));
    await microphone.start();
    source.start();
    await context.startRendering();
    while (level < samples.length / 960) await new Promise((wake) => setTimeout(wake, 10));
    microphone.stop();
    return frames;
}"""


def test_every_sample_of_the_microphone_is_in_a_frame(console: Console) -> None:
    """With a device that waits for the page: the recording at 16 kHz, in frames of 100 ms."""
    recorded = b64encode(recorded_pcm(RECORD_S)).decode()
    frames = [b64decode(frame) for frame in console.page.evaluate(RECORD, recorded)]
    assert [len(frame) for frame in frames] == [3200] * (RECORD_S * 10)
    heard = np.frombuffer(b"".join(frames), "<i2").astype(float)
    assert np.corrcoef(heard, recording()[: len(heard)])[0, 1] > 0.999


def recording() -> Samples:
    """What the microphone plays, at 16 kHz."""
    return np.frombuffer(Resampler(SPEECH_WAV_HZ, 16000).feed(recorded_pcm(10), last=True), "<i2").astype(
        float
    )


def recorded_pcm(duration_s: int) -> bytes:
    """The beginning of what the microphone plays, as it is."""
    with wave.open(str(SPEECH_WAV)) as file:
        assert file.getframerate() == SPEECH_WAV_HZ
        pcm: bytes = file.readframes(duration_s * SPEECH_WAV_HZ)
    return pcm


def find(part: Samples, whole: Samples) -> tuple[int, float]:
    """Where ``part`` is most alike in ``whole``, and how much: 1 for the same shape."""
    length, places = len(whole) + len(part), len(whole) - len(part) + 1
    products = np.fft.irfft(np.fft.rfft(whole, length) * np.conj(np.fft.rfft(part, length)), length)[:places]
    sums = np.concatenate([[0.0], np.cumsum(whole**2)])
    energies = (sums[len(part) :] - sums[: -len(part)]) * np.sum(part**2)
    likeness = products / np.sqrt(energies + 1)
    at = int(np.argmax(likeness))
    return at, float(likeness[at])


def test_muted_microphone_sends_silence(server: FakeVoiceServer, console: Console) -> None:
    """Muted, frames go on without sound; unmuted, sound comes back."""
    console.connect()
    console.press("Start microphone")
    console.wait_for("voiceTest.micLevel > 0.02")
    console.press("Mute")
    console.wait_for("voiceTest.micLevel === 0")
    console.press("Commit")
    eventually(lambda: server.received("audio.commit"))  # and with it what was sent before
    begin = len(server.microphone)
    eventually(lambda: len(server.microphone) > begin + 16000)
    assert not any(server.microphone[begin + 6400 : begin + 16000])
    console.press("Unmute")
    console.wait_for("voiceTest.micLevel > 0.02")


def test_commit_is_sent_by_hand(server: FakeVoiceServer, console: Console) -> None:
    """The Commit button ends the utterance."""
    console.connect({"Utterances end by": "manual"})
    console.press("Commit")
    eventually(lambda: server.received("audio.commit"))


def test_switching_the_microphone_off_commits_what_was_begun(
    server: FakeVoiceServer, console: Console
) -> None:
    """An utterance under way is ended, since no silence will end it; without one nothing is sent."""
    console.connect()
    console.press("Start microphone")
    console.wait_for("voiceTest.micLevel > 0")
    console.press("Stop microphone")
    console.press("Start microphone")
    server.tell("transcript.partial", text="it was")
    console.wait_for("voiceTest.events('transcript.partial').length")
    assert console.look("voiceTest.sent('audio.commit')") == []
    console.press("Stop microphone")
    eventually(lambda: server.received("audio.commit"))


def test_microphone_allowed_too_late_is_let_go(server: FakeVoiceServer, console: Console) -> None:
    """When the session ends while the user is still asked, the microphone does not stay on."""
    console.page.evaluate(
        """() => {
            const devices = navigator.mediaDevices;
            const ask = devices.getUserMedia.bind(devices);
            devices.getUserMedia = async (constraints) => {
                await new Promise((allow) => { window.allow = allow; });
                const stream = await ask(constraints);
                [window.track] = stream.getAudioTracks();
                return stream;
            };
        }"""
    )
    console.connect()
    console.press("Start microphone")
    console.wait_for("window.allow")
    expect(console.page.get_by_role("button", name="Start microphone")).to_be_disabled()
    server.hang_up("idle", 1000)
    console.wait_for("voiceTest.status === 'disconnected'")
    console.look("window.allow()")
    console.wait_for("window.track?.readyState === 'ended'")
    expect(console.page.get_by_role("button", name="Start microphone")).to_be_disabled()


def test_refused_microphone_is_told(console: Console) -> None:
    """Without leave for the microphone the page says so, and one may try again."""
    console.connect()
    console.page.evaluate(
        """() => {
            const refusal = new DOMException("", "NotAllowedError");
            navigator.mediaDevices.getUserMedia = () => Promise.reject(refusal);
        }"""
    )
    console.press("Start microphone")
    expect(console.page.get_by_role("alert")).to_contain_text("Access was refused.")
    expect(console.page.get_by_role("button", name="Start microphone")).to_be_enabled()


MEASURE_RESAMPLER: Final = """async () => {
    const { Resampler } = await import("/test/resampler.js");
    const convert = (sine, toHz) => {
        const resampler = new Resampler(48000, toHz);
        const pieces = [[0, 1], [1, 130], [130, 4096], [4096]].map(([from, to]) => sine.subarray(from, to));
        return [...pieces.flatMap((piece) => [...resampler.process(piece)]), ...resampler.flush()];
    };
    const gain = (hz, toHz) => {
        const sine = Float32Array.from({ length: 9600 }, (_, i) => Math.sin((2 * Math.PI * hz * i) / 48000));
        const output = convert(sine, toHz);
        const middle = output.slice(400, -400);
        const energy = middle.reduce((sum, sample) => sum + sample * sample, 0);
        return [Math.sqrt((2 * energy) / middle.length), output.length];
    };
    return { low: gain(1000, 16000), folded: gain(11000, 16000), up: gain(1000, 44100) };
}"""


def test_resampling_filters_instead_of_folding(console: Console) -> None:
    """From 48 kHz to 16 kHz, 1 kHz passes unchanged and 11 kHz, which would fold to 5 kHz, is gone."""
    gains = console.page.evaluate(MEASURE_RESAMPLER)
    assert gains["low"][0] == pytest.approx(1, abs=0.001)
    assert gains["folded"][0] < 0.0005
    assert gains["up"][0] == pytest.approx(1, abs=0.001)
    assert [gains["low"][1], gains["up"][1]] == [pytest.approx(3200, abs=2), pytest.approx(8820, abs=2)]


# --- the voice --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["binary", "json"])
def test_text_prompt_is_answered_aloud(console: Console, mode: str) -> None:
    """What is typed is answered in sound, whichever way the audio comes."""
    console.connect({"Audio to the page": mode})
    console.prompt("How does the story begin?")
    console.wait_for(f"voiceTest.outputRms() > {AUDIBLE_RMS}")
    console.wait_for("voiceTest.state === 'listening'")
    (done,) = console.received("assistant.done")
    assert done["outcome"] == "completed"
    assert console.look("voiceTest.violations") == []


@pytest.mark.parametrize(
    "audio_format", ["pcm_16000", "pcm_22050", "pcm_24000", "pcm_44100", "pcm_48000", "ulaw_8000"]
)
def test_every_format_is_played_true(server: FakeVoiceServer, console: Console, audio_format: str) -> None:
    """At any rate, and cut at odd bytes, a pure tone stays a pure tone of its pitch and strength."""
    server.script.chunk_bytes = (4801, 1, 3, 997, 4800)
    server.script.pace = 0
    console.use_waiting_device()
    console.connect({"Audio format": audio_format})
    server.tell("assistant.paused", turn_id=1, played_ms=0.0)
    console.prompt("Sing.")
    console.wait_for("voiceTest.events('assistant.audio.end').length > 0")
    assert not console.listen(until=f"voiceTest.bufferedMs > {TONE_S * 1000 - 2}").any()
    server.tell("assistant.resumed", turn_id=1, played_ms=0.0)
    samples = np.trim_zeros(console.listen(until=f"voiceTest.playedMs(1) > {TONE_S * 1000 - 2}"))
    assert len(samples) == pytest.approx(TONE_S * WAITING_DEVICE_HZ, abs=WAITING_DEVICE_HZ / 1000)
    pitch_hz, purity_db = analyse(samples, WAITING_DEVICE_HZ)
    assert pitch_hz == pytest.approx(TONE_HZ, abs=1)
    assert purity_db > (25 if audio_format == "ulaw_8000" else 50)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(8000 / 32768 / np.sqrt(2), rel=0.02)


def analyse(samples: Samples, rate_hz: float) -> tuple[float, float]:
    """The loudest pitch, and how far it stands above all the rest together, in dB."""
    spectrum = np.abs(np.fft.rfft(samples * np.blackman(len(samples)))) ** 2
    peak = int(np.argmax(spectrum))
    own = spectrum[max(0, peak - 4) : peak + 5].sum()
    rest = spectrum.sum() - own
    return peak * rate_hz / len(samples), float(10 * np.log10(own / (rest + 1e-12)))


def test_chunks_in_time_are_played_without_a_gap(server: FakeVoiceServer, console: Console) -> None:
    """Faster than it sounds, the whole reply is heard, for as long as it is."""
    server.script.chunk_bytes = (48000, *[4800] * 10)
    server.script.pace = 0.1  # a busy machine may be a second late
    console.connect()
    console.prompt("Sing.")
    console.wait_for("voiceTest.events('assistant.done').length > 0")
    counts = console.look("voiceTest.counts")
    assert counts == {"chunks": 11, "late": 0, "underruns": 0}
    assert console.look("voiceTest.playedMs(1)") == pytest.approx(TONE_S * 1000, abs=2)


def test_a_gap_is_counted(server: FakeVoiceServer, console: Console) -> None:
    """When chunks come too late, that is told, and the rest is played all the same."""
    server.script.chunk_bytes = (43200, 52800)
    server.script.waits = True
    server.script.pace = 0
    console.connect()
    console.prompt("Sing.")
    console.wait_for("voiceTest.playedMs(1) > 700 && voiceTest.bufferedMs === 0")
    server.speak_on()
    console.wait_for("voiceTest.events('assistant.done').length > 0")
    assert console.look("voiceTest.counts.underruns") == 1
    assert console.look("voiceTest.playedMs(1)") == pytest.approx(TONE_S * 1000, abs=2)


def test_long_reply_that_comes_fast_is_kept(server: FakeVoiceServer, console: Console) -> None:
    """More than the buffer's first size waits there whole: at every time sounds what belongs there.

    The buffer has gone round once when it becomes too small.
    """
    times = np.arange(24 * SPEECH_HZ) / SPEECH_HZ
    server.script.speech = (
        (8000 * np.sin(2 * np.pi * (500 * times + 50 * times**2))).astype("<i2").tobytes()
    )  # 500 Hz, and 100 Hz higher each second
    server.script.chunk_bytes = [2 * SPEECH_HZ * duration_s for duration_s in (8, 4, 12)]
    server.script.waits = True
    server.script.pace = 0
    console.use_waiting_device()
    console.connect()
    console.prompt("Sing for long.")
    console.wait_for("voiceTest.counts.chunks === 1")
    heard = [console.listen(until="voiceTest.playedMs(1) > 6000")]
    server.speak_on()
    console.wait_for("voiceTest.counts.chunks === 2")
    heard.append(console.listen(until="voiceTest.bufferedMs > 5000"))
    server.speak_on()
    console.wait_for("voiceTest.events('assistant.audio.end').length > 0")
    heard.append(console.listen(until="voiceTest.playedMs(1) > 23998"))
    samples = np.trim_zeros(np.concatenate(heard))
    assert len(samples) == pytest.approx(24 * WAITING_DEVICE_HZ, abs=WAITING_DEVICE_HZ / 1000)
    tenths = samples[: 239 * WAITING_DEVICE_HZ // 10].reshape(239, -1)
    pitches_hz = [analyse(tenth, WAITING_DEVICE_HZ)[0] for tenth in tenths]
    assert pitches_hz == pytest.approx([505 + 10 * tenth for tenth in range(239)], abs=10)
    assert console.look("voiceTest.counts.underruns") == 0


def test_whole_file_is_played(server: FakeVoiceServer, console: Console) -> None:
    """An MP3 that comes in one piece is decoded and heard to its end."""
    server.script.file = silent_mp3(frames=60)
    console.connect({"Audio format": "mp3_44100_128"})
    console.prompt("Sing.")
    duration_ms = 60 * 1152 / 44.1
    console.wait_for(f"voiceTest.playedMs(1) > {duration_ms - 60}")
    console.page.wait_for_timeout(300)
    assert console.look("voiceTest.playedMs(1)") == pytest.approx(duration_ms, abs=60)


def silent_mp3(frames: int) -> bytes:
    """MPEG-1 layer III, 128 kbit/s, 44.1 kHz, mono; all side information zero, which is silence."""
    return (bytes.fromhex("fffb90c4") + bytes(413)) * frames


def test_playback_is_told_a_few_times_a_second(server: FakeVoiceServer, console: Console) -> None:
    """The server learns how far the listener is, and in the end that all was heard."""
    console.connect()
    console.prompt("Sing.")
    console.wait_for("voiceTest.events('assistant.done').length > 0")
    played_ms = [message["played_ms"] for message in server.received("playback.progress")]
    assert played_ms == sorted(played_ms)
    assert len(played_ms) >= 2 * TONE_S
    *told_at_ms, _ = console.look("voiceTest.sent('playback.progress').map(({ at }) => at)")
    assert (told_at_ms[-1] - told_at_ms[0]) / (len(told_at_ms) - 1) > 240
    assert max(later - before for before, later in pairwise(played_ms)) < 1000
    assert played_ms[-1] == pytest.approx(TONE_S * 1000, abs=2)


# --- interruptions ----------------------------------------------------------------------------------

SILENT_WITHIN_MS: Final = 250
IS_SOUNDING: Final = f"voiceTest.outputRms() > {AUDIBLE_RMS} && voiceTest.bufferedMs > 500"
STOP_IS_PRESSED: Final = "({ type }) => type === 'stop'"


def is_received(type_: str) -> str:
    """The moment at which a message of the server arrives in the page."""
    return f"({{ type, detail }}) => type === 'received' && detail.message.type === '{type_}'"


def test_interruption_silences_the_voice(server: FakeVoiceServer, console: Console) -> None:
    """Within 250 ms of `assistant.interrupted` nothing sounds, and late chunks of the turn stay unheard."""
    server.script.speech = tone(LONG_S)
    server.script.late_chunks = 5
    server.script.linger_s = 0.6
    console.connect()
    console.prompt("Sing.")
    console.wait_for(IS_SOUNDING)
    console.start_tap(is_received("assistant.interrupted"))
    server.interrupt()
    console.wait_for("voiceTest.counts.late === 5")
    assert console.heard_after(500).sound_after_ms < SILENT_WITHIN_MS


def test_a_paused_voice_goes_on_where_it_stopped(server: FakeVoiceServer, console: Console) -> None:
    """Nothing sounds between `assistant.paused` and `assistant.resumed`, and what waited is played then."""
    server.script.speech = tone(LONG_S)
    console.connect()
    console.prompt("Sing.")
    console.wait_for(IS_SOUNDING)
    console.start_tap(is_received("assistant.paused"))
    server.tell("assistant.paused", turn_id=1, played_ms=100.0)
    assert console.heard_after(500).sound_after_ms < SILENT_WITHIN_MS
    paused_ms, buffered_ms = console.look("[voiceTest.playedMs(1), voiceTest.bufferedMs]")
    assert buffered_ms > 100
    server.tell("assistant.resumed", turn_id=1, played_ms=100.0)
    console.wait_for(f"voiceTest.outputRms() > {AUDIBLE_RMS}")
    console.wait_for(f"voiceTest.playedMs(1) > {paused_ms} + 50")


def test_next_turn_is_heard_after_an_interruption(server: FakeVoiceServer, console: Console) -> None:
    """Dropping one turn does not drop the next."""
    server.script.speech = tone(LONG_S)
    console.connect()
    console.prompt("Sing.")
    console.wait_for(f"voiceTest.outputRms() > {AUDIBLE_RMS}")
    console.prompt("Sing something else.")
    console.wait_for(f"voiceTest.playedMs(2) > 500 && voiceTest.outputRms() > {AUDIBLE_RMS}")
    assert [done["turn_id"] for done in console.received("assistant.done")] == [1]
    assert server.received("text.prompt")[1]["text"] == "Sing something else."


def test_stop_button_silences_at_once(server: FakeVoiceServer, console: Console) -> None:
    """The user's Stop does not wait for the server."""
    server.script.speech = tone(LONG_S)
    server.script.ignores = ("response.cancel",)
    console.connect()
    console.prompt("Sing.")
    console.wait_for(IS_SOUNDING)
    console.start_tap(STOP_IS_PRESSED)
    console.press("Stop")
    assert console.heard_after(500).sound_after_ms < SILENT_WITHIN_MS
    eventually(lambda: server.received("response.cancel") == [{"type": "response.cancel", "turn_id": 1}])


def test_stop_button_interrupts_the_turn(server: FakeVoiceServer, console: Console) -> None:
    """The server hears of a Stop, and of how much had been heard."""
    server.script.speech = tone(LONG_S)
    console.connect()
    console.prompt("Sing.")
    console.wait_for(f"voiceTest.outputRms() > {AUDIBLE_RMS} && voiceTest.playedMs(1) > 300")
    console.start_tap(STOP_IS_PRESSED)
    console.press("Stop")
    assert console.heard_after(500).sound_after_ms < SILENT_WITHIN_MS
    console.wait_for("voiceTest.state === 'listening'")
    (interrupted,) = console.received("assistant.interrupted")
    assert interrupted["heard_ms"] > 250
    expect(console.page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


def test_failed_turn_falls_silent(server: FakeVoiceServer, console: Console) -> None:
    """A turn that ends in any way but well is not played on."""
    server.script.speech = tone(LONG_S)
    console.connect()
    console.prompt("Sing.")
    console.wait_for(IS_SOUNDING)
    console.start_tap(is_received("assistant.done"))
    server.tell("assistant.done", turn_id=1, outcome="failed")
    assert console.heard_after(500).sound_after_ms < SILENT_WITHIN_MS


# --- what is shown ----------------------------------------------------------------------------------


def test_speech_is_shown_as_it_is_recognised(server: FakeVoiceServer, console: Console) -> None:
    """A partial is one changing grey line, which turns solid when committed, once."""
    console.connect()
    user = console.page.locator(".transcript .user")
    for text in ("it was", "it was the best"):
        server.tell("transcript.partial", text=text)
    expect(user).to_have_text(["Youit was the best"])
    expect(user).to_have_class("user partial")
    server.tell("transcript.committed", text="It was the best of times.")
    server.tell("assistant.started", turn_id=1, text="It was the best of times.")
    expect(user).to_have_text(["YouIt was the best of times."])
    expect(user).to_have_class("user")


def test_unheard_part_of_a_reply_is_struck_through(server: FakeVoiceServer, console: Console) -> None:
    """What the user cut off is told apart from what was heard."""
    server.script.speech = tone(LONG_S)
    console.connect()
    console.prompt("Go on.")
    expect(console.page.locator(".transcript .user")).to_have_text(["YouGo on."])
    console.wait_for("voiceTest.playedMs(1) > 1000")
    server.tell(
        "assistant.interrupted", turn_id=1, heard_text="It was  the best", heard_ms=1000, reason="speech"
    )
    server.tell("assistant.done", turn_id=1, outcome="interrupted")
    reply = console.page.locator(".transcript .assistant")
    expect(reply.locator(".who")).to_have_text("Assistant · interrupted")
    expect(reply.locator("p")).to_have_text(server.script.reply)
    expect(reply.locator("del")).to_have_text("of times, it was the worst of times.")


def test_spoken_part_of_a_reply_stands_out(server: FakeVoiceServer, console: Console) -> None:
    """While the voice speaks, what is still to come is dimmed, more and more of it said."""
    server.script.chunk_bytes = (24000, 48000, 24000)
    server.script.waits = True
    console.connect()
    console.prompt("Go on.")
    console.wait_for("voiceTest.playedMs(1) > 300 && voiceTest.bufferedMs === 0")
    ahead = console.page.locator(".transcript .assistant .ahead")
    before = len(ahead.inner_text())
    server.speak_on()
    console.wait_for("voiceTest.playedMs(1) > 1300 && voiceTest.bufferedMs === 0")
    assert 0 < len(ahead.inner_text()) < before
    server.speak_on()
    console.wait_for("voiceTest.state === 'listening'")
    expect(ahead).to_have_count(0)
    expect(console.page.locator(".transcript .assistant p")).to_have_text(server.script.reply)


def test_diagram_draws_every_way_of_the_machine(console: Console) -> None:
    """Each pair of states that the chart joins is an edge laid out by hand, and no other is drawn."""
    titles = console.look("[...document.querySelectorAll('.edge title')].map((title) => title.textContent)")
    ways = {(way["from"], way["to"]) for way in MACHINE["transitions"]}
    assert {tuple(re.split(r" → |: ", title)[:2]) for title in titles} == ways
    paths: list[str] = console.look(
        "[...document.querySelectorAll('.way')].map((way) => way.getAttribute('d'))"
    )
    assert len(set(paths)) == len(ways)
    assert not any("L" in path for path in paths), "a way that is not laid out by hand"


def test_diagram_follows_the_session(server: FakeVoiceServer, console: Console) -> None:
    """The state is lit, and the edge that led there."""
    console.connect()
    console.wait_for("voiceTest.events('state.changed').length > 0")  # else it could overtake those told here
    for before, after, event in [
        ("listening", "thinking", "utterance"),
        ("thinking", "speaking", "first_audio"),
        ("speaking", "listening", "barge_in"),
    ]:
        server.tell("state.changed", **{"from": before, "to": after, "input": event, "at_ms": 1.0})
        expect(console.page.locator(".node.current")).to_have_attribute("data-state", after)
        expect(console.page.locator(".edge.taken title")).to_contain_text(f"{before} → {after}: ")
        expect(console.page.locator("#last-transition")).to_have_text(f"{before} → {after} on {event}")
        assert after in (console.page.locator(".diagram svg").get_attribute("aria-label") or "")


def test_errors_are_shown_with_their_codes(server: FakeVoiceServer, console: Console) -> None:
    """An error of the server is a message on the page, as text and never as markup."""
    console.connect()
    reason = {"code": "tts_timeout", "message": "<b>Too slow.</b>", "field": "tts.voice_id"}
    server.tell("error", **reason, fatal=True)  # which stays until it is dismissed
    toast = console.page.get_by_role("alert")
    expect(toast).to_contain_text("tts_timeout")
    expect(toast).to_contain_text("<b>Too slow.</b> (tts.voice_id)")
    toast.get_by_role("button", name="Dismiss").click()
    expect(toast).to_be_empty()


def test_broken_contract_is_reported(server: FakeVoiceServer, console: Console) -> None:
    """A gap in the numbers is noticed."""
    console.connect()
    server.tell("transcript.partial", text="hello", seq=99)
    console.wait_for("voiceTest.violations.length === 1")
    assert console.look("voiceTest.violations[0]").startswith("transcript.partial: seq 99 came where ")


def test_latencies_are_listed_by_turn(server: FakeVoiceServer, console: Console) -> None:
    """The server's figures and the page's own share one row for each turn, the latest first."""
    server.script.speech = tone(LONG_S)
    console.connect()
    for turn in (1, 2):
        console.prompt("Sing.")
        console.wait_for(f"voiceTest.playedMs({turn}) > 200")
        console.press("Stop")
        console.wait_for("voiceTest.state === 'listening'")
    head = console.page.locator("#latency thead th").all_inner_texts()
    rows = console.page.locator("#latency tbody tr")
    assert head[0] == "turn"
    assert "first sound in page" in head
    assert [row.locator("th").inner_text() for row in rows.all()] == ["2", "1"]
    first_sound_ms = int(rows.first.locator("td").nth(head.index("first sound in page") - 1).inner_text())
    since_prompt_ms = console.look("performance.now() - voiceTest.sent('text.prompt').at(-1).at")
    assert 0 < first_sound_ms < since_prompt_ms


def test_log_keeps_audio_in_one_row_and_filters(console: Console) -> None:
    """A turn's chunks share a row that counts them; the filter leaves what matches."""
    console.connect()
    console.prompt("Sing.")
    console.wait_for("voiceTest.events('assistant.done').length > 0")
    chunks = console.page.locator(".row", has_text="assistant.audio.chunk")
    expect(chunks).to_have_count(1)
    expect(chunks).to_contain_text(re.compile(rf"\b{console.look('voiceTest.counts.chunks')} "))
    console.set("Filter events", "TEXT.prompt")
    expect(console.page.locator(".row:visible")).to_have_count(1)
    console.set("Direction", "in")
    expect(console.page.locator(".row:visible")).to_have_count(0)


def test_log_is_bounded(server: FakeVoiceServer, console: Console) -> None:
    """However much comes, the page keeps the last 500 rows."""
    console.connect()
    for number in range(520):
        server.tell("transcript.partial", text=f"word {number}")
    console.wait_for("voiceTest.events('transcript.partial').at(-1)?.message.text === 'word 519'")
    expect(console.page.locator(".row")).to_have_count(500)
    expect(console.page.locator(".row").last).to_contain_text("word 519")


def test_log_can_be_copied(console: Console) -> None:
    """Copy puts what the filter shows into the clipboard, a line of JSON for each row."""
    console.connect()
    console.page.context.grant_permissions(["microphone", "clipboard-read", "clipboard-write"])
    console.set("Filter events", "session.configured")
    console.press("Copy")
    text: str = console.page.evaluate("navigator.clipboard.readText()")
    assert '"type":"session.configured"' in text
    assert len(text.splitlines()) == 1


# --- the page itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_the_transcript_stays_at_its_end(browser: Browser, voice_url: str, viewport: Viewport) -> None:
    """However many prompts there were, the newest reply is in sight."""
    with open_console(browser, voice_url, viewport) as console:
        console.connect()
        for number in range(1, 6):
            console.prompt(f"Sing, for the {number}. time, of all that there is to sing about here.")
            told = f"({{ message }}) => message.turn_id === {number}"  # old events are forgotten
            console.wait_for(f"voiceTest.events('assistant.message').some({told})")
        beyond = (
            "((box) => box.scrollHeight - box.scrollTop - box.clientHeight)"
            "(document.getElementById('transcript'))"
        )
        assert console.look(beyond) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("viewport", [DESKTOP, (1024, 768), (720, 900), PHONE, (320, 640)])
def test_nothing_overflows_sideways(
    browser: Browser, server: FakeVoiceServer, voice_url: str, viewport: Viewport
) -> None:
    """In the midst of a conversation with unbreakable words, no width needs scrolling to the side."""
    server.script.speech = tone(LONG_S)
    server.script.reply = "Donaudampfschifffahrtsgesellschaftskapitän" * 4
    with open_console(browser, voice_url, viewport) as console:
        console.connect()
        console.prompt("x" * 200)
        console.wait_for("voiceTest.state === 'speaking'")
        server.tell("error", code="a_code_that_is_long" * 4, message="y" * 200, fatal=True)
        expect(console.page.locator(".toast")).to_be_visible()
        assert console.look("document.documentElement.scrollWidth") <= viewport[0]
        for part in (".bar", ".transcript", ".toast"):
            element = console.page.locator(part).first
            assert element.evaluate("({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth"), part


def test_settings_start_folded_on_a_phone(browser: Browser, voice_url: str) -> None:
    """On a phone the conversation comes first; on a desk everything is in sight."""
    for viewport, is_open in ((PHONE, False), (DESKTOP, True)):
        with open_console(browser, voice_url, viewport) as console:
            assert console.look("document.getElementById('settings').open") is is_open


def test_every_control_has_a_name(console: Console) -> None:
    """A screen reader can tell every field, button and meter."""
    nameless: list[Any] = console.look(
        """[...document.querySelectorAll("input, select, button, meter")].filter((control) =>
            !control.labels?.length && !control.textContent.trim() && !control.getAttribute("aria-label")
        ).map((control) => control.outerHTML)"""
    )
    assert nameless == []


def test_policy_stops_foreign_code_and_hosts(console: Console) -> None:
    """No inline script runs, no other host is reached, and the page says what was blocked."""
    console.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.injected = true";
            document.body.append(script);
        }"""
    )
    assert console.look("window.injected") is None
    console.set("Voice endpoint", "wss://voice.example/v1/voice/ws")
    console.press("Connect")
    expect(console.page.get_by_role("alert")).to_contain_text("wss://voice.example")
    assert len(console.complaints) == 2
    assert all("Content Security Policy" in complaint for complaint in console.complaints)
    console.complaints.clear()


def test_no_browser_is_a_skip_except_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tests must run, a missing browser fails them."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"), run_chromium():
        pass
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"), run_chromium():
        pass
