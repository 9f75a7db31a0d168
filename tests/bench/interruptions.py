"""What becomes of replies into which users speak, cough and hum: scenes in the `room`, and tables of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Final

import attrs
import numpy as np

from tests.bench import sounds
from tests.bench.room import Outcome, Scene, witness
from tests.bench.sounds import NoiseKind, Utterance
from voice_fsm.fsm.options import TurnOptions
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, Samples
from voice_fsm.vad.engines import ThoroughJudges
from voice_fsm.vad.hysteresis import VadRules

_AFTER_END_MS: Final = 1000.0
"""An interruption that stops the reply so long after it was over has been missed."""
_NO_FILTERS: Final = TurnOptions(backchannels="interrupt", echo_filter=False)

POLICIES: Final[Mapping[str, TurnOptions]] = {
    "partial, no filters": _NO_FILTERS,
    "partial": TurnOptions(),
    "vad at once, no filters": attrs.evolve(_NO_FILTERS, barge_in="vad", decide_within_ms=0),
    "vad": TurnOptions(barge_in="vad"),
    "vad, pausable": TurnOptions(barge_in="vad", pausable=True),
}
"""``decide_within_ms=0``: the detector's word stops the reply, there is no second stage."""
BACKGROUNDS: Final[Sequence[tuple[NoiseKind | None, float]]] = (
    (None, 0),
    ("white", 20),
    ("white", 10),
    ("pink", 20),
    ("pink", 10),
    ("babble", 20),
    ("babble", 10),
)


# --- scenes -----------------------------------------------------------------------------------------


def interruptions(
    background: NoiseKind | None, snr_db: float, echo_db: float | None = None
) -> Iterator[Scene]:
    """Users who have something to say."""
    for speakers in (sounds.human_utterances(), sounds.robot_utterances()):
        for number, said in enumerate(speakers):
            yield Scene(
                name=said.name,
                first=_before(speakers, number),
                sound=said.samples,
                text=said.text,
                onset=said.onset if background is None else said.onset_in(snr_db),
                end=said.end,
                background=background,
                snr_db=snr_db,
                echo_db=echo_db,
                seed=number,
            )


def other_sounds(background: NoiseKind | None, snr_db: float) -> Iterator[tuple[str, Sequence[Scene]]]:
    """What is not meant to interrupt, by kind."""
    listening = tuple(sounds.back_channels())
    yield "back-channel", list(_scenes([each.samples for each in listening], background, snr_db, listening))
    yield "cough", list(_scenes(map(sounds.cough, range(30)), background, snr_db))
    yield "door", list(_scenes(map(sounds.door_slam, range(30)), background, snr_db))
    yield "typing", list(_scenes(map(sounds.key_clicks, range(10)), background, snr_db))


def nothing(background: NoiseKind | None, snr_db: float, echo_db: float | None = None) -> Iterator[Scene]:
    """Ten seconds of the reply in which nobody speaks."""
    quiet = [np.zeros(10 * SAMPLE_RATE_HZ, np.float32)] * 10
    return (attrs.evolve(scene, echo_db=echo_db) for scene in _scenes(quiet, background, snr_db))


def _scenes(
    heard: Iterable[Samples],
    background: NoiseKind | None,
    snr_db: float,
    spoken: Iterable[Utterance | None] = cycle([None]),
) -> Iterator[Scene]:
    users = sounds.human_utterances()
    for number, (sound, said) in enumerate(zip(heard, spoken, strict=False)):
        yield Scene(
            name=str(number),
            first=users[4 + number % 8],
            sound=sound,
            text=said.text if said else "",
            end=said.end if said else len(sound),
            background=background,
            snr_db=snr_db,
            seed=number,
        )


def _before(speakers: Sequence[Utterance], number: int) -> Utterance:
    """What the same speaker says before: a short one."""
    return min(speakers[max(0, number - 3) : number + 4], key=lambda each: len(each.samples))


# --- figures ----------------------------------------------------------------------------------------


