"""A fake of ElevenLabs' speech-to-text for whole recordings: the service's rules, one text for all of them.

Source: ``POST /v1/speech-to-text`` as the official client ``elevenlabs`` 2.78.0 sends and reads it.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import attrs

from tests.fakes.elevenlabs_stt import timed_words
from tests.fakes.http_server import Request, Step, json_response

PATH: Final = "/v1/speech-to-text"
_MODELS: Final = ("scribe_v1", "scribe_v2")
_NAME: Final = re.compile(rb'name="([^"]+)"')


@attrs.define
class FakeElevenLabsBatch:
    """A handler for `tests.fakes.http_server`."""

    text: str = "Good morning."
    words: list[dict[str, Any]] | None = None
    """Those of the text by default, a quarter of a second each."""
    trouble: list[Step] | None = None
    """What is answered in place of a transcript."""
    forms: list[dict[str, bytes]] = attrs.field(factory=list)

    def __call__(self, request: Request) -> Iterable[Step]:
        if (request.method, request.path) != ("POST", PATH):
            return [_refused(404, {"status": "not_found"})]
        if request.headers.get("xi-api-key") != "the-key":
            return [_refused(401, {"status": "invalid_api_key", "message": "Invalid API key"})]
        form = read_form(request)
        self.forms.append(form)
        missing = [name for name in ("model_id", "file") if name not in form]
        if missing:
            return [_refused(422, [{"loc": ["body", *missing], "msg": "Field required", "type": "missing"}])]
        if form["model_id"].decode() not in _MODELS:
            return [_refused(400, {"status": "invalid_model_id", "message": "No such model"})]
        if form.get("file_format") == b"pcm_s16le_16" and len(form["file"]) % 2:
            return [_refused(400, {"status": "invalid_audio", "message": "Half a sample"})]
        return self.trouble or [json_response(self._transcript(form))]

    def _transcript(self, form: dict[str, bytes]) -> dict[str, Any]:
        return {
            "language_code": form.get("language_code", b"eng").decode(),
            "language_probability": 0.98,
            "text": self.text,
            "words": timed_words(self.text, 0.0) if self.words is None else self.words,
            "transcription_id": "transcription-1",
        }


def read_form(request: Request) -> dict[str, bytes]:
    """The parts of a multipart body by their names."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    form = {}
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        assert name is not None
        form[name[1].decode()] = content.removesuffix(b"\r\n")
    return form


def _refused(status: int, detail: object) -> bytes:
    return json_response({"detail": detail}, status)
