"""Replies of a customer's own backend, in whichever format it chose to write them; pure.

| `Content-Type` | read as |
|---|---|
| ``text/event-stream`` | server-sent events: plain text, or JSON |
| ``application/x-ndjson`` and the like | one JSON value a line |
| ``application/json`` | one JSON value, or one a line |
| anything else, or none | by the first bytes: any of these, or plain text as it comes |
"""

import codecs
from functools import partial
from typing import Final, Protocol

from voice_fsm.chat.backend_text import LAST_TYPES, WHOLE_TEXT_KEYS, PieceReader, is_thought, whole_reply
from voice_fsm.chat.base import ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.openai_stream import DONE
from voice_fsm.chat.reply import BrokenReplyError, ReplyDecoder
from voice_fsm.errors import ProviderFault
from voice_fsm.upstream.faults import fault_of_error
from voice_fsm.wire.lines import LineSplitter
from voice_fsm.wire.sse import ServerSentEvent, SseDecoder
from voice_fsm.wire.upstream_json import read_upstream_json

_NDJSON_TYPES: Final = frozenset(
    f"application/{name}"
    for name in ("x-ndjson", "ndjson", "jsonl", "x-jsonl", "jsonlines", "x-jsonlines", "stream+json")
)
_PLAIN_TEXT_EVENTS: Final = frozenset({"message", "text", "delta", "token", "chunk", "content"})
_SSE_STARTS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
_HTML_STARTS: Final = (b"<!doctype", b"<html")
_JSON_START: Final = b"{"
_MAX_BODY_BYTES: Final = 1024 * 1024


def decoder_for(content_type: str, text_key: str | None = None) -> ReplyDecoder:
    """Choose the decoder; ``text_key`` is where the operator says that text stands, to be looked at first."""
    if content_type == "text/event-stream":
        return EventReply(text_key)
    if content_type in _NDJSON_TYPES:
        return LineReply(text_key)
    if content_type == "application/json" or content_type.endswith("+json"):
        return ChoosingReply(partial(_choose_json, text_key))
    return ChoosingReply(partial(_choose_by_start, text_key))


class EventReply:
    """Server-sent events. Without ``[DONE]`` or the like, the end of the body is the end."""

    def __init__(self, text_key: str | None = None) -> None:
        self._events = SseDecoder()
        self._pieces = PieceReader(text_key)

    @property
    def is_complete(self) -> bool:
        return self._pieces.is_complete

    @property
    def is_over(self) -> bool:
        return self._pieces.is_over

    def feed(self, piece: bytes) -> list[ReplyPart]:
        return [part for event in self._events.feed(piece) for part in self._take(event)]

    def end(self) -> list[ReplyPart]:
        unfinished = self._events.end()
        if unfinished is not None and unfinished.data.startswith("{") and _json(unfinished.data) is None:
            raise BrokenReplyError(ProviderFault.TRUNCATED)
        last = [] if unfinished is None else self._take(unfinished)
        return [*last, *self._pieces.end()]

    def why_silent(self) -> str | None:
        return None

    def _take(self, event: ServerSentEvent) -> list[ReplyPart]:
        if self.is_over or is_thought(event.type):
            return []
        if event.data.strip() == DONE:
            self._pieces.is_over = True
            return []
        value = _json(event.data)
        if event.type == "error":
            raise BrokenReplyError(fault_of_error(value))
        if event.type in LAST_TYPES:
            self._pieces.is_over = True
            return []
        if event.type == "metadata":
            return [ReplyMetadata(value)] if isinstance(value, dict) else []
        if isinstance(value, dict):
            return self._pieces.take(value)
        is_text = event.type in _PLAIN_TEXT_EVENTS
        return [ReplyText(value if isinstance(value, str) else event.data)] if is_text else []


class LineReply:
    """One JSON value a line."""

    def __init__(self, text_key: str | None = None) -> None:
        self._lines = LineSplitter()
        self._pieces = PieceReader(text_key)

    @property
    def is_complete(self) -> bool:
        return self._pieces.is_complete

    @property
    def is_over(self) -> bool:
        return self._pieces.is_over

    def feed(self, piece: bytes) -> list[ReplyPart]:
        lines = self._lines.feed(piece)
        return [part for line in lines for part in self._take(line, ProviderFault.BAD_RESPONSE)]

    def end(self) -> list[ReplyPart]:
        return [*self._take(self._lines.end(), ProviderFault.TRUNCATED), *self._pieces.end()]

    def why_silent(self) -> str | None:
        return None

    def _take(self, line: bytes, fault_if_not_json: ProviderFault) -> list[ReplyPart]:
        if self.is_over or not line.strip():
            return []
        try:
            value = read_upstream_json(line)
        except ValueError:
            raise BrokenReplyError(fault_if_not_json) from None
        return self._pieces.take(value)


