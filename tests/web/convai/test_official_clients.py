"""ElevenLabs' own clients, unmodified, against this server in a process of its own with its embedded engines.

All tests share the server, which takes a second to load its recogniser, and one Chromium.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import moonshine_voice
import numpy as np
import pytest
from elevenlabs import ElevenLabs
from elevenlabs.core.api_error import ApiError
from playwright.sync_api import Browser, Page

from tests.fakes import npm
from tests.fakes.openai_chat import DONE, completion_chunk, openai_stream
from tests.web.chromium import run_chromium

with warnings.catch_warnings():
    # The SDK names a class that newer releases of websockets deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from elevenlabs.conversational_ai.conversation import (
        AudioInterface,
        ClientTools,
        Conversation,
        ConversationInitiationData,
        DisconnectionDetails,
    )

HERE: Final = Path(__file__).parent / "official"
RECORDING: Final = Path(moonshine_voice.__file__).parent / "assets" / "clone-test.wav"
"""4 s of a person, 16 kHz."""
KEY: Final = "test-key"
PATIENCE_S: Final = 20.0
LISTENS_MS: Final = 1500
"""How long a person listens before interrupting: long enough to have heard some words."""
AUDIBLE: Final = 500
"""RMS of 16-bit samples."""

AGENTS: Final = """
[[agents]]
id = "open"
private = false

[[agents]]
id = "greeter"
private = false
first_message = "Hello {{{{name}}}}, this is your assistant speaking."

[[agents]]
id = "closed"
private = true

