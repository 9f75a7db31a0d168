"""What recordings say: uploads decoded and given to the recogniser, a few at a time."""

from functools import partial

import attrs
import trio

from voice_fsm.errors import ClientError, ClientFault, ProviderError, ProviderFault, Upstream
from voice_fsm.stt.media import decode_recording
from voice_fsm.stt.recording import RECORDING_FORMAT, RecordedSpeech, Transcribe, Transcription
from voice_fsm.web.speech.counter import Counter

_SLACK_S = 30.0


@attrs.frozen(kw_only=True)
class TranscriptLimits:
    """What one upload, and all at a time, may take."""

    max_upload_bytes: int = 26_214_400
    max_recording_s: float = 600.0
    concurrency: int = 4


class Transcripts:
    """Shared by all who upload recordings."""

    def __init__(self, transcribe: Transcribe, limits: TranscriptLimits) -> None:
        self.limits = limits
        self._transcribe = transcribe
        self._room = Counter(limits.concurrency)
        self._decoding = trio.CapacityLimiter(1)

    async def of_file(
        self, file: bytes, *, raw: bool = False, language_code: str | None = None, model_id: str | None = None
    ) -> Transcription:
        """Transcribe a recording; ``raw``: it is PCM of 16 kHz without a header.

        ``model_id`` is ElevenLabs' name of a model; others than its own have one.

        Raises:
            ClientError: the file is no recording, or too long; the recogniser does not know the language.
            ProviderError: the recogniser failed.
            RequestError: 429: too many at a time.
        """
        with self._room.one():
            pcm = self._whole_samples(file) if raw else await self._decode(file)
            with trio.move_on_after(self.limits.max_recording_s + _SLACK_S):
                recorded = RecordedSpeech(pcm=pcm, language_code=language_code, model_id=model_id)
                return await self._transcribe(recorded)
            raise ProviderError(
                Upstream.STT, ProviderFault.TIMEOUT, "The recording was not understood in time."
            )

    async def _decode(self, file: bytes) -> bytes:
        decode = partial(decode_recording, file, RECORDING_FORMAT.sample_rate_hz, self.limits.max_recording_s)
        return await trio.to_thread.run_sync(decode, limiter=self._decoding, abandon_on_cancel=True)

    def _whole_samples(self, file: bytes) -> bytes:
        if RECORDING_FORMAT.duration_ms(len(file)) > self.limits.max_recording_s * 1000:
            raise ClientError(
                ClientFault.INVALID_AUDIO,
                f"The recording is longer than {self.limits.max_recording_s:g} seconds.",
                field="file",
            )
        return file[: len(file) // 2 * 2]
