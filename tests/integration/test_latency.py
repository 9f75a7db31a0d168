"""Who waits for whom: to the millisecond with scripted upstreams, in order with real ones."""

import pytest
from trio.testing import MockClock

from tests.fakes.http_server import Pause
from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from tests.integration.rig import (
    Client,
    Pools,
    all_services,
    converse,
    settings_of,
    streamed_reply,
    upstreams,
)
from voice_fsm.fsm.effects import ReplyTold, SttStarted, TurnEnded, TurnTimed
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.runtime.outgoing import AudioChunk
from voice_fsm.runtime.session import Services, VoiceSession

FIRST, SECOND = "Here is a first sentence. ", "And here is another one."


async def ask_once(client: Client, session: VoiceSession) -> None:
    session.configure("s1", session.options)
    await client.until(SttStarted)
    assert (await client.ask(session)).outcome == "completed"


@pytest.mark.parametrize("kind", ["backend", "openai"])
async def test_the_voice_is_heard_while_the_chat_still_writes(
    autojump_clock: MockClock, pools: Pools, kind: str
) -> None:
    """Through real adapters: the first sentence sounds two seconds before the second is written."""
    async with upstreams(kind) as up:
        up.chat.play(streamed_reply(Pause(0.5), FIRST, Pause(2.0), SECOND))
        async with all_services(settings_of(up.settings)) as (services,):
            client = await converse(services, ask_once)
    (told_s,) = client.when(ReplyTold)
    first_heard_s = client.when(AudioChunk)[0]
    assert told_s - first_heard_s == pytest.approx(2.0, abs=0.1)
    assert [item.text for item in client.all(ReplyTold)] == [FIRST + SECOND]


@pytest.mark.parametrize(
    ("before_s", "within_s", "voice_s", "heard_ms"),
    [
        (0.0, 0.0, 0.0, 0),
        (0.4, 0.0, 0.0, 400),
        (0.4, 3.0, 0.0, 400),
        (0.0, 0.0, 0.25, 250),
        (0.4, 3.0, 0.25, 650),
    ],
)
async def test_the_first_sound_waits_for_the_first_sentence_and_the_voice_alone(
    autojump_clock: MockClock, before_s: float, within_s: float, voice_s: float, heard_ms: float
) -> None:
    """To the millisecond: what is written after the first sentence costs nothing."""
    chat = ScriptedChat(lambda _: [before_s, FIRST, within_s, SECOND])
    # One piece of audio for each piece of text, after this delay.
    tts = ScriptedTts(chunk_ms=60_000, per_chunk_s=voice_s)
    services = Services(stt=ScriptedStt(), chat=chat, tts=tts)
    client = await converse(services, ask_once_with_defaults)
    (timed,) = client.all(TurnTimed)
    assert timed.first_text_ms == pytest.approx(before_s * 1000, abs=0.001)
    assert timed.first_speech_ms == pytest.approx(heard_ms, abs=0.001)
    assert timed.first_audio_sent_ms == pytest.approx(heard_ms, abs=0.001)
    # The second sentence is spoken at once when it comes, and heard when the first is over.
    first_s, second_s = len(FIRST.strip()) * 0.05, len(SECOND) * 0.05
    over_s = max(heard_ms / 1000 + first_s, before_s + within_s + voice_s) + second_s
    assert timed.playback_done_ms == pytest.approx(over_s * 1000, abs=0.001)
    (done_s,) = client.when(TurnEnded)
    assert done_s == pytest.approx(over_s, abs=0.000001)


async def ask_once_with_defaults(client: Client, session: VoiceSession) -> None:
    session.configure("s1", SessionOptions())
    assert (await client.ask(session)).outcome == "completed"
