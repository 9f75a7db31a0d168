"""``POST /v1/speech-to-text``: a recording's transcript, for ElevenLabs' clients."""

import secrets
from functools import partial
from typing import Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from voice_fsm.stt.recording import Transcription
from voice_fsm.web.speech.api import SpeechApi
from voice_fsm.web.speech.refusals import RequestError
from voice_fsm.web.speech.requests import read_form, read_upload, while_connected
from voice_fsm.wire.elevenlabs_speech import SpeechToText
from voice_fsm.wire.scribe import TimedWord, with_spacing

USE: Final = "batch_scribe"
"""What tokens for this endpoint are bought for."""
RAW_PCM: Final = "pcm_s16le_16"
"""The ``file_format`` of bare PCM: 16 bits, 16 kHz, mono."""

_FORM_BYTES: Final = 65536
"""Beside the file."""
_ELSEWHERE: Final = ("cloud_storage_url", "source_url")


async def transcribe(api: SpeechApi, request: Request) -> Response:
    """Transcribe the form's ``file``."""
    form = await read_form(request, api.transcripts.limits.max_upload_bytes + _FORM_BYTES)
    try:
        _refuse_what_is_not_done_here(form)
        work = partial(
            api.transcripts.of_file,
            await read_upload(form),
            raw=form.get("file_format") == RAW_PCM,
            language_code=text_field(form, "language_code"),
            model_id=text_field(form, "model_id"),
        )
        timestamps = text_field(form, "timestamps_granularity") != "none"
    finally:
        await form.close()
    transcription = await while_connected(request, work)
    answer = _answer(transcription, timestamps=timestamps)
    return JSONResponse(answer.as_json(), headers=timing_headers(transcription))


def text_field(form: FormData, name: str) -> str | None:
    """A form's field, if it holds text."""
    value = form.get(name)
    return value.strip() or None if isinstance(value, str) else None


def timing_headers(transcription: Transcription) -> dict[str, str]:
    """Say so if the times of words are estimates."""
    return {"X-Timestamps": "estimated"} if transcription.estimated else {}


def _refuse_what_is_not_done_here(form: FormData) -> None:
    for name in _ELSEWHERE:
        if text_field(form, name):
            raise RequestError(
                400, "unsupported", f"This server fetches nothing: {name} has no use.", field=name
            )
    if text_field(form, "webhook") == "true":
        raise RequestError(400, "unsupported", "This server calls nobody back.", field="webhook")


def _answer(transcription: Transcription, *, timestamps: bool) -> SpeechToText:
    words = [
        TimedWord(text=word.text, start=round(word.start_s, 3), end=round(word.end_s, 3))
        for word in transcription.words
    ]
    return SpeechToText(
        language_code=transcription.language_code or "und",
        text=transcription.text,
        words=with_spacing(words) if timestamps else (),
        audio_duration_secs=round(transcription.duration_s, 3),
        transcription_id=secrets.token_urlsafe(15),
    )