[[agents]]
id = "tooled"
private = false
llm = {{ base_url = "{model}/v1", model = "small" }}
tools = [{{ name = "weather" }}]
"""


@attrs.frozen
class Served:
    url: str
    http: httpx.Client
    """Lent to the SDK, which would not close one of its own."""

    @property
    def origin(self) -> str:
        return self.url.replace("http", "ws", 1)

    def client(self) -> ElevenLabs:
        return ElevenLabs(api_key=KEY, base_url=self.url, httpx_client=self.http)

    def signed_url(self, agent_id: str) -> str:
        signed = self.client().conversational_ai.conversations.get_signed_url(agent_id=agent_id)
        return str(signed.signed_url)


class Model(BaseHTTPRequestHandler):
    """A chat model that asks for the weather, and then tells it."""

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        last = question["messages"][-1]
        answer = openai_stream(f"It {last['content']}.") if last["role"] == "tool" else CALL
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"".join(answer))

    def log_message(self, *_: object) -> None:
        pass


CALL: Final = [
    completion_chunk(
        {
            "tool_calls": [
                {"index": 0, "id": "c", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
            ]
        }
    ),
    completion_chunk(finish_reason="tool_calls"),
    DONE,
]


@contextmanager
def http_server(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve in a thread; the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    with http_server(Model) as url:
        yield url


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[Served]:
    """``voice-fsm serve`` with some agents and a key."""
    agents = tmp_path_factory.mktemp("agents") / "agents.toml"
    agents.write_text(AGENTS.format(model=model))
    env = {
        **os.environ,
        "AGENTS_FILE": str(agents),
        "SERVICE_API_KEYS": KEY,
        "CONVERSATIONS_DB": str(agents.with_name("conversations.db")),
        "RECORD_AUDIO": "true",
        "RECORD_DIR": str(agents.with_name("recordings")),
    }
    command = [sys.executable, "-m", "voice_fsm", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
        assert server.stdout is not None
        address = next(line for line in server.stdout if "Talk to it" in line).split()[4]
        try:
            with httpx.Client() as http:
                yield Served(address.removesuffix("/test"), http)
        finally:
            server.terminate()


# --- Python -----------------------------------------------------------------------------------------


class Tape:
    """What a client's callbacks were told, in order; a test waits for what it needs."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self._changed = threading.Condition()

    def note(self, kind: str, value: Any = None) -> None:
        with self._changed:
            self.events.append((kind, value))
            self._changed.notify_all()

    def of(self, kind: str) -> list[Any]:
        return [value for name, value in self.events if name == kind]

    def wait_for(self, kind: str, count: int = 1) -> Any:
        """The ``count``-th of its kind."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.of(kind)) >= count, PATIENCE_S)
        assert came, f"no {kind} number {count}: {[name for name, _ in self.events]}"
        return self.of(kind)[count - 1]


class Headset(AudioInterface):
    """A person's recorded voice for a microphone, spoken when the test says so; else silence.

    Speech comes at three times the pace of a person, of which the server does not mind some seconds.
    """

    CHUNK = 16000 // 4 * 2
    HASTE = 3

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._speech = b""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def say(self, pcm: bytes) -> None:
        self._speech += pcm

    def start(self, input_callback: Callable[[bytes], None]) -> None:
        self._thread = threading.Thread(target=self._stream, args=(input_callback,))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def output(self, audio: bytes) -> None:
        self._tape.note("output", audio)

    def interrupt(self) -> None:
        self._tape.note("interrupt")

    def _stream(self, input_callback: Callable[[bytes], None]) -> None:
        next_s = time.monotonic()
        while not self._stop.is_set():
            chunk, self._speech = self._speech[: self.CHUNK], self._speech[self.CHUNK :]
            input_callback(chunk.ljust(self.CHUNK, b"\0"))
            next_s += 0.25 / (self.HASTE if chunk else 1)
            self._stop.wait(max(next_s - time.monotonic(), 0))


def question() -> bytes:
    with wave.open(str(RECORDING)) as recording:
        pcm: bytes = recording.readframes(recording.getnframes())
        return pcm


def rms(pcm: bytes) -> float:
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    return float(np.sqrt(np.mean(samples**2)))


@pytest.fixture
def tape() -> Tape:
    return Tape()


@pytest.fixture
def start(served: Served, tape: Tape) -> Iterator[Callable[..., Conversation]]:
    """Starts the official client, whose callbacks the tape takes down; ended with the test."""
    running: list[Conversation] = []

    def begin(agent_id: str, audio: Headset | None = None, **options: Any) -> Conversation:
        conversation = Conversation(
            served.client(),
            agent_id,
            requires_auth=options.pop("requires_auth", False),
            audio_interface=audio,
            callback_agent_response=partial(tape.note, "response"),
            callback_agent_response_correction=lambda *texts: tape.note("correction", texts),
            callback_agent_chat_response_part=lambda text, kind: tape.note("part", (kind.value, text)),
            callback_user_transcript=partial(tape.note, "transcript"),
            callback_latency_measurement=partial(tape.note, "latency"),
            callback_disconnect=partial(tape.note, "disconnect"),
            **options,
        )
        conversation.start_session()  # type: ignore[no-untyped-call]  # the SDK's
        running.append(conversation)
        return conversation

    yield begin
    for conversation in running:
        conversation.end_session()  # type: ignore[no-untyped-call]  # the SDK's
        conversation.wait_for_session_end()


def test_a_person_talks_to_the_python_client(
    start: Callable[..., Conversation], served: Served, tape: Tape
) -> None:
    """A recorded voice becomes a transcript, a reply and audible speech; another one interrupts it.

    Afterwards the client gets the sound of the conversation: both sides, less what was not heard.
    """
    headset = Headset(tape)
    conversation = start(
        "greeter", headset, config=ConversationInitiationData(dynamic_variables={"name": "Ada"})
    )
    assert tape.wait_for("response") == "Hello Ada, this is your assistant speaking."
    tape.wait_for("output")
    conversation.send_user_message("Tell me a long story")
    tape.wait_for("interrupt")  # of the greeting
    tape.wait_for("output", len(tape.of("output")) + 2)
    headset.say(
        bytes(2 * 2 * 16000) + question()
    )  # after a moment the person speaks over the story, which is still being written
    tape.wait_for("interrupt", 2)
    original, heard = tape.wait_for("correction", 2)
    story = tape.wait_for("response", 2)
    assert original == story
    assert story.startswith(heard)
    assert 0 < len(heard) < len(story)
    before = len(tape.of("output"))
    transcript = tape.wait_for("transcript")
    assert {"America", "very", "well."} <= set(transcript.split())
    tape.wait_for("response", 3)
    tape.wait_for("output", before + 1)
    interrupted_at = max(index for index, (kind, _) in enumerate(tape.events) if kind == "interrupt")
    answered_at = max(index for index, (kind, _) in enumerate(tape.events) if kind == "transcript")
    late = [kind for kind, _ in tape.events[interrupted_at:answered_at] if kind == "output"]
    assert late == []
    assert max(map(rms, tape.of("output")[:before])) > AUDIBLE
    assert max(map(rms, tape.of("output")[before:])) > AUDIBLE
    conversation.end_session()  # type: ignore[no-untyped-call]  # the SDK's
    user, agent = sound_of(served, conversation.wait_for_session_end())
    assert min(rms(user), rms(agent)) > AUDIBLE / 10
    sent_bytes = sum(map(len, tape.of("output")))
    assert np.count_nonzero(np.frombuffer(agent, "<i2")) * 2 < sent_bytes / 2


def sound_of(served: Served, conversation_id: str | None) -> tuple[bytes, bytes]:
    """What the client gets of a conversation that is over: the user's PCM and the agent's."""
    assert conversation_id is not None
    kept = served.client().conversational_ai.conversations
    deadline_s = time.monotonic() + PATIENCE_S
    while not kept.get(conversation_id).has_audio:  # it is written beside the conversation
        assert time.monotonic() < deadline_s
    with wave.open(io.BytesIO(b"".join(kept.audio.get(conversation_id)))) as recording:
        assert (recording.getnchannels(), recording.getframerate()) == (2, 16000)
        frames = np.frombuffer(recording.readframes(recording.getnframes()), "<i2").reshape(-1, 2)
    return frames[:, 0].tobytes(), frames[:, 1].tobytes()


def send_when_open(conversation: Conversation, text: str) -> None:
    """The client has no event for its socket being open."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            conversation.send_user_message(text)
        except RuntimeError:
            assert time.monotonic() < deadline_s, "the client's socket did not open"
            time.sleep(0.01)
        else:
            return


