"""``voice-fsm transcribe``: what a recording says, without a server."""

from typing import Final

import attrs
import trio

from voice_fsm.config import Settings
from voice_fsm.fsm.events import Word
from voice_fsm.runtime.services import make_transcribe, open_recogniser
from voice_fsm.stt.media import decode_recording
from voice_fsm.stt.recording import RECORDING_FORMAT, RecordedSpeech
from voice_fsm.upstream.http import open_client

LONGEST_S: Final = 86_400.0


@attrs.frozen(kw_only=True)
class TranscribeResult:
    """What came of it, as the command prints it."""

    text: str
    language: str | None
    duration_s: float
    words: tuple[Word, ...]
    words_estimated: bool
    """The recogniser has no times of words of its own."""


async def transcribe_file(settings: Settings, file: bytes, *, language: str | None) -> TranscribeResult:
    """Decode a recording, and have the recogniser of the settings say what it says.

    Raises:
        ClientError: it is no recording, or the recogniser does not know the language.
        ProviderError: the recogniser is not installed, or there is no link to be had.
        ExceptionGroup: with a ProviderError: it failed.
    """
    pcm = await trio.to_thread.run_sync(decode_recording, file, RECORDING_FORMAT.sample_rate_hz, LONGEST_S)
    async with open_recogniser(settings) as stt, open_client() as client:
        transcribe = make_transcribe(settings, stt, client)
        heard = await transcribe(RecordedSpeech(pcm=pcm, language_code=language))
    return TranscribeResult(
        text=heard.text,
        language=heard.language_code,
        duration_s=round(heard.duration_s, 3),
        words=heard.words,
        words_estimated=heard.estimated,
    )
