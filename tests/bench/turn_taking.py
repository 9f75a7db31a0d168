"""How well and how fast speech is told from other sounds: ``python -m tests.bench.turn_taking [PART]``.

The part ``detector`` is the detector alone, ``sessions`` whole sessions with it (`interruptions`), on sounds
made the same way each time. Latency is from the first 10 ms of speech that can be heard to the arrival of the
chunk with which it was noticed.
"""

import argparse
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import attrs
import numpy as np

from tests.bench import sounds
from tests.bench.interruptions import BACKGROUNDS, print_tables, quantiles
from tests.bench.sounds import NoiseKind, Utterance
from tests.fakes.recordings import load, to_pcm
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, Samples
from voice_fsm.vad.detector import SpeechDetector
from voice_fsm.vad.engines import ThoroughJudges
from voice_fsm.vad.hysteresis import Started, Stopped, VadRules

CHUNK_MS: Final = 100
BEFORE_S: Final = 3.0
"""Silence or noise before each sound."""
EARLY_MS: Final = 40.0
"""A start so much before what can be heard of an utterance is still its start."""
_INTO_ECHO: Final = 3 * SAMPLE_RATE_HZ
"""For how long the assistant is heard alone before the user interrupts."""


@attrs.frozen
class Heard:
    """What the detector made of one stretch of sound; times are those of arriving chunks."""

    starts_ms: tuple[float, ...]
    stops_ms: tuple[float, ...]
    cpu_ms: float
    longest_ms: float
    """CPU time of the chunk that took most."""


def listen(
    samples: Samples,
    rules: VadRules,
    judges: ThoroughJudges,
    *,
    chunk_ms: int = CHUNK_MS,
    audible_from_ms: float = math.inf,
) -> Heard:
    """Give a new detector ``samples`` in chunks; from ``audible_from_ms`` on the assistant is audible."""
    detector = SpeechDetector(rules, judges)
    pcm = to_pcm(samples)
    chunk = SAMPLE_RATE_HZ * chunk_ms // 1000 * 2
    starts: list[float] = []
    stops: list[float] = []
    spent_ms: list[float] = []
    for end in range(chunk, len(pcm) + chunk, chunk):
        began_s = time.thread_time()
        changes = detector.hear(pcm[end - chunk : end], expects_echo=end / chunk * chunk_ms > audible_from_ms)
        spent_ms.append((time.thread_time() - began_s) * 1000)
        for change in changes:
            match change:
                case Started():
                    starts.append(end / chunk * chunk_ms)
                case Stopped():
                    stops.append(end / chunk * chunk_ms)
    detector.close()
    return Heard(tuple(starts), tuple(stops), sum(spent_ms), max(spent_ms))


@attrs.define
class Speech:
    """Figures of utterances in one kind of background."""

    count: int = 0
    missed: int = 0
    early: int = 0
    latencies_ms: list[float] = attrs.field(factory=list)
    stop_ms: list[float] = attrs.field(factory=list)

    def add(self, utterance: Utterance, heard: Heard) -> None:
        onset_ms = (BEFORE_S + utterance.onset / SAMPLE_RATE_HZ) * 1000
        end_ms = (BEFORE_S + utterance.end / SAMPLE_RATE_HZ) * 1000
        self.count += 1
        self.early += sum(start < onset_ms - EARLY_MS for start in heard.starts_ms)
        on_time = [start for start in heard.starts_ms if onset_ms - EARLY_MS <= start < end_ms + 200]
        if on_time:
            self.latencies_ms.append(on_time[0] - onset_ms)
        else:
            self.missed += 1
        self.stop_ms += [stop - end_ms for stop in heard.stops_ms[-1:]]

    def __str__(self) -> str:
        return (
            f"{self.count} | {self.missed} | {self.early} | {quantiles(self.latencies_ms)} "
            f"| {quantiles(self.stop_ms)}"
        )


def speech_in(
    utterances: Iterable[Utterance],
    kind: NoiseKind | None,
    snr_db: float,
    rules: VadRules,
    judges: ThoroughJudges,
    chunk_ms: int = CHUNK_MS,
) -> Speech:
    """Let the detector hear each utterance after silence or noise alone."""
    figures = Speech()
    for seed, utterance in enumerate(utterances):
        # Not all at the same place in a chunk.
        placed = sounds.after_silence(utterance.samples, before_s=BEFORE_S + seed % 7 * 0.013)
        shift = round(seed % 7 * 0.013 * SAMPLE_RATE_HZ)
        onset = utterance.onset if kind is None else utterance.onset_in(snr_db)
        shifted = attrs.evolve(utterance, onset=onset + shift)
        noisy = sounds.with_noise(placed, kind, snr_db, seed)
        figures.add(shifted, listen(noisy, rules, judges, chunk_ms=chunk_ms))
    return figures


