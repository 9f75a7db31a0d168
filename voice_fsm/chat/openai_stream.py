"""Chat completion chunks as OpenAI, Groq, vLLM, Ollama and LM Studio stream them; pure."""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from voice_fsm.chat.base import ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.reply import BrokenReplyError
from voice_fsm.errors import ProviderFault
from voice_fsm.upstream.faults import fault_of_error
from voice_fsm.wire.sse import ServerSentEvent, SseDecoder
from voice_fsm.wire.upstream_json import read_upstream_json

DONE: Final = "[DONE]"
MAX_CALLS: Final = 16
"""Tools that one message may ask for."""

_USAGE_KEYS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_WHY_SILENT: Final = {
    "length": "The chat model had no tokens left before it said anything.",
    "content_filter": "The answer was withheld by the chat model's content filter.",
    "tool_calls": "The chat model asked for a tool in place of an answer.",
    "function_call": "The chat model asked for a tool in place of an answer.",
}


@attrs.define
class ToolCall:
    """A tool that the model wants called."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    """JSON, if the model keeps to what it was told."""


class CompletionChunks:
    """Collects what the chunks of one completion say, beside their text."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.calls: dict[int, ToolCall] = {}
        """By their index in the message."""
        self._facts: dict[str, Any] = {}

    def take(self, chunk: Mapping[str, Any]) -> list[ReplyPart]:
        """Read one chunk: content, or the words of a refusal; never reasoning.

        Raises:
            BrokenReplyError: the chunk tells of an error.
        """
        raise_for_error(chunk)
        groq = chunk.get("x_groq")
        if isinstance(groq, dict):
            raise_for_error(groq)
        self._note(chunk)
        return [ReplyText(text) for choice in _first_choices(chunk) for text in self._texts(choice)]

    def facts(self) -> list[ReplyPart]:
        """Give finish reason, model and token counts, as far as they were told."""
        if self.finish_reason is not None:
            self._facts["finish_reason"] = self.finish_reason
        return [ReplyMetadata(self._facts)] if self._facts else []

    def why_silent(self) -> str | None:
        """Say why there may be no text, by the finish reason."""
        return _WHY_SILENT.get(self.finish_reason or "")

    def _note(self, chunk: Mapping[str, Any]) -> None:
        if isinstance(model := chunk.get("model"), str):
            self._facts["model"] = model
        if isinstance(usage := chunk.get("usage"), dict):
            self._facts["usage"] = {key: usage[key] for key in _USAGE_KEYS if key in usage}

    def _texts(self, choice: Mapping[str, Any]) -> list[str]:
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):  # old Ollama: "" for null
            self.finish_reason = reason
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return []
        self._note_calls(delta.get("tool_calls"))
        texts = (delta.get(key) for key in ("content", "refusal"))
        return [text for text in texts if text and isinstance(text, str)]

    def _note_calls(self, pieces: object) -> None:
        """Calls come in pieces: id and name with the first one, arguments as text that is to be joined."""
        for piece in pieces if isinstance(pieces, list) else ():
            if not isinstance(piece, dict):
                continue
            index = piece.get("index", 0)
            function = piece.get("function")
            if not isinstance(index, int) or not isinstance(function, dict):
                continue
            if index not in self.calls and len(self.calls) >= MAX_CALLS:
                continue
            call = self.calls.setdefault(index, ToolCall())
            call.id = _text(piece.get("id")) or call.id
            call.name = _text(function.get("name")) or call.name
            call.arguments += _text(function.get("arguments"))


class OpenAiStream:
    """Decoder of a streamed chat completion (`ReplyDecoder`).

    It is complete with a finish reason or ``[DONE]``; a body that ends without either was cut short, which
    is all that Ollama tells of a failure.
    """

    def __init__(self) -> None:
        self._events = SseDecoder()
        self._chunks = CompletionChunks()
        self.is_over = False

    @property
    def calls(self) -> list[ToolCall]:
        """Tools that the model wants called, in its order."""
        return [call for _, call in sorted(self._chunks.calls.items()) if call.name]

    @property
    def is_complete(self) -> bool:
        return self.is_over or self._chunks.finish_reason is not None

    def feed(self, piece: bytes) -> list[ReplyPart]:
        return [part for event in self._events.feed(piece) for part in self._take(event)]

    def end(self) -> list[ReplyPart]:
        unfinished = self._events.end()
        if self.is_complete:
            return self._chunks.facts()
        if unfinished is not None and unfinished.data.strip() == DONE:
            return self._chunks.facts()
        raise BrokenReplyError(ProviderFault.TRUNCATED)

    def why_silent(self) -> str | None:
        return self._chunks.why_silent()

    def _take(self, event: ServerSentEvent) -> list[ReplyPart]:
        data = event.data.strip()
        if self.is_over or not data:
            return []
        if data == DONE:
            self.is_over = True
            return []
        chunk = _object(data)
        if event.type == "error":
            raise BrokenReplyError(fault_of_error(chunk))
        return self._chunks.take(chunk)


def raise_for_error(document: Mapping[str, Any]) -> None:
    """Look for the error that hosts send where text was expected.

    Raises:
        BrokenReplyError: there is one.
    """
    if document.get("error") or document.get("type") == "error":
        raise BrokenReplyError(fault_of_error(document))


def _first_choices(chunk: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give the choices with the index 0: one, or none in chunks of usage figures."""
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return []
    return [choice for choice in choices if isinstance(choice, dict) and choice.get("index", 0) == 0]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _object(text: str) -> dict[str, Any]:
    try:
        document = read_upstream_json(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BrokenReplyError(ProviderFault.BAD_RESPONSE)
    return document
