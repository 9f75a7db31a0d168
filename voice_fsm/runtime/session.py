"""One session at work: its nursery, and the effects of its core carried out.

`step` is a plain function: it takes an event to the core and carries out what comes back, without waiting
and before anything else can run. So the order of events and effects is total without a queue of events, and
whoever learns that the user interrupts (the link to the recogniser, the client's reader) has silenced the
turn before its own next line.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, Protocol, assert_never

import attrs
import structlog
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.chat.base import ChatProvider
from voice_fsm.errors import ClientError, ClientFault, SessionFault
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import (
    CancelTurn,
    CloseSession,
    Command,
    DropSpeculation,
    Effect,
    EnsureStt,
    Notice,
    PrepareVoice,
    ResumeTurn,
    Speculate,
    StartTurn,
)
from voice_fsm.fsm.events import (
    Abort,
    AnyEvent,
    AudioSent,
    BadInput,
    CommitAsked,
    Committed,
    Configure,
    Disconnect,
    Drain,
    Partial,
    Tick,
    Update,
)
from voice_fsm.fsm.machine import Machine
from voice_fsm.fsm.options import SessionOptions, SttOptions
from voice_fsm.metrics import Metrics
from voice_fsm.runtime.companding import Companding
from voice_fsm.runtime.hearing import Hearing
from voice_fsm.runtime.microphone import WORDLESS_S, LeadMeter
from voice_fsm.runtime.outgoing import Answer, AudioChunk, Item, Outgoing, SlowClient
from voice_fsm.runtime.recorder import Recorder, open_session
from voice_fsm.runtime.sound_recorder import SoundRecorder, SoundTape
from voice_fsm.runtime.speculation import Speculation
from voice_fsm.runtime.turn import SlowReply, TurnTask, chat_request
from voice_fsm.runtime.voice_activity import VoiceActivity, for_recogniser
from voice_fsm.stt.base import SttProvider
from voice_fsm.tts.base import TtsProvider
from voice_fsm.vad.engines import ThoroughJudges
from voice_fsm.vad.hysteresis import VadRules

log = structlog.get_logger()

GOODBYE_S: Final = 2.0
"""How long the last words to a client may take."""


@attrs.frozen(kw_only=True)
class Services:
    """The upstreams of all sessions, and what sessions may do."""

    stt: SttProvider
    chat: ChatProvider
    tts: TtsProvider
    defaults: SessionOptions = SessionOptions()
    limits: Limits = Limits()
    stt_connect_s: float = 10.0
    stt_give_up_s: float = 30.0
    stt_lag_s: float = WORDLESS_S
    """How far a recogniser that keeps up may be behind with its first words."""
    max_audio_lead_s: float = 10.0
    vad_rules: VadRules = VadRules()
    vad_judges: ThoroughJudges = attrs.field(factory=ThoroughJudges)
    slow_reply: SlowReply | None = None
    machine: Machine = attrs.field(factory=Machine)
    """Steps the core of every session."""
    recorder: Recorder | None = None
    """Notes what each session's core was told and asked for."""
    sound_recorder: SoundRecorder | None = None
    """Keeps what each session sounded like."""
    metrics: Metrics = attrs.field(factory=Metrics)
    companding: Companding = attrs.field(factory=Companding)
    """Halves what microphones keep, if somebody runs it."""
    draining: trio.Event = attrs.field(factory=trio.Event)
    """Set when the server is about to stop."""


class Door(Protocol):
    """One client's connection, in whichever dialect it speaks."""

    async def listen(self, session: "VoiceSession") -> None:
        """Bring what the client says to the session until the client has gone."""

    async def tell(self, items: Sequence[Item]) -> None:
        """Send these to the client, in order; nothing of what its dialect or its choices have no word for."""

    async def close(self, code: int) -> None:
        """Close the connection with a WebSocket close code."""