def other_sounds() -> Iterator[tuple[str, Sequence[Samples]]]:
    """Sounds in which nobody speaks to the assistant, by kind."""
    yield "cough", [_placed(sounds.cough(seed)) for seed in range(30)]
    yield "door", [_placed(sounds.door_slam(seed)) for seed in range(30)]
    yield "typing", [_placed(sounds.key_clicks(seed)) for seed in range(10)]
    for kind, snr_db in BACKGROUNDS[1:]:
        silence = np.zeros(20 * SAMPLE_RATE_HZ, np.float32)
        yield (
            f"{kind} noise, {snr_db:g} dB below speech",
            [sounds.with_noise(silence, kind, snr_db, seed) for seed in range(3)],
        )
    yield (
        "the assistant's echo, 20 dB below speech",
        [_placed(sounds.echo(utterance.samples)) for utterance in sounds.robot_utterances()[:10]],
    )


def over_echo(gain_db: float, rules: VadRules, judges: ThoroughJudges) -> str:
    """Let users speak, and then over the assistant's echo: false starts, misses and latency."""
    assistant = np.concatenate([sounds.spoken(text, "en-us+f2") for text in sounds.CHATTER])
    alone = sounds.echo(assistant, gain_db=gain_db)
    false, total = 0, Speech()
    users = [*sounds.human_utterances()[3:], *sounds.robot_utterances()]
    for first, second in pairwise(users):
        before = sounds.after_silence(first.samples, before_s=1)
        began_ms = len(before) * 1000 / SAMPLE_RATE_HZ
        over = alone.copy()
        over[_INTO_ECHO : _INTO_ECHO + len(second.samples)] += second.samples[: len(over) - _INTO_ECHO]
        heard = listen(np.concatenate((before, over)), rules, judges, audible_from_ms=began_ms)
        onset_ms = began_ms + (_INTO_ECHO + second.onset) * 1000 / SAMPLE_RATE_HZ
        end_ms = began_ms + (_INTO_ECHO + second.end) * 1000 / SAMPLE_RATE_HZ
        total.count += 1
        started = [start for start in heard.starts_ms if start >= onset_ms - EARLY_MS]
        total.missed += not started or started[0] > end_ms
        total.latencies_ms += [start - onset_ms for start in started[:1] if start <= end_ms]
        false += sum(began_ms < start < onset_ms - EARLY_MS for start in heard.starts_ms)
    return f"{total.count} | {false} | {total.missed} | {quantiles(total.latencies_ms)}"


def costly_sounds() -> Iterator[tuple[str, Samples]]:
    """Half a minute or more of each kind of sound that makes a difference in CPU time."""
    silence = np.zeros(30 * SAMPLE_RATE_HZ, np.float32)
    yield "silence", silence
    yield "pink noise, 20 dB below speech", sounds.with_noise(silence, "pink", 20)
    yield "the assistant's echo, 20 dB below speech", sounds.echo(load("two_cities"))
    yield "speech without end", load("two_cities")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.turn_taking")
    parser.add_argument("part", nargs="?", choices=("detector", "sessions"), help="both, where none is named")
    part = parser.parse_args().part
    rules, judges = VadRules(), ThoroughJudges()
    print(rules)
    if part != "sessions":
        _print_detector(rules, judges)
    if part != "detector":
        print_tables(rules, judges)


def _print_detector(rules: VadRules, judges: ThoroughJudges) -> None:
    print(
        "| speech | background | chunk | utterances | missed | early | start p50/p95 ms | stop p50/p95 ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for chunk_ms in (CHUNK_MS, 20):
        for kind, snr_db in BACKGROUNDS:
            background = f"{kind}, {snr_db:g} dB" if kind else "none"
            for name, utterances in _speakers():
                figures = speech_in(utterances, kind, snr_db, rules, judges, chunk_ms)
                print(f"| {name} | {background} | {chunk_ms} | {figures} |", flush=True)
    print("\n| sound | heard | false starts | minutes |\n|---|---|---|---|")
    for name, samples in other_sounds():
        heard = [listen(sound, rules, judges) for sound in samples]
        seconds = sum(map(len, samples)) / SAMPLE_RATE_HZ
        false = sum(len(each.starts_ms) for each in heard)
        print(f"| {name} | {len(heard)} | {false} | {seconds / 60:.1f} |", flush=True)
    print("\n| echo | interruptions | false starts | missed | latency p50/p95 ms |\n|---|---|---|---|---|")
    for gain_db in (-16, -20, -26):
        print(f"| {gain_db} dB | {over_echo(gain_db, rules, judges)} |", flush=True)
    print("\n| sound | CPU ms per second | longest chunk, ms |\n|---|---|---|")
    for name, sound in costly_sounds():
        cost = listen(sound, rules, judges)
        per_second_ms = cost.cpu_ms * SAMPLE_RATE_HZ / len(sound)
        print(f"| {name} | {per_second_ms:.2f} | {cost.longest_ms:.2f} |")


def _speakers() -> Iterator[tuple[str, Sequence[Utterance]]]:
    yield "people", sounds.human_utterances()
    yield "eSpeak", sounds.robot_utterances()
    yield "back-channels", tuple(sounds.back_channels())


def _placed(sound: Samples) -> Samples:
    return sounds.after_silence(sound, before_s=BEFORE_S)


if __name__ == "__main__":
    main()
