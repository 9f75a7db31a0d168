"""Code cut out of the pages and run: the clients of the front-end guide, the provider of the architecture."""

import re
import sys
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from tests.web.chromium import run_chromium
from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyText
from voice_fsm.fsm.options import BackendOptions
from voice_fsm.runtime.session import Services
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.web.serve import serve
from voice_fsm.web.serve_config import ServeConfig
from voice_fsm.web.voice import DoorPolicy, VoiceEndpoint

DOCS: Final = Path(__file__).parents[1] / "docs"
URL: Final = "ws://127.0.0.1:8000/v1/voice/ws"
MAX_SCRIPT_LINES: Final = 80
REPLY: Final = "It is eighty-four."

# What the browser's client did with its audio, counted where it leaves the page.
WATCH_AUDIO: Final = """
    window.watched = { started: 0, stopped: 0 };
    for (const [method, count] of [["start", "started"], ["stop", "stopped"]]) {
      const original = AudioBufferSourceNode.prototype[method];
      AudioBufferSourceNode.prototype[method] = function (...given) {
        window.watched[count] += 1;
        return original.apply(this, given);
      };
    }
"""


def example(language: str, page: str = "frontend.md") -> str:
    """A page's only block of code in a language."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(block)


@attrs.define
class Server:
    """The voice door with scripted upstreams, and the browser's client as a page beside it."""

    stt: ScriptedStt
    chat: ScriptedChat
    url: str = ""

    @property
    def page_url(self) -> str:
        return self.url.replace("ws", "http", 1).replace("/v1/voice/ws", "/talk.html")

    async def hear(self, audio_bytes: int) -> None:
        """Wait until the newest link to the recogniser has been given so much audio."""
        with trio.fail_after(20):
            while not self.stt.links or len(self.stt.links[-1].audio) < audio_bytes:
                await trio.sleep(0.01)


@asynccontextmanager
async def run_server(*, ms_per_char: int) -> AsyncIterator[Server]:
    """Serve replies that sound so long; a test that interrupts one needs the time."""
    server = Server(ScriptedStt(), ScriptedChat(lambda _: [REPLY]))
    services = Services(stt=server.stt, chat=server.chat, tts=ScriptedTts(ms_per_char=ms_per_char))
    endpoint = VoiceEndpoint(services, DoorPolicy())

    async def talk(_: Request) -> HTMLResponse:
        return HTMLResponse(example("html").replace(URL, server.url))

    app = Starlette(routes=[Route("/talk.html", talk), WebSocketRoute("/v1/voice/ws", endpoint.__call__)])
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(
            partial(serve, app, ServeConfig(port=0, drain_s=1), draining=services.draining)
        )
        server.url = f"{address.replace('http', 'ws', 1)}/v1/voice/ws"
        yield server
        nursery.cancel_scope.cancel()


async def test_python_client_asks_and_writes_the_answer(tmp_path: Path) -> None:
    """It streams the recording and silence after it, prints both sides, and saves all audio of the reply."""
    script, question, reply = tmp_path / "ask.py", tmp_path / "question.wav", tmp_path / "reply.wav"
    script.write_text(example("python"), encoding="utf-8")
    recorded = b"\1\0" * 8000
    with wave.open(str(question), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(recorded)
    async with run_server(ms_per_char=50) as server, trio.open_nursery() as nursery:

        async def recognise() -> None:
            await server.hear(len(recorded) + 3200)
            server.stt.say(PartialTranscript("Twelve times"), CommittedTranscript("Twelve times seven?"))

        nursery.start_soon(recognise)
        with trio.fail_after(30):
            ended = await trio.run_process(
                [sys.executable, script, question, reply, server.url], capture_stdout=True
            )
        assert server.stt.links[0].config == {"format": "pcm_16000"}
        assert server.stt.links[0].audio.startswith(recorded + b"\0\0")
    assert ended.stdout.decode().splitlines() == ["you: Twelve times seven?", f"assistant: {REPLY}"]
    with wave.open(str(reply)) as file:
        assert file.getnframes() == 24000 * len(REPLY) * 50 // 1000
        assert set(file.readframes(file.getnframes())) == {7}


def test_browser_client_is_short() -> None:
    """A newcomer reads it in one go."""
    script = re.search(r'<script type="module">\n(.*)</script>', example("html"), re.DOTALL)
    assert script is not None
    assert script[1].count("\n") <= MAX_SCRIPT_LINES


async def test_browser_client_talks_plays_and_is_interrupted() -> None:
    """It sends the microphone, plays the reply, and falls silent when the user speaks or presses stop."""

    def browse(page_url: str) -> None:
        with run_chromium() as browser:
            page = browser.new_page()
            complaints: list[str] = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.add_init_script(WATCH_AUDIO)
            page.goto(page_url)
            page.get_by_role("button", name="Talk").click()
            converse(page)
            assert complaints == []

    def converse(page: Page) -> None:
        log = page.locator("#log")
        expect(log).to_contain_text("Speak.")
        trio.from_thread.run(speak, "Twelve times seven?")
        expect(log).to_contain_text(f"you: Twelve times seven?\nassistant: {REPLY}")
        page.wait_for_function("watched.started > 0 && watched.stopped === 0")
        trio.from_thread.run_sync(server.stt.say, PartialTranscript("Stop"))
        page.wait_for_function("watched.stopped > 0")
        before = page.evaluate("({...watched})")
        trio.from_thread.run(speak, "And eleven times seven?")
        page.wait_for_function(f"watched.started > {before['started']}")
        page.get_by_role("button", name="Stop").click()
        page.wait_for_function(f"watched.stopped > {before['stopped']}")

    async def speak(text: str) -> None:
        await server.hear(len(server.stt.links[-1].audio) + 9600)
        server.stt.say(CommittedTranscript(text))

    async with run_server(ms_per_char=500) as server:
        await trio.to_thread.run_sync(browse, server.page_url)
        (link,) = server.stt.links
        assert link.config["format"] in {"pcm_44100", "pcm_48000"}
        assert any(link.audio), "the microphone was silent"
        assert [request.text for request in server.chat.requests] == [
            "Twelve times seven?",
            "And eleven times seven?",
        ]
        (heard,) = server.chat.requests[1].history
        assert heard.interrupted
        assert len(heard.assistant) < len(REPLY)


async def test_provider_is_a_provider() -> None:
    """The complete provider that the architecture shows is one, and answers."""
    module: dict[str, Any] = {"__name__": "echo"}
    exec(example("python", "architecture.md"), module)  # noqa: S102  # our own page
    provider: ChatProvider = module["EchoChat"]()
    provider.check(BackendOptions())
    async with provider.reply(ChatRequest(session_id="s", turn_id=1, text="hello")) as parts:
        assert [part async for part in parts] == [ReplyText("You said: hello")]
