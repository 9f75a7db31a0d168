"""Sounds that a microphone may take in, made the same way each time: speech, noise, bursts, echoes.

All are mono at 16 kHz, between -1 and 1. Whatever is random takes a seed.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, Literal

import attrs
import numpy as np
import numpy.typing as npt
import soxr

from tests.fakes.recordings import load
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, Samples
from voice_fsm.tts.espeak import Espeak

NoiseKind = Literal["white", "pink", "babble"]
_Sound = npt.NDArray[np.floating[Any]]
"""A sound on its way to being `Samples`."""

BACK_CHANNELS: Final = ("mm-hmm", "uh-huh", "yes", "okay", "right")
VOICES: Final = ("en-us+adam", "en-gb+f3", "en-us+m3", "en-gb+f5")
_LEVEL: Final = 0.08
"""Root mean square of speech as all of it is brought to: -22 dBFS."""
CHATTER: Final = (
    "We went down to the harbour early that morning and nobody had seen the boat come in.",
    "If you ask the people at the counter they will tell you the same story every time.",
    "There are three kinds of bread in the kitchen, and none of them is any good today.",
    "I never understood why the meeting had to be on a Monday when everyone is away.",
)
_READ: Final = {
    "beckett": (
        "Ever tried. Ever failed.",
        "No matter. Try again.",
        "Fail again. Fail better.",
    ),
    "two_cities": (
        "It was the best of times, it was the worst of times,",
        "it was the age of wisdom,",
        "it was the age of foolishness,",
        "it was the epoch of belief,",
        "it was the epoch of incredulity,",
        "it was the season of Light,",
        "it was the season of Darkness,",
        "it was the spring of hope, it was the winter of despair,",
        "we had everything before us, we had nothing before us,",
        "we were all going direct to Heaven,",
        "we were all going direct the other way,",
        "in short,",
        "the period was so far like the present period,",
        "that some of its noisiest authorities insisted on its being received,",
        "for good or for evil, in the superlative degree of comparison only.",
    ),
}
"""What the recordings say between their pauses."""
_PHRASES: Final = (
    "Stop, that is not what I meant.",
    "Wait a moment, please.",
    "Can you tell me the weather for tomorrow?",
    "No, the other one.",
    "How much does it cost to send a parcel to Norway?",
)


@attrs.frozen(eq=False)
class Utterance:
    """Speech, and the sample at which it can first be heard."""

    name: str
    text: str
    samples: Samples
    onset: int

    @property
    def end(self) -> int:
        """The sample after which it cannot be heard."""
        return len(self.samples) - int(np.argmax(_audible(self.samples[::-1]))) * _FRAME

    def onset_in(self, snr_db: float) -> int:
        """The sample at which it can first be heard in noise so far below the level of speech."""
        return max(self.onset, _first_audible(self.samples, above_db=-snr_db))


# --- speech -----------------------------------------------------------------------------------------


@cache
def spoken(text: str, voice: str = VOICES[0]) -> Samples:
    """``text`` by eSpeak, at the level of all speech here."""
    engine = Espeak.load()
    name = engine.find_voice(voice)
    assert name is not None, voice
    pcm = b"".join(engine.synthesize(text, name, 1.0))
    sound = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    return leveled(soxr.resample(sound, engine.sample_rate_hz, SAMPLE_RATE_HZ).astype(np.float32))


@cache
def human_utterances() -> tuple[Utterance, ...]:
    """Two people's recordings, cut at pauses of 0.3 s."""
    return tuple(
        Utterance(f"{name}-{number}", text, samples, _first_audible(samples))
        for name, texts in _READ.items()
        for number, (text, samples) in enumerate(zip(texts, _cut(leveled(load(name))), strict=True))
    )


@cache
def robot_utterances() -> tuple[Utterance, ...]:
    """Sentences by eSpeak's voices."""
    said = ((voice, text, spoken(text, voice)) for voice in VOICES for text in _PHRASES)
    return tuple(
        Utterance(f"{voice}: {text}", text, sound, _first_audible(sound)) for voice, text, sound in said
    )


def back_channels() -> Iterator[Utterance]:
    """What listeners say without wanting the turn, by eSpeak's voices."""
    for voice in VOICES:
        for text in BACK_CHANNELS:
            samples = spoken(text, voice)
            yield Utterance(f"{voice}: {text}", text, samples, _first_audible(samples))


