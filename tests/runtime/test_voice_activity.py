from collections.abc import Awaitable, Callable

import attrs
import pytest
import soxr
import trio
import trio.testing
from trio.testing import MockClock

from tests.bench import sounds
from tests.fakes.recordings import to_pcm
from tests.fakes.scripted import RecordingDoor, ScriptedChat, ScriptedStt, ScriptedTts
from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import ulaw_encode
from voice_fsm.fsm.effects import SpeechBegan, SpeechEnded
from voice_fsm.fsm.events import TextPrompt, Update
from voice_fsm.fsm.options import SessionOptions, SttOptions, TurnOptions
from voice_fsm.runtime.session import Services, VoiceSession
from voice_fsm.runtime.voice_activity import Assignment, assignment_for, for_recogniser
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.vad.hysteresis import VadRules

Act = Callable[[VoiceSession], Awaitable[None]]

CHUNK_S = 0.1
CHUNK = 3200
SILENCE = b"\0\0" * 1600
UTTERANCE = next(each for each in sounds.robot_utterances() if "Wait" in each.name)
SPEECH = UTTERANCE.samples[: UTTERANCE.end]
ONE_SENTENCE = to_pcm(sounds.after_silence(SPEECH, before_s=0.3, after_s=1.2))
SPEECH_S = len(SPEECH) / 16000
LOCAL = SttOptions(commit_strategy="local_vad")


@pytest.fixture
def stt() -> ScriptedStt:
    return ScriptedStt()


@pytest.fixture
def services(stt: ScriptedStt) -> Services:
    return Services(stt=stt, chat=ScriptedChat(), tts=ScriptedTts())


async def run(
    services: Services, act: Act, options: SessionOptions = SessionOptions(), *, tell_speech: bool = False
) -> RecordingDoor:
    """Run one session whose client does ``act`` once it is heard, and leaves; its judges come back."""

    async def configure_and_act(session: VoiceSession) -> None:
        session.configure("s1", options, tell_speech=tell_speech)
        await trio.testing.wait_all_tasks_blocked()
        await act(session)

    door = RecordingDoor(configure_and_act)
    await VoiceSession(services, door).run()
    return door


async def talk(session: VoiceSession, audio: bytes = ONE_SENTENCE, chunk: int = CHUNK) -> None:
    for start in range(0, len(audio), chunk):
        session.hear(audio[start : start + chunk])
        await trio.sleep(CHUNK_S)


def speech_told(door: RecordingDoor) -> list[tuple[type, float]]:
    return [(type(item), at_s) for at_s, item in door.items if isinstance(item, SpeechBegan | SpeechEnded)]


# --- what is asked of it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "is_told", "assignment"),
    [
        (SessionOptions(), False, None),
        (SessionOptions(), True, Assignment(VadRules(), ends_utterances=False)),
        (
            SessionOptions(turn=TurnOptions(barge_in="vad"), stt=SttOptions(vad_threshold=0.3)),
            False,
            Assignment(VadRules(), ends_utterances=False),
        ),
        (SessionOptions(stt=LOCAL), False, Assignment(VadRules(), ends_utterances=True)),
        (
            SessionOptions(
                stt=attrs.evolve(
                    LOCAL,
                    vad_threshold=0.5,
                    min_speech_duration_ms=120,
                    vad_silence_threshold_secs=0.4,
                    min_silence_duration_ms=500,
                )
            ),
            True,
            Assignment(VadRules(threshold=0.5, min_speech_ms=120, silence_ms=500), ends_utterances=True),
        ),
    ],
)
def test_what_the_detector_is_asked_for(
    options: SessionOptions, is_told: bool, assignment: Assignment | None
) -> None:
    """It listens where something hangs on it, by the client's rules only where it ends utterances."""
    assert assignment_for(options, VadRules(), is_told=is_told) == assignment


