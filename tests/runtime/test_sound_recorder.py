"""Sessions' sound on disk: what is written, and that neither the disk nor a client can make it too much."""

import threading
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio

from tests.fakes.scripted import RecordingDoor, ScriptedChat, ScriptedStt, ScriptedTts
from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.effects import Configured
from voice_fsm.fsm.events import Configure, Interrupt, PlaybackProgress, TextPrompt
from voice_fsm.fsm.options import SessionOptions, SttOptions, TtsOptions
from voice_fsm.recording.sound import RATE_HZ
from voice_fsm.runtime.outgoing import AudioChunk
from voice_fsm.runtime.recorder_files import RecorderConfig, tidy
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.runtime.sound_files import SoundArchive, append_sound
from voice_fsm.runtime.sound_recorder import SoundConfig, SoundRecorder, SoundTape, open_sound_recorder

PCM = AudioFormat("pcm", RATE_HZ)
OPTIONS = SessionOptions(stt=SttOptions(audio_format=PCM), tts=TtsOptions(output_format=PCM))
SECOND = bytes([1, 1]) * RATE_HZ


@asynccontextmanager
async def recording_to(
    directory: Path, *, max_waiting_bytes: int = 10_000_000, max_s: float = 100
) -> AsyncIterator[SoundRecorder]:
    """A recorder that waits for nothing; leaving writes all."""
    config = SoundConfig(directory=directory, max_s=max_s)
    recorder = SoundRecorder(config, max_waiting_bytes=max_waiting_bytes, gather_s=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.write)
        yield recorder
        recorder.finish()


def tape_of(recorder: SoundRecorder, session_id: str = "s1") -> SoundTape:
    tape = recorder.tape(0.0)
    event = Configure(at_s=0.0, session_id=session_id, options=OPTIONS)
    tape.stepped(event, [Configured(session_id, OPTIONS)])
    return tape


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def channels(path: Path) -> tuple[list[int], list[int]]:
    """Left and right, of a file that has the format it says and the length it says."""
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE_HZ)
        pcm = file.readframes(file.getnframes() + 1)
    assert path.stat().st_size == 44 + len(pcm)
    frames = np.frombuffer(pcm, "<i2").reshape(-1, 2)
    return frames[:, 0].tolist(), frames[:, 1].tolist()


def frame_count(path: Path) -> int:
    """What the header says, once there is one."""
    if not path.stat().st_size:
        return 0
    with wave.open(str(path), "rb") as file:
        return file.getnframes()