def leveled(speech: Samples) -> Samples:
    """``speech`` at the level that signal-to-noise ratios refer to, counted over its louder half."""
    return _clipped(speech * (_LEVEL / _loudness(speech)))


# --- noise ------------------------------------------------------------------------------------------


def noise(kind: NoiseKind, duration_s: float, seed: int = 0) -> Samples:
    """Noise with a root mean square of 1."""
    count = round(duration_s * SAMPLE_RATE_HZ)
    random = np.random.default_rng(seed)
    sound: _Sound
    match kind:
        case "white":
            sound = random.standard_normal(count)
        case "pink":
            spectrum = np.fft.rfft(random.standard_normal(count))
            sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
        case "babble":
            sound = _babble(count, random)
    return (sound / _rms(sound)).astype(np.float32)


def with_noise(sound: Samples, kind: NoiseKind | None, snr_db: float, seed: int = 0) -> Samples:
    """``sound`` in noise ``snr_db`` below the level of speech; ``None`` for no noise."""
    return _clipped(sound + background(kind, snr_db, len(sound), seed))


def background(kind: NoiseKind | None, snr_db: float, count: int, seed: int = 0) -> Samples:
    """``count`` samples of noise ``snr_db`` below the level of speech; silence for ``None``."""
    if kind is None:
        return np.zeros(count, np.float32)
    level = np.float32(_LEVEL * 10 ** (-snr_db / 20))
    return noise(kind, count / SAMPLE_RATE_HZ, seed)[:count] * level


