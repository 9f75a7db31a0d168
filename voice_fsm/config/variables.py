"""How a setting is declared, parsed and shown: once, at the field that holds it."""

import math
import re
from collections.abc import Callable
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

import attrs

from voice_fsm.errors import ConfigError

_VARIABLE: Final = "voice_fsm.variable"
_SHOWN_CHARS: Final = 60
"""How much of a wrong value an error repeats."""
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


@attrs.frozen
class Rule:
    """What a value has to keep to beside its type; ``words`` follow the type in a sentence."""

    holds: Callable[[Any], bool]
    words: str


@attrs.frozen(kw_only=True)
class Variable:
    """The environment variable behind a field of `Settings`' groups."""

    name: str
    help: str
    secret: bool
    rule: Rule | None
    derived: str | None
    """How the default comes about where it depends on other variables."""
    also: str | None = None
    """Another name that is read where this one is unset."""


def between(low: float, high: float) -> Rule:
    """From ``low`` to ``high``, both included."""
    return Rule(lambda value: low <= value <= high, f"from {low} to {high}")


def at_least(low: float) -> Rule:
    """``low`` or more."""
    return Rule(lambda value: value >= low, f"of at least {low}")


def _is_url(value: str, *schemes: str) -> bool:
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        return False
    return url.scheme in schemes and bool(url.hostname) and port != 0 and url.username is None


def _is_http_url(value: str) -> bool:
    return _is_url(value, "http", "https")


POSITIVE: Final = Rule(lambda value: value > 0, "above 0")
HTTP_URL: Final = Rule(_is_http_url, "that is an http:// or https:// URL, without credentials")
HTTP_URLS: Final = Rule(
    lambda values: all(map(_is_http_url, values)), "of http:// or https:// URLs, without credentials"
)
WS_URL: Final = Rule(
    lambda value: _is_url(value, "ws", "wss"), "that is a ws:// or wss:// URL, without credentials"
)
ORIGINS: Final = Rule(
    lambda values: all(re.fullmatch(r"https?://[^/\s]+", value) for value in values),
    "of origins such as https://app.example.com",
)
KEY: Final = Rule(
    lambda value: value.isascii() and value.isprintable() and " " not in value,
    "of ASCII characters without spaces",
)
KEYS: Final = Rule(
    lambda values: all(map(KEY.holds, values)),
    "of keys of ASCII characters without spaces",
)
DAY: Final = Rule(lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\d", value)), "such as 2026-03-01")
LANGUAGE: Final = Rule(lambda value: bool(re.fullmatch(r"[a-z]{2}", value)), "of two letters, such as en")
PATH: Final = Rule(lambda value: value.startswith("/"), "that begins with /")


def setting(
    name: str,
    default: Any,  # noqa: ANN401  # of the field's type
    help: str,  # noqa: A002  # its natural name
    *,
    rule: Rule | None = None,
    secret: bool = False,
    derived: str | None = None,
    also: str | None = None,
    converter: Callable[[Any], Any] | None = None,
) -> Any:  # noqa: ANN401  # like attrs.field, whose type is that of its attribute
    """Declare a field that the environment variable ``name`` sets."""
    variable = Variable(name=name, help=help, secret=secret, rule=rule, derived=derived, also=also)
    return attrs.field(
        default=default,
        repr=not secret,
        converter=converter,
        validator=_keep_rule,
        metadata={_VARIABLE: variable},
    )


def variable_of(field: "attrs.Attribute[Any]") -> Variable:
    """The environment variable that sets ``field``."""
    variable: Variable = field.metadata[_VARIABLE]
    return variable


def allowed(field: "attrs.Attribute[Any]") -> str:
    """What a field may hold, such as "a whole number from 0 to 65535"."""
    rule = variable_of(field).rule
    words = _kind(_plain(field.type))
    return f"{words} {rule.words}" if rule else words


def _keep_rule(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    variable = variable_of(field)
    if value is not None and variable.rule is not None and not variable.rule.holds(value):
        raise _wrong(field, as_text(value))


def _wrong(field: "attrs.Attribute[Any]", text: str) -> ConfigError:
    kind = _plain(field.type)
    # Free text may be a secret, or a URL with one in it, put in the wrong place.
    quotable = kind in (int, float, bool) or get_origin(kind) is Literal
    but = f", not {text[:_SHOWN_CHARS]!r}" if quotable else ""
    return ConfigError(variable_of(field).name, f"must be {allowed(field)}{but}")


def without_slash(url: str | None) -> str | None:
    """Let paths be appended to a URL."""
    return url.rstrip("/") if url else url


def as_http(url: str) -> str:
    """Take the address of a WebSocket for that of HTTP on the same host."""
    scheme = re.match(r"ws(s?)://", url)
    return (f"http{scheme[1]}://{url[scheme.end() :]}" if scheme else url).rstrip("/")


def parse(field: "attrs.Attribute[Any]", text: str) -> object:
    """Read a field's value from the environment.

    Raises:
        ConfigError: the text is no value of the field's type.
    """
    try:
        return _parse_as(_plain(field.type), text)
    except (ValueError, KeyError):
        raise _wrong(field, text) from None


def _parse_as(kind: Any, text: str) -> object:  # noqa: ANN401  # an annotation
    if get_origin(kind) is Literal:
        return {str(option): option for option in get_args(kind)}[text.lower()]
    if get_origin(kind) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        return _BOOLEANS[text.lower()]
    if kind is str:
        return text
    return _parse_number(kind, text)


def _parse_number(kind: type[int] | type[float], text: str) -> float:
    """Plain digits only: ``int`` and ``float`` would also take "1_0", "nan" and digits of other scripts."""
    shape = r"-?[0-9]+" if kind is int else r"-?[0-9]+(\.[0-9]+)?"
    if not re.fullmatch(shape, text):
        raise ValueError(text)
    number = kind(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def as_text(value: object) -> str:
    """A setting's value as one writes it in the environment; empty for one that is unset."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return str(value).removesuffix(".0")
        case tuple():
            return ",".join(value)
    return str(value)


def _plain(annotation: Any) -> Any:  # noqa: ANN401  # an annotation
    """The type of a value that is set: ``T`` for ``T | None``."""
    arguments = get_args(annotation)
    return arguments[0] if NoneType in arguments else annotation


def _kind(kind: Any) -> str:  # noqa: ANN401  # an annotation
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return "a comma-separated list"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind]