class WholeReply:
    """One JSON value."""

    is_complete: Final = False
    is_over: Final = False

    def __init__(self, text_key: str | None = None) -> None:
        self._text_key = text_key
        self._body = bytearray()

    def feed(self, piece: bytes) -> list[ReplyPart]:
        _hold(self._body, piece)
        return []

    def end(self) -> list[ReplyPart]:
        try:
            value = read_upstream_json(bytes(self._body))
        except ValueError:
            raise BrokenReplyError(ProviderFault.BAD_RESPONSE) from None
        return whole_reply(value, self._text_key)

    def why_silent(self) -> str | None:
        return f"The chat backend's answer has no text under any of: {', '.join(WHOLE_TEXT_KEYS)}."


class PlainReply:
    """Nothing but text, in UTF-8."""

    is_complete: Final = False
    is_over: Final = False

    def __init__(self) -> None:
        self._characters = codecs.getincrementaldecoder("utf-8-sig")("replace")

    def feed(self, piece: bytes) -> list[ReplyPart]:
        return [ReplyText(self._characters.decode(piece))]

    def end(self) -> list[ReplyPart]:
        return [ReplyText(self._characters.decode(b"", final=True))]

    def why_silent(self) -> str | None:
        return None


class _Choose(Protocol):
    def __call__(self, head: bytearray, *, is_all: bool) -> ReplyDecoder | None:
        """Choose by what has come of the body, or ask for more by ``None``, unless that is all."""


class ChoosingReply:
    """Holds the beginning of the body back until it tells its format, then leaves it to that decoder."""

    def __init__(self, choose: _Choose) -> None:
        self._choose = choose
        self._head = bytearray()
        self._chosen: ReplyDecoder | None = None

    @property
    def is_complete(self) -> bool:
        return self._chosen is not None and self._chosen.is_complete

    @property
    def is_over(self) -> bool:
        return self._chosen is not None and self._chosen.is_over

    def feed(self, piece: bytes) -> list[ReplyPart]:
        if self._chosen is not None:
            return self._chosen.feed(piece)
        _hold(self._head, piece)
        return self._decide(is_all=False)

    def end(self) -> list[ReplyPart]:
        parts = [] if self._chosen is not None else self._decide(is_all=True)
        return parts if self._chosen is None else [*parts, *self._chosen.end()]

    def why_silent(self) -> str | None:
        return None if self._chosen is None else self._chosen.why_silent()

    def _decide(self, *, is_all: bool) -> list[ReplyPart]:
        self._chosen = self._choose(self._head, is_all=is_all)
        return [] if self._chosen is None else self._chosen.feed(bytes(self._head))


def _choose_json(text_key: str | None, head: bytearray, *, is_all: bool) -> ReplyDecoder | None:
    """Tell one value a line from one value in all: by whether the first line is one and something follows."""
    first_line_end = head.find(b"\n")
    if first_line_end >= 0 and head[first_line_end:].strip():
        is_value = _json(head[:first_line_end].decode("utf-8", "replace")) is not None
        return LineReply(text_key) if is_value else WholeReply(text_key)
    return WholeReply(text_key) if is_all else None


def _choose_by_start(text_key: str | None, head: bytearray, *, is_all: bool) -> ReplyDecoder | None:
    start = bytes(head).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if not is_all and any(mark.startswith(start) for mark in (*_SSE_STARTS, *_HTML_STARTS)):
        return None
    if start.startswith(_SSE_STARTS):
        return EventReply(text_key)
    if start.startswith(_HTML_STARTS):
        raise BrokenReplyError(ProviderFault.BAD_RESPONSE, "The chat backend answered with a web page.")
    if start.startswith(_JSON_START):
        return ChoosingReply(partial(_choose_json, text_key))
    return PlainReply()


def _hold(held: bytearray, piece: bytes) -> None:
    held += piece
    if len(held) > _MAX_BODY_BYTES:
        raise BrokenReplyError(ProviderFault.BAD_RESPONSE)


def _json(text: str) -> object:
    """Read a JSON value; ``None`` also for what is none."""
    try:
        value: object = read_upstream_json(text)
    except ValueError:
        return None
    return value