def only(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


def with_suffix(directory: Path, suffix: str) -> list[Path]:
    return list(directory.glob(f"*{suffix}"))


def sizes(directory: Path) -> dict[str, int]:
    """By the session's id."""
    return {path.name.split("_")[1]: path.stat().st_size for path in directory.iterdir()}


async def written(directory: Path, suffix: str) -> Path:
    """The file of this kind, once there is one."""
    with trio.fail_after(5):
        while not (found := with_suffix(directory, suffix)):
            await trio.sleep(0.005)
    return found[0]


async def test_a_session_is_kept_as_it_sounded(tmp_path: Path, autojump_clock: trio.abc.Clock) -> None:
    """Both sides on the session's clock, the reply as far as its client says; for the owner alone."""
    async with recording_to(tmp_path) as recorder:

        async def act(session: VoiceSession) -> None:
            await trio.sleep(0.5)
            session.configure("call/../7", OPTIONS)
            await trio.sleep(0.5)
            session.hear(SECOND[: RATE_HZ // 2 * 2])
            session.step(TextPrompt(at_s=trio.current_time(), text="Go on."))
            await trio.sleep(1.25)
            session.step(Interrupt(at_s=trio.current_time()))
            await trio.sleep(0.25)
            session.step(PlaybackProgress(at_s=trio.current_time(), turn_id=1, played_ms=1000))
            await trio.sleep(0.5)

        services = Services(
            stt=ScriptedStt(),
            chat=ScriptedChat(lambda _: ["Once upon a time there was a queen."]),
            tts=ScriptedTts(ms_per_char=100),
            sound_recorder=recorder,
        )
        await VoiceSession(services, RecordingDoor(act)).run()
    path = only(tmp_path)
    assert "_call----7_" in path.name
    assert path.name.endswith(".wav")
    assert path.stat().st_mode & 0o777 == 0o600
    left, right = channels(path)
    assert len(left) == 3 * RATE_HZ
    assert np.flatnonzero(left)[[0, -1]].tolist() == [RATE_HZ // 2, RATE_HZ - 1]
    assert np.flatnonzero(right)[[0, -1]].tolist() == [RATE_HZ, 2 * RATE_HZ - 1]
    assert np.count_nonzero(right) == RATE_HZ


async def test_what_was_noted_is_written_when_the_server_stops(tmp_path: Path) -> None:
    """Leaving waits for it."""
    async with open_sound_recorder(SoundConfig(directory=tmp_path)) as recorder:
        tape = tape_of(recorder)
        tape.heard(1.0, SECOND, PCM)
        tape.close(2.0)
    assert len(channels(only(tmp_path))[0]) == 2 * RATE_HZ


async def test_a_session_without_sound_leaves_no_file(tmp_path: Path) -> None:
    """There is nothing to hear."""
    async with recording_to(tmp_path) as recorder:
        tape_of(recorder).close(100.0)
    assert names(tmp_path) == []


async def test_a_long_session_is_written_while_it_runs(tmp_path: Path) -> None:
    """A file that can be played at any time, under a name of its own until it is whole."""
    async with recording_to(tmp_path) as recorder:
        tape = tape_of(recorder)
        tape.heard(1.0, SECOND, PCM)
        tape.heard(30.0, SECOND, PCM)
        path = await written(tmp_path, ".wav.part")
        await trio.testing.wait_all_tasks_blocked()
        while frame_count(path) < 18 * RATE_HZ:  # its header is written after what it tells of
            await trio.sleep(0.005)
        left, _ = channels(path)
        assert np.flatnonzero(left)[[0, -1]].tolist() == [0, RATE_HZ - 1]
        tape.close(31.0)
    left, _ = channels(only(tmp_path))
    assert len(left) == 31 * RATE_HZ


async def test_a_recording_ends_where_it_may_not_grow(tmp_path: Path) -> None:
    """The session goes on, and what there is can be found."""
    async with recording_to(tmp_path, max_s=2.5) as recorder:
        tape = tape_of(recorder)
        tape.heard(1.0, SECOND, PCM)
        tape.heard(50.0, SECOND, PCM)
        await written(tmp_path, ".wav")
        assert tape.is_over
        tape.heard(80.0, SECOND, PCM)
        tape.close(90.0)
    assert len(channels(only(tmp_path))[0]) == 2.5 * RATE_HZ


async def test_a_slow_disk_makes_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noting never waits; what finds no room is missing, and all else lies where it was heard."""
    disk = threading.Event()

    def slow_append(path: Path, before_bytes: int, pcm: bytes) -> None:
        disk.wait()
        append_sound(path, before_bytes, pcm)

    monkeypatch.setattr("voice_fsm.runtime.sound_recorder.append_sound", slow_append)
    async with recording_to(tmp_path, max_waiting_bytes=3 * len(SECOND)) as recorder:
        tape = tape_of(recorder)
        tape.heard(1.0, SECOND, PCM)
        tape.heard(15.0, SECOND, PCM)
        await written(tmp_path, ".wav.part")  # the writer is in its thread now
        for at_s in (20.0, 21.0):
            tape.sent(at_s, AudioChunk(1, PCM, SECOND))
            tape.heard(at_s, SECOND, PCM)
        disk.set()
        tape.close(23.0)
    left, right = channels(only(tmp_path))
    assert sorted({frame // RATE_HZ for frame in np.flatnonzero(left).tolist()}) == [0, 14]
    assert sorted({frame // RATE_HZ for frame in np.flatnonzero(right).tolist()}) == [20]
    assert len(right) == 23 * RATE_HZ


async def test_a_fault_of_the_disk_ends_one_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are written, and so are those that begin later."""

    def full(path: Path, before_bytes: int, pcm: bytes) -> None:
        if "_unlucky_" in path.name:
            raise OSError(28, "No space left on device")
        append_sound(path, before_bytes, pcm)

    monkeypatch.setattr("voice_fsm.runtime.sound_recorder.append_sound", full)
    async with recording_to(tmp_path) as recorder:
        for session_id in ("unlucky", "lucky"):
            tape = tape_of(recorder, session_id)
            tape.heard(1.0, SECOND, PCM)
            tape.close(2.0)
        tape = tape_of(recorder, "later")
        tape.heard(1.0, SECOND, PCM)
        tape.close(2.0)
    assert sizes(tmp_path) == {"unlucky": 0, "lucky": 44 + 8 * RATE_HZ, "later": 44 + 8 * RATE_HZ}


async def test_a_recording_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    """Who deletes a conversation that is still going on deletes its sound for good."""
    archive = SoundArchive(tmp_path)
    async with recording_to(tmp_path) as recorder:
        tape = tape_of(recorder)
        tape.heard(1.0, SECOND, PCM)
        tape.heard(30.0, SECOND, PCM)
        await written(tmp_path, ".wav.part")
        await archive.delete("s1")
        tape.close(31.0)
    assert names(tmp_path) == []


async def test_compressed_audio_is_silence_of_its_length(tmp_path: Path) -> None:
    """And it takes no memory."""
    mp3 = AudioFormat("mp3", 44100, 128)
    async with recording_to(tmp_path, max_waiting_bytes=0) as recorder:
        tape = tape_of(recorder)
        for at_s in (1.0, 1.1):
            tape.sent(at_s, AudioChunk(1, mp3, bytes(16_000)))
        tape.close(5.0)
    left, right = channels(only(tmp_path))
    assert not any(left + right)
    assert len(right) == 5 * RATE_HZ


async def test_nothing_is_kept_after_the_end(tmp_path: Path) -> None:
    """A session that outlives the recorder is not harmed."""
    async with recording_to(tmp_path) as recorder:
        tape = tape_of(recorder)
    tape.heard(1.0, SECOND, PCM)
    tape.close(2.0)
    assert names(tmp_path) == []


async def test_a_sound_is_found_by_its_session(tmp_path: Path) -> None:
    """The first of its id, once it is whole; no id can name anything else."""
    for name in (
        "20261121T120001Z_conv-1_aaaaaa.wav",
        "20261121T120000Z_conv-1_ffffff.wav",
        "20261121T120000Z_conv-12_ffffff.wav",
        "20261121T120000Z_conv-1_ffffff.jsonl",
        "20261121T120000Z_conv-2_ffffff.wav.part",
    ):
        (tmp_path / name).touch()
    archive = SoundArchive(tmp_path)
    found = await archive.find("conv_1")
    assert found is not None
    assert (found.path.name, found.size_bytes) == ("20261121T120000Z_conv-1_ffffff.wav", 0)
    for unknown in ("conv_2", "*", "conv_?", "", "../conv-1"):
        assert await archive.find(unknown) is None
    await archive.delete("conv_1")
    assert [name.split("_", 1)[1] for name in names(tmp_path)] == [
        "conv-12_ffffff.wav",
        "conv-1_ffffff.jsonl",
        "conv-2_ffffff.wav.part",
    ]


def test_old_sound_is_removed_with_the_rest(tmp_path: Path) -> None:
    """Whole or not."""
    for name in ("a.wav", "20261121T120000Z_s1_ffffff.wav", "20261121T120000Z_s1_ffffff.wav.part"):
        (tmp_path / name).touch()
    config = RecorderConfig(directory=tmp_path)
    assert tidy(config, (tmp_path / "a.wav").stat().st_mtime + 8 * 86_400) == 2
    assert names(tmp_path) == ["a.wav"]