def test_a_written_conversation_by_the_python_client(
    start: Callable[..., Conversation], served: Served, tape: Tape
) -> None:
    """Without an audio interface it is text-only; a private agent is reached by a signed URL."""
    conversation = start("closed", requires_auth=True)
    send_when_open(conversation, "What is twelve times seven?")
    assert "84" in tape.wait_for("response")
    kinds = [kind for kind, _ in tape.of("part")]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("start", "stop", {"delta"})
    conversation.send_contextual_update("The user is on page 2.")
    conversation.register_user_activity()  # type: ignore[no-untyped-call]  # the SDK's
    conversation.send_multimodal_message("What is two plus two?")
    assert "4" in tape.wait_for("response", 2)
    assert tape.of("output") == []
    conversation.end_session()  # type: ignore[no-untyped-call]  # the SDK's
    conversation_id = conversation.wait_for_session_end()
    assert conversation_id is not None
    kept = served.client().conversational_ai.conversations
    (found, *_) = kept.list(agent_id="closed").conversations
    assert found.conversation_id == conversation_id
    deadline_s = time.monotonic() + PATIENCE_S
    while (whole := kept.get(conversation_id)).status != "done":  # it is written beside the conversation
        assert time.monotonic() < deadline_s
    assert [turn.role for turn in whole.transcript] == ["user", "agent", "user", "agent"]
    assert whole.transcript[1].message == tape.of("response")[0]
    kept.delete(conversation_id)
    with pytest.raises(ApiError):
        kept.get(conversation_id)


def test_a_tool_of_the_python_client_is_called(start: Callable[..., Conversation], tape: Tape) -> None:
    """The model asks for it, and goes on with what the client's own code gave."""

    def weather(parameters: dict[str, Any]) -> str:
        tape.note("called", parameters["city"])
        return "rains"

    tools = ClientTools()
    tools.register("weather", weather)
    send_when_open(start("tooled", client_tools=tools), "How is the weather?")
    assert tape.wait_for("response") == "It rains."
    assert tape.of("called") == ["Rome"]


def test_whom_the_python_client_cannot_reach(
    start: Callable[..., Conversation], served: Served, tape: Tape
) -> None:
    """The reason is told in the close frame, or by the status of the request for a signed URL."""
    start("nobody")
    details: DisconnectionDetails = tape.wait_for("disconnect")
    assert (details.reason, details.close_code) == ("error", 1008)
    assert details.close_reason == "This server has no agent of this id."
    with pytest.raises(ApiError) as refused:
        served.signed_url("nobody")
    assert refused.value.status_code == 404
    agent = served.client().conversational_ai.agents.get("greeter")
    assert agent.conversation_config.agent is not None
    assert agent.conversation_config.agent.first_message == "Hello {{name}}, this is your assistant speaking."


# --- JavaScript -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packages() -> Path:
    """The npm packages of ``official/package-lock.json``, in a directory that git ignores."""
    return npm.install(HERE)


