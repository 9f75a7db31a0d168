"""A finished synthesis as bytes, and back: what one file of the cache holds.

    magic, 20 bytes | BLAKE2b of key and rest, 32 bytes | length of the index, u32 | index, JSON | audio

The index tells the items in their order: ``[text]``, ``[chars, starts_ms, ends_ms]``, or the size of the next
piece of audio. The digest covers the key, so a file under a wrong name is no entry either. JSON and plain
bytes, and never pickle, for what is read from a directory may have been put there by somebody else.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from typing import Any, Final

from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, SpokenText

_MAGIC: Final = b"voice-fsm speech 1\n\0"
_DIGEST_BYTES: Final = 32
_LENGTH: Final = struct.Struct(">I")


class NotAnEntryError(Exception):
    """The bytes are not what `encode` made for this key."""


def encode(key: str, items: Sequence[Speech]) -> bytes:
    """Write a synthesis down."""
    index = json.dumps([_describe(item) for item in items], separators=(",", ":")).encode("ascii")
    audio = [item.data for item in items if isinstance(item, SpeechAudio)]
    body = b"".join([_LENGTH.pack(len(index)), index, *audio])
    return _MAGIC + _digest(key, body) + body


def decode(key: str, data: bytes) -> tuple[Speech, ...]:
    """Read what `encode` wrote.

    Raises:
        NotAnEntryError: it did not.
    """
    start = len(_MAGIC) + _DIGEST_BYTES
    body = data[start:]
    if data[:start] != _MAGIC + _digest(key, body):
        raise NotAnEntryError
    (index_bytes,) = _LENGTH.unpack_from(body)
    position = _LENGTH.size + index_bytes
    items: list[Speech] = []
    for description in json.loads(body[_LENGTH.size : position]):
        if isinstance(description, int):
            items.append(SpeechAudio(body[position : position + description]))
            position += description
        else:
            items.append(_timing(*description))
    return tuple(items)


def size_bytes(items: Sequence[Speech]) -> int:
    """About what a synthesis takes of memory."""
    return sum(_item_bytes(item) for item in items)


def _item_bytes(item: Speech) -> int:
    match item:
        case SpeechAudio(data):
            return len(data)
        case SpokenText(text):
            return len(text)
        case Alignment(chars):
            return len(chars) * 64  # two numbers, and places for all three in tuples
    return 0


def _describe(item: Speech) -> Any:  # noqa: ANN401  # JSON
    match item:
        case SpeechAudio(data):
            return len(data)
        case SpokenText(text):
            return [text]
        case Alignment(chars, starts_ms, ends_ms):
            return [chars, starts_ms, ends_ms]


def _timing(first: Any, *times: Any) -> Speech:  # noqa: ANN401  # JSON
    if not times:
        return SpokenText(first)
    starts_ms, ends_ms = times
    return Alignment(tuple(first), tuple(starts_ms), tuple(ends_ms))


def _digest(key: str, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES, key=key.encode("ascii")).digest()
