"""Lines of a recording to JSON and back, for whatever members the unions of events and effects have.

- A member of a union tells its class as ``is``: no field can have the name of a keyword.
- Secrets are never written. A field that stays out of its class's ``repr`` is one.
- A redacted recording keeps white space and ASCII punctuation of texts and has an ``x`` for every other
  character, so words keep their number and length; mappings, such as a reply's metadata, are empty. Fields
  in `IDENTIFIERS` are written as they are.
- Encoding what was decoded changes nothing, so masked events give effects that mask to the recorded ones.
"""

import json
import string
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.effects import Effect
from voice_fsm.fsm.events import AnyEvent
from voice_fsm.recording.lines import ForeignEffect, Line, RecordedEffect, TextKept

TAG: Final = "is"
HIDDEN: Final = "***"
IDENTIFIERS: Final = frozenset(
    {
        *("code", "field", "source", "target", "input", "raised", "started", "voice_fsm"),
        *("session_id", "registration_id", "provider", "model", "model_id", "voice_id", "language_code"),
    }
)
"""Fields of type ``str`` that hold no words of a person. A field is masked until it is named here."""

_KEPT: Final = frozenset(string.whitespace + string.punctuation)
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)

_Hook = Callable[[Any], Any]


class NotALine(ValueError):  # noqa: N818  # says what the text is
    """A line that is none of a recording's; the message ends a sentence such as "line 7 ..."."""


def mask(text: str) -> str:
    """The text as a redacted recording keeps it."""
    return "".join(char if char in _KEPT or char.isspace() else "x" for char in text)


class Codec:
    """Writes and reads lines, with texts as they are or redacted."""

    def __init__(self, text: TextKept) -> None:
        self._converter = _converter(redact=text == "redacted")

    def encode(self, line: Line) -> str:
        """Write one line of compact ASCII JSON, with its line feed.

        Raises:
            ValueError, TypeError: something in it is not JSON.
        """
        return _ENCODER.encode(self.document(line)) + "\n"

    def decode(self, text: bytes) -> Line:
        """Read one line.

        Raises:
            NotALine: it is not JSON, or not what `encode` writes.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise NotALine("is not JSON") from None
        try:
            line: Line = self._converter.structure(document, Line)  # type: ignore[arg-type]  # a union
        except cattrs.BaseValidationError as group:
            raise NotALine(_first_fault(group)) from None
        return line

    def document(self, line: Line) -> dict[str, Any]:
        """The JSON object of a line."""
        document: dict[str, Any] = self._converter.unstructure(line, Line)
        return document


def _converter(*, redact: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _structure_float)
    converter.register_structure_hook(AudioFormat, lambda name, _: AudioFormat.parse(name))
    converter.register_structure_hook_func(_is_mapping, _structure_mapping)
    converter.register_unstructure_hook_func(_is_mapping, (lambda _: {}) if redact else dict)
    if redact:
        converter.register_unstructure_hook(str, mask)
    converter.register_unstructure_hook_factory(attrs.has, _unstructure_class)
    converter.register_structure_hook_factory(attrs.has, _structure_class)
    converter.register_unstructure_hook(AudioFormat, str)
    for union in (AnyEvent, Effect, Line):
        _tag(union, converter)
    _let_foreign_effects_in(converter)
    return converter


def _unstructure_class(cls: Any, converter: cattrs.Converter) -> _Hook:  # noqa: ANN401  # cattrs hands over any type
    hook: _Hook = make_dict_unstructure_fn(
        cls, converter, **{field.name: _override(field) for field in attrs.fields(cls)}
    )
    return hook


def _structure_class(cls: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:  # noqa: ANN401  # as above
    fill = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)

    def structure(value: object, _: object) -> object:
        if not isinstance(value, dict):
            raise NotALine("must be an object")
        return fill(value, cls)

    return structure


def _override(field: "attrs.Attribute[Any]") -> Any:  # noqa: ANN401  # cattrs' AttributeOverride
    hook: _Hook | None = None
    if field.repr is False:
        hook = _hide
    elif field.name in IDENTIFIERS:
        hook = _as_it_is
    return override(unstruct_hook=hook, omit_if_default=field.default is None)


def _hide(secret: object) -> str | None:
    return None if secret is None else HIDDEN


def _as_it_is(value: object) -> object:
    return value


def _tag(union: Any, converter: cattrs.Converter) -> None:  # noqa: ANN401  # a union is no type
    """Like cattrs' tagged unions, with the tag in front and a sentence for one that is unknown."""
    classes = {cls.__name__: cls for cls in get_args(union)}

    def unstructure(value: object) -> dict[str, Any]:
        return {TAG: type(value).__name__, **converter.unstructure(value)}

    def structure(value: object, _: object) -> object:
        if not isinstance(value, dict) or not isinstance(value.get(TAG), str):
            raise NotALine(f"must be an object with its class as `{TAG}`")
        fields = dict(value)
        name = fields.pop(TAG)
        if name not in classes:
            raise NotALine(f"is a {name!r}, which this version does not know")
        return converter.structure(fields, classes[name])

    converter.register_unstructure_hook(union, unstructure)
    converter.register_structure_hook(union, structure)


def _let_foreign_effects_in(converter: cattrs.Converter) -> None:
    """A recording of another version can be read as long as its events can be."""

    def unstructure(effect: RecordedEffect) -> object:
        return effect.document if isinstance(effect, ForeignEffect) else converter.unstructure(effect, Effect)

    def structure(value: object, _: object) -> RecordedEffect:
        try:
            return converter.structure(value, Effect)  # type: ignore[arg-type]  # a union
        except (NotALine, cattrs.BaseValidationError):
            if isinstance(value, dict) and isinstance(value.get(TAG), str):
                return ForeignEffect(value)
            raise

    converter.register_unstructure_hook(RecordedEffect, unstructure)
    converter.register_structure_hook(RecordedEffect, structure)


# --- values -----------------------------------------------------------------------------------------


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: object, _: object) -> object:
        if type(value) is not kind:
            raise NotALine(f"must be of type {kind.__name__}")
        return value

    return structure


def _structure_float(value: object, _: object) -> float:
    if type(value) is not float and type(value) is not int:
        raise NotALine("must be a number")
    return float(value)


def _structure_mapping(value: object, _: object) -> object:
    if not isinstance(value, dict):
        raise NotALine("must be an object")
    return value


def _is_mapping(type_: object) -> bool:
    return get_origin(type_) is Mapping


def _first_fault(group: cattrs.BaseValidationError) -> str:
    told = cattrs.transform_error(group, path="$", format_exception=_say)[0]
    what, _, where = told.rpartition(" @ $")
    return f"{what} (at {where.lstrip('.')})" if where else what


def _say(error: BaseException, kind: type | None) -> str:
    return str(error) if isinstance(error, ValueError) else cattrs.v.format_exception(error, kind)
