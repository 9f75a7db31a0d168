"""The whole runtime under random schedules: what the client was told keeps the promises, always."""

from collections.abc import Sequence

import attrs
import trio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.fakes.scripted import RecordingDoor, ScriptedChat, ScriptedStt, ScriptedTts, Step
from tests.promises import check_promises
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.effects import TurnEnded
from voice_fsm.fsm.events import Interrupt, SpeechStarted, SpeechStopped, TextPrompt
from voice_fsm.fsm.options import SessionOptions, TurnOptions
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript

CHAT_FAILS = ProviderError(Upstream.CHAT, ProviderFault.TRUNCATED, "Broke off.")
TTS_FAILS = ProviderError(Upstream.TTS, ProviderFault.STALLED, "Fell silent.")
STT_FAILS = ProviderError(Upstream.STT, ProviderFault.LOST, "Gone.")

# Equal waits are the interesting ones: many things then happen in one tick of the clock.
waits = st.sampled_from([0.0, 0.0, 0.01, 0.05, 0.1, 0.5, 2.0])
actions = st.sampled_from(
    [
        "partial",
        "commit",
        "prompt",
        "interrupt",
        "configure",
        "audio",
        "stt lost",
        "partial+commit",
        "voice",
        "quiet",
        "hum",
        "echo",
        "break off",
        "partial, same",
    ]
)
replies = st.lists(
    st.one_of(waits, st.sampled_from(["Yes. ", "Well, let me see. ", "A longer sentence comes here. "])),
    max_size=6,
)


@attrs.frozen
class Schedule:
    moves: Sequence[tuple[float, str]]
    replies: Sequence[Sequence[Step]]
    chat_closing_s: float
    tts_first_s: float
    tts_per_chunk_s: float
    tts_fails_after: int | None
    stt_send_s: float
    read_s: float
    turn: TurnOptions


schedules = st.builds(
    Schedule,
    moves=st.lists(st.tuples(waits, actions), min_size=1, max_size=25),
    replies=st.lists(
        st.builds(lambda steps, fails: [*steps, CHAT_FAILS] if fails else steps, replies, st.booleans()),
        min_size=1,
        max_size=4,
    ),
    chat_closing_s=st.sampled_from([0.0, 0.0, 0.2]),
    tts_first_s=waits,
    tts_per_chunk_s=st.sampled_from([0.0, 0.01, 0.1]),
    tts_fails_after=st.sampled_from([None, None, 0, 1, 5]),
    stt_send_s=st.sampled_from([0.0, 0.1]),
    read_s=st.sampled_from([0.0, 0.0, 0.02, 0.3]),
    turn=st.builds(
        TurnOptions,
        barge_in=st.sampled_from(["partial", "vad"]),
        pausable=st.booleans(),
        max_lead_ms=st.sampled_from([None, 300]),
        patience_ms=st.sampled_from([None, 100]),
        speculative_ms=st.sampled_from([None, 50]),
        first_message=st.sampled_from([None, "Good day to you."]),
        first_message_uninterruptible=st.booleans(),
        idle_prompt_s=st.sampled_from([None, 3.0]),
    ),
)


@attrs.define
class Result:
    door: RecordingDoor
    state: str
    chat: ScriptedChat
    tts: ScriptedTts
    leftovers: tuple[int, ...]


async def play(schedule: Schedule) -> Result:
    """Run one session through the schedule, let it settle, and leave."""
    stt = ScriptedStt()
    chat = ScriptedChat(lambda request: schedule.replies[request.turn_id % len(schedule.replies)])
    chat.closing_s = schedule.chat_closing_s
    tts = ScriptedTts(first_s=schedule.tts_first_s, per_chunk_s=schedule.tts_per_chunk_s)
    if schedule.tts_fails_after is not None:
        tts.error, tts.error_after_chunks = TTS_FAILS, schedule.tts_fails_after
    state = ""

    async def act(session: VoiceSession) -> None:
        nonlocal state
        options = SessionOptions(turn=schedule.turn)
        session.configure("s", options)
        for wait_s, move in schedule.moves:
            await trio.sleep(wait_s)
            if stt.links:
                stt.links[-1].send_s = schedule.stt_send_s
            perform(session, stt, move, options)
        await trio.sleep(120)
        state = session.state

    door = RecordingDoor(act, read_s=lambda _: schedule.read_s)
    tasks = trio.lowlevel.current_statistics().tasks_living
    await VoiceSession(Services(stt=stt, chat=chat, tts=tts), door).run()
    leftovers = (
        trio.lowlevel.current_statistics().tasks_living - tasks,
        stt.open_links,
        chat.open_calls,
        tts.open_streams,
    )
    return Result(door, state, chat, tts, leftovers)


def perform(session: VoiceSession, stt: ScriptedStt, move: str, options: SessionOptions) -> None:  # noqa: C901, PLR0912  # a table
    now_s = trio.current_time()
    match move:
        case "partial":
            stt.say(PartialTranscript("and then"))
        case "commit":
            stt.say(CommittedTranscript("and then we go"))
        case "partial+commit":
            stt.say(PartialTranscript("stop"), CommittedTranscript("stop it"))
        case "partial, same":
            stt.say(PartialTranscript("and then we go"))
        case "prompt":
            session.step(TextPrompt(at_s=now_s, text="What is next?"))
        case "interrupt":
            session.step(Interrupt(at_s=now_s))
        case "configure":
            session.configure("s", options)
        case "voice":
            session.step(SpeechStarted(at_s=now_s, speech_ms=100))
        case "quiet":
            session.step(SpeechStopped(at_s=now_s))
        case "hum":
            stt.say(PartialTranscript("mm-hmm"), CommittedTranscript("Mm-hmm."))
        case "echo":
            stt.say(CommittedTranscript("a longer sentence comes"))
        case "break off":
            stt.say(CommittedTranscript("and then, um"))
        case "audio":
            session.hear(b"\0\0" * 1600)
        case "stt lost":
            stt.say(STT_FAILS)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schedules)
def test_promises_hold_under_any_schedule(schedule: Schedule) -> None:
    """Promises 1 to 4: nothing stale, each turn ends once, nothing overlaps or is left, thinking ends."""
    result = trio.run(play, schedule, clock=MockClock(autojump_threshold=0))
    told = result.door.told
    check_promises(told)
    assert result.state == "listening"
    assert result.leftovers == (0, 0, 0, 0)
    assert result.chat.most_open <= 1, "a turn's chat call is over before the next turn's begins"
    assert result.tts.most_open <= 1
    for item in told:
        if isinstance(item, TurnEnded):
            event(item.outcome)
