"""``voice-fsm demo``, in a process of its own, and ``voice-fsm check``, against the fakes in this one."""

import json
import os
import subprocess
import sys
import wave
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio
from click.testing import CliRunner, Result

from tests.fakes.elevenlabs_stt import Moment, Utterance, report
from tests.integration.rig import Upstreams, streamed_reply, upstreams
from voice_fsm.cli import main

QUESTION = "How tall is the tower?"
ANSWER = "It is three hundred metres tall."


async def run(up: Upstreams, *args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with the fakes for its upstreams, and nothing else of this machine's settings."""
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with trio.fail_after(90):
        return await trio.run_process(
            [sys.executable, "-m", "voice_fsm", *args],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**clean, **up.settings, **env},
        )


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Half a second of a tone."""
    path = tmp_path / "question.wav"
    tone = 8000 * np.sin(2 * np.pi * 300 / 16000 * np.arange(8000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(tone.astype("<i2").tobytes())
    return path


async def test_the_demo_has_a_conversation_with_upstreams(recording: Path, tmp_path: Path) -> None:
    """The transcript is the recogniser's, the reply the backend's, the audio the voice's, the exit code 0."""
    heard = tmp_path / "reply.wav"
    async with upstreams() as up:
        up.elevenlabs.stt.utterances.append(Utterance(QUESTION, partials=[(0.2, "How")], commits_after_s=0.8))
        up.chat.play(streamed_reply("It is three hundred ", "metres tall."))
        done = await run(up, "demo", "--json", "--wav", str(recording), "--out", str(heard))
        assert done.returncode == 0, done.stderr.decode()
        (link,) = up.elevenlabs.stt.sessions
        assert bytes(link.audio).strip(b"\0")
        assert up.elevenlabs.tts.streams or up.elevenlabs.tts.requests
    result = json.loads(done.stdout)
    assert (result["transcript"], result["reply"]) == (QUESTION, ANSWER)
    assert result["outcomes"] == ["completed"]
    assert result["errors"] == []
    assert result["audio_s"] == pytest.approx(len(ANSWER) * 0.06, abs=0.2)
    with wave.open(str(heard)) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(result["audio_s"], abs=0.01)


async def test_the_demo_fails_when_an_upstream_does(recording: Path) -> None:
    """No reply: the error is shown, and the exit code is 1."""
    async with upstreams() as up:
        up.elevenlabs.stt.utterances.append(Utterance(QUESTION, commits_after_s=0.8))
        up.chat.play([b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"])
        done = await run(up, "demo", "--wav", str(recording))
    assert done.returncode == 1
    assert "chat_auth_failed" in done.stdout.decode()
    assert "(turn failed)" in done.stdout.decode()


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Result]]:
    """``voice-fsm check``, in a thread, for it runs Trio itself."""
    monkeypatch.setattr("voice_fsm.cli.check.configure_logging", lambda *_: None)  # it is the process's

    async def run_check(up: Upstreams, **env: str) -> Result:
        proxies = dict.fromkeys(name for name in os.environ if name.lower().endswith("_proxy"))
        invoke = partial(CliRunner().invoke, main, ["check"], env={**proxies, **up.settings, **env})
        return await trio.to_thread.run_sync(invoke)

    return run_check


async def test_the_check_passes_upstreams_that_work(check: Callable[..., Awaitable[Result]]) -> None:
    """Exit code 0, a line for each, and no secret among the settings that are shown."""
    async with upstreams() as up:
        up.chat.play(streamed_reply(ANSWER))
        done = await check(up)
    story = done.output
    assert done.exit_code == 0, story
    assert story.count("ok  ") == 3
    assert f"answers {ANSWER!r}" in story
    assert "ELEVENLABS_API_KEY=set" in story
    assert "xi-key" not in story
    assert "backend-key" not in story


async def test_the_check_advises_on_a_wrong_key(check: Callable[..., Awaitable[Result]]) -> None:
    """Exit code 1, and for each upstream the variable that is to be mended, however it tells of the key."""
    async with upstreams() as up:
        up.elevenlabs.stt.moments.append(Moment("start", report("auth_error"), always=True))
        up.chat.play([b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"])
        done = await check(up, ELEVENLABS_API_KEY="wrong-key")
    story = done.output
    assert done.exit_code == 1
    failed = [line for line in story.splitlines() if line.startswith("FAIL")]
    assert [line.split(":")[0] for line in failed] == [
        "FAIL speech to text (elevenlabs)",
        "FAIL chat (backend)",
        "FAIL text to speech (elevenlabs)",
    ]
    assert "Check ELEVENLABS_API_KEY" in failed[0]
    assert "Check BACKEND_API_KEY" in failed[1]
    assert "Check ELEVENLABS_API_KEY" in failed[2]
    assert "wrong-key" not in story
