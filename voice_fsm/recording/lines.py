"""The lines of a recording.

A file begins with a `Header`. Then comes a `Step` for each event, with the effects that the machine gave,
and a `Lost` where the disk could not keep up. `End` is the last line, unless the session was cut off, the
process died, or both still run.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import Effect
from voice_fsm.fsm.events import AnyEvent

FORMAT: Final = 1
"""Raised when an older reader would misunderstand a line. New events and effects leave it as it is."""

TextKept = Literal["plain", "redacted"]


@attrs.frozen(kw_only=True)
class Header:
    """What has to be known to step the machine again."""

    format: int = FORMAT
    voice_fsm: str
    """Version of the package that wrote the file."""
    started: str
    """Wall-clock time at which the session opened, ISO 8601 in UTC."""
    opened_s: float
    """The same moment on the clock of the events' ``at_s``."""
    session_id: str | None
    """As it was when the file was opened; ``None`` for a session that was not configured yet."""
    text: TextKept
    limits: Limits


@attrs.frozen
class ForeignEffect:
    """An effect of another version, which this one cannot read; so it does not come out any more."""

    document: Mapping[str, Any]


RecordedEffect = Effect | ForeignEffect


@attrs.frozen(kw_only=True)
class Step:
    """One event, and what the machine asked for."""

    event: AnyEvent
    effects: tuple[RecordedEffect, ...] = ()
    raised: str | None = None
    """The class of the exception, if the machine failed."""


@attrs.frozen
class Lost:
    """So many steps are missing here: the disk was too slow."""

    steps: int


@attrs.frozen
class End:
    """Nothing follows, and why."""

    reason: Literal["closed", "size_limit"]


Line = Header | Step | Lost | End
