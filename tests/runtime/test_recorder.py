"""Sessions on disk: what is written, and that the disk cannot hurt a session."""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.fakes.scripted import RecordingDoor, ScriptedChat, ScriptedStt, ScriptedTts
from tests.recording.sessions import MemoryRecorder
from voice_fsm.errors import ConfigError
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.events import BadInput, Configure, Disconnect, Partial
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.fsm.session import Session
from voice_fsm.recording.lines import End, Lost
from voice_fsm.recording.reading import Recording, read_recording
from voice_fsm.recording.replay import replay
from voice_fsm.runtime.recorder import DiskRecorder, RecordedSession, open_recorder
from voice_fsm.runtime.recorder_files import RecorderConfig, append, tidy
from voice_fsm.runtime.session import Services, VoiceSession


@asynccontextmanager
async def recording_to(
    directory: Path, *, max_waiting: int = 100, **config: Any
) -> AsyncIterator[DiskRecorder]:
    """A recorder that waits for nothing; leaving writes all."""
    recorder = DiskRecorder(
        RecorderConfig(directory=directory, **config), max_waiting=max_waiting, gather_s=0
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.write)
        yield recorder
        recorder.finish()


def core(recorder: DiskRecorder) -> RecordedSession:
    limits = Limits(history_turns=7)
    return RecordedSession(limits, at_s=5.0, tape=recorder.tape(limits, 5.0))


def configure(session_id: str = "s1") -> Configure:
    return Configure(at_s=5.0, session_id=session_id, options=SessionOptions())


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def only(directory: Path) -> Recording:
    (path,) = files(directory)
    return read_recording(path.read_bytes())


async def test_a_session_leaves_a_file_that_can_be_proved(tmp_path: Path) -> None:
    """For its user alone, named by time and session; whole when the recorder has been left."""
    directory = tmp_path / "made" / "here"
    async with open_recorder(RecorderConfig(directory=directory)) as recorder:

        async def act(session: VoiceSession) -> None:
            session.configure("call/../7", SessionOptions())
            await trio.testing.wait_all_tasks_blocked()

        services = Services(stt=ScriptedStt(), chat=ScriptedChat(), tts=ScriptedTts(), recorder=recorder)
        tasks = trio.lowlevel.current_statistics().tasks_living
        await VoiceSession(services, RecordingDoor(act)).run()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    (path,) = files(directory)
    assert "_call----7_" in path.name
    assert (path.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o600, 0o700)
    recording = only(directory)
    assert (recording.header.session_id, recording.end) == ("call/../7", End("closed"))
    proof = replay(recording)
    assert proof.holds
    assert proof.steps == len(recording.lines) == 3


async def test_a_session_that_is_never_configured_is_recorded(tmp_path: Path) -> None:
    """Its file says so; what comes after the close is not written."""
    async with recording_to(tmp_path) as recorder:
        session = core(recorder)
        session.receive(BadInput(at_s=6.0, code="c", message="m"))
        session.receive(Disconnect(at_s=7.0))
        session.receive(Disconnect(at_s=8.0))
    recording = only(tmp_path)
    assert (recording.header.session_id, recording.header.limits) == (None, Limits(history_turns=7))
    assert len(recording.lines) == 2
    assert replay(recording).holds


def test_nothing_is_noted_once_a_session_is_closed() -> None:
    """What changes nothing any more is no part of its history."""
    tape = MemoryRecorder().tape(Limits(), 5.0)
    session = RecordedSession(Limits(), at_s=5.0, tape=tape)
    for at_s in (6.0, 7.0):
        session.receive(Disconnect(at_s=at_s))
    assert len(tape.lines) == 1


async def test_sessions_do_not_mix(tmp_path: Path) -> None:
    """A file each, however their events alternate."""
    async with recording_to(tmp_path) as recorder:
        sessions = [core(recorder) for _ in range(3)]
        for event in (configure(), Partial(at_s=6.0, text="a"), Disconnect(at_s=7.0)):
            for session in sessions:
                session.receive(event)
    assert len(files(tmp_path)) == 3
    for path in files(tmp_path):
        recording = read_recording(path.read_bytes())
        assert (len(recording.lines), replay(recording).holds) == (3, True)


