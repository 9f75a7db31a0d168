"""Speech over links that break, to a recogniser that hears the words that the audio holds."""

import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection

from tests.fakes.scripted import ScriptedChat, ScriptedTts
from tests.fakes.sockets import accept, in_memory, reject, reset
from tests.integration.rig import Client, converse
from voice_fsm.fsm.effects import ErrorTold, SttStarted, UtteranceCommitted
from voice_fsm.fsm.options import SessionOptions, SttOptions
from voice_fsm.runtime.guards import GuardedStt
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.stt.elevenlabs import ElevenLabsStt, ElevenLabsSttConfig

PIECE_MS, WORD_MS, PAUSE_MS = 100, 600, 800
HEARD_MS, SILENCE_MS, FRAME_MS = 200, 400, 10
WORDS = 12
LEVEL = 8
"""Samples of a word for its number: up to 15 of them mu-law has, as which audio is kept for a new link."""
ANSWER_S = 0.1


def sound(value: int, duration_ms: int) -> bytes:
    """PCM whose every sample tells the same: a word's number, or 0 for silence."""
    return np.full(16 * duration_ms, value * LEVEL, "<i2").tobytes()


class Ear:
    """Makes words of audio; silence after words ends an utterance."""

    def __init__(self) -> None:
        self._frames: Counter[int] = Counter()
        self._silent_ms = 0

    def hear(self, audio: bytes, *, unasked: bool) -> list[str]:
        """Gives the utterances that end within this audio, if they are to be ended unasked."""
        ended: list[str] = []
        for number in (np.frombuffer(audio, "<i2")[:: 16 * FRAME_MS] // LEVEL).tolist():
            self._silent_ms = 0 if number else self._silent_ms + FRAME_MS
            if number:
                self._frames[number] += 1
            if unasked and self._silent_ms >= SILENCE_MS and self._words():
                ended.append(self.commit())
        return ended

    def commit(self) -> str:
        """What was said since the last commit."""
        text = " ".join(self._words())
        self._frames.clear()
        return text

    def _words(self) -> list[str]:
        return [f"word {word}" for word, frames in self._frames.items() if frames * FRAME_MS >= HEARD_MS]


class Recogniser:
    """ElevenLabs' protocol around an ear."""

    def __init__(self) -> None:
        self.contexts: list[tuple[Any, str | None]] = []
        """The ``previous_text`` of each link's first audio, and the text that was committed last by then."""
        self.last_committed: Callable[[], str | None] = lambda: None
        self.away_until_s = 0.0
        self._line: tuple[trio.abc.Stream, WebSocketConnection] | None = None

    async def handle(self, stream: trio.abc.Stream) -> None:
        if trio.current_time() < self.away_until_s:
            await reject(stream, 503)
            return
        async with accept(stream) as (handshake, websocket):
            self._line = stream, websocket
            await self._say(websocket, "session_started", session_id="x", config={})
            await self._listen(websocket, unasked=handshake.query["commit_strategy"] == ["vad"])

    async def _listen(self, websocket: WebSocketConnection, *, unasked: bool) -> None:
        ear, is_first = Ear(), True
        while True:
            message = json.loads(await websocket.get_message())
            if is_first:
                self.contexts.append((message.get("previous_text"), self.last_committed()))
                is_first = False
            utterances = ear.hear(base64.b64decode(message["audio_base_64"]), unasked=unasked)
            if message["commit"]:
                utterances.append(ear.commit())
            for text in utterances:
                await trio.sleep(ANSWER_S)
                await self._say(websocket, "committed_transcript", text=text)

    async def fail(self, how: str, away_s: float) -> None:
        """Break the link that is open, and refuse new ones for a while."""
        self.away_until_s = trio.current_time() + away_s
        if self._line is None:
            return
        stream, websocket = self._line
        with suppress(ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            match how:
                case "reset":
                    await reset(stream)
                case "cut":
                    await stream.send_all(b"\x81\x7e\x10\x00only a part")
                    await trio.aclose_forcefully(stream)
                case "garbage":
                    await stream.send_all(b"\xff\xff\xff\xff")
                case "close":
                    with trio.move_on_after(1):
                        await websocket.aclose(1000)
                case _:
                    await self._say(websocket, how, error="It ended.")

    async def _say(self, websocket: WebSocketConnection, kind: str, **fields: object) -> None:
        await websocket.send_message(json.dumps({"message_type": kind, **fields}))


breaks = st.lists(
    st.tuples(
        st.floats(1.5, 5.0),
        st.sampled_from(
            ["reset", "cut", "garbage", "close", "session_time_limit_exceeded", "transcriber_error"]
        ),
        st.sampled_from([0.0, 0.0, 0.5, 2.0]),
    ),
    max_size=6,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(breaks, st.sampled_from(["vad", "manual"]))
def test_no_word_is_lost_or_said_twice_whenever_links_break(
    breaks: Sequence[tuple[float, str, float]], strategy: Literal["vad", "manual"]
) -> None:
    """Each word is committed once and in order, and each new link is told what came before.

    Links last for more than a second here: which of the utterances that a new link is given at once it has
    answered for, no message tells, so one that breaks in the middle of that may cost some.
    """
    client, recogniser = trio.run(
        speak_over_breaking_links, breaks, strategy, clock=MockClock(autojump_threshold=0)
    )
    heard = " ".join(item.text for item in client.all(UtteranceCommitted))
    assert heard.split() == " ".join(f"word {number}" for number in range(1, WORDS + 1)).split()
    assert not client.all(ErrorTold)
    assert len(client.all(SttStarted)) == len(recogniser.contexts)
    for told, committed in recogniser.contexts[1:]:
        assert told == committed


async def speak_over_breaking_links(
    breaks: Sequence[tuple[float, str, float]], strategy: Literal["vad", "manual"]
) -> tuple[Client, Recogniser]:
    recogniser = Recogniser()

    async def break_links(client: Client) -> None:
        for number, (wait_s, how, away_s) in enumerate(breaks, start=1):
            await client.until(SttStarted, number)
            await trio.sleep(wait_s)
            await recogniser.fail(how, away_s)

    async def act(client: Client, session: VoiceSession) -> None:
        recogniser.last_committed = lambda: last_text(client)
        session.configure("s1", SessionOptions(stt=SttOptions(commit_strategy=strategy)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_links, client)
            for number in range(1, WORDS + 1):
                await say(session, number)
                if strategy == "manual":
                    session.commit_audio()
            for _ in range(8):
                await say(session, 0)
            nursery.cancel_scope.cancel()

    async with in_memory(recogniser.handle) as dial:
        config = ElevenLabsSttConfig(api_key="k", base_url="http://fake:9")
        stt = GuardedStt(ElevenLabsStt(config, dial=dial))
        client = await converse(Services(stt=stt, chat=ScriptedChat(), tts=ScriptedTts()), act)
    return client, recogniser


def last_text(client: Client) -> str | None:
    texts = [item.text for item in client.all(UtteranceCommitted)]
    return texts[-1] if texts else None


async def say(session: VoiceSession, number: int) -> None:
    """Speak one word and pause, at the pace of speech."""
    for value, duration_ms in ((number, WORD_MS), (0, PAUSE_MS)):
        for _ in range(duration_ms // PIECE_MS):
            await trio.sleep(PIECE_MS / 1000)
            session.hear(sound(value, PIECE_MS))
