"""Where the text stands in the JSON of a customer's own backend, and what counts as metadata; pure."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from voice_fsm.chat.base import ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.openai_stream import CompletionChunks, raise_for_error
from voice_fsm.chat.reply import BrokenReplyError
from voice_fsm.errors import ProviderFault

WHOLE_TEXT_KEYS: Final = ("response", "reply", "message", "text", "answer", "output", "content")
"""Where a whole reply's text may stand, in the order in which they are looked at."""
PIECE_KEYS: Final = ("delta", "text", "content", "token", "response", "reply", "message", "answer", "output")
"""Where a piece of text may stand. The one in which the first stands decides for the whole reply."""

LAST_TYPES: Final = frozenset({"done", "end", "complete"})
_INNER_KEYS: Final = ("content", "text")
_NO_METADATA_KEYS: Final = frozenset({"type", "event", "done", "metadata", *PIECE_KEYS})
_THOUGHT_TYPE_MARKS: Final = ("reason", "think", "thought")


def whole_reply(document: object, text_key: str | None = None) -> list[ReplyPart]:
    """Read a reply that came as one JSON value: its text, if there is any, and the rest as metadata.

    Raises:
        BrokenReplyError: it tells of an error, or is neither an object nor a string.
    """
    if isinstance(document, str):
        return [ReplyText(document)]
    if not isinstance(document, dict):
        raise BrokenReplyError(ProviderFault.BAD_RESPONSE)
    raise_for_error(document)
    keys = WHOLE_TEXT_KEYS if text_key is None else (text_key, *WHOLE_TEXT_KEYS)
    for key in (*keys, "choices"):
        text = _completion_text(document) if key == "choices" else _text_under(document, key)
        if text.strip():
            return [ReplyText(text), *_metadata(document, {key})]
    return []


class PieceReader:
    """Finds the text in the JSON values of a streamed reply."""

    def __init__(self, text_key: str | None = None) -> None:
        self.is_over = False
        self._keys: tuple[str, ...] = PIECE_KEYS if text_key is None else (text_key, *PIECE_KEYS)
        self._chunks = CompletionChunks()
        self._has_chunks = False

    @property
    def is_complete(self) -> bool:
        return self.is_over or self._chunks.finish_reason is not None

    def take(self, value: object) -> list[ReplyPart]:
        """Read one value: an object, or a string that is text itself.

        Raises:
            BrokenReplyError: it tells of an error, or is neither an object nor a string.
        """
        if isinstance(value, str):
            return [ReplyText(value)]
        if not isinstance(value, dict):
            raise BrokenReplyError(ProviderFault.BAD_RESPONSE)
        if "choices" in value:
            self._has_chunks = True
            return self._chunks.take(value)
        return self._take_object(value)

    def end(self) -> list[ReplyPart]:
        """Take note that no value follows.

        Raises:
            BrokenReplyError: there were OpenAI's chunks, and they did not come to their end.
        """
        if self._has_chunks and not self.is_complete:
            raise BrokenReplyError(ProviderFault.TRUNCATED)
        return self._chunks.facts()

    def _take_object(self, value: Mapping[str, Any]) -> list[ReplyPart]:
        raise_for_error(value)
        kind = str(value.get("type", ""))
        if value.get("done") is True or kind in LAST_TYPES:
            self.is_over = True
        if is_thought(kind):
            return []
        for key in self._keys:
            if text := _text_under(value, key):
                self._keys = (key,)
                return [ReplyText(text), *_metadata(value, value.keys())]
        return _metadata(value, _NO_METADATA_KEYS)


def is_thought(kind: str) -> bool:
    """Whether this type of event or object is the model's thinking, by its name."""
    return any(mark in kind.lower() for mark in _THOUGHT_TYPE_MARKS)


def _text_under(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if isinstance(value, dict):
        value = next((value[inner] for inner in _INNER_KEYS if isinstance(value.get(inner), str)), None)
    return value if isinstance(value, str) else ""


def _completion_text(document: Mapping[str, Any]) -> str:
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return _text_under(choice, "message") if isinstance(choice, dict) else ""


def _metadata(document: Mapping[str, Any], without: Collection[str]) -> list[ReplyPart]:
    """Give what is left of a document, with an object called ``metadata`` unfolded into it."""
    rest = {key: value for key, value in document.items() if key not in without and key != "metadata"}
    inner = document.get("metadata")
    rest.update(inner if isinstance(inner, dict) else {})
    return [ReplyMetadata(rest)] if rest else []
