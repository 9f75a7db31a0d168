"""Files of sessions' sound: written while a session runs, found by its id once they are whole."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from voice_fsm.audio import WAV_HEADER_BYTES, AudioFormat, wav_header
from voice_fsm.recording.sound import CHANNELS, RATE_HZ
from voice_fsm.runtime.recorder_files import label

FORMAT: Final = AudioFormat("pcm", RATE_HZ)
FRAME_BYTES: Final = CHANNELS * FORMAT.bytes_per_sample

WHOLE: Final = ".wav"
UNFINISHED: Final = ".wav.part"
"""A WAV file as well, to which more is being added, or was when its process died."""


def append_sound(path: Path, before_bytes: int, pcm: bytes) -> None:
    """Add stereo PCM to a file that exists and has so much of it; then its header tells the new length.

    So it can be played meanwhile, as far as its header tells; the first thing in it is an empty one.

    Blocks: for a thread. The file is open only meanwhile.

    Raises:
        OSError: it cannot be written, or was removed.
    """
    with path.open("r+b") as file:
        if not before_bytes:
            file.write(wav_header(FORMAT, 0, CHANNELS))
        file.seek(WAV_HEADER_BYTES + before_bytes)
        file.write(pcm)
        file.seek(0)
        file.write(wav_header(FORMAT, before_bytes + len(pcm), CHANNELS))


def finish_sound(path: Path) -> None:
    """Give a file the name by which it is found.

    Raises:
        OSError: it was removed.
    """
    path.rename(path.with_name(path.name.removesuffix(UNFINISHED) + WHOLE))


@attrs.frozen
class StoredSound:
    """The sound of a session that is over."""

    path: Path
    size_bytes: int


@attrs.frozen
class SoundArchive:
    """The sound of sessions, by their ids."""

    directory: Path

    async def find(self, session_id: str) -> StoredSound | None:
        """Find the sound of a session that is over; of several with its id the first.

        Raises:
            OSError: the directory cannot be read.
        """
        return await trio.to_thread.run_sync(self._find, session_id)

    async def delete(self, session_id: str) -> None:
        """Remove the sound of the session of this id; one that is being recorded is recorded no further.

        Raises:
            OSError: it cannot be removed.
        """
        await trio.to_thread.run_sync(self._delete, session_id)

    def _find(self, session_id: str) -> StoredSound | None:
        for path in sorted(self._files(session_id, WHOLE)):
            with suppress(FileNotFoundError):  # removed meanwhile
                return StoredSound(path, path.stat().st_size)
        return None

    def _delete(self, session_id: str) -> None:
        for suffix in (UNFINISHED, WHOLE):
            for path in self._files(session_id, suffix):
                path.unlink(missing_ok=True)

    def _files(self, session_id: str, suffix: str) -> list[Path]:
        return list(self.directory.glob(f"*_{label(session_id)}_??????{suffix}"))
