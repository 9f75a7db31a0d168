"""The commands, run as their user runs them: in a process of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import moonshine_voice
import pytest
import trio
from click.testing import CliRunner, Result

from tests.fakes.raw_client import stall
from tests.fakes.recordings import word_error_rate
from voice_fsm.cli import main
from voice_fsm.errors import Upstream
from voice_fsm.upstream.websocket import open_websocket

RECORDINGS = Path(moonshine_voice.__file__).parent / "assets"


async def run(*args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(90):
        return await trio.run_process(
            [sys.executable, "-m", "voice_fsm", *args],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, **env},
        )


async def invoke(*args: str, **env: str | None) -> Result:
    """Run a command in a thread, which is proof enough where it ends before it serves."""
    return await trio.to_thread.run_sync(lambda: CliRunner().invoke(main, args, env=env))


@attrs.frozen
class RunningServer:
    process: trio.Process
    url: str

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])


@asynccontextmanager
async def running_server(**env: str) -> AsyncIterator[RunningServer]:
    """``voice-fsm serve`` on a free port, until it is stopped."""
    async with trio.open_nursery() as nursery:
        serve = partial(
            trio.run_process,
            [sys.executable, "-m", "voice_fsm", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            check=False,
            env={**os.environ, **env},
        )
        process: trio.Process = await nursery.start(serve)
        assert process.stdout is not None
        printed = b""
        with trio.fail_after(90):
            while b"ws)" not in printed:
                printed += await process.stdout.receive_some()
        url = printed.decode().rsplit("WebSocket: ", 1)[1].split(")")[0]
        yield RunningServer(process, url)
        if process.returncode is None:
            process.kill()


async def test_a_wrong_agents_file_stops_the_start(tmp_path: Path) -> None:
    """With one sentence that has the path of the field, also where there are to be many processes."""
    agents = tmp_path / "agents.toml"
    agents.write_text('[[agents]]\nid = "a"\ncolour = "red"\n')
    done = await invoke("serve", "--port", "0", "--workers", "2", AGENTS_FILE=str(agents))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: AGENTS_FILE: `agents.0.colour` is not known; there are ")
    assert done.stderr.count("\n") == 1


async def test_the_demo_hears_a_question_and_speaks_the_answer(tmp_path: Path) -> None:
    """Without a key, a network or a flag: a transcript, a reply, audio, latencies, and a file."""
    reply = tmp_path / "reply.wav"
    done = await run("demo", "--json", "--out", str(reply))
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    assert "twelve times seven" in result["transcript"].lower()
    assert "84" in result["reply"] or "eighty" in result["reply"].lower()
    assert result["audio_s"] > 1
    assert set(result["latency_ms"]) == {
        "speech_end_to_committed_ms",
        "committed_to_first_text_ms",
        "first_text_to_first_audio_ms",
        "first_audio_to_done_ms",
    }
    with wave.open(str(reply)) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(result["audio_s"], abs=0.01)
        assert any(file.readframes(file.getnframes()))


async def test_a_human_recording_is_understood_by_a_running_server(tmp_path: Path) -> None:
    """``--url`` and ``--wav``: somebody's voice, through a server in another process, and then a text alone.

    What happened is counted, and nothing of what was said.
    """
    async with running_server(CACHE_DIR=str(tmp_path)) as server:
        done = await run("demo", "--url", server.url, "--wav", str(RECORDINGS / "clone-test.wav"))
        story = done.stdout.decode()
        assert done.returncode == 0, story
        (heard,) = (line.removeprefix("you:") for line in story.splitlines() if line.startswith("you:"))
        assert word_error_rate("I do. I think that America could do it very well.", heard) < 0.1  # one of 11
        assert "[unconfigured -> listening, configure]" in story
        assert "[thinking -> speaking, first_audio]" in story
        async with open_websocket(
            server.url.replace("/v1/voice/ws", "/api/v1/ws"), upstream=Upstream.TTS
        ) as speech:
            await speech.send_message('{"action": "synthesize", "text": "Good morning!"}')
            frames = [await speech.get_message()]
            while isinstance(frames[-1], bytes):
                frames.append(await speech.get_message())
        assert frames[-1] == '{"action":"done"}'
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://127.0.0.1:{server.port}/metrics")).text
        assert 'voice_fsm_turns_total{outcome="completed"} 1.0' in metrics
        assert 'voice_fsm_speech_requests_total{source="synthesis"} 1.0' in metrics
        occupancy = next(line for line in metrics.splitlines() if line.startswith("voice_fsm_core_occupancy"))
        assert 0 < float(occupancy.split()[1]) <= 1
        assert "America" not in metrics
        server.process.terminate()


async def test_the_demo_says_what_is_wrong_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, and no recording: a sentence on stderr and exit code 1."""
    nobody = await run("demo", "--url", "ws://127.0.0.1:9/v1/voice/ws")
    assert nobody.returncode == 1
    assert b"no voice server at" in nobody.stderr
    monkeypatch.setattr("voice_fsm.cli.demo.configure_logging", lambda *_: None)  # it is the process's
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    unusable = await invoke("demo", "--wav", str(text))
    assert unusable.exit_code == 1
    assert "not a WAV file" in unusable.stderr


