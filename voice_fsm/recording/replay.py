"""The proof: the same machine, stepped through the same events, gives the same effects."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import attrs

from voice_fsm.fsm.session import Session
from voice_fsm.recording.codec import TAG, Codec
from voice_fsm.recording.lines import Lost, Step
from voice_fsm.recording.reading import CODECS, Recording

_SHOWN_CHARS: Final = 200
_NOTHING: Final = object()
"""Stands for the value of a field that is not there."""


@attrs.frozen(kw_only=True)
class Difference:
    """The first thing that came out otherwise. What follows it would differ as a consequence."""

    line: int
    """Of the file."""
    at_s: float
    """Since the session opened."""
    event: str
    what: str
    """A sentence."""


@attrs.frozen(kw_only=True)
class Proof:
    """How a replay went."""

    steps: int
    """How many gave the same effects."""
    effects: int
    unproved: int
    """Steps after the first that is missing: what state they met is not known."""
    difference: Difference | None
    is_redacted: bool

    @property
    def holds(self) -> bool:
        """Whether every step gave the same effects."""
        return self.difference is None and not self.unproved

    def summary(self) -> str:
        """The verdict in a sentence or two."""
        same = f"{self.steps} steps, {self.effects} effects: the same came out again."
        if self.difference is not None:
            found = self.difference
            where = f"on {found.event} at {found.at_s:.3f} s (line {found.line})"
            perhaps = "\nTexts are redacted: a rule that knows words may be why." if self.is_redacted else ""
            return f"{same}\nThen it differs: {where}, {found.what}.{perhaps}"
        if self.unproved:
            return f"{same}\n{self.unproved} steps after the first missing one could not be proved."
        return same


def replay(recording: Recording) -> Proof:
    """Step a new machine through the recording, up to the first difference or the first missing step."""
    header, codec = recording.header, CODECS[recording.header.text]
    verdict = partial(Proof, is_redacted=header.text == "redacted")
    session = Session(header.limits, at_s=header.opened_s)
    steps = effects = 0
    for number, line in enumerate(recording.lines, start=2):
        if isinstance(line, Lost):
            break
        what = _differs(codec, line, _step(session, line))
        if what:
            difference = Difference(
                line=number,
                at_s=line.event.at_s - header.opened_s,
                event=type(line.event).__name__,
                what=what,
            )
            return verdict(steps=steps, effects=effects, unproved=0, difference=difference)
        steps += 1
        effects += len(line.effects)
    all_steps = sum(isinstance(line, Step) for line in recording.lines)
    return verdict(steps=steps, effects=effects, unproved=all_steps - steps, difference=None)


def _step(session: Session, step: Step) -> Step:
    try:
        return Step(event=step.event, effects=session.receive(step.event))
    except Exception as error:  # noqa: BLE001  # whatever the machine fails with is what is compared
        return Step(event=step.event, raised=type(error).__name__)


def _differs(codec: Codec, recorded: Step, now: Step) -> str | None:
    """What is not the same, in words."""
    if recorded.raised != now.raised:
        return f"the machine {_failed(recorded)} then, and {_failed(now)} now"
    before = codec.document(recorded)["effects"]
    after = codec.document(now)["effects"]
    for number, (old, new) in enumerate(zip(before, after, strict=False), start=1):
        if old != new:
            return f"effect {number}, {_unlike(old, new)}"
    if len(before) > len(after):
        return f"effect {len(after) + 1}, {before[len(after)][TAG]}, does not come any more"
    if len(before) < len(after):
        return f"effect {len(before) + 1}, {after[len(before)][TAG]}, is new"
    return None


def _failed(step: Step) -> str:
    return f"failed with {step.raised}" if step.raised else "did not fail"


def _unlike(old: dict[str, Any], new: dict[str, Any]) -> str:
    if old[TAG] != new[TAG]:
        return f"was {old[TAG]} and is {new[TAG]}"
    return f"{old[TAG]}: {_first_unlike(old, new, ())}"


def _first_unlike(old: object, new: object, path: Sequence[str]) -> str:
    """The way to the first value that differs, and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *new]:
            if old.get(key, _NOTHING) != new.get(key, _NOTHING):
                return _first_unlike(old.get(key, _NOTHING), new.get(key, _NOTHING), [*path, key])
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            if one != other:
                return _first_unlike(one, other, [*path, str(index)])
    return f"{'.'.join(path)} was {_shown(old)} and is {_shown(new)}"


def _shown(value: object) -> str:
    text = "missing" if value is _NOTHING else repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