@attrs.define
class Figures:
    """Of all scenes of a kind."""

    count: int = 0
    stopped: int = 0
    """Replies that were stopped in time."""
    before: int = 0
    stale: int = 0
    silent_ms: list[float] = attrs.field(factory=list)
    last_audio_ms: list[float] = attrs.field(factory=list)
    stopped_ms: list[float] = attrs.field(factory=list)
    pauses_ms: list[float] = attrs.field(factory=list)

    def add(self, scene: Scene, outcome: Outcome) -> None:
        """Count one outcome."""
        lasted_ms = (scene.end - scene.onset) / SAMPLE_RATE_HZ * 1000
        self.count += 1
        self.before += outcome.before
        self.stale += outcome.stale
        self.pauses_ms += outcome.pauses_ms
        if outcome.stopped_ms is None or outcome.stopped_ms > lasted_ms + _AFTER_END_MS:
            return
        self.stopped += 1
        if not outcome.before and outcome.silent_ms is not None and outcome.last_audio_ms is not None:
            self.silent_ms.append(outcome.silent_ms)
            self.last_audio_ms.append(outcome.last_audio_ms)
            self.stopped_ms.append(outcome.stopped_ms)


def watch(
    scenes: Iterable[Scene], turn: TurnOptions, rules: VadRules, judges: ThoroughJudges, *, chunk_ms: int = 20
) -> Figures:
    """Figures of these scenes."""
    figures = Figures()
    for scene in scenes:
        figures.add(scene, witness(scene, turn, rules, judges, chunk_ms=chunk_ms))
    return figures


def print_tables(rules: VadRules, judges: ThoroughJudges) -> None:
    """All figures of whole sessions."""
    heads = "sent / silent / stopped p50/p95 ms | pauses before | stale"
    print(f"\n| barge-in | background | chunk ms | interruptions | missed | {heads} |")  # noqa: T201  # a command
    print("|---" * 8 + "|")  # noqa: T201
    for policy, turn in POLICIES.items():
        for kind, snr_db in BACKGROUNDS:
            _print_interruptions(
                policy, turn, _named(kind, snr_db), interruptions(kind, snr_db), rules, judges
            )
        echoed = interruptions(None, 0, echo_db=-20)
        _print_interruptions(policy, turn, "echo, -20 dB", echoed, rules, judges)
    for chunk_ms in (40, 100):
        for kind, snr_db in (BACKGROUNDS[0], BACKGROUNDS[4]):
            spoken = interruptions(kind, snr_db)
            turn = POLICIES["vad, pausable"]
            name = _named(kind, snr_db)
            _print_interruptions("vad, pausable", turn, name, spoken, rules, judges, chunk_ms=chunk_ms)
    print("\n| barge-in | background | sound | heard | stopped | resumed | pause p50/p95 ms |")  # noqa: T201
    print("|---" * 7 + "|")  # noqa: T201
    for policy, turn in POLICIES.items():
        for kind, snr_db in (BACKGROUNDS[0], BACKGROUNDS[4], BACKGROUNDS[6]):
            for name, scenes in other_sounds(kind, snr_db):
                _print_others(policy, turn, _named(kind, snr_db), name, watch(scenes, turn, rules, judges))
        for kind, snr_db in BACKGROUNDS[1:]:
            figures = watch(nothing(kind, snr_db), turn, rules, judges)
            _print_others(policy, turn, _named(kind, snr_db), "nothing, 10 s", figures)
        figures = watch(nothing(None, 0, echo_db=-20), turn, rules, judges)
        _print_others(policy, turn, "echo, -20 dB", "nothing, 10 s", figures)


def _print_interruptions(
    policy: str,
    turn: TurnOptions,
    background: str,
    scenes: Iterable[Scene],
    rules: VadRules,
    judges: ThoroughJudges,
    *,
    chunk_ms: int = 20,
) -> None:
    figures = watch(scenes, turn, rules, judges, chunk_ms=chunk_ms)
    cells = [
        policy,
        background,
        str(chunk_ms),
        str(figures.count),
        f"{1 - figures.stopped / figures.count:.0%}",
        " | ".join(map(quantiles, (figures.last_audio_ms, figures.silent_ms, figures.stopped_ms))),
        str(figures.before),
        str(figures.stale),
    ]
    print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201


def _print_others(policy: str, turn: TurnOptions, background: str, sound: str, figures: Figures) -> None:
    resumed = len(figures.pauses_ms) if turn.pausable else "-"
    share = f"{figures.stopped / figures.count:.0%}"
    cells = (policy, background, sound, figures.count, share, resumed, quantiles(figures.pauses_ms))
    print(f"| {' | '.join(map(str, cells))} |", flush=True)  # noqa: T201


def _named(kind: NoiseKind | None, snr_db: float) -> str:
    return f"{kind}, {snr_db:g} dB" if kind else "none"


def quantiles(values: Sequence[float]) -> str:
    """The median and the 95th percentile."""
    if not values:
        return "-"
    p50, p95 = np.percentile(values, (50, 95))
    return f"{p50:.0f} / {p95:.0f}"
