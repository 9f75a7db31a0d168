"""``POST /v1/audio/transcriptions``: a recording's transcript, for OpenAI's clients."""

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from voice_fsm.stt.recording import Transcription
from voice_fsm.web.speech.api import SpeechApi
from voice_fsm.web.speech.elevenlabs_stt import text_field, timing_headers
from voice_fsm.web.speech.refusals import RequestError
from voice_fsm.web.speech.requests import read_form, read_upload, while_connected
from voice_fsm.wire import openai_audio as wire

USE: Final = "batch_scribe"
_FORM_BYTES: Final = 65536
_LANGUAGES: Final = {"en": "english"}
"""The long form spells languages out."""


async def transcribe(api: SpeechApi, request: Request) -> Response:
    """Transcribe the form's ``file``."""
    form = await read_form(request, api.transcripts.limits.max_upload_bytes + _FORM_BYTES)
    try:
        shape = text_field(form, "response_format") or "json"
        if shape not in wire.TRANSCRIPT_FORMATS:
            raise RequestError(
                400,
                "invalid_field",
                f"`response_format` must be one of {', '.join(wire.TRANSCRIPT_FORMATS)}.",
                field="response_format",
            )
        granularities = [str(value) for value in form.getlist("timestamp_granularities[]")]
        streamed = text_field(form, "stream") == "true"
        work = partial(
            api.transcripts.of_file,
            await read_upload(form),
            language_code=text_field(form, "language"),
        )
    finally:
        await form.close()
    transcription = await while_connected(request, work)
    transcript = _transcript(transcription)
    if streamed:
        return Response(wire.as_events(transcript), media_type="text/event-stream")
    answer = _answer(transcript, shape, granularities)
    answer.headers.update(timing_headers(transcription))
    return answer


def _answer(transcript: wire.Transcript, shape: str, granularities: list[str]) -> Response:
    match shape:
        case "json":
            return JSONResponse(wire.as_json(transcript))
        case "verbose_json":
            return JSONResponse(wire.as_verbose_json(transcript, granularities))
        case "srt":
            return PlainTextResponse(wire.as_subtitles(transcript, "srt"))
        case "vtt":
            return PlainTextResponse(wire.as_subtitles(transcript, "vtt"))
        case _:
            return PlainTextResponse(f"{transcript.text}\n")


def _transcript(transcription: Transcription) -> wire.Transcript:
    language = transcription.language_code or "unknown"
    return wire.Transcript(
        text=transcription.text,
        language=_LANGUAGES.get(language, language),
        duration_s=transcription.duration_s,
        words=[wire.TimedText(word.text, word.start_s, word.end_s) for word in transcription.words],
        segments=[wire.TimedText(part.text, part.start_s, part.end_s) for part in transcription.segments],
    )
