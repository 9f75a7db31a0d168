"""A whole session whose chat is the official Speech Engine server, and the commands around it."""

import json
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from click.testing import CliRunner, Result

from tests.fakes import npm
from tests.fakes.elevenlabs_agents import FakeAgentsApi
from tests.fakes.http_server import serve_http
from tests.fakes.scripted import ScriptedStt, ScriptedTts
from tests.fakes.speech_engine_sdk import official_server
from tests.web.conftest import run_voice_server
from voice_fsm.chat.base import ChatRequest, ReplyText
from voice_fsm.chat.speech_engine import SpeechEngineConfig, open_speech_engine_chat
from voice_fsm.cli import main
from voice_fsm.runtime.session import Services

KEY = "sk_test_key"


async def test_a_conversation_with_an_interruption() -> None:
    """The server learns what was heard of its reply, under the conversation's id, and of the end."""
    transcripts: list[list[tuple[str, str]]] = []
    events: list[str] = []

    async def on_transcript(messages: list[Any], session: Any) -> None:
        transcripts.append([(message.role, message.content) for message in messages])

        async def words() -> AsyncIterator[str]:
            yield "Once there was a king. "
            yield "He had three daughters."

        await session.send_response(words())

    async with (
        official_server(
            KEY,
            on_init=lambda conversation_id, _: events.append(conversation_id),
            on_transcript=on_transcript,
            on_close=lambda _: events.append("closed"),
        ) as url,
        open_speech_engine_chat(SpeechEngineConfig(url=url, api_key=KEY)) as chat,
    ):
        services = Services(stt=ScriptedStt(), chat=chat, tts=ScriptedTts(ms_per_char=100))
        async with run_voice_server(services) as server, server.connect() as client:
            await client.configure(session_id="conv_7")
            await client.send("text.prompt", text="Tell me a story")
            await client.until("assistant.audio.chunk")
            await client.send("playback.progress", turn_id=1, played_ms=2300)
            await client.send("response.cancel")
            interrupted = (await client.until("assistant.interrupted"))[-1]
            await client.send("text.prompt", text="Go on")
            await client.until("assistant.message")
        with trio.fail_after(10):
            while "closed" not in events:
                await trio.sleep(0.01)
    assert events == ["conv_7", "closed"]
    heard = interrupted["heard_text"]
    assert "Once there was".startswith(heard[:14])
    assert transcripts == [
        [("user", "Tell me a story")],
        [("user", "Tell me a story"), *([("agent", heard)] if heard else []), ("user", "Go on")],
    ]


@pytest.fixture(scope="module")
def javascript() -> Path:
    """The script that makes a server of the official JavaScript package, with the package."""
    project = Path(__file__).parent / "speech_engine_js"
    npm.install_scripts(project)
    return project / "server.mjs"


@attrs.frozen
class JavascriptServer:
    """The running script, and what it reports: pairs of a kind and a value."""

    process: trio.Process

    async def report(self, kind: str) -> Any:
        """The value of the next report, which is of this kind."""
        assert self.process.stdout is not None
        line = b""
        with trio.fail_after(30):
            while not line.endswith(b"\n"):
                line += await self.process.stdout.receive_some(1)
        told, value = json.loads(line)
        assert told == kind, value
        return value


async def test_the_javascript_server_answers_and_is_interrupted(javascript: Path) -> None:
    """It goes on sending the old reply after an interruption, as it does; none of that is heard."""
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, ["node", str(javascript), KEY], stdout=subprocess.PIPE, check=False)
        server = JavascriptServer(await nursery.start(start))
        url = f"ws://127.0.0.1:{await server.report('port')}/ws"
        async with open_speech_engine_chat(SpeechEngineConfig(url=url, api_key=KEY)) as chat:
            async with chat.reply(question("one")) as parts:
                assert await anext(parts) == ReplyText("You said one. ")
            async with chat.reply(question("two")) as parts:
                said = [part.text async for part in parts]
            assert said == ["You said two. ", "That is all."]
            chat.forget("conv_7")
            assert await server.report("init") == "conv_7"
            assert await server.report("transcript") == [["user", "one"]]
            assert await server.report("transcript") == [["user", "two"]]
            assert await server.report("aborted") == "one"
            await server.report("close")
        server.process.terminate()


def question(text: str) -> ChatRequest:
    return ChatRequest(session_id="conv_7", turn_id=1, text=text)


@pytest.fixture
def no_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the test alone."""
    monkeypatch.chdir(tmp_path)


async def command(url: str, *args: str, key: str = KEY) -> Result:
    """``voice-fsm speech-engine``, in a thread, for it runs Trio itself."""
    env = {"ELEVENLABS_API_KEY": key, "ELEVENLABS_BASE_URL": url}
    invoke = partial(CliRunner().invoke, main, ["speech-engine", *args], env=env)
    return await trio.to_thread.run_sync(invoke)


async def test_engines_are_managed_from_the_command_line(no_dotenv: None, tmp_path: Path) -> None:
    """Created with settings of a file, listed, changed, and deleted once that is confirmed."""
    fake = FakeAgentsApi()
    extras = tmp_path / "extras.json"
    extras.write_text(json.dumps({"language": "de", "tts": {"model_id": "m"}, "name": "overruled"}))
    async with serve_http(fake.answer) as server:
        created = await command(
            server.url, "create", "--ws-url", "wss://e.com/ws", "--voice", "v1", "--settings", str(extras)
        )
        assert (created.exit_code, created.output) == (0, "seng_1\n")
        assert fake.engines["seng_1"] == {
            "speech_engine_id": "seng_1",
            "name": "voice-fsm",
            "language": "de",
            "speech_engine": {"ws_url": "wss://e.com/ws"},
            "tts": {"model_id": "m", "voice_id": "v1"},
        }
        assert (await command(server.url, "update", "seng_1", "--name", "new")).exit_code == 0
        assert (await command(server.url, "list")).output == "seng_1\tnew\n"
        assert (await command(server.url, "delete", "seng_1")).exit_code == 1  # nobody says yes
        assert (await command(server.url, "delete", "seng_1", "--yes")).exit_code == 0
        assert not fake.engines


async def test_what_elevenlabs_refuses_is_told_in_a_sentence(no_dotenv: None) -> None:
    """And what is missing is asked for before anybody is called."""
    async with serve_http(FakeAgentsApi().answer) as server:
        wrong_key = await command(server.url, "list", key="other")
        assert (wrong_key.exit_code, wrong_key.output) == (
            1,
            "Error: ElevenLabs refused (HTTP 401): Invalid API key\n",
        )
        assert "ELEVENLABS_API_KEY is needed" in (await command(server.url, "list", key="")).output
        assert "what is to be changed" in (await command(server.url, "update", "seng_1")).output
        assert len(server.requests) == 1