async def test_a_session_that_asks_for_no_detector_has_no_task_for_one(services: Services) -> None:
    """One is begun when the options first ask for it, and once."""
    living: list[int] = []

    async def ask_and_stop(session: VoiceSession) -> None:
        for options in (
            SessionOptions(),
            SessionOptions(stt=LOCAL),
            SessionOptions(),
            SessionOptions(stt=LOCAL),
        ):
            session.step(Update(at_s=trio.current_time(), options=options))
            await trio.testing.wait_all_tasks_blocked()
            living.append(trio.lowlevel.current_statistics().tasks_living)

    await run(services, ask_and_stop)
    assert [count - living[0] for count in living] == [0, 1, 1, 1]


def test_the_recogniser_leaves_the_end_to_us() -> None:
    """With ``local_vad`` a link is a manual one, and is the same link whatever our rules are."""
    assert for_recogniser(attrs.evolve(LOCAL, vad_threshold=0.5, language_code="en")) == SttOptions(
        commit_strategy="manual", language_code="en"
    )
    theirs = SttOptions(vad_threshold=0.5)
    assert for_recogniser(theirs) is theirs


# --- in a session -----------------------------------------------------------------------------------


@pytest.mark.parametrize("audio_format", ["pcm_16000", "ulaw_8000", "pcm_48000"])
async def test_a_client_that_asks_is_told_of_speech(
    autojump_clock: MockClock, services: Services, audio_format: str
) -> None:
    """The start comes with the chunk that holds it, the end 0.6 s after the last word."""
    chosen = AudioFormat.parse(audio_format)
    sound = sounds.after_silence(SPEECH, before_s=0.3, after_s=1.2)
    pcm = to_pcm(soxr.resample(sound, 16000, chosen.sample_rate_hz))
    audio = ulaw_encode(pcm) if chosen.codec == "ulaw" else pcm
    door = await run(
        services,
        lambda session: talk(session, audio, chosen.size_bytes(CHUNK_S * 1000)),
        SessionOptions(stt=SttOptions(audio_format=chosen)),
        tell_speech=True,
    )
    (began, began_s), (ended, ended_s) = speech_told(door)
    assert (began, ended) == (SpeechBegan, SpeechEnded)
    assert 0.3 < began_s < 0.3 + 0.2
    assert ended_s == pytest.approx(0.3 + SPEECH_S + 0.6, abs=0.15)


async def test_audio_at_another_rate_is_heard_at_that_rate(
    autojump_clock: MockClock, services: Services
) -> None:
    """A piece that names its own rate is resampled for the detector, too."""
    pcm = to_pcm(soxr.resample(sounds.after_silence(SPEECH, before_s=0.3), 16000, 8000))

    async def act(session: VoiceSession) -> None:
        for start in range(0, len(pcm), 1600):
            session.hear(pcm[start : start + 1600], sample_rate_hz=8000)
            await trio.sleep(CHUNK_S)

    door = await run(services, act, tell_speech=True)
    assert [told for told, _ in speech_told(door)] == [SpeechBegan, SpeechEnded]


@pytest.mark.parametrize(("prompt", "told"), [("", 2), ("Tell me about the sea.", 1)])
async def test_the_assistants_echo_is_no_speech_while_it_is_audible(
    autojump_clock: MockClock, services: Services, prompt: str, told: int
) -> None:
    """What is as faint as an echo counts as the user in silence, but not while the assistant speaks."""
    services = attrs.evolve(services, chat=ScriptedChat(lambda _: ["The sea is deep and blue. " * 9]))
    echo = to_pcm(sounds.echo(SPEECH, gain_db=-26))

    async def act(session: VoiceSession) -> None:
        await talk(session)
        if prompt:
            session.step(TextPrompt(at_s=trio.current_time(), text=prompt))
            await trio.sleep(0.1)
            assert session.state == "speaking"
        await talk(session, echo)

    door = await run(services, act, tell_speech=True)
    assert [kind for kind, _ in speech_told(door)].count(SpeechBegan) == told


async def test_nobody_else_pays(autojump_clock: MockClock, services: Services) -> None:
    """Where nothing hangs on it, no network is loaded."""
    assert speech_told(await run(services, talk)) == []
    assert services.vad_judges._idle == []


