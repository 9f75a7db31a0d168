"""A thousand interruptions at random moments, with the real adapters streaming on real sockets."""

import random
from collections import Counter
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.http_server import Pause, Step
from tests.integration.rig import (
    Client,
    Pools,
    all_services,
    converse,
    nothing_left,
    settings_of,
    streamed_reply,
    upstreams,
)
from voice_fsm.fsm.effects import SttStarted, TurnEnded, TurnInterrupted
from voice_fsm.fsm.events import Committed, Interrupt, Partial, TextPrompt
from voice_fsm.runtime.outgoing import AudioChunk
from voice_fsm.runtime.session import VoiceSession

BARGE_INS = 1000
SESSIONS = 8
TICK_S = 1 / 128
"""All that takes time takes a multiple of this, so that many things happen at once."""
LATEST = 16
"""Ticks until an interruption, at most; replies are about as long."""
REPLY: list[Step | str] = [
    Pause(2 * TICK_S),
    "Let me think. ",
    Pause(4 * TICK_S),
    "It is a longer story. ",
    Pause(4 * TICK_S),
    "Once there was a king.",
]


def interrupt(session: VoiceSession, dice: random.Random) -> None:
    """Speak up, press the button, or leave it to the next question."""
    now_s = trio.current_time()
    match dice.randrange(4):
        case 0:
            session.step(Partial(at_s=now_s, text="wait"))
        case 1:
            session.step(Interrupt(at_s=now_s))
        case _:
            pass


def ask(session: VoiceSession, dice: random.Random) -> None:
    """Say or type the next question."""
    now_s = trio.current_time()
    if dice.random() < 0.5:
        session.step(Committed(at_s=now_s, text="Tell me a story"))
    else:
        session.step(TextPrompt(at_s=now_s, text="Tell me a story"))


async def interrupt_often(client: Client, session: VoiceSession, dice: random.Random) -> None:
    session.configure("s1", session.options)
    await client.until(SttStarted)
    for _ in range(BARGE_INS // SESSIONS):
        ask(session, dice)
        await trio.sleep(TICK_S * dice.randint(0, LATEST))
        interrupt(session, dice)
    session.step(Interrupt(at_s=trio.current_time()))
    assert session.state == "listening"
    assert (await client.ask(session)).outcome == "completed"


@pytest.fixture
def autojump_clock() -> MockClock:
    """Jump sooner than other tests do: there are thousands of jumps."""
    return MockClock(autojump_threshold=0.001)


async def test_a_thousand_barge_ins_leave_nothing_behind(autojump_clock: MockClock, pools: Pools) -> None:
    """Nothing stale is told, every turn ends once, and all connections end or are free again."""
    outcomes: Counter[str] = Counter()
    interrupted_in_speech = 0

    async def one(seed: int) -> None:
        nonlocal interrupted_in_speech
        dice = random.Random(seed)
        client = await converse(services, lambda client, session: interrupt_often(client, session, dice))
        outcomes.update(item.outcome for item in client.all(TurnEnded))
        audible = {item.turn_id for item in client.all(AudioChunk)}
        interrupted_in_speech += sum(item.turn_id in audible for item in client.all(TurnInterrupted))

    files_before = open_files()
    async with upstreams() as up:
        up.chat.play(streamed_reply(*REPLY))
        up.elevenlabs.tts.first_audio_s = 2 * TICK_S
        up.elevenlabs.tts.between_chunks_s = TICK_S
        up.elevenlabs.tts.chunk_bytes = 12801
        async with all_services(settings_of(up.settings, {"TTS_OUTPUT_FORMAT": "pcm_8000"})) as (services,):
            async with trio.open_nursery() as nursery:
                for seed in range(SESSIONS):
                    nursery.start_soon(one, seed)
            await nothing_left(up, pools)
            asked = len(up.chat.server.requests)
    assert open_files() <= files_before
    assert outcomes["failed"] == 0
    assert outcomes["interrupted"] + outcomes["cancelled"] >= BARGE_INS
    assert outcomes["completed"] == SESSIONS
    assert interrupted_in_speech > BARGE_INS // 4
    assert asked > BARGE_INS * 3 // 4


def open_files() -> int:
    """How many file descriptors the process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))
