"""Sessions' sound on disk: what each microphone sent, and what was heard of the assistant.

One task of the process mixes and writes for all sessions, in a thread, what has piled up since it last
looked. To note something is a plain call that never waits. When the disk is so slow that too much audio
waits, further audio becomes silence. A fault of the disk ends a recording, nothing else.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.effects import Configured, Effect, TurnEnded, TurnInterrupted, TurnPaused, TurnResumed
from voice_fsm.fsm.events import AnyEvent, PlaybackProgress
from voice_fsm.recording.sound import RATE_HZ, Heard, Note, Over, Reported, Sent, SessionSound, Told, is_plain
from voice_fsm.runtime.outgoing import AudioChunk
from voice_fsm.runtime.recorder_files import create_file
from voice_fsm.runtime.sound_files import FRAME_BYTES, UNFINISHED, append_sound, finish_sound

log = structlog.get_logger()

MAX_WAITING_BYTES: Final = 64_000_000
"""Audio of all sessions that may wait for the thread."""
GATHER_S: Final = 0.25
"""How long notes pile up before they are worked on."""
GOODBYE_S: Final = 5.0
"""How long the last of them may take when the server stops."""


@attrs.frozen(kw_only=True)
class SoundConfig:
    """Where to record sound, and how much."""

    directory: Path
    max_s: float = 3600.0
    """Where a recording ends, though its session goes on."""


@asynccontextmanager
async def open_sound_recorder(config: SoundConfig) -> AsyncIterator["SoundRecorder"]:
    """Record to files in a directory that exists; leaving writes what waits."""
    recorder = SoundRecorder(config)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.write)
        try:
            yield recorder
        finally:
            recorder.finish()
            with trio.move_on_after(GOODBYE_S, shield=True):
                await recorder.written.wait()
            nursery.cancel_scope.cancel(reason="nobody is recorded any more")


class SoundTape:
    """One session's sound on its way to its file."""

    def __init__(self, recorder: "SoundRecorder", opened_s: float) -> None:
        self.sound = SessionSound(opened_s)
        self.started = datetime.now(UTC)
        self.session_id: str | None = None
        self.path: Path | None = None
        self.pcm_bytes = 0
        """In the file."""
        self.is_over = False
        """Nothing more is written; the session may go on."""
        self._recorder = recorder
        self._has_warned = False

    def heard(self, at_s: float, audio: bytes, audio_format: AudioFormat) -> None:
        """Keep whole samples of the microphone, if there is room for them."""
        if self._recorder.has_room(len(audio)):
            self._recorder.put(self, Heard(at_s, audio, audio_format), len(audio))

    def sent(self, at_s: float, chunk: AudioChunk) -> None:
        """Keep what went to the client, or its length."""
        audio_format, size = chunk.output_format, len(chunk.data)
        self._warn_if_compressed(audio_format)
        is_kept = is_plain(audio_format) and self._recorder.has_room(size)
        audio = chunk.data if is_kept else None
        note = Sent(at_s, chunk.turn_id, audio, audio_format, audio_format.duration_ms(size))
        self._recorder.put(self, note, size if is_kept else 0)

    def stepped(self, event: AnyEvent, effects: Iterable[Effect]) -> None:
        """Keep what decides how much of a turn is heard."""
        at_s = event.at_s
        if isinstance(event, PlaybackProgress):
            self._recorder.put(self, Reported(at_s, event.turn_id, event.played_ms), 0)
        for effect in effects:
            match effect:
                case TurnPaused() | TurnResumed() | TurnInterrupted() | TurnEnded():
                    self._recorder.put(self, Told(at_s, effect), 0)
                case Configured(session_id):
                    self.session_id = self.session_id or session_id
                case _:
                    pass

    def close(self, at_s: float) -> None:
        """The session is over."""
        self._recorder.put(self, Over(at_s), 0)

    def _warn_if_compressed(self, audio_format: AudioFormat) -> None:
        if not is_plain(audio_format) and not self._has_warned:
            self._has_warned = True
            log.warning("assistant_not_recorded", format=str(audio_format))


class SoundRecorder:
    """Writes stereo WAV files, one a session."""

    def __init__(
        self, config: SoundConfig, *, max_waiting_bytes: int = MAX_WAITING_BYTES, gather_s: float = GATHER_S
    ) -> None:
        self._config = config
        self._max_waiting_bytes = max_waiting_bytes
        self._gather_s = gather_s
        self._waiting: list[tuple[SoundTape, Note]] = []
        self._waiting_bytes = 0
        self._finished = False
        self._writer = trio.lowlevel.ParkingLot()
        self._thread = trio.CapacityLimiter(1)
        self.written = trio.Event()
        """Set when all is on disk that was noted before `finish`."""

    def tape(self, opened_s: float) -> SoundTape:
        """Begin the recording of a session; its file is made when there is sound."""
        return SoundTape(self, opened_s)

    def has_room(self, size_bytes: int) -> bool:
        """Whether so much audio more may wait."""
        return self._waiting_bytes + size_bytes <= self._max_waiting_bytes

    def put(self, tape: SoundTape, note: Note, size_bytes: int) -> None:
        """Have a note worked on."""
        if not tape.is_over and not self._finished:
            self._waiting.append((tape, note))
            self._waiting_bytes += size_bytes
            self._writer.unpark()

    def finish(self) -> None:
        """Take nothing more."""
        self._finished = True
        self._writer.unpark()

    async def write(self) -> None:
        """Write what is noted, until all is written after `finish`."""
        while self._waiting or not self._finished:
            if not self._waiting:
                await self._writer.park()
            await trio.sleep(self._gather_s)
            batch, self._waiting = self._waiting, []
            batch_bytes = self._waiting_bytes
            await trio.to_thread.run_sync(self._write_batch, batch, limiter=self._thread)
            self._waiting_bytes -= batch_bytes
        self.written.set()

    # --- in the thread ------------------------------------------------------------------------------

    def _write_batch(self, batch: list[tuple[SoundTape, Note]]) -> None:
        notes: dict[SoundTape, list[Note]] = {}
        for tape, note in batch:
            notes.setdefault(tape, []).append(note)
        for tape, of_tape in notes.items():
            if not tape.is_over:
                try:
                    for note in of_tape:
                        tape.sound.take(note)
                    self._write_sound(tape)
                except Exception:  # a fault of a recording must not reach the sessions
                    log.exception("recording_failed", file=str(tape.path))
                    _end(tape)

    def _write_sound(self, tape: SoundTape) -> None:
        if not tape.sound.has_begun:
            tape.is_over = tape.sound.is_over
            return
        max_bytes = int(self._config.max_s * RATE_HZ) * FRAME_BYTES
        for block in tape.sound.blocks():
            if tape.path is None:
                tape.path = create_file(self._config.directory, tape.started, tape.session_id, UNFINISHED)
            pcm = block[: max_bytes - tape.pcm_bytes]
            append_sound(tape.path, tape.pcm_bytes, pcm)
            tape.pcm_bytes += len(pcm)
            if tape.pcm_bytes == max_bytes:
                _end(tape)
                return
        if tape.sound.is_over:
            _end(tape)


def _end(tape: SoundTape) -> None:
    """Write no more; what is there can be found, unless it was removed."""
    tape.is_over = True
    if tape.path is not None:
        with suppress(OSError):
            finish_sound(tape.path)
