"""Whole recordings to ElevenLabs (Scribe): one request, where its realtime service would hear them out.

Source: ``POST /v1/speech-to-text`` as the official client ``elevenlabs`` 2.78.0 sends and reads it.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import attrs
import httpx

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.fsm.events import Word
from voice_fsm.stt.elevenlabs_protocol import bare_language
from voice_fsm.stt.recording import RECORDING_FORMAT, RecordedSpeech, Segment, Transcription
from voice_fsm.upstream.faults import header_key
from voice_fsm.upstream.http import Deadlines, ask

_PATH: Final = "/v1/speech-to-text"
_FILE_FORMATS: Final = {AudioFormat("pcm", 16000): "pcm_s16le_16"}
_MODELS: Final = "scribe_"
"""What its models' names begin with; clients of other services name models that it does not know."""
_PATIENCE_S: Final = 60.0
"""For the answer, beyond the recording's own length."""
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024

_PAUSE_S: Final = 1.0
_LONGEST_SEGMENT_S: Final = 15.0
_SENTENCE_END: Final = re.compile(r"[.?!…\u3002\uff01\uff1f]\W*\Z")


@attrs.frozen(kw_only=True)
class ElevenLabsBatch:
    """The account, and the model for recordings whose client names none of the service's."""

    client: httpx.AsyncClient
    api_key: str = attrs.field(repr=False)
    base_url: str
    model_id: str
    connect_s: float = 10.0

    async def transcribe(self, recorded: RecordedSpeech) -> Transcription:
        """Have a recording transcribed.

        Raises:
            ProviderError: the service refused, or did not answer as it should.
        """
        duration_s = RECORDING_FORMAT.duration_ms(len(recorded.pcm)) / 1000
        patience_s = _PATIENCE_S + duration_s
        deadlines = Deadlines(connect_s=self.connect_s, first_byte_s=patience_s, total_s=patience_s)
        request = self.client.build_request(
            "POST",
            f"{self.base_url}{_PATH}",
            headers={"xi-api-key": header_key(Upstream.STT, self.api_key)},
            data=self._form(recorded),
            files={"file": ("recording.pcm", recorded.pcm)},
        )
        async with ask(self.client, request, upstream=Upstream.STT, deadlines=deadlines) as answer:
            document = await answer.read_json(_MAX_ANSWER_BYTES)
            if not (isinstance(document, dict) and isinstance(document.get("text"), str)):
                raise answer.error(ProviderFault.BAD_RESPONSE)
        language_code = document.get("language_code")
        items = tuple(_timed(document.get("words")))
        return Transcription(
            text=document["text"].strip(),
            words=tuple(word for word in items if word.text.strip()),
            segments=tuple(_segments(items)) or _whole(document["text"], duration_s),
            duration_s=duration_s,
            language_code=language_code if isinstance(language_code, str) else None,
        )

    def _form(self, recorded: RecordedSpeech) -> dict[str, str]:
        asked = recorded.model_id or ""
        form = {
            "model_id": asked if asked.startswith(_MODELS) else self.model_id,
            "file_format": _FILE_FORMATS[RECORDING_FORMAT],
            "timestamps_granularity": "word",
            "tag_audio_events": "false",
        }
        if recorded.language_code:
            form["language_code"] = bare_language(recorded.language_code)
        return form


def _timed(listed: object) -> Iterator[Word]:
    """Words, and the spaces between them; what has no time is left out."""
    for item in listed if isinstance(listed, list) else ():
        match item:
            case {"type": "word" | "spacing", "text": str(text), "start": start, "end": end} if _is_time(
                start
            ) and _is_time(end):
                yield Word(text, start, end)


def _is_time(value: Any) -> bool:  # noqa: ANN401  # JSON
    return isinstance(value, int | float) and math.isfinite(value)


def _segments(items: tuple[Word, ...]) -> Iterator[Segment]:
    """Cut at ends of sentences, at pauses, and where one would be too long to read as a subtitle."""
    open_: list[Word] = []
    for item in items:
        is_word = bool(item.text.strip())
        if open_ and is_word and _ends_before(open_, item):
            yield _segment(open_)
            open_ = []
        if open_ or is_word:
            open_.append(item)
    if open_:
        yield _segment(open_)


def _ends_before(open_: list[Word], word: Word) -> bool:
    last = next(item for item in reversed(open_) if item.text.strip())
    return (
        _SENTENCE_END.search(last.text) is not None
        or word.start_s - last.end_s >= _PAUSE_S
        or word.end_s - open_[0].start_s > _LONGEST_SEGMENT_S
    )


def _segment(items: list[Word]) -> Segment:
    text = "".join(item.text for item in items).strip()
    last = next(item for item in reversed(items) if item.text.strip())
    return Segment(text, items[0].start_s, last.end_s)


def _whole(text: str, duration_s: float) -> tuple[Segment, ...]:
    """The one segment of a text without times."""
    return (Segment(text.strip(), 0.0, duration_s),) if text.strip() else ()