async def test_the_demo_says_that_the_server_hung_up() -> None:
    """A server that dies in the middle is no reason for a traceback."""
    async with running_server() as server, trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "voice_fsm", "demo", "--url", server.url]
        demo: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        )
        assert demo.stdout is not None
        assert demo.stderr is not None
        with trio.fail_after(30):
            assert b"listening" in await demo.stdout.receive_some()
            server.process.kill()
            complaint = b"".join([part async for part in demo.stderr])
            assert await demo.wait() == 1
        assert complaint == b"Error: --url: the server hung up (1006)\n"


async def test_ctrl_c_in_the_demo_is_no_fault() -> None:
    """It says that it was stopped, and no more."""
    async with trio.open_nursery() as nursery:
        demo: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-m", "voice_fsm", "demo"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
            )
        )
        assert demo.stdout is not None
        assert demo.stderr is not None
        with trio.fail_after(30):
            assert b"listening" in await demo.stdout.receive_some()
            demo.send_signal(signal.SIGINT)
            complaint = b"".join([part async for part in demo.stderr])
            assert await demo.wait() == 1
        assert complaint.strip() == b"Aborted!"


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_server_with_a_live_conversation_and_a_stalled_client(
    order: signal.Signals,
) -> None:
    """The conversation is told why, and the process is gone in bounded time."""
    async with (
        running_server(DRAIN_S="3", TCP_USER_TIMEOUT_S="1") as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stalled,
        open_websocket(server.url, upstream=Upstream.CHAT) as live,
    ):
        await stall(stalled)
        await live.send_message('{"type": "session.configure"}')
        await live.send_message('{"type": "text.prompt", "text": "Tell me a long story"}')
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != "assistant.audio.start":
            events.append(json.loads(await live.get_message()))
        server.process.send_signal(order)
        with trio.fail_after(20):
            while events[-1]["type"] != "session.closing":
                events.append(json.loads(await live.get_message()))
            assert events[-1]["reason"] == "draining"
            assert await server.process.wait() == 0


async def test_a_wrong_setting_is_named_before_anything_starts() -> None:
    """The variable and what is allowed, not a traceback."""
    done = await run("serve", PORT="many")
    assert done.returncode == 1
    assert b"PORT" in done.stderr
    assert b"Traceback" not in done.stderr


async def test_a_port_that_is_taken_is_named() -> None:
    """The address that could not be had."""
    async with running_server() as server:
        done = await run("serve", "--port", str(server.port))
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{server.port}" in done.stderr.decode()


@pytest.mark.parametrize(
    ("diagram_format", "beginning"), [("mermaid", "stateDiagram-v2"), ("table", "| State")]
)
def test_the_machine_is_drawn(diagram_format: str, beginning: str) -> None:
    """In the formats that need nothing installed."""
    done = CliRunner().invoke(main, ["diagram", "--format", diagram_format])
    assert done.exit_code == 0
    assert done.stdout.startswith(beginning)


async def test_a_drawing_does_not_wait_for_a_server() -> None:
    """A command imports what it needs; what a server is made of is none of the drawing's business."""
    done = await run("diagram", PYTHONPROFILEIMPORTTIME="1")
    imported = set(re.findall(r"\| +([a-z]\w+)$", done.stderr.decode(), re.MULTILINE))
    assert "statemachine" in imported
    assert not imported & {"h11", "httpx", "hypercorn", "numpy", "starlette", "trio"}


async def test_drawing_svg_needs_graphviz_and_says_so() -> None:
    """Without it there is a sentence, with it a picture."""
    without = await invoke("diagram", "--format", "svg", PATH="")
    assert without.exit_code == 1
    assert "Graphviz" in without.stderr


async def test_say_speaks_what_it_is_given_on_standard_input(tmp_path: Path) -> None:
    """The audio, and nothing else, goes to standard output; a sentence about it to the other."""
    done = await trio.run_process(
        [sys.executable, "-m", "voice_fsm", "say", "-", "--out", "-"],
        stdin=b"Good morning!",
        capture_stdout=True,
        capture_stderr=True,
        env={**os.environ, "CACHE_DIR": str(tmp_path)},
    )
    assert len(done.stdout) > 20_000
    assert done.stderr.startswith(b"-: ")


async def test_a_server_that_cannot_start_says_why_and_nothing_else() -> None:
    """No address is printed that nobody will answer at."""
    done = await run("serve", "--port", "0", PIPER_VOICE="/nowhere/voice.onnx")
    assert done.returncode == 1
    assert b"Piper" in done.stderr
    assert b"Talk to it" not in done.stdout
    assert b"Traceback" not in done.stderr