def test_a_written_conversation_by_the_javascript_client_in_node(served: Served, packages: Path) -> None:
    """By address and by signed URL; a used URL, an unknown agent and a forbidden override are told."""
    command = ["node", "text.mjs", served.origin, served.signed_url("closed")]
    done = subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, timeout=60)
    result = json.loads(done.stdout)
    for how in ("open", "signed"):
        told = result[how]
        assert told["id"].startswith("conv_")
        assert told["messages"] == [["ai", "12 times 7 is 84."]]
        assert [kind for kind, _ in told["parts"]][:: len(told["parts"]) - 1] == ["start", "stop"]
        assert "".join(text for _, text in told["parts"]) == "12 times 7 is 84."
    refusals = {
        "usedAgain": "The signed URL is wrong, expired, or has been used already.",
        "unknown": "This server has no agent of this id.",
        "forbidden": "The agent does not allow its clients to choose "
        "`conversation_config_override.agent.prompt.prompt`.",
    }
    for how, reason in refusals.items():
        assert result[how] == {"name": "SessionConnectionError", "code": 1008, "reason": reason}


class Pages(SimpleHTTPRequestHandler):
    """The pages' files, and a signed URL for whoever asks, as a customer's server would give it."""

    def __init__(self, *args: Any, served: Served, **kwargs: Any) -> None:
        self._served = served
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if self.path != "/signed-url":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"signed_url": self._served.signed_url("closed")}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def pages(packages: Path, served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the pages, with the packages' code for browsers beside them."""
    root = tmp_path_factory.mktemp("pages")
    shutil.copy(packages / "@elevenlabs" / "client" / "dist" / "lib.iife.js", root)
    for page in ("voice.html", "react.html"):
        shutil.copy(HERE / page, root)
    bundle = [str(packages / ".bin" / "esbuild"), "react.jsx", "--bundle", "--jsx=automatic"]
    # The example lies elsewhere, and is to find the same packages.
    env = {**os.environ, "NODE_PATH": str(packages)}
    subprocess.run(
        [*bundle, f"--outfile={root}/react.js", "--log-level=warning"], cwd=HERE, env=env, check=True
    )
    with http_server(partial(Pages, directory=str(root), served=served)) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its microphone hears the person once, and then silence."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    with wave.open(str(path), "wb") as target:
        target.setparams((1, 2, 16000, 0, "NONE", ""))
        target.writeframes(question() + bytes(2 * 16000 * 60))
    with run_chromium(path) as chromium:
        yield chromium


def wait_until(page: Page, condition: str) -> None:
    page.wait_for_function(condition, timeout=PATIENCE_S * 1000, polling=20)


def test_a_person_talks_to_the_javascript_client_in_a_browser(
    served: Served, browser: Browser, pages: str
) -> None:
    """A microphone in Chromium, a signed URL: transcript, reply, audible speech; a message interrupts."""
    page = browser.new_page()
    page.goto(f"{pages}/voice.html")
    page.evaluate("options => start(options)", {"signedUrl": served.signed_url("closed")})
    wait_until(page, "talk.messages.some(([source]) => source === 'user')")
    (transcript,) = [text for source, text in page.evaluate("talk.messages") if source == "user"]
    assert {"America", "very"} & set(transcript.split())
    wait_until(page, "loudness() > 0.3")
    page.wait_for_timeout(LISTENS_MS)
    page.evaluate("talk.conversation.sendUserMessage('Tell me a long story')")
    wait_until(page, "talk.corrections.length > 0")
    (correction,) = page.evaluate("talk.corrections")
    (interruption,) = page.evaluate("talk.interruptions")
    assert correction["event_id"] == interruption
    assert correction["original_agent_response"].startswith(correction["corrected_agent_response"])
    assert page.evaluate("talk.errors") == []
    page.evaluate("talk.conversation.endSession()")
    page.close()


def test_the_example_for_react_speaks_what_its_user_typed_for(browser: Browser, pages: str) -> None:
    """The page of the docs, bundled as it is: the user types, the agent speaks and is interrupted."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(f"{pages}/react.html")
    page.get_by_role("button", name="Talk").click()
    page.get_by_label("Message").fill("Tell me a long story")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("The agent speaks.").wait_for()
    page.wait_for_timeout(LISTENS_MS)
    page.get_by_label("Message").fill("What is twelve times seven?")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("heard: ").wait_for()
    page.get_by_text("ai: 12 times 7 is 84.").last.wait_for()
    page.get_by_text("The agent listens.").wait_for()
    page.get_by_role("button", name="End", exact=True).click()
    page.get_by_role("button", name="Talk").wait_for()
    page.close()
