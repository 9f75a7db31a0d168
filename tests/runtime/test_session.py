from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.fakes.scripted import RecordingDoor, ScriptedChat, ScriptedStt, ScriptedTts
from tests.promises import check_promises
from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import (
    AudioEnded,
    Closing,
    ErrorTold,
    ReplyTold,
    SttStarted,
    TurnEnded,
    TurnInterrupted,
    TurnPaused,
    TurnResumed,
    TurnStarted,
    TurnTimed,
    UtteranceCommitted,
)
from voice_fsm.fsm.events import Interrupt, SpeechStarted, SpeechStopped, TextPrompt, Word
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.options import PCM_24K, SessionOptions, TtsOptions, TurnOptions
from voice_fsm.fsm.sentences import SentenceSplitter
from voice_fsm.runtime.outgoing import Answer, AudioChunk, TextDelta
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.runtime.turn import MAX_DELTA_CHARS, SlowReply
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript

Act = Callable[[VoiceSession], Awaitable[None]]


@pytest.fixture
def stt() -> ScriptedStt:
    return ScriptedStt()


@pytest.fixture
def chat() -> ScriptedChat:
    return ScriptedChat()


@pytest.fixture
def tts() -> ScriptedTts:
    return ScriptedTts()


@pytest.fixture
def services(stt: ScriptedStt, chat: ScriptedChat, tts: ScriptedTts) -> Services:
    return Services(stt=stt, chat=chat, tts=tts)


async def run(
    services: Services, act: Act, *, untold: frozenset[type] = frozenset(), **door: object
) -> RecordingDoor:
    """Run one session whose client does ``act`` and leaves; check that nothing of it is left."""
    client = RecordingDoor(act, **door)  # type: ignore[arg-type]
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    await VoiceSession(services, client, untold=untold).run()
    assert trio.lowlevel.current_statistics().tasks_living == tasks_before
    for provider, attribute in ((services.stt, "open_links"), (services.chat, "open_calls")):
        assert getattr(provider, attribute) == 0
    assert getattr(services.tts, "open_streams", 0) == 0
    return client


def configured(act: Act, options: SessionOptions | None = None) -> Act:
    async def configure_and_act(session: VoiceSession) -> None:
        session.configure("s1", options or SessionOptions())
        await trio.testing.wait_all_tasks_blocked()
        await act(session)

    return configure_and_act


def prompt(session: VoiceSession, text: str = "How are you?") -> None:
    session.step(TextPrompt(at_s=trio.current_time(), text=text))