def _babble(count: int, random: np.random.Generator) -> Samples:
    """Eight people who each say the same four things in an order of their own."""
    total = np.zeros(count, np.float32)
    for speaker in range(8):
        voice = VOICES[speaker % len(VOICES)]
        lines = [spoken(text, voice) for text in random.permutation(np.array(CHATTER))]
        talk = np.concatenate(lines)
        repeated = np.tile(talk, count // len(talk) + 2)
        start = int(random.integers(len(talk)))
        total += repeated[start : start + count]
    return total


# --- bursts -----------------------------------------------------------------------------------------


def cough(seed: int) -> Samples:
    """One to three coughs: a burst of breath, a rushing decay, at times a voiced end."""
    random = np.random.default_rng(seed)
    parts: list[Samples] = []
    for _ in range(int(random.integers(1, 4))):
        parts += [_single_cough(random), _silence(random.uniform(0.08, 0.25))]
    return _peaking(np.concatenate(parts), random.uniform(0.3, 0.8))


def door_slam(seed: int) -> Samples:
    """A click, a low thump that dies away in a fifth of a second, and what rattles after it."""
    random = np.random.default_rng(seed)
    times_s = np.arange(round(0.6 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    thump_hz = random.uniform(50, 120)
    sound = np.sin(2 * np.pi * thump_hz * times_s) * np.exp(-times_s / 0.06)
    sound += _band(random.standard_normal(len(times_s)), 30, 500) * 3 * np.exp(-times_s / 0.04)
    sound += random.standard_normal(len(times_s)) * np.exp(-times_s / 0.004)
    for late_s in random.uniform(0.05, 0.3, size=3):
        after_s = times_s - late_s
        rattle = _band(random.standard_normal(len(times_s)), 500, 3000)
        sound += np.where(after_s > 0, rattle * np.exp(-np.maximum(after_s, 0) / 0.01), 0) * 0.5
    return _peaking(sound, random.uniform(0.4, 0.9))


def key_clicks(seed: int, count: int = 12) -> Samples:
    """Typing: clicks of a few milliseconds, five a second or so."""
    random = np.random.default_rng(seed)
    parts: list[Samples] = []
    for _ in range(count):
        times_s = np.arange(round(0.02 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        click = _band(random.standard_normal(len(times_s)), 800, 6000) * np.exp(-times_s / 0.003)
        parts += [click.astype(np.float32), _silence(random.uniform(0.1, 0.3))]
    return _peaking(np.concatenate(parts), random.uniform(0.1, 0.3))


def _single_cough(random: np.random.Generator) -> Samples:
    times_s = np.arange(round(random.uniform(0.25, 0.4) * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    breath = random.standard_normal(len(times_s))
    burst = _band(breath, 300, 7000) * np.exp(-times_s / 0.03) * np.minimum(times_s / 0.004, 1)
    rush = _band(breath, 400, random.uniform(1500, 3000)) * np.exp(-times_s / 0.1) * 0.6
    sound = burst + rush
    if random.random() < 1 / 3:
        pitch_hz = random.uniform(120, 220) * (1 - times_s)
        voiced = np.sign(np.sin(2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ))
        sound += _band(voiced, 200, 1500) * np.exp(-(((times_s - 0.2) / 0.04) ** 2)) * 0.3
    return sound.astype(np.float32)


# --- echo -------------------------------------------------------------------------------------------


def echo(assistant: Samples, *, delay_ms: float = 120.0, gain_db: float = -20.0) -> Samples:
    """What a microphone takes in of the assistant's own voice, with two weaker reflections."""
    total = np.zeros(len(assistant) + round((delay_ms + 50) * SAMPLE_RATE_HZ / 1000), np.float32)
    for later_ms, weaker_db in ((0, 0), (17, -6), (41, -10)):
        start = round((delay_ms + later_ms) * SAMPLE_RATE_HZ / 1000)
        total[start : start + len(assistant)] += assistant * 10 ** ((gain_db + weaker_db) / 20)
    return total


# --- placing ----------------------------------------------------------------------------------------


def after_silence(sound: Samples, *, before_s: float, after_s: float = 1.5) -> Samples:
    """``sound`` with silence around it."""
    return np.concatenate((_silence(before_s), sound, _silence(after_s)))


def _silence(duration_s: float) -> Samples:
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), np.float32)


def _cut(sound: Samples) -> Iterator[Samples]:
    """The stretches between pauses of 0.3 s or more, those of at least 0.3 s."""
    audible = _audible(sound)
    start: int | None = None
    quiet = 0
    for index, heard in enumerate([*audible, *[False] * 31]):
        quiet = 0 if heard else quiet + 1
        if heard and start is None:
            start = index
        elif start is not None and quiet > 30:
            if index - quiet - start >= 30:
                yield sound[max(0, start - 5) * _FRAME : (index - quiet + 5) * _FRAME]
            start = None


_FRAME: Final = SAMPLE_RATE_HZ // 100
_AUDIBLE_DB: Final = -20.0
"""Relative to the level of speech, from where on 10 ms of it can be heard."""


_LASTING: Final = 5
"""Of ten such frames so many have to be heard where speech begins: less is a breath, or a click."""


def _first_audible(speech: Samples, above_db: float = _AUDIBLE_DB) -> int:
    heard = _audible(speech, above_db)
    lasting = np.convolve(heard, np.ones(10, np.int_))[9:] >= _LASTING
    return int(np.argmax(heard & lasting)) * _FRAME


def _audible(speech: Samples, above_db: float = _AUDIBLE_DB) -> npt.NDArray[np.bool_]:
    """Which 10 ms of it can be heard."""
    loud: npt.NDArray[np.bool_] = _frame_rms(speech, _FRAME) > 10 ** (above_db / 20) * _LEVEL
    return loud


def _frame_rms(sound: Samples, frame: int) -> Samples:
    whole = sound[: len(sound) // frame * frame].reshape(-1, frame)
    rms: Samples = np.sqrt(np.mean(whole**2, axis=1))
    return rms


def _loudness(speech: Samples) -> float:
    rms: _Sound = np.sort(_frame_rms(speech, SAMPLE_RATE_HZ // 50))
    return _rms(rms[len(rms) // 2 :])


def _band(sound: _Sound, low_hz: float, high_hz: float) -> _Sound:
    spectrum = np.fft.rfft(sound)
    frequencies_hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
    spectrum[(frequencies_hz < low_hz) | (frequencies_hz > high_hz)] = 0
    return np.fft.irfft(spectrum, len(sound))


def _peaking(sound: _Sound, peak: float) -> Samples:
    scaled: Samples = (sound * (peak / np.max(np.abs(sound)))).astype(np.float32)
    return scaled


def _clipped(sound: _Sound) -> Samples:
    clipped: Samples = np.clip(sound, -1, 1).astype(np.float32)
    return clipped


def _rms(sound: _Sound) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))