async def test_a_long_piece_is_heard_in_turns_with_others(
    autojump_clock: MockClock, services: Services
) -> None:
    """Five seconds in one frame do not hold up the event loop: others run in between."""
    turns = 0

    async def act(session: VoiceSession) -> None:
        nonlocal turns
        session.hear(ONE_SENTENCE + ONE_SENTENCE)
        while len(services.vad_judges._idle) == 0:
            await trio.lowlevel.checkpoint()
            turns += 1
        await trio.testing.wait_all_tasks_blocked()

    door = await run(services, act, tell_speech=True)
    assert [told for told, _ in speech_told(door)] == [SpeechBegan, SpeechEnded] * 2
    assert turns >= 10


async def test_who_is_told_of_a_start_is_told_of_an_end(
    autojump_clock: MockClock, services: Services
) -> None:
    """When nothing hangs on the detector any more, speech has stopped as far as it is concerned."""
    options = SessionOptions(turn=TurnOptions(barge_in="vad"))

    async def act(session: VoiceSession) -> None:
        await talk(session, ONE_SENTENCE[: CHUNK * 8])
        session.step(Update(at_s=trio.current_time(), options=SessionOptions()))
        await talk(session)

    door = await run(services, act, options)
    assert [told for told, _ in speech_told(door)] == [SpeechBegan, SpeechEnded]
    assert len(services.vad_judges._idle) == 1


async def test_a_session_that_ends_amid_speech_gives_its_judge_back(
    autojump_clock: MockClock, services: Services
) -> None:
    """The next session uses the same network."""
    for _ in range(2):
        await run(services, lambda session: talk(session, ONE_SENTENCE[: CHUNK * 8]), tell_speech=True)
    assert len(services.vad_judges._idle) == 1


# --- the end of utterances --------------------------------------------------------------------------


async def test_silence_commits(autojump_clock: MockClock, services: Services, stt: ScriptedStt) -> None:
    """One commit for each sentence, behind its last word and not long after it."""
    await run(services, lambda session: talk(session, ONE_SENTENCE * 2), SessionOptions(stt=LOCAL))
    assert [options.commit_strategy for options in stt.asked] == ["manual"]
    first, second = (committed / 32000 for committed in stt.links[0].commits)
    assert first == pytest.approx(0.3 + SPEECH_S + 0.6, abs=0.15)
    assert second == pytest.approx(first + len(ONE_SENTENCE) / 32000, abs=0.11)


async def test_words_that_the_detector_missed_are_committed_too(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """A partial gets a commit after the same silence, but not if it was committed meanwhile."""

    async def act(session: VoiceSession) -> None:
        await talk(session, SILENCE * 5)
        stt.say(PartialTranscript("hello"))
        await talk(session, SILENCE * 20)
        stt.say(PartialTranscript("again"), CommittedTranscript("Again."))
        await talk(session, SILENCE * 20)

    await run(services, act, SessionOptions(stt=LOCAL))
    (committed,) = stt.links[0].commits
    assert committed / 32000 == pytest.approx(0.5 + 0.6, abs=0.11)


async def test_only_local_vad_commits(
    autojump_clock: MockClock, services: Services, stt: ScriptedStt
) -> None:
    """A detector that listens for barge-ins leaves utterances to the recogniser."""
    door = await run(services, talk, SessionOptions(turn=TurnOptions(barge_in="vad")))
    assert [told for told, _ in speech_told(door)] == [SpeechBegan, SpeechEnded]
    assert stt.links[0].commits == []


# --- how probable speech is -------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_ms", [20, 100, 300])
async def test_a_score_is_told_for_every_tenth_of_a_second(
    autojump_clock: MockClock, services: Services, chunk_ms: int
) -> None:
    """However the audio was cut; it is high in speech and 0 in silence."""
    scores: list[float] = []

    async def act(session: VoiceSession) -> None:
        session.configure("s1", SessionOptions(), tell_score=scores.append)
        await trio.testing.wait_all_tasks_blocked()
        await talk(session, chunk=chunk_ms * 32)

    await VoiceSession(services, RecordingDoor(act)).run()
    tenths = len(ONE_SENTENCE) // CHUNK
    assert abs(len(scores) - tenths) <= chunk_ms / 100
    assert scores[:2] == [0.0, 0.0]
    assert max(scores) > VadRules().threshold
    assert scores[-3:] == [0.0] * 3
