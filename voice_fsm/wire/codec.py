"""Frames and messages: JSON text to frozen attrs classes and back, for every dialect.

A frame is one JSON object whose ``type`` (in one dialect ``action``) tells its message class; a message class
has that name as ``type: ClassVar[str]``. What a frame has to keep to is told in
`voice_fsm.wire.strict_json`, what its fields have to keep to in `voice_fsm.wire.converter`.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

import cattrs

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.wire.converter import CONVERTER, FieldError, wire_name
from voice_fsm.wire.strict_json import read_strict_json

_SHOWN_CHARS: Final = 60
"""How much an error repeats of a name that the peer made up."""
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Message(Protocol):
    """What a message class has beside its fields."""

    type: ClassVar[str]


T = TypeVar("T")
MessageT_co = TypeVar("MessageT_co", bound=Message, covariant=True)


class Dialect(Generic[MessageT_co]):
    """The messages that one kind of socket brings us; ``tag`` is the field that tells them apart."""

    def __init__(self, messages: Iterable[type[MessageT_co]], *, tag: str = "type") -> None:
        self._by_type = {message.type: message for message in messages}
        self._tag = tag

    def __contains__(self, name: object) -> bool:
        """Whether there is a message of this type."""
        return name in self._by_type

    def decode(self, text: str | bytes) -> MessageT_co:
        """Read one frame.

        Raises:
            ClientError: whatever is wrong with it: ``malformed_message``, ``unknown_type``,
                ``invalid_field`` or ``invalid_audio``.
        """
        return self.structure(read_object(text))

    def structure(self, document: Mapping[str, Any]) -> MessageT_co:
        """Make a message of what `read_object` returned.

        Raises:
            ClientError: ``malformed_message``, ``unknown_type``, ``invalid_field`` or ``invalid_audio``.
        """
        name = document.get(self._tag)
        if not isinstance(name, str):
            raise ClientError(
                ClientFault.MALFORMED_MESSAGE, f"The message has no `{self._tag}`, which is a string."
            )
        cls = self._by_type.get(name)
        if cls is None:
            shown = repr(name[:_SHOWN_CHARS])
            raise ClientError(ClientFault.UNKNOWN_TYPE, f"No message has the {self._tag} {shown}.")
        return structure(document, cls)


def structure(document: Mapping[str, Any], cls: type[T]) -> T:
    """Make an instance of an attrs class of JSON, or of what reads like it.

    Raises:
        ClientError: ``invalid_field`` or ``invalid_audio``; ``field`` is the path.
    """
    try:
        return CONVERTER.structure(document, cls)
    except cattrs.BaseValidationError as group:
        raise _client_error(group) from None


def encode(message: Message, tag: str = "type", /, **envelope: int | str) -> str:
    """Write one frame as compact ASCII JSON: its type as ``tag``, ``envelope``, then the message's fields.

    ASCII, because the halves of a surrogate pair may come in two pieces of streamed text, and only an
    escaped half passes through a UTF-8 frame.

    Raises:
        ValueError: a number in it is NaN or infinite.
    """
    return write_object({tag: message.type, **envelope, **CONVERTER.unstructure(message)})


def write_object(document: Mapping[str, Any]) -> str:
    """Write what is JSON already as a frame; see `encode`."""
    return _ENCODER.encode(document)


def read_object(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object, strictly.

    Raises:
        ClientError: ``malformed_message``.
    """
    try:
        document = read_strict_json(text)
    except ValueError as error:
        raise ClientError(ClientFault.MALFORMED_MESSAGE, f"The message is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise ClientError(ClientFault.MALFORMED_MESSAGE, "The message is not a JSON object.")
    return document


def _client_error(error: Exception) -> ClientError:
    """Tell the first thing that is wrong, and where."""
    path: list[str] = []
    while isinstance(error, cattrs.BaseValidationError):
        error = error.exceptions[0]
        path += reversed(_steps(error))
    if isinstance(error, FieldError):
        must, fault = error.must, error.fault
        path += [wire_name(error.field)] if error.field else []
    elif isinstance(error, KeyError):
        must, fault = "is required", ClientFault.INVALID_FIELD
    else:
        raise error
    field = ".".join(path)
    return ClientError(fault, f"`{field}` {must}.", field=field)


def _steps(error: Exception) -> list[str]:
    """The way to the value that raised ``error``, as far as it has been noted, from the inside out."""
    return [
        wire_name(note.name)
        if isinstance(note, cattrs.AttributeValidationNote)
        else str(note.index)[:_SHOWN_CHARS]
        for note in getattr(error, "__notes__", ())
        if isinstance(note, cattrs.AttributeValidationNote | cattrs.IterableValidationNote)
    ]
