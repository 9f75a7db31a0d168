"""One recorded session of each kind, played on Trio's clock with scripted upstreams.

``python -m tests.recording.sessions`` records them anew into ``golden/``, and puts one's timeline into
docs/operations.md: when the machine is meant to give other effects, or an event has another field. What
changed in the timelines is then for the reviewer to read.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio
import trio.testing

from tests.fakes.scripted import RecordingDoor, ScriptedChat, ScriptedStt, ScriptedTts
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.events import Interrupt, TextPrompt
from voice_fsm.fsm.options import BackendOptions, SessionOptions, TurnOptions
from voice_fsm.recording.codec import Codec
from voice_fsm.recording.lines import End, Header, Line, Step, TextKept
from voice_fsm.recording.reading import read_recording
from voice_fsm.recording.timeline import make_timeline
from voice_fsm.recording.timeline_text import render_text
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript

GOLDEN: Final = Path(__file__).with_name("golden")
PAGE: Final = Path(__file__).parents[2] / "docs/operations.md"
EXAMPLE: Final = re.compile(r"(?<=interrupted by speech:\n\n```text\n).*?(?=```)", re.DOTALL)
"""Where the page shows the timeline of `barge_in`."""
API_KEY: Final = "sk-never-to-be-written"


@attrs.define
class MemoryTape:
    """A recording that is never on disk."""

    header: Header
    lines: list[Line] = attrs.field(factory=list)

    def note(self, step: Step) -> None:
        self.lines.append(step)

    def data(self, text: TextKept) -> bytes:
        """The file, as it would be."""
        lines = [attrs.evolve(self.header, text=text), *self.lines, End("closed")]
        return "".join(map(Codec(text).encode, lines)).encode()


@attrs.define
class MemoryRecorder:
    tapes: list[MemoryTape] = attrs.field(factory=list)

    def tape(self, limits: Limits, opened_s: float) -> MemoryTape:
        header = Header(
            voice_fsm="0.1.0",
            started="2026-11-21T12:00:00.000+00:00",
            opened_s=opened_s,
            session_id=None,
            text="plain",
            limits=limits,
        )
        self.tapes.append(MemoryTape(header))
        return self.tapes[-1]


@attrs.define
class Stage:
    """What a script has at hand."""

    stt: ScriptedStt = attrs.field(factory=ScriptedStt)
    chat: ScriptedChat = attrs.field(factory=ScriptedChat)
    tts: ScriptedTts = attrs.field(factory=lambda: ScriptedTts(first_s=0.2, per_chunk_s=0.02))
    draining: trio.Event = attrs.field(factory=trio.Event)
    options: SessionOptions = SessionOptions(backend=BackendOptions(api_key=API_KEY))

    def hears(self, *partials: str) -> None:
        self.stt.say(*map(PartialTranscript, partials))

    def commits(self, text: str) -> None:
        self.stt.say(CommittedTranscript(text))


Script = Callable[[Stage, VoiceSession], Awaitable[None]]


def types(session: VoiceSession, text: str) -> None:
    session.step(TextPrompt(at_s=trio.current_time(), text=text))


async def plain_conversation(stage: Stage, session: VoiceSession) -> None:
    for question, answer in (("How are you?", "Fine, thank you."), ("And the weather?", "It rains.")):
        stage.chat.script = lambda _, answer=answer: [0.3, answer]  # type: ignore[misc]  # bound as it is now
        await trio.sleep(1)
        stage.hears(question[:6])
        await trio.sleep(0.4)
        stage.hears(question)
        await trio.sleep(0.5)
        stage.commits(question)
        await trio.sleep(3)


async def barge_in(stage: Stage, session: VoiceSession) -> None:
    stage.chat.script = lambda _: ["Once upon a time ", "there was a queen. ", "She had three ships."]
    await trio.sleep(0.5)
    stage.commits("Tell me a story.")
    await trio.sleep(1.5)
    stage.hears("wait")
    await trio.sleep(0.4)
    stage.chat.script = lambda _: ["Yes?"]
    stage.commits("Wait a moment.")
    await trio.sleep(2)


async def stop_button(stage: Stage, session: VoiceSession) -> None:
    stage.commits("How are you?")
    await trio.sleep(0.6)
    session.step(Interrupt(at_s=trio.current_time()))
    await trio.sleep(1)


async def typed_prompt(stage: Stage, session: VoiceSession) -> None:
    types(session, "How are you?")
    await trio.sleep(0.7)
    types(session, "Answer in one word.")
    await trio.sleep(2)


async def thinking_joined(stage: Stage, session: VoiceSession) -> None:
    stage.chat.script = lambda request: [2.0, f"You said: {request.text}"]
    stage.commits("I want to")
    await trio.sleep(0.8)
    stage.hears("book a")
    await trio.sleep(0.3)
    stage.commits("book a flight.")
    await trio.sleep(6)


async def upstream_failure(stage: Stage, session: VoiceSession) -> None:
    stage.chat.script = lambda _: [
        "I am ",
        ProviderError(Upstream.CHAT, ProviderFault.SERVER_ERROR, "The chat service failed."),
    ]
    types(session, "How are you?")
    await trio.sleep(1)
    stage.chat.script = lambda _: ["Fine again."]
    types(session, "And now?")
    await trio.sleep(2)


async def idle_close(stage: Stage, session: VoiceSession) -> None:
    await trio.sleep_forever()


async def drain(stage: Stage, session: VoiceSession) -> None:
    types(session, "How are you?")
    await trio.sleep(0.5)
    stage.draining.set()
    await trio.sleep_forever()


async def reconfigure(stage: Stage, session: VoiceSession) -> None:
    types(session, "How are you?")
    await trio.sleep(0.5)
    session.configure("golden", attrs.evolve(stage.options, turn=TurnOptions(barge_in="off")))
    types(session, "And now?")
    await trio.sleep(0.6)
    stage.hears("not heard")
    await trio.sleep(2)


SCRIPTS: Final[dict[str, Script]] = {
    script.__name__: script
    for script in (
        plain_conversation,
        barge_in,
        stop_button,
        typed_prompt,
        thinking_joined,
        upstream_failure,
        idle_close,
        drain,
        reconfigure,
    )
}


async def play(script: Script) -> MemoryTape:
    """Run a session whose client does what the script says and leaves."""
    stage, recorder = Stage(), MemoryRecorder()

    async def act(session: VoiceSession) -> None:
        session.configure("golden", stage.options)
        await trio.testing.wait_all_tasks_blocked()
        await script(stage, session)

    services = Services(
        stt=stage.stt,
        chat=stage.chat,
        tts=stage.tts,
        limits=Limits(idle_s=30),
        recorder=recorder,
        draining=stage.draining,
    )
    await VoiceSession(services, RecordingDoor(act)).run()
    (tape,) = recorder.tapes
    return tape


def timeline_text(data: bytes) -> str:
    return render_text(make_timeline(read_recording(data)))


def main() -> None:
    """Record all sessions anew, and their timelines, one of them into the page."""
    GOLDEN.mkdir(exist_ok=True)
    for name, script in SCRIPTS.items():
        tape = trio.run(partial(play, script), clock=trio.testing.MockClock(autojump_threshold=0))
        data = tape.data("plain")
        (GOLDEN / f"{name}.jsonl").write_bytes(data)
        (GOLDEN / f"{name}.txt").write_text(timeline_text(data), encoding="utf-8")
    example = (GOLDEN / "barge_in.txt").read_text(encoding="utf-8")
    PAGE.write_text(EXAMPLE.sub(lambda _: example, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
