"""Replies that are asked for before the commit, through the whole runtime."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from tests.fakes.scripted import RecordingDoor, ScriptedChat, ScriptedStt, ScriptedTts
from tests.promises import check_promises
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.effects import ErrorTold, ReplyTold, TurnEnded, TurnStarted, TurnTimed
from voice_fsm.fsm.events import Interrupt
from voice_fsm.fsm.options import SessionOptions, TurnOptions
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript

FAILS = ProviderError(Upstream.CHAT, ProviderFault.TRUNCATED, "Broke off.")


async def converse(
    stt: ScriptedStt, chat: ScriptedChat, act: Callable[[VoiceSession], Awaitable[None]]
) -> RecordingDoor:
    """A session that guesses after 0.2 s; the user says "what is the time" at 1 s, and then ``act``."""

    async def talk(session: VoiceSession) -> None:
        session.configure("s", SessionOptions(turn=TurnOptions(speculative_ms=200)))
        await trio.sleep(1)
        stt.say(PartialTranscript("what is the time"))
        await act(session)
        await trio.sleep(20)

    door = RecordingDoor(talk)
    await VoiceSession(Services(stt=stt, chat=chat, tts=ScriptedTts()), door).run()
    check_promises(door.told)
    assert chat.open_calls == 0
    assert chat.most_open == 1
    return door


async def test_a_reply_is_ready_when_the_user_has_spoken(autojump_clock: MockClock) -> None:
    """One call is made; nobody is told of it before the commit, and its reply comes with it."""
    stt, chat = ScriptedStt(), ScriptedChat(lambda _: [0.3, "It is ", 0.1, "noon."])

    async def act(_: VoiceSession) -> None:
        await trio.sleep(1)
        stt.say(CommittedTranscript("What is the time?"))

    door = await converse(stt, chat, act)
    assert [request.text for request in chat.requests] == ["what is the time"]
    told_s = {type(item): at_s for at_s, item in door.items}
    assert told_s[TurnStarted] == told_s[ReplyTold] == 2
    assert all(at_s >= 2 for at_s, item in door.items if getattr(item, "turn_id", None))
    (metrics,) = (item for item in door.told if isinstance(item, TurnTimed))
    assert metrics.asked_early_ms == pytest.approx(800)
    assert metrics.first_text_ms == pytest.approx(0)


async def test_a_wrong_guess_is_gone_before_the_turn_asks(autojump_clock: MockClock) -> None:
    """What the first call answered is not said, and the calls do not overlap."""
    stt, chat = ScriptedStt(), ScriptedChat(lambda request: [f"You said {request.text}."])
    chat.closing_s = 0.5

    async def act(_: VoiceSession) -> None:
        await trio.sleep(0.5)
        stt.say(CommittedTranscript("What is the time in Rome?"))

    door = await converse(stt, chat, act)
    assert [request.text for request in chat.requests] == ["what is the time", "What is the time in Rome?"]
    (reply,) = (item.text for item in door.told if isinstance(item, ReplyTold))
    assert reply == "You said What is the time in Rome?."


async def test_a_guess_that_failed_is_made_good(autojump_clock: MockClock) -> None:
    """The turn asks as if nothing had been asked, and nobody learns of the failure."""
    stt, chat = ScriptedStt(), ScriptedChat()
    chat.script = lambda _: [FAILS] if len(chat.requests) == 1 else ["It is noon."]

    async def act(_: VoiceSession) -> None:
        await trio.sleep(1)
        stt.say(CommittedTranscript("What is the time?"))

    door = await converse(stt, chat, act)
    assert len(chat.requests) == 2
    assert not any(isinstance(item, ErrorTold) for item in door.told)
    assert [item.outcome for item in door.told if isinstance(item, TurnEnded)] == ["completed"]


async def test_a_guess_that_fails_later_fails_its_turn(autojump_clock: MockClock) -> None:
    """What had come of the reply is said, as with any reply that breaks off."""
    stt, chat = ScriptedStt(), ScriptedChat(lambda _: ["It is ", 5.0, FAILS])

    async def act(_: VoiceSession) -> None:
        await trio.sleep(1)
        stt.say(CommittedTranscript("What is the time?"))

    door = await converse(stt, chat, act)
    (error,) = (item for item in door.told if isinstance(item, ErrorTold))
    assert error.code == FAILS.code
    assert [item.outcome for item in door.told if isinstance(item, TurnEnded)] == ["failed"]


@pytest.mark.parametrize("commits", [True, False])
async def test_the_call_ends_with_what_it_was_for(autojump_clock: MockClock, *, commits: bool) -> None:
    """Interrupting the turn that took it over, or a commit without words, ends the call at once."""
    stt, chat = ScriptedStt(), ScriptedChat(lambda _: ["It is ", 60.0, "noon."])
    open_calls: list[int] = []

    async def act(session: VoiceSession) -> None:
        await trio.sleep(1)
        open_calls.append(chat.open_calls)
        stt.say(CommittedTranscript("What is the time?" if commits else ""))
        await trio.sleep(0.1)
        session.step(Interrupt(at_s=trio.current_time()))
        await trio.sleep(0.1)
        open_calls.append(chat.open_calls)

    await converse(stt, chat, act)
    assert open_calls == [1, 0]