class VoiceSession:
    """The runtime of one session."""

    def __init__(self, services: Services, door: Door, *, untold: frozenset[type] = frozenset()) -> None:
        """``untold`` are the items that `Door.tell` has no words for."""
        self._services = services
        self._door = door
        self._core = open_session(services.limits, services.machine, services.recorder)
        self._sound: SoundTape | None = None
        if services.sound_recorder is not None:
            self._sound = services.sound_recorder.tape(trio.current_time())
        self._outgoing = Outgoing(lambda: self._core.voice_due_s)
        self._outgoing.untold = untold
        self._hearing = Hearing(
            services.stt,
            connect_s=services.stt_connect_s,
            give_up_s=services.stt_give_up_s,
            lag_s=services.stt_lag_s,
            step=self._take_transcript,
            metrics=services.metrics,
            companding=services.companding,
        )
        self._activity = VoiceActivity(
            services.vad_judges,
            services.vad_rules,
            step=self.step,
            end_utterance=self._end_utterance,
            is_assistant_audible=lambda: self.state == "speaking",
        )
        self._tells_speech = False
        self._commits: list[Literal["heard", "void"]] = []
        """The ends of utterances that the recogniser has not answered, and what becomes of its answers."""
        self._lead = LeadMeter(services.max_audio_lead_s)
        self._too_fast = False
        self._tasks: list[TurnTask | Speculation] = []
        """The newest last; those before it belong to it, or are on their way out."""
        self._close_code = 1011
        self._alarm = trio.CancelScope()
        self._writing = trio.CancelScope()

    @property
    def state(self) -> str:
        return self._core.state

    @property
    def options(self) -> SessionOptions:
        """The session's settings as they are now."""
        return self._core.options

    @property
    def is_heard(self) -> bool:
        """Whether there is a recogniser for what the user says, or will soon be."""
        return self._hearing.microphone is not None

    @property
    def is_replying(self) -> bool:
        """Whether a turn is being made or sent."""
        return self._core.is_replying

    async def run(self) -> None:
        """Serve the client until it leaves or the session ends; nothing is left running."""
        with self._services.metrics.session():
            try:
                await self._run_tasks()
            finally:
                self._services.chat.forget(self._core.session_id)
                if self._sound is not None:
                    self._sound.close(trio.current_time())

    async def _run_tasks(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._guarded, self._write)
            self._nursery.start_soon(self._guarded, self._hearing.run)
            # Not in this task: each step of the listener would go through the server's coroutines below it.
            self._nursery.start_soon(self._guarded, self._listen)
            await self._keep_time()

    # --- what the door brings -----------------------------------------------------------------------

    def step(self, event: AnyEvent) -> None:
        """Take an event to the core and carry out the effects."""
        effects = self._core.receive(event)
        if self._sound is not None:
            self._sound.stepped(event, effects)
        for effect in effects:
            self._perform(effect)
        deadline_s = self._core.deadline_s
        if deadline_s < self._alarm.deadline:  # noqa: PLR1730  # to set it costs more than to look too early
            self._alarm.deadline = deadline_s

    def configure(
        self,
        session_id: str,
        options: SessionOptions,
        *,
        tell_speech: bool = False,
        tell_score: Callable[[float], None] | None = None,
        untold: frozenset[type] | None = None,
    ) -> None:
        """Set the session up, unless the services cannot serve these options.

        ``tell_speech`` has it listen for speech on behalf of a client that wants to be told of it.
        ``tell_score`` is called ten times for every second of audio, with the probability of speech.
        ``untold`` are the items that the client does not want; ``None``: the same as before.

        Raises:
            ClientError: they cannot; the session is as before.
        """
        self._services.tts.check(options.tts)
        self._services.chat.check(options.backend)
        self._tells_speech, self._activity.tell_score = tell_speech, tell_score
        if untold is not None:
            self._outgoing.untold = untold
        self.step(Configure(at_s=trio.current_time(), session_id=session_id, options=options))

    def update(self, options: SessionOptions, *, tell_speech: bool) -> None:
        """Change settings; a running turn goes on with the old ones.

        Raises:
            ClientError: the services cannot serve these options; the session is as before.
        """
        self._services.tts.check(options.tts)
        self._services.chat.check(options.backend)
        self._tells_speech = tell_speech
        self.step(Update(at_s=trio.current_time(), options=options))

    @property
    def has_room(self) -> bool:
        """Whether the client has read most of what it was told."""
        return self._outgoing.has_room

    async def wait_for_room(self) -> None:
        """Wait, before more is read from the client, until it has read what it was told."""
        await self._outgoing.wait_for_room()

    def refuse(self, error: ClientError) -> None:
        """Tell the client of its mistake; the session goes on."""
        self.step(
            BadInput(at_s=trio.current_time(), code=error.code, message=error.message, field=error.field)
        )

    def answer(self, message: object) -> None:
        """Queue what the door has to say by itself."""
        self._put(Answer(message))

    def mention(self, message: object) -> None:
        """Queue what a client can do without; nothing, while it does not read what it was told."""
        if self._outgoing.has_room:
            self._put(Answer(message))

    def answer_of_turn(self, turn_id: int, message: object) -> None:
        """Queue what the door has to say of a turn; nothing, once the turn is over."""
        if self._outgoing.admits(turn_id):
            self._put(Answer(message))

    def hear(
        self, audio: bytes, *, sample_rate_hz: int | None = None, previous_text: str | None = None
    ) -> None:
        """Take microphone audio in the configured format, or PCM at another rate.

        Raises:
            ClientError: not configured yet, not whole samples, or too far ahead of real time.
        """
        microphone = self._hearing.microphone
        if microphone is None:
            if self.state == "unconfigured":
                raise ClientError(ClientFault.NOT_CONFIGURED, "Send session.configure before audio.")
            return
        audio_format = self._core.options.stt.audio_format
        if sample_rate_hz is not None and sample_rate_hz != audio_format.sample_rate_hz:
            if audio_format.codec != "pcm":
                raise ClientError(
                    ClientFault.INVALID_FIELD,
                    f"The session's audio is {audio_format}; only PCM may come at another rate.",
                    field="sample_rate",
                )
            audio_format = AudioFormat("pcm", sample_rate_hz)
        if len(audio) % audio_format.bytes_per_sample:
            raise ClientError(ClientFault.INVALID_AUDIO, "The audio does not end with a whole sample.")
        now_s, duration_s = trio.current_time(), len(audio) / audio_format.bytes_per_second
        if not self._lead.admits(duration_s, now_s):
            self._drop_too_fast(duration_s)
            return
        self._too_fast = False
        if previous_text:
            microphone.previous_text = previous_text
        microphone.put(audio, audio_format.sample_rate_hz)
        self._activity.put(audio, audio_format)
        if self._sound is not None:
            self._sound.heard(now_s, audio, audio_format)

    def commit_audio(self) -> None:
        """End the utterance under way.

        Raises:
            ClientError: not configured yet.
        """
        if self.state == "unconfigured":
            raise ClientError(ClientFault.NOT_CONFIGURED, "Send session.configure before audio.commit.")
        if self._hearing.microphone is not None:
            self.step(CommitAsked(at_s=trio.current_time()))
        self._end_utterance()

    def discard_audio(self) -> None:
        """Forget what was heard since the last end of an utterance: nobody is told of its words."""
        if self._hearing.microphone is not None:
            self._end_utterance()
            self._commits[-1] = "void"

    def _end_utterance(self) -> None:
        if self._hearing.microphone is not None:
            self._commits.append("heard")
            self._hearing.microphone.commit()

    def _take_transcript(self, event: AnyEvent) -> None:
        match event:
            case Partial():
                if "void" in self._commits:
                    return
                self._activity.note_partial(event.text)
            case Committed():
                self._activity.note_commit()
                if self._commits and self._commits.pop(0) == "void":
                    return
        self.step(event)

    def _drop_too_fast(self, duration_s: float) -> None:
        """Tell a client once each time that it begins to run too far ahead."""
        was_too_fast, self._too_fast = self._too_fast, True
        self._services.metrics.dropped("too_fast", duration_s)
        if not was_too_fast:
            raise ClientError(
                ClientFault.AUDIO_TOO_FAST,
                f"Audio came more than {self._services.max_audio_lead_s:g} s ahead of real time "
                "and is being dropped; send it at the pace it was recorded.",
            )

    # --- effects ------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        self._services.metrics.note(effect)
        if not isinstance(effect, Command):
            self._put(effect)
            return
        match effect:
            case EnsureStt(options):
                self._listen_to_user(options)
            case PrepareVoice(options):
                self._services.tts.prewarm(options)
            case StartTurn():
                self._start_turn(effect)
            case CancelTurn(turn_id):
                self._tasks[-1].scope.cancel(reason=f"turn {turn_id} is over")
                self._outgoing.flush(turn_id)
            case Speculate(start):
                self._speculate(start)
            case DropSpeculation():
                self._tasks[-1].scope.cancel(reason="the user said something else")
            case ResumeTurn():
                self._outgoing.wake()
            case CloseSession(code):
                self._close_code = code
                self._outgoing.finish()
                self._writing.deadline = trio.current_time() + GOODBYE_S
            case _:
                assert_never(effect)

    def _listen_to_user(self, options: SttOptions) -> None:
        if self._hearing.ensure(for_recogniser(options)):
            self._commits.clear()
        if self._activity.ensure(self.options, is_told=self._tells_speech):
            self._nursery.start_soon(self._guarded, self._activity.run)

    def _speculate(self, start: StartTurn) -> None:
        leaving = self._leaving()
        speculation = Speculation(self._services.chat, chat_request(start))
        self._tasks = [*leaving, speculation]
        self._nursery.start_soon(self._guarded, speculation.run, leaving)

    def _start_turn(self, start: StartTurn) -> None:
        leaving = self._leaving()
        speculation: Speculation | None = None
        if start.speculated and isinstance(newest := self._tasks[-1], Speculation) and not newest.has_failed:
            speculation = newest
        turn = TurnTask(
            start,
            self._services.chat,
            self._services.tts,
            self._outgoing,
            self.step,
            self._services.slow_reply,
            speculation,
        )
        self._tasks = [*leaving, turn]
        self._outgoing.admit(start.turn_id)
        before = [task for task in leaving if task is not speculation]
        self._nursery.start_soon(self._guarded, turn.run, before)

    def _leaving(self) -> list[TurnTask | Speculation]:
        return [task for task in self._tasks if not task.gone.is_set()]

    def _put(self, notice: Notice | Answer) -> None:
        try:
            self._outgoing.put(notice)
        except SlowClient:
            log.warning("slow_client", state=self.state)
            self._close_code = 1008
            self._outgoing.finish()
            self._nursery.cancel_scope.cancel(reason="the client does not read")

    # --- tasks --------------------------------------------------------------------------------------

    async def _guarded(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """A fault of ours, or of an adapter, ends this session and no other."""
        try:
            await work(*args)
        except* Exception:
            log.exception("session_failed", state=self.state)
            self.step(
                Abort(
                    at_s=trio.current_time(),
                    reason="error",
                    close_code=1011,
                    code=SessionFault.INTERNAL_ERROR,
                    message="The server failed; this session ends.",
                )
            )

    async def _listen(self) -> None:
        await self._door.listen(self)
        self.step(Disconnect(at_s=trio.current_time()))

    async def _write(self) -> None:
        try:
            with self._writing:
                while items := await self._outgoing.take():
                    await self._door.tell(items)
                    for item in items:
                        if isinstance(item, AudioChunk):
                            self._report_sent(item)
        finally:
            with trio.move_on_after(GOODBYE_S, shield=True):
                await self._door.close(self._close_code)
            self._nursery.cancel_scope.cancel(reason="the session is over")

    def _report_sent(self, chunk: AudioChunk) -> None:
        now_s, duration_ms = trio.current_time(), chunk.output_format.duration_ms(len(chunk.data))
        if self._sound is not None:
            self._sound.sent(now_s, chunk)
        self.step(AudioSent(at_s=now_s, turn_id=chunk.turn_id, duration_ms=duration_ms))

    async def _keep_time(self) -> None:
        """Tell the core when its deadlines come, and at last that the server is about to stop."""
        while True:
            with trio.CancelScope(deadline=self._core.deadline_s) as self._alarm:
                await self._services.draining.wait()
                break
            now_s = trio.current_time()
            if now_s >= self._core.deadline_s:
                self.step(Tick(at_s=now_s))
        self.step(Drain(at_s=trio.current_time()))
