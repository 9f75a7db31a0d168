"""The flight recorder: what each session's machine was told and asked for, on disk, off the event loop.

One task of the process writes for all sessions, in a thread, what has piled up since it last looked. To note
a step is a plain call that never waits: when the disk is so slow that `MAX_WAITING` steps wait, further ones
are dropped, and their number is written in their place. A fault of the disk ends a recording, nothing else.
"""

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, Protocol

import structlog
import trio

from voice_fsm.errors import ConfigError
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import CloseSession, Effect
from voice_fsm.fsm.events import AnyEvent, Configure
from voice_fsm.fsm.machine import Machine
from voice_fsm.fsm.session import Session
from voice_fsm.recording.codec import Codec
from voice_fsm.recording.lines import End, Header, Line, Lost, Step
from voice_fsm.runtime.recorder_files import RecorderConfig, append, create_file, make_directory, tidy

log = structlog.get_logger()

MAX_WAITING: Final = 4096
"""Steps of all sessions that may wait for the disk."""
GATHER_S: Final = 0.1
"""How long steps pile up before they are written: a thread for each would cost more than the writing."""
GOODBYE_S: Final = 5.0
"""How long the last steps may take when the server stops."""
TIDY_EVERY_S: Final = 60.0


class Tape(Protocol):
    """The recording of one session."""

    def note(self, step: Step) -> None:
        """Keep a step; never waits, never fails."""


class Recorder(Protocol):
    """Records the sessions of a process."""

    def tape(self, limits: Limits, opened_s: float) -> Tape:
        """Begin the recording of a session with these limits, opened now."""


class RecordedSession(Session):
    """A session that notes what goes into it and what comes out, also when it fails."""

    def __init__(self, limits: Limits, *, at_s: float, tape: Tape, machine: Machine | None = None) -> None:
        super().__init__(limits, at_s=at_s, machine=machine)
        self._tape = tape

    def receive(self, event: AnyEvent) -> tuple[Effect, ...]:
        """Take one event; give the effects to carry out, in order."""
        if self.state == "closed":
            return ()
        try:
            effects = super().receive(event)
        except Exception as error:
            self._tape.note(Step(event=event, raised=type(error).__name__))
            raise
        self._tape.note(Step(event=event, effects=effects))
        return effects


def open_session(limits: Limits, machine: Machine, recorder: Recorder | None) -> Session:
    """Make the core of a session, recorded if there is a recorder."""
    now_s = trio.current_time()
    if recorder is None:
        return Session(limits, at_s=now_s, machine=machine)
    return RecordedSession(limits, at_s=now_s, tape=recorder.tape(limits, now_s), machine=machine)


@asynccontextmanager
async def open_recorder(config: RecorderConfig) -> AsyncIterator["DiskRecorder"]:
    """Record to files; leaving writes what waits.

    Raises:
        ConfigError: the directory cannot be made or written to.
    """
    try:
        await trio.to_thread.run_sync(make_directory, config.directory)
    except OSError as error:
        raise ConfigError("RECORD_DIR", f"cannot be written to ({error.strerror})") from error
    recorder = DiskRecorder(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.write)
        try:
            yield recorder
        finally:
            recorder.finish()
            with trio.move_on_after(GOODBYE_S, shield=True):
                await recorder.written.wait()
            nursery.cancel_scope.cancel(reason="nobody is recorded any more")


class DiskTape:
    """One session's recording on its way to its file."""

    def __init__(
        self, limits: Limits, opened_s: float, steps: "trio.MemorySendChannel[tuple[DiskTape, int, Step]]"
    ) -> None:
        self.limits = limits
        self.opened_s = opened_s
        self.started = datetime.now(UTC)
        self.path: Path | None = None
        self.size_bytes = 0
        self.is_over = False
        """Nothing more is written; the session may go on."""
        self._steps = steps
        self._lost = 0

    def note(self, step: Step) -> None:
        """Keep a step, or count it as lost."""
        try:
            self._steps.send_nowait((self, self._lost, step))
            self._lost = 0
        except trio.WouldBlock:
            self._lost += 1
        except trio.ClosedResourceError:
            pass  # the server has stopped, and cuts this session off


