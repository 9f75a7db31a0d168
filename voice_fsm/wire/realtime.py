"""The messages of ``/v1/realtime``: OpenAI's Realtime protocol (GA), from the server's side.

Names and shapes are those of the ``openai`` package 3.54; docs/compatibility.md tells what is supported.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, get_args

import attrs

from voice_fsm.wire import codec
from voice_fsm.wire.checks import at_least, check
from voice_fsm.wire.converter import base64_text
from voice_fsm.wire.realtime_session import ResponseConfig

SUBPROTOCOL: Final = "realtime"
"""What browsers offer beside the one that carries their key."""
KEY_SUBPROTOCOL: Final = "openai-insecure-api-key."
"""Begins the subprotocol in which a browser shows its key."""
TEXT_CHARS: Final = 32_000
"""Of one item."""

_ID: Final = check(lambda value: 0 < len(value) <= 128 and value.isprintable(), "must be 1 to 128 characters")  # noqa: PLR2004  # roomy


# --- client to server -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class SessionUpdate:
    """Change the settings; see `realtime_session.merged`."""

    type: ClassVar[str] = "session.update"
    session: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class InputAppend:
    """Microphone audio."""

    type: ClassVar[str] = "input_audio_buffer.append"
    audio: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class InputCommit:
    """The utterance ends here."""

    type: ClassVar[str] = "input_audio_buffer.commit"


@attrs.frozen(kw_only=True)
class InputClear:
    """What was heard since the last utterance is void."""

    type: ClassVar[str] = "input_audio_buffer.clear"


@attrs.frozen(kw_only=True)
class Part:
    """A part of a message."""

    type: Literal["input_text", "output_text", "input_audio", "output_audio", "input_image", "text"]
    text: str | None = attrs.field(
        default=None,
        validator=check(lambda value: len(value) <= TEXT_CHARS, f"must be at most {TEXT_CHARS} characters"),
    )
    transcript: str | None = None


@attrs.frozen(kw_only=True)
class GivenItem:
    """What the client puts into the conversation."""

    type: Literal["message", "function_call", "function_call_output"]
    id: str | None = attrs.field(default=None, validator=_ID)
    role: Literal["user", "assistant", "system"] | None = None
    content: tuple[Part, ...] = ()
    call_id: str | None = attrs.field(default=None, validator=_ID)
    name: str | None = None
    arguments: str | None = None
    output: str | None = attrs.field(
        default=None,
        validator=check(lambda value: len(value) <= TEXT_CHARS, f"must be at most {TEXT_CHARS} characters"),
    )


@attrs.frozen(kw_only=True)
class ItemCreate:
    """Put an item into the conversation."""

    type: ClassVar[str] = "conversation.item.create"
    item: GivenItem
    previous_item_id: str | None = None


@attrs.frozen(kw_only=True)
class ItemTruncate:
    """The user heard no more of the assistant's item than this."""

    type: ClassVar[str] = "conversation.item.truncate"
    item_id: str
    audio_end_ms: int = attrs.field(validator=at_least(0))
    content_index: int = 0


@attrs.frozen(kw_only=True)
class ItemDelete:
    """Take an item out of the conversation."""

    type: ClassVar[str] = "conversation.item.delete"
    item_id: str


@attrs.frozen(kw_only=True)
class ItemRetrieve:
    """Show an item."""

    type: ClassVar[str] = "conversation.item.retrieve"
    item_id: str


@attrs.frozen(kw_only=True)
class ResponseCreate:
    """Reply."""

    type: ClassVar[str] = "response.create"
    response: ResponseConfig = attrs.field(factory=ResponseConfig)


@attrs.frozen(kw_only=True)
class ResponseCancel:
    """Stop replying."""

    type: ClassVar[str] = "response.cancel"
    response_id: str | None = None


ClientMessage = (
    SessionUpdate
    | InputAppend
    | InputCommit
    | InputClear
    | ItemCreate
    | ItemTruncate
    | ItemDelete
    | ItemRetrieve
    | ResponseCreate
    | ResponseCancel
)


# --- server to client -------------------------------------------------------------------------------


@attrs.frozen
class ServerEvent:
    """One event; ``fields`` are what it has beside its ``type`` and ``event_id``."""

    type: str
    fields: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class AudioDelta:
    """The next audio of a response: whole samples."""

    type: ClassVar[str] = "response.output_audio.delta"
    response_id: str
    item_id: str
    delta: bytes = attrs.field(repr=False)


ServerMessage = ServerEvent | AudioDelta


# --- frames -----------------------------------------------------------------------------------------

_CLIENT: Final[codec.Dialect[ClientMessage]] = codec.Dialect(get_args(ClientMessage))


def structure(document: Mapping[str, Any]) -> ClientMessage:
    """Make a message of a frame's JSON.

    Raises:
        ClientError: ``malformed_message``, ``unknown_type``, ``invalid_field`` or ``invalid_audio``.
    """
    return _CLIENT.structure(document)


def encode(message: ServerMessage, event_id: str) -> str:
    """Write a frame to a client. ``event_id`` and the ids in an `AudioDelta` are of our own making."""
    if isinstance(message, AudioDelta):  # without a search through base64 for what to escape
        return (
            f'{{"type":"{message.type}","event_id":"{event_id}","response_id":"{message.response_id}",'
            f'"item_id":"{message.item_id}","output_index":0,"content_index":0,'
            f'"delta":"{base64_text(message.delta)}"}}'
        )
    return codec.write_object({"type": message.type, "event_id": event_id, **message.fields})
