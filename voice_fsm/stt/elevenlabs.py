"""Speech to text by ElevenLabs' realtime service (Scribe): one WebSocket for each link.

Rules that carry no other source are from ElevenLabs' API reference and published captures of the live
service, 2026-09 to 2026-11; `elevenlabs_protocol` holds those of the messages.

A partial that arrives between a commit and its answer may still be one of the committed utterance. It is
handed on: nothing marks it, and the utterance is not final before its `CommittedTranscript` anyway.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import attrs
import structlog
import trio
from trio_websocket import ConnectionClosed

from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import SttOptions
from voice_fsm.stt.base import CommittedTranscript, SttLink, Transcript
from voice_fsm.stt.elevenlabs_protocol import (
    CommitLedger,
    Interpreter,
    Timeline,
    bare_language,
    decode_message,
    encode_chunk,
    message_type,
    silence,
)
from voice_fsm.upstream.connection import UpstreamSocket
from voice_fsm.upstream.faults import provider_error
from voice_fsm.upstream.websocket import (
    Dial,
    background_nursery,
    closed_error,
    derive_ws_url,
    dial_tcp,
    open_websocket,
)

log = structlog.get_logger()

_PATH: Final = "/v1/speech-to-text/realtime"
_AUDIO_FORMATS: Final = frozenset(
    {"pcm_8000", "pcm_16000", "pcm_22050", "pcm_24000", "pcm_44100", "pcm_48000", "ulaw_8000"}
)
_VAD_RANGES: Final = {
    "vad_threshold": (0.1, 0.9),
    "vad_silence_threshold_secs": (0.3, 3.0),
    "min_speech_duration_ms": (50, 2000),
    "min_silence_duration_ms": (50, 2000),
}
_MAX_KEYTERMS: Final = 50
_MAX_KEYTERM_CHARS: Final = 20
_MAX_CONTEXT_CHARS: Final = 50

_SEND_BUFFER_BYTES: Final = 32 * 1024
"""To a service that vanished the kernel takes a second or so of audio, not a minute; it counts as heard."""
_KEEP_ALIVE_S: Final = 5.0
"""After so long without audio silence is sent: the service leaves after some 15 s."""
_KEEP_ALIVE_MS: Final = 20
_MIN_COMMIT_MS: Final = 350
"""The service ends a session that commits less than 300 ms; the rest is for its rounding."""
_MAX_CHUNK_MS: Final = 1000


def _check_base_url(_config: object, _field: object, base_url: str) -> None:
    derive_ws_url(base_url)


def _check_keyterms(_config: object, _field: object, keyterms: tuple[str, ...]) -> None:
    if len(keyterms) > _MAX_KEYTERMS or any(len(term) > _MAX_KEYTERM_CHARS for term in keyterms):
        raise ValueError(f"at most {_MAX_KEYTERMS} keyterms of at most {_MAX_KEYTERM_CHARS} characters")


@attrs.frozen(kw_only=True)
class ElevenLabsSttConfig:
    """The account, and what the operator chose for all sessions.

    Raises:
        ValueError: the address or the keyterms are none that the service takes.
    """

    api_key: str = attrs.field(repr=False)
    base_url: str = attrs.field(default="https://api.elevenlabs.io", validator=_check_base_url)
    """http(s) or ws(s), with a path prefix where a proxy has one."""
    model_id: str = "scribe_v2_realtime"
    """Used where a session names none."""
    keyterms: tuple[str, ...] = attrs.field(default=(), validator=_check_keyterms)
    """Words to expect: names, products."""
    no_verbatim: bool = False
    """Whether fillers and false starts are left out."""
    enable_logging: bool = True
    """Whether the service may keep what it hears; ``False`` is for enterprise accounts."""
    answer_timeout_s: float = 10.0
    """How long a commit may stay unanswered, or our audio unread."""


class ElevenLabsStt:
    """The provider: one account, shared by all sessions.

    ``tls`` and ``dial`` replace how connections are made; see `open_websocket`.
    """

    name = "elevenlabs"

    def __init__(
        self, config: ElevenLabsSttConfig, *, tls: ssl.SSLContext | None = None, dial: Dial | None = None
    ) -> None:
        self._config = config
        self._tls = tls
        self._dial = dial or partial(dial_tcp, send_buffer_bytes=_SEND_BUFFER_BYTES)

    @asynccontextmanager
    async def connect(self, options: SttOptions) -> AsyncIterator[SttLink]:
        """Open a link; see `SttProvider`. It is up once the service says so, not when its socket opens."""
        async with open_websocket(
            _session_url(self._config, options),
            upstream=Upstream.STT,
            headers=[("xi-api-key", self._config.api_key)],
            tls=self._tls,
            dial=self._dial,
        ) as websocket:
            started = await _session_started(websocket)
            link = _Link(websocket, started, options, self._config.answer_timeout_s)
            async with background_nursery() as tasks:
                tasks.start_soon(link.keep_alive)
                try:
                    yield link
                finally:
                    link.close()


class _Link:
    """One session of the service; see `SttLink`."""

    def __init__(
        self,
        websocket: UpstreamSocket,
        started: Mapping[str, Any],
        options: SttOptions,
        answer_timeout_s: float,
    ) -> None:
        config = started.get("config")
        self.session_id = str(started.get("session_id", ""))
        self.config: Mapping[str, Any] = config if isinstance(config, dict) else {}
        self._websocket = websocket
        self._format = options.audio_format
        self._answer_timeout_s = answer_timeout_s
        self._max_chunk_bytes = self._format.size_bytes(_MAX_CHUNK_MS)
        self._ledger = CommitLedger(self._format.size_bytes(_MIN_COMMIT_MS))
        self._timeline = Timeline(self._format.bytes_per_second)
        self._interpreter = Interpreter(self._timeline, timed=options.include_timestamps)
        self._transcripts: list[Transcript] = []
        self._context: str | None = None
        self._has_begun = False
        self._last_audio_at_s = trio.current_time()
        self._alarm = trio.CancelScope()
        """For the next thing that `keep_alive` has to do."""
        self._reading = trio.CancelScope()
        """Ends a wait for the service when there is something else to hand on."""
        self._closed = trio.Event()
        self._failure: ProviderError | None = None

    async def send(self, audio: bytes, *, previous_text: str | None = None) -> None:
        """Send audio, in messages of a second at most; waits until the last is on its way."""
        if not self._has_begun and previous_text:
            self._context = previous_text[-_MAX_CONTEXT_CHARS:]
        for begin in range(0, len(audio), self._max_chunk_bytes):
            chunk = audio[begin : begin + self._max_chunk_bytes]
            self._timeline.note_audio(len(chunk))
            await self._send_audio(chunk)

    def send_now(self, audio: bytes) -> bool:
        """Send audio without waiting; see `SttLink`. The first, with its context, and long audio cannot."""
        size_bytes = len(audio)
        if not self._has_begun or self._closed.is_set() or size_bytes > self._max_chunk_bytes:
            return False
        if not self._websocket.is_flushed or not self._websocket.send_now(
            encode_chunk(audio, self._format.sample_rate_hz)
        ):
            return False
        self._timeline.note_audio(size_bytes)
        self._ledger.note_audio(size_bytes)
        self._last_audio_at_s = trio.current_time()
        if not self._websocket.is_flushed:
            self._alarm.cancel()
        return True

    async def commit(self) -> None:
        """Send a commit, with silence before it if the service would find too little audio."""
        if not self._ledger.has_uncommitted:
            self._give_blanks(self._ledger.note_blank_commit())
            self._reading.cancel()
            await trio.lowlevel.checkpoint()
            return
        if self._ledger.padding_bytes:
            await self._send_silence(self._ledger.padding_bytes)
        self._ledger.note_commit(trio.current_time() + self._answer_timeout_s)
        self._alarm.deadline = min(self._alarm.deadline, self._ledger.answer_due_at_s)
        await self._transmit(b"", commit=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transcript:
        while not self._transcripts:
            if self._closed.is_set():
                await trio.lowlevel.checkpoint()
                raise StopAsyncIteration if self._failure is None else self._failure
            frame = self._websocket.get_now()
            if frame is None:
                frame = await self._next_frame()
            if frame is not None:
                self._take(frame)
        return self._transcripts.pop(0)

    def close(self) -> None:
        """Take nothing more, and end the iteration after what has been heard."""
        self._closed.set()
        self._reading.cancel()

    async def keep_alive(self) -> None:
        """Send silence when there is no audio, and miss answers that are due, until the link ends.

        Also send the end of a message that the service did not take in time.
        """
        try:
            while True:
                if not self._websocket.is_flushed:
                    await self._patiently(self._websocket.flush)
                idle_at_s = self._last_audio_at_s + _KEEP_ALIVE_S
                with trio.CancelScope(deadline=min(idle_at_s, self._ledger.answer_due_at_s)) as self._alarm:
                    await self._closed.wait()
                    return
                if trio.current_time() >= self._ledger.answer_due_at_s:
                    raise provider_error(Upstream.STT, ProviderFault.STALLED)  # as below
                if trio.current_time() >= self._last_audio_at_s + _KEEP_ALIVE_S:
                    await self._send_silence(self._format.size_bytes(_KEEP_ALIVE_MS))
        except ProviderError as error:
            self._fail(error)

    async def _next_frame(self) -> str | bytes | None:
        """Wait for the next message of the service; ``None``: there is something else to hand on."""
        with trio.CancelScope() as self._reading:
            try:
                return await self._websocket.get_message()
            except ConnectionClosed as closed:
                self._fail(_lost(closed))
        return None

    async def _send_silence(self, size_bytes: int) -> None:
        self._timeline.note_silence(size_bytes)
        await self._send_audio(silence(self._format, size_bytes))

    async def _send_audio(self, audio: bytes) -> None:
        self._ledger.note_audio(len(audio))
        await self._transmit(audio)
        self._last_audio_at_s = trio.current_time()

    async def _transmit(self, audio: bytes, *, commit: bool = False) -> None:
        self._has_begun = True
        context, self._context = self._context, None
        message = encode_chunk(audio, self._format.sample_rate_hz, commit=commit, previous_text=context)
        await self._patiently(partial(self._websocket.send_text, message))

    async def _patiently(self, send: Callable[[], Awaitable[None]]) -> None:
        """Send something.

        Raises:
            ProviderError: the service does not read (STALLED), or why the link ended: who listens knows.
        """
        with trio.move_on_after(self._answer_timeout_s) as patience:
            try:
                await send()
            except ConnectionClosed:
                await self._closed.wait()
        if patience.cancelled_caught:
            self._fail(provider_error(Upstream.STT, ProviderFault.STALLED))
        if self._closed.is_set():
            fault = ProviderFault.LOST if self._failure is None else self._failure.fault
            raise provider_error(Upstream.STT, fault, request_id=self.session_id) from self._failure

    def _take(self, frame: str | bytes) -> None:
        try:
            transcript = self._interpreter.interpret(decode_message(frame), trio.current_time())
        except ProviderError as error:
            self._fail(error)
            return
        if transcript is None:
            return
        is_answer = isinstance(transcript, CommittedTranscript)
        blanks = self._ledger.note_answer() if is_answer else 0  # before anybody can commit again
        self._transcripts.append(transcript)
        self._give_blanks(blanks)

    def _give_blanks(self, count: int) -> None:
        self._transcripts.extend(CommittedTranscript("") for _ in range(count))

    def _fail(self, failure: ProviderError) -> None:
        if self._failure is None:
            failure.request_id = self.session_id
            self._failure = failure
        self.close()


async def _session_started(websocket: UpstreamSocket) -> Mapping[str, Any]:
    """Wait for the message that the service is ready.

    Raises:
        ProviderError: it says that it is not, or hangs up.
    """
    try:
        while True:
            message = decode_message(await websocket.get_message())
            if message_type(message) == "session_started":
                return message
    except ConnectionClosed as closed:
        raise closed_error(Upstream.STT, closed) from None


def _lost(closed: ConnectionClosed) -> ProviderError:
    """Make the error of a session that was closed unexplained: the service had accepted all we asked for,
    so a new one may work, whatever the close code.
    """
    error = closed_error(Upstream.STT, closed)
    return error if error.retryable else provider_error(Upstream.STT, ProviderFault.LOST, status=error.status)


def _session_url(config: ElevenLabsSttConfig, options: SttOptions) -> str:
    """Write the address, whose query is all the configuration there is.

    Raises:
        ClientError: the options ask for what the service has not.
    """
    if str(options.audio_format) not in _AUDIO_FORMATS:
        raise ClientError(
            ClientFault.UNSUPPORTED_FORMAT,
            f"Speech cannot be recognised in {options.audio_format}.",
            field="stt.audio_format",
        )
    query = [
        ("model_id", options.model_id or config.model_id),
        ("audio_format", str(options.audio_format)),
        ("commit_strategy", options.commit_strategy),
        ("include_timestamps", _boolean(options.include_timestamps)),
    ]
    if options.commit_strategy == "vad":
        query += _vad_parameters(options)
    if options.language_code:
        query.append(("language_code", bare_language(options.language_code)))
    query += [("keyterms", term) for term in config.keyterms]
    if config.no_verbatim:
        query.append(("no_verbatim", _boolean(value=True)))
    if not config.enable_logging:
        query.append(("enable_logging", _boolean(value=False)))
    return f"{derive_ws_url(config.base_url)}{_PATH}?{urlencode(query, quote_via=quote)}"


def _vad_parameters(options: SttOptions) -> list[tuple[str, str]]:
    parameters = []
    for name, (least, most) in _VAD_RANGES.items():
        value = getattr(options, name)
        if value is None:
            continue
        if not least <= value <= most:
            raise ClientError(
                ClientFault.INVALID_FIELD, f"{name} goes from {least} to {most}.", field=f"stt.{name}"
            )
        parameters.append((name, str(value)))
    return parameters


def _boolean(value: bool) -> str:
    return "true" if value else "false"