class DiskRecorder:
    """Writes JSON lines, a file a session."""

    def __init__(
        self, config: RecorderConfig, *, max_waiting: int = MAX_WAITING, gather_s: float = GATHER_S
    ) -> None:
        self._config = config
        self._gather_s = gather_s
        self._codec = Codec(config.text)
        self._steps, self._waiting = trio.open_memory_channel[tuple[DiskTape, int, Step]](max_waiting)
        self._thread = trio.CapacityLimiter(1)
        self._tidied_s = -math.inf
        self.written = trio.Event()
        """Set when all is on disk that was noted before `finish`."""

    def tape(self, limits: Limits, opened_s: float) -> DiskTape:
        """Begin the recording of a session; its file is made with the first step."""
        return DiskTape(limits, opened_s, self._steps)

    def finish(self) -> None:
        """Take nothing more."""
        self._steps.close()

    async def write(self) -> None:
        """Write what is noted, until all is written after `finish`."""
        async for first in self._waiting:
            await trio.sleep(self._gather_s)
            batch = [first]
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    batch.append(self._waiting.receive_nowait())
            await trio.to_thread.run_sync(self._write_batch, batch, limiter=self._thread)
            if trio.current_time() - self._tidied_s >= TIDY_EVERY_S:
                self._tidied_s = trio.current_time()
                await trio.to_thread.run_sync(self._tidy, limiter=self._thread)
        self.written.set()

    # --- in the thread ------------------------------------------------------------------------------

    def _write_batch(self, batch: Sequence[tuple[DiskTape, int, Step]]) -> None:
        lines: dict[DiskTape, list[Line]] = {}
        for tape, lost_before, step in batch:
            of_tape = lines.setdefault(tape, [])
            of_tape += [Lost(lost_before), step] if lost_before else [step]
        for tape, of_tape in lines.items():
            if not tape.is_over:
                try:
                    self._append(tape, of_tape)
                except Exception:  # a fault of a recording must not reach the sessions
                    tape.is_over = True
                    log.exception("recording_failed", file=str(tape.path))

    def _append(self, tape: DiskTape, lines: Sequence[Line]) -> None:
        if tape.path is None:
            header = self._header(tape, lines[0])
            tape.path = create_file(self._config.directory, tape.started, header.session_id)
            lines = [header, *lines]
        append(tape.path, "".join(self._texts(tape, lines)))

    def _texts(self, tape: DiskTape, lines: Sequence[Line]) -> Iterator[str]:
        """The lines up to the last that the file shall hold."""
        for line in lines:
            text = self._codec.encode(line)
            tape.size_bytes += len(text)
            if tape.size_bytes > self._config.max_file_bytes:
                text, tape.is_over = self._codec.encode(End("size_limit")), True
            yield text
            if _closes(line) and not tape.is_over:
                tape.is_over = True
                yield self._codec.encode(End("closed"))
            if tape.is_over:
                return

    def _header(self, tape: DiskTape, first: Line) -> Header:
        event = first.event if isinstance(first, Step) else None
        return Header(
            voice_fsm=version("voice-fsm"),
            started=tape.started.isoformat(timespec="milliseconds"),
            opened_s=tape.opened_s,
            session_id=event.session_id if isinstance(event, Configure) else None,
            text=self._config.text,
            limits=tape.limits,
        )

    def _tidy(self) -> None:
        with suppress(OSError):
            removed = tidy(self._config, datetime.now(UTC).timestamp())
            if removed:
                log.info("recordings_removed", files=removed)


def _closes(line: Line) -> bool:
    return isinstance(line, Step) and any(isinstance(effect, CloseSession) for effect in line.effects)