async def test_a_spoken_turn_from_transcript_to_the_end_of_playback(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """A commit is answered in text and audio, and the turn is done when the listener has heard the end."""

    async def act(session: VoiceSession) -> None:
        session.hear(b"\0\0" * 1600)
        await trio.sleep(1)
        stt.say(PartialTranscript("how are"), CommittedTranscript("How are you?"))
        await trio.sleep(10)

    client = await run(services, configured(act))
    assert [name for name in client.names if name != "StateChanged"] == [
        "Configured",
        "SttStarted",
        "PartialHeard",
        "UtteranceCommitted",
        "TurnStarted",
        "TextDelta",
        "ReplyTold",
        "AudioStarted",
        "AudioChunk",
        "AudioEnded",
        "TurnTimed",
        "TurnEnded",
    ]
    (done_s,) = (at for at, item in client.items if isinstance(item, TurnEnded))
    assert done_s == pytest.approx(1 + len("Fine, thank you.") * 0.05)
    assert bytes(stt.links[0].audio) == b"\0\0" * 1600


async def test_the_assistant_speaks_first_and_into_a_silence(
    autojump_clock: MockClock, services: Services, chat: ScriptedChat, tts: ScriptedTts
) -> None:
    """The first message is spoken without asking anybody; a long silence is the chat backend's to break."""
    turn = TurnOptions(first_message="Good day.", idle_prompt_s=5)

    async def act(session: VoiceSession) -> None:
        await trio.sleep(20)

    client = await run(services, configured(act, SessionOptions(turn=turn)))
    started = [item for item in client.told if isinstance(item, TurnStarted)]
    assert started == [TurnStarted(1, "", "first_message"), TurnStarted(2, "", "silence")]
    assert tts.spoken == ["Good day.", "Fine, thank you."]
    (request,) = chat.requests
    assert (request.cause, request.history) == ("silence", (Exchange("", "Good day."),))


async def test_audio_of_an_interrupted_turn_stops_before_the_client_is_told(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt, tts: ScriptedTts
) -> None:
    """A partial while the assistant speaks ends the turn at once: end of audio, interrupted, done."""
    tts.per_chunk_s = 0.05

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(0.32)
        stt.say(PartialTranscript("wait"))
        await trio.sleep(10)

    client = await run(services, configured(act))
    names = [name for name in client.names if name not in {"StateChanged", "TurnTimed"}]
    assert names[-4:] == ["PartialHeard", "AudioEnded", "TurnInterrupted", "TurnEnded"]
    (interrupted,) = (item for item in client.told if isinstance(item, TurnInterrupted))
    assert interrupted.heard_ms == pytest.approx(270)
    assert interrupted.heard_text == ""
    assert interrupted.reason == "speech"


async def test_a_cough_pauses_the_reply_and_nothing_of_it_is_lost(
    autojump_clock: MockClock, services: Services, tts: ScriptedTts
) -> None:
    """Between paused and resumed no audio is sent; all of it is in the end, later by the pause."""
    tts.per_chunk_s = 0.05

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(0.32)
        session.step(SpeechStarted(at_s=trio.current_time(), speech_ms=60))
        await trio.sleep(0.2)
        session.step(SpeechStopped(at_s=trio.current_time()))
        await trio.sleep(10)

    turn = TurnOptions(barge_in="vad", pausable=True)
    client = await run(services, configured(act, SessionOptions(turn=turn)))
    check_promises(client.told)
    came_s = {type(item): at_s for at_s, item in client.items}
    assert came_s[TurnPaused] == pytest.approx(0.32)
    assert came_s[TurnResumed] == pytest.approx(0.92)
    audio = b"".join(item.data for item in client.told if isinstance(item, AudioChunk))
    assert PCM_24K.duration_ms(len(audio)) == pytest.approx(len("Fine, thank you.") * 50, abs=1)
    assert came_s[TurnEnded] == pytest.approx(0.05 + len("Fine, thank you.") * 0.05 + 0.6, abs=0.01)


async def test_a_reply_that_comes_all_at_once_does_not_hold_up_others(
    services: Services, chat: ScriptedChat, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tasks get their turn while its text is cut into pieces."""
    chat.script = lambda _: ["word " * 2 * MAX_DELTA_CHARS]
    turns_of_others = 0
    fed_at: list[int] = []
    feed = SentenceSplitter.feed

    def feed_and_note(splitter: SentenceSplitter, delta: str) -> list[str]:
        fed_at.append(turns_of_others)
        return feed(splitter, delta)

    monkeypatch.setattr(SentenceSplitter, "feed", feed_and_note)

    async def act(session: VoiceSession) -> None:
        nonlocal turns_of_others
        prompt(session)
        while len(fed_at) < 10:  # it is the other task whose turns are counted
            await trio.lowlevel.checkpoint()
            turns_of_others += 1

    untold = frozenset({TextDelta})
    await run(services, configured(act, SessionOptions(tts=TtsOptions(silent=True))), untold=untold)
    assert len(set(fed_at)) >= len(fed_at) / 2  # of two that are ready, one may run twice in a row


async def test_a_refused_configuration_leaves_the_client_s_choice_as_it_was(
    services: Services, chat: ScriptedChat, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client wants to be told counts with the settings that it came with, or not at all."""

    async def act(session: VoiceSession) -> None:
        session.configure("s1", SessionOptions(), untold=frozenset({TurnTimed}))
        with monkeypatch.context() as patch:
            patch.setattr(chat, "check", _refuse)
            with pytest.raises(ClientError):
                session.configure("s1", SessionOptions(), untold=frozenset())
        prompt(session)
        await trio.sleep(60)

    client = await run(services, act)
    assert "TurnEnded" in client.names
    assert "TurnTimed" not in client.names
    assert "StateChanged" in client.names


def _refuse(_: object) -> None:
    raise ClientError(ClientFault.INVALID_FIELD, "No.")


async def test_audio_is_paced_if_asked(
    autojump_clock: MockClock, services: Services, chat: ScriptedChat, tts: ScriptedTts
) -> None:
    """The lead is sent at once and the rest in real time, while the text goes ahead."""
    chat.script = lambda _: ["One two three. ", "Four five six. ", "Seven eight nine."]

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(10)

    client = await run(services, configured(act, SessionOptions(turn=TurnOptions(max_lead_ms=500))))
    sent_ms = 0.0
    for at_s, item in client.items:
        if isinstance(item, AudioChunk):
            assert sent_ms <= at_s * 1000 + 500 + 1
            sent_ms += PCM_24K.duration_ms(len(item.data))
    assert sent_ms == pytest.approx(sum(map(len, tts.spoken)) * 50, abs=1)
    (told_s,) = (at_s for at_s, item in client.items if isinstance(item, ReplyTold))
    assert told_s < 0.1


async def test_what_was_heard_goes_into_the_next_request(
    autojump_clock: MockClock, services: Services, chat: ScriptedChat
) -> None:
    """After an interruption the chat backend sees only the part of its reply that was played."""
    chat.script = lambda _: ["One two three. ", "Four five six. ", "Seven eight nine."]

    async def act(session: VoiceSession) -> None:
        prompt(session, "Count")
        await trio.sleep(1.6)
        session.step(Interrupt(at_s=trio.current_time()))
        prompt(session, "Go on")
        await trio.sleep(10)

    await run(services, configured(act))
    (exchange,) = chat.requests[1].history
    assert exchange.user == "Count"
    assert exchange.interrupted
    assert exchange.assistant == "One two three. Four five six. Seven"[: len(exchange.assistant)]
    assert "Four" in exchange.assistant
    assert "nine" not in exchange.assistant


async def test_a_second_utterance_while_thinking_is_answered_with_the_first(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt, chat: ScriptedChat
) -> None:
    """The first turn is cancelled unheard, its chat call is over before the second's begins."""
    chat.script = lambda _: [5.0, "Yes."]
    chat.closing_s = 1.0
    overlapping: list[int] = []

    async def act(session: VoiceSession) -> None:
        stt.say(CommittedTranscript("I want to"))
        await trio.sleep(1)
        stt.say(CommittedTranscript("book a flight"))
        await trio.sleep(0.5)
        overlapping.append(chat.open_calls)
        await trio.sleep(10)

    client = await run(services, configured(act))
    assert [request.text for request in chat.requests] == ["I want to", "I want to book a flight"]
    assert [(item.turn_id, item.outcome) for item in client.told if isinstance(item, TurnEnded)] == [
        (1, "cancelled"),
        (2, "completed"),
    ]
    assert overlapping == [1]


async def test_a_turn_that_cannot_be_stopped_fails_the_next_in_bounded_time(
    autojump_clock: MockClock, services: Services, chat: ScriptedChat
) -> None:
    """A predecessor that hangs on its way out costs the next turn its deadline, not the session."""
    chat.script = lambda _: [5.0, "Yes."]
    chat.closing_s = 15.0

    async def act(session: VoiceSession) -> None:
        prompt(session, "one")
        await trio.sleep(1)
        prompt(session, "two")
        await trio.sleep(60)

    client = await run(services, configured(act))
    (error,) = (item for item in client.told if isinstance(item, ErrorTold))
    assert error.code == "chat_stalled"


@pytest.mark.parametrize("after_chunks", [0, 2])
async def test_a_failing_voice_ends_the_turn_and_not_the_session(
    autojump_clock: MockClock, services: Services, tts: ScriptedTts, after_chunks: int
) -> None:
    """The client gets the error, the turn ends as failed, and the next turn works."""
    tts.error = ProviderError(Upstream.TTS, ProviderFault.SERVER_ERROR, "The voice service failed.")
    tts.error_after_chunks = after_chunks

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(5)
        tts.error = None
        prompt(session)
        await trio.sleep(5)

    client = await run(services, configured(act))
    outcomes = [item.outcome for item in client.told if isinstance(item, TurnEnded)]
    assert outcomes == ["failed", "completed"]
    (error,) = (item for item in client.told if isinstance(item, ErrorTold))
    assert (error.code, error.turn_id, error.retryable, error.fatal) == ("tts_server_error", 1, True, False)
    ended = [type(item) for item in client.told if isinstance(item, AudioEnded | ErrorTold | TurnEnded)]
    assert ended[:3] == [AudioEnded, ErrorTold, TurnEnded] if after_chunks else [ErrorTold, TurnEnded]


async def test_a_chat_backend_that_breaks_off_midway_fails_the_turn(
    autojump_clock: MockClock, services: Services, chat: ScriptedChat
) -> None:
    """Audio of the part that came is not left playing as if it were the whole."""
    chat.script = lambda _: [
        "A first sentence that is spoken. ",
        1.0,
        ProviderError(Upstream.CHAT, ProviderFault.TRUNCATED, "Broke off."),
    ]

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(20)

    client = await run(services, configured(act))
    assert [item.outcome for item in client.told if isinstance(item, TurnEnded)] == ["failed"]
    assert not any(isinstance(item, ReplyTold) for item in client.told)


async def test_a_crash_of_an_adapter_ends_its_session_with_1011(
    autojump_clock: MockClock, services: Services, chat: ScriptedChat
) -> None:
    """A fault of ours is told without its details, and the socket is closed."""
    chat.script = lambda _: [ZeroDivisionError("secret detail")]

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep_forever()

    client = await run(services, configured(act))
    assert client.closed_with == 1011
    (error,) = (item for item in client.told if isinstance(item, ErrorTold))
    assert error.fatal
    assert "secret" not in error.message
    assert client.names[-3:] == ["ErrorTold", "Closing", "StateChanged"]
    assert [item.outcome for item in client.told if isinstance(item, TurnEnded)] == ["cancelled"]


async def test_a_lost_link_is_made_again_and_hears_what_was_said_meanwhile(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """Audio not yet committed is given to the new link, committed audio is not."""

    async def act(session: VoiceSession) -> None:
        session.hear(b"\1\0" * 100)
        session.commit_audio()
        await trio.sleep(0.1)
        stt.say(CommittedTranscript(""))
        session.hear(b"\2\0" * 100)
        await trio.sleep(0.1)
        stt.say(ProviderError(Upstream.STT, ProviderFault.LOST, "gone"))
        await trio.testing.wait_all_tasks_blocked()
        session.hear(b"\3\0" * 100)
        await trio.sleep(5)

    client = await run(services, configured(act))
    assert [bytes(link.audio) for link in stt.links] == [
        b"\1\0" * 100 + b"\2\0" * 100,
        b"\2\0" * 100 + b"\3\0" * 100,
    ]
    started = [item.session_id for item in client.told if isinstance(item, SttStarted)]
    assert started == ["stt-1", "stt-2"]


async def test_times_of_words_go_on_after_a_reconnection(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """A new link counts from its own start, the client from the session's."""

    async def act(session: VoiceSession) -> None:
        session.hear(b"\0\0" * 16000)
        session.commit_audio()
        await trio.sleep(0.1)
        stt.say(CommittedTranscript("one", (Word("one", 0.5, 0.75),)))
        session.hear(b"\0\0" * 8000)
        await trio.sleep(0.1)
        stt.say(ProviderError(Upstream.STT, ProviderFault.LOST, "gone"))
        await trio.sleep(1)
        stt.say(CommittedTranscript("two", (Word("two", 0.25, 0.5),)))
        await trio.sleep(0.1)

    client = await run(services, configured(act))
    committed = [item for item in client.told if isinstance(item, UtteranceCommitted)]
    assert [item.words for item in committed] == [(Word("one", 0.5, 0.75),), (Word("two", 1.25, 1.5),)]


async def test_a_recogniser_that_stays_away_is_given_up_and_text_still_works(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """One error after the give-up time; typing goes on; configuring anew tries again."""

    async def refuse(_: int) -> None:
        await trio.lowlevel.checkpoint()
        raise ProviderError(Upstream.STT, ProviderFault.UNREACHABLE, "No connection.")

    stt.connecting = refuse

    async def act(session: VoiceSession) -> None:
        await trio.sleep(40)
        session.hear(b"\0\0" * 100)
        prompt(session)
        await trio.sleep(5)
        stt.connecting = None
        session.configure("s1", SessionOptions())
        await trio.sleep(1)

    client = await run(services, configured(act))
    errors = [item.code for item in client.told if isinstance(item, ErrorTold)]
    assert errors == ["stt_unreachable"]
    assert [item.outcome for item in client.told if isinstance(item, TurnEnded)] == ["completed"]
    assert len(stt.links) == 1


async def test_time_with_a_link_is_not_time_without_one(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """A link that breaks before long is made again, however short the patience with no link at all is."""

    async def act(session: VoiceSession) -> None:
        for _ in range(6):
            await trio.sleep(8)
            stt.say(ProviderError(Upstream.STT, ProviderFault.LOST, "gone"))
        await trio.sleep(8)

    client = await run(attrs.evolve(services, stt_give_up_s=20), configured(act))
    assert not [item for item in client.told if isinstance(item, ErrorTold)]
    assert len([item for item in client.told if isinstance(item, SttStarted)]) == 7


async def test_a_link_that_breaks_at_once_again_and_again_is_given_up(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """The pauses between the links add up."""

    async def act(session: VoiceSession) -> None:
        for _ in range(600):
            await trio.sleep(0.1)
            stt.say(ProviderError(Upstream.STT, ProviderFault.LOST, "gone"))

    client = await run(services, configured(act))
    ((error_s, error),) = ((at, item) for at, item in client.items if isinstance(item, ErrorTold))
    assert error.code == "stt_lost"
    assert error_s <= services.stt_give_up_s + 0.1 * len(stt.links)


async def test_a_recogniser_that_asks_for_a_pause_gets_it(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """It is not called again before the time that it named."""
    tried_s: list[float] = []

    async def refuse(_: int) -> None:
        tried_s.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if len(tried_s) < 3:
            raise ProviderError(Upstream.STT, ProviderFault.RATE_LIMITED, "Wait.", retry_after_s=7)

    stt.connecting = refuse

    async def act(_: VoiceSession) -> None:
        await trio.sleep(20)

    await run(services, configured(act))
    assert tried_s == pytest.approx([0, 7, 14])


@pytest.mark.parametrize("fault", [ProviderFault.AUTH_FAILED, ProviderFault.REJECTED])
async def test_a_refusal_for_good_is_told_at_once(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt, fault: ProviderFault
) -> None:
    """What a retry cannot mend is not tried again."""
    tries = 0

    async def refuse(_: int) -> None:
        nonlocal tries
        tries += 1
        await trio.lowlevel.checkpoint()
        raise ProviderError(Upstream.STT, fault, "No.")

    stt.connecting = refuse

    async def act(_: VoiceSession) -> None:
        await trio.sleep(40)

    client = await run(services, configured(act))
    (error_s,) = (at for at, item in client.items if isinstance(item, ErrorTold))
    assert error_s < 0.1
    assert tries == 1


async def test_a_recogniser_that_never_gets_ready_times_out(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """Connecting has a deadline, and so have all attempts together."""

    async def hang(_: int) -> None:
        await trio.sleep_forever()

    stt.connecting = hang

    async def act(_: VoiceSession) -> None:
        await trio.sleep(60)

    client = await run(services, configured(act))
    ((error_s, error),) = ((at, item) for at, item in client.items if isinstance(item, ErrorTold))
    assert error.code == "stt_timeout"
    assert error_s <= 40


@pytest.mark.parametrize(("chat_s", "spoken"), [(1.9, False), (2.1, True)])
async def test_a_slow_reply_is_apologised_for(
    autojump_clock: MockClock,
    services: Services,
    chat: ScriptedChat,
    tts: ScriptedTts,
    chat_s: float,
    *,
    spoken: bool,
) -> None:
    """A sentence is spoken if the first text takes too long; it is no part of the reply."""
    chat.script = lambda _: [chat_s, "Here it is."]

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(10)

    patient = attrs.evolve(services, slow_reply=SlowReply(2.0, "One moment, please."))
    client = await run(patient, configured(act))
    assert tts.spoken == (["One moment, please."] if spoken else []) + ["Here it is."]
    assert [item.text for item in client.told if isinstance(item, ReplyTold)] == ["Here it is."]
    assert [item.outcome for item in client.told if isinstance(item, TurnEnded)] == ["completed"]


async def test_changed_stt_settings_make_a_new_link_and_unchanged_ones_do_not(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """Configuring twice with the same settings keeps the link."""

    async def act(session: VoiceSession) -> None:
        session.configure("s1", SessionOptions())
        await trio.sleep(1)
        assert len(stt.links) == 1
        assert stt.open_links == 1

    await run(services, configured(act))


async def test_a_stalled_reader_does_not_stop_a_barge_in(
    autojump_clock: MockClock, services: Services, chat: ScriptedChat
) -> None:
    """With the queue full and the writer stuck, the interruption is queued at once and drops the audio."""
    chat.script = lambda _: ["A very long sentence that fills the queue many times over. " * 5]

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(3)
        session.step(Interrupt(at_s=trio.current_time()))
        await trio.sleep(20)

    client = await run(
        services, configured(act), read_s=lambda item: 5.0 if isinstance(item, AudioChunk) else 0.0
    )
    chunks = [item for item in client.told if isinstance(item, AudioChunk)]
    assert len(chunks) == 1
    names = [name for name in client.names if name not in {"StateChanged", "TurnTimed"}]
    assert names[-3:] == ["AudioEnded", "TurnInterrupted", "TurnEnded"]


async def test_a_client_that_never_reads_is_cut_off(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """Notices are bounded too: past the bound the session ends."""

    async def act(_: VoiceSession) -> None:
        for number in range(1000):
            stt.say(PartialTranscript(f"word {number}"))
            await trio.sleep(0.1)

    client = await run(services, configured(act), read_s=lambda _: 1000.0)
    assert client.told == []
    assert client.closed_with == 1008


async def test_a_client_that_does_not_read_is_not_cut_off_over_what_it_can_do_without(
    autojump_clock: MockClock, services: Services
) -> None:
    """Of that no more is queued than of what it asks for."""

    async def act(session: VoiceSession) -> None:
        for number in range(1000):
            session.mention(number)
        await trio.sleep(200)

    client = await run(services, configured(act), read_s=lambda _: 1.0)
    numbers = [item.message for item in client.told if isinstance(item, Answer)]
    assert numbers == list(range(len(numbers)))
    assert 50 < len(numbers) < 70


async def test_draining_says_goodbye_with_1012(autojump_clock: MockClock, services: Services) -> None:
    """A server that is about to stop ends the turn, tells why and closes."""

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(0.2)
        services.draining.set()
        await trio.sleep_forever()

    client = await run(services, configured(act))
    assert client.closed_with == 1012
    assert Closing("draining") in client.told
    assert [item.outcome for item in client.told if isinstance(item, TurnEnded)] == ["interrupted"]


@pytest.mark.parametrize(
    ("limits", "idle_s", "code", "reason"),
    [
        (Limits(session_s=100), 600.0, 1000, "max_duration"),
        (Limits(), 50.0, 1000, "idle"),
    ],
)
async def test_time_ends_a_session(
    autojump_clock: MockClock, services: Services, limits: Limits, idle_s: float, code: int, reason: str
) -> None:
    """The longest duration and the longest silence end a session politely."""

    async def act(_: VoiceSession) -> None:
        await trio.sleep_forever()

    options = SessionOptions(turn=TurnOptions(idle_timeout_s=idle_s))
    client = await run(attrs.evolve(services, limits=limits), configured(act, options))
    assert client.closed_with == code
    assert [item.reason for item in client.told if isinstance(item, Closing)] == [reason]
    assert trio.current_time() == pytest.approx(min(limits.session_s, idle_s))


async def test_a_client_that_never_configures_is_closed_with_1008(
    autojump_clock: MockClock, services: Services
) -> None:
    """Thirty seconds to say what it wants."""

    async def act(_: VoiceSession) -> None:
        await trio.sleep_forever()

    client = await run(services, act)
    assert client.closed_with == 1008
    assert trio.current_time() == pytest.approx(30)
    assert client.names == ["ErrorTold", "Closing", "StateChanged"]


async def test_audio_too_far_ahead_is_told_once_and_dropped(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """A flood of audio is not queued; after a pause audio is taken again."""
    errors: list[str] = []

    async def act(session: VoiceSession) -> None:
        for _ in range(30):
            try:
                session.hear(b"\0\0" * 16000)
            except ClientError as error:
                errors.append(error.code)
        await trio.sleep(15)
        session.hear(b"\1\0" * 16000)
        await trio.sleep(1)

    await run(services, configured(act))
    assert errors == ["audio_too_fast"]
    assert len(stt.links[0].audio) == 11 * 32000


async def test_a_client_that_vanishes_midway_leaves_nothing(
    autojump_clock: MockClock, services: Services
) -> None:
    """The turn, its calls and the link are gone when the session is."""

    async def act(session: VoiceSession) -> None:
        prompt(session)
        await trio.sleep(0.2)

    client = await run(services, configured(act))
    assert [item for item in client.told if isinstance(item, TurnStarted)]


async def test_what_a_door_says_of_a_turn_ends_with_the_turn(autojump_clock: MockClock) -> None:
    """Nothing of a turn follows its end, not even what only the door has words for."""

    async def act(session: VoiceSession) -> None:
        session.configure("s", SessionOptions())
        session.step(TextPrompt(at_s=trio.current_time(), text="hello"))
        session.answer_of_turn(1, "while it runs")
        session.step(Interrupt(at_s=trio.current_time()))
        session.answer_of_turn(1, "too late")
        await trio.sleep(1)

    door = RecordingDoor(act)
    await VoiceSession(Services(stt=ScriptedStt(), chat=ScriptedChat(), tts=ScriptedTts()), door).run()
    assert [item.message for item in door.told if isinstance(item, Answer)] == ["while it runs"]
