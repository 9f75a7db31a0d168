"""The one converter between JSON values and message classes, for every dialect.

- A value has its field's type and no other: 5 is not "5", true is not 1. A whole number may stand where a
  fraction is expected.
- ``null`` is the same as leaving the field out. Fields that nobody knows are ignored.
- ``bytes`` are base64 (RFC 4648, padded) and hold audio; an `AudioFormat` is its name.
- A field whose name is a Python keyword ends in an underscore (``from_``), which is not on the wire.
- A field whose default is ``None`` is left out while it is ``None``.
"""

import json
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import attrs
import cattrs
import pybase64
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientFault

_Hook = Callable[[Any, Any], Any]

_KINDS: Final = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


class FieldError(ValueError):
    """A value that its field cannot hold.

    ``must`` ends a sentence that begins with the field's path, such as "must be a string". It never
    repeats the value, which may be a secret.
    """

    def __init__(
        self, must: str, *, field: str | None = None, fault: ClientFault = ClientFault.INVALID_FIELD
    ) -> None:
        super().__init__(must)
        self.must = must
        self.field = field
        """Name of the field, from checks that see a whole message; the others do not know it."""
        self.fault = fault


def base64_text(data: bytes) -> str:
    """Write bytes as they stand on the wire."""
    return pybase64.b64encode_as_string(data)


def wire_name(field: str) -> str:
    """The name on the wire of a message class's field."""
    return field.rstrip("_")


# --- values -----------------------------------------------------------------------------------------


def _exactly(kind: type) -> _Hook:
    must = f"must be {_KINDS[kind]}"

    def structure(value: object, _: object) -> object:
        if type(value) is not kind:
            raise FieldError(must)
        return value

    return structure


def _structure_float(value: object, _: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise FieldError("must be a number")
    return float(value)


def _structure_bytes(value: object, _: object) -> bytes:
    if type(value) is not str:
        raise FieldError("must be a string")
    try:
        return pybase64.b64decode(value, validate=True)
    except ValueError:
        raise FieldError("must be base64", fault=ClientFault.INVALID_AUDIO) from None


def _structure_audio_format(value: object, _: object) -> AudioFormat:
    if type(value) is not str:
        raise FieldError("must be a string")
    try:
        return AudioFormat.parse(value)
    except ValueError:
        raise FieldError(
            "must be an audio format such as pcm_24000, ulaw_8000, mp3_44100_128 or opus_48000_64"
        ) from None


def _structure_literal(value: object, literal: object) -> object:
    options = get_args(literal)
    for option in options:
        if type(value) is type(option) and value == option:
            return value
    raise FieldError(f"must be one of {', '.join(map(json.dumps, options))}")


def _is_literal(type_: object) -> bool:
    return get_origin(type_) is Literal


def _is_scalar_union(type_: object) -> bool:
    kinds = _union_kinds(type_)
    return len(kinds) > 1 and all(kind in (str, int, float, bool) for kind in kinds)


def _union_kinds(type_: object) -> list[type]:
    if get_origin(type_) not in (Union, UnionType):
        return []
    return [kind for kind in get_args(type_) if kind is not NoneType]


def _scalar_union(type_: object, _: cattrs.Converter) -> _Hook:
    kinds = _union_kinds(type_)
    told = [kind for kind in kinds if kind is not int or float not in kinds]  # a whole number is a number
    must = f"must be {' or '.join(_KINDS[kind] for kind in told)}"

    def structure(value: object, _: object) -> object:
        if type(value) not in kinds:
            raise FieldError(must)
        return value

    return structure


# --- containers -------------------------------------------------------------------------------------


def _is_tuple(type_: object) -> bool:
    return get_origin(type_) is tuple


def _tuple(type_: object, converter: cattrs.Converter) -> _Hook:
    item_type = get_args(type_)[0]
    structure_item = converter.get_structure_hook(item_type)
    expect_list = _exactly(list)

    def structure(value: object, _: object) -> object:
        items = expect_list(value, list)
        return tuple([_at(index, structure_item, item, item_type) for index, item in enumerate(items)])

    return structure


def _is_mapping(type_: object) -> bool:
    return get_origin(type_) is Mapping


def _mapping(type_: object, converter: cattrs.Converter) -> _Hook:
    item_type = get_args(type_)[1]
    structure_item = converter.get_structure_hook(item_type)
    expect_dict = _exactly(dict)

    def structure(value: object, _: object) -> object:
        items = expect_dict(value, dict)
        return {key: _at(key, structure_item, item, item_type) for key, item in items.items()}

    return structure


def _at(step: int | str, structure_item: _Hook, item: object, item_type: object) -> object:
    """Structure one item; the first bad one ends it, as a long list of errors would take seconds."""
    try:
        return structure_item(item, item_type)
    except Exception as error:
        error.add_note(cattrs.IterableValidationNote(f"item {step}", step, item_type))
        raise


def _structure_class(cls: Any, converter: cattrs.Converter) -> _Hook:  # noqa: ANN401  # cattrs hands over any type
    fill = make_dict_structure_fn(cls, converter, **_overrides(cls))
    expect_dict = _exactly(dict)

    def structure(value: object, _: object) -> object:
        fields = expect_dict(value, dict)
        return fill({name: given for name, given in fields.items() if given is not None}, cls)

    return structure


def _unstructure_class(cls: Any, converter: cattrs.Converter) -> Callable[[Any], Any]:  # noqa: ANN401  # as above
    return make_dict_unstructure_fn(cls, converter, **_overrides(cls))


def _overrides(cls: Any) -> dict[str, Any]:  # noqa: ANN401  # as above
    return {
        field.name: override(rename=wire_name(field.name), omit_if_default=field.default is None)
        for field in attrs.fields(cls)
    }


def _strict_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _structure_float)
    converter.register_structure_hook(bytes, _structure_bytes)
    converter.register_unstructure_hook(bytes, base64_text)
    converter.register_structure_hook_func(_is_literal, _structure_literal)
    converter.register_structure_hook_factory(_is_scalar_union, _scalar_union)
    converter.register_structure_hook_factory(_is_tuple, _tuple)
    converter.register_structure_hook_factory(_is_mapping, _mapping)
    # What a mapping holds is JSON already.
    converter.register_unstructure_hook_func(_is_mapping, dict)
    converter.register_structure_hook_factory(attrs.has, _structure_class)
    converter.register_unstructure_hook_factory(attrs.has, _unstructure_class)
    converter.register_structure_hook(AudioFormat, _structure_audio_format)
    converter.register_unstructure_hook(AudioFormat, str)
    return converter


CONVERTER: Final = _strict_converter()