async def test_a_slow_disk_loses_steps_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noting never waits: what finds no room is counted, in its place."""
    disk = threading.Event()

    def slow_append(path: Path, text: str) -> None:
        disk.wait()
        append(path, text)

    monkeypatch.setattr("voice_fsm.runtime.recorder.append", slow_append)
    async with recording_to(tmp_path, max_waiting=2) as recorder:
        session = core(recorder)
        session.receive(configure())
        while not files(tmp_path):  # the writer is in its thread now
            await trio.sleep(0.001)
        for number in range(5):
            session.receive(Partial(at_s=6.0 + number, text="a"))
        disk.set()
        while len(files(tmp_path)[0].read_bytes().splitlines()) < 4:
            await trio.sleep(0.001)
        session.receive(Disconnect(at_s=20.0))
    recording = only(tmp_path)
    assert [line for line in recording.lines if isinstance(line, Lost)] == [Lost(3)]
    proof = replay(recording)
    assert (proof.holds, proof.steps, proof.unproved) == (False, 3, 1)


async def test_a_fault_of_the_disk_ends_the_recording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session goes on, and so do other recordings."""
    failed: list[Path] = []

    def full(path: Path, text: str) -> None:
        failed.append(path)
        raise OSError(28, "No space left on device")

    async with recording_to(tmp_path) as recorder:
        with monkeypatch.context() as patch:
            patch.setattr("voice_fsm.runtime.recorder.append", full)
            first = core(recorder)
            first.receive(configure("first"))
            while not failed:
                await trio.sleep(0.001)
        second = core(recorder)
        second.receive(configure("second"))
        assert first.receive(Disconnect(at_s=6.0)) != ()
        second.receive(Disconnect(at_s=6.0))
    sizes = {path.name.split("_")[1]: path.stat().st_size for path in files(tmp_path)}
    assert sizes["first"] == 0
    assert sizes["second"] > 1000


async def test_what_is_no_json_ends_the_recording_alone(tmp_path: Path) -> None:
    """A value that cannot be written never comes up in the session."""
    async with recording_to(tmp_path) as recorder:
        session = core(recorder)
        session.receive(configure())
        session.receive(Partial(at_s=float("inf"), text="a"))
        other = core(recorder)
        other.receive(Disconnect(at_s=6.0))
    assert any(read_recording(p.read_bytes()).end for p in files(tmp_path) if p.stat().st_size)


async def test_a_recording_ends_at_its_largest_size(tmp_path: Path) -> None:
    """With a line that says so, and provable up to there."""
    async with recording_to(tmp_path, max_file_bytes=3000) as recorder:
        session = core(recorder)
        session.receive(configure())
        for number in range(50):
            session.receive(Partial(at_s=6.0 + number, text="word " * 5))
    recording = only(tmp_path)
    assert recording.end == End("size_limit")
    assert 3 < len(recording.lines) < 20
    assert replay(recording).holds
    (path,) = files(tmp_path)
    assert path.stat().st_size < 3100


async def test_a_failure_of_the_machine_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event that it failed on is what one wants to see; the failure is the session's as before."""

    def fail(self: Session, event: object) -> tuple[()]:
        raise ZeroDivisionError

    async with recording_to(tmp_path) as recorder:
        session = core(recorder)
        session.receive(configure())
        with monkeypatch.context() as patch:
            patch.setattr(Session, "receive", fail)
            with pytest.raises(ZeroDivisionError):
                session.receive(Partial(at_s=6.0, text="a"))
    found = replay(only(tmp_path)).difference
    assert found is not None
    assert found.what == "the machine failed with ZeroDivisionError then, and did not fail now"


async def test_a_place_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    """With the name of the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="RECORD_DIR: cannot be written to"):
        async with open_recorder(RecorderConfig(directory=tmp_path / "file")):
            pass


def test_old_files_go_and_then_the_oldest_of_too_many(tmp_path: Path) -> None:
    """Only files with names of ours."""
    now_s = 1_000_000.0

    def make(name: str, age_days: float) -> None:
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (0, now_s - age_days * 86_400))

    names = {age: f"20261121T120000Z_s-1_00000{age}.jsonl" for age in range(5)}
    for age, name in names.items():
        make(name, age)
    make("notes.jsonl", 100)
    config = RecorderConfig(directory=tmp_path, keep_days=3.5, max_total_bytes=250)
    assert tidy(config, now_s) == 3
    assert {path.name for path in tmp_path.iterdir()} == {names[0], names[1], "notes.jsonl"}


async def test_after_the_server_has_stopped_nothing_is_noted(tmp_path: Path) -> None:
    """A session that outlives the recorder by a moment is not hurt by it."""
    async with recording_to(tmp_path) as recorder:
        session = core(recorder)
        session.receive(configure())
    assert session.receive(Disconnect(at_s=6.0)) != ()
    assert only(tmp_path).end is None
