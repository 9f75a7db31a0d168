"""Checks that messages put on their fields; ``None``, which is a field left out, passes all of them."""

from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

import attrs

from voice_fsm.wire.converter import FieldError

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def check(holds: Callable[[Any], bool], must: str) -> Validator:
    """Make a validator of a predicate; ``must`` ends the sentence that the peer is told."""

    def validate(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if value is not None and not holds(value):
            raise FieldError(must, field=attribute.name)

    return validate


def between(low: float, high: float) -> Validator:
    """From ``low`` to ``high``, both included."""
    return check(lambda value: low <= value <= high, f"must be from {low} to {high}")


def at_least(low: float) -> Validator:
    """``low`` or more."""
    return check(lambda value: value >= low, f"must be at least {low}")


def above(low: float) -> Validator:
    """More than ``low``."""
    return check(lambda value: value > low, f"must be more than {low}")


def one_of(values: Collection[object]) -> Validator:
    """One of ``values``."""
    return check(lambda value: value in values, f"must be one of {', '.join(map(str, values))}")


def spoken(max_chars: int) -> Validator:
    """Text that says something."""
    return check(
        lambda value: len(value) <= max_chars and bool(value.strip()),
        f"must be text of 1 to {max_chars} characters, and not blank",
    )


def http_url(max_chars: int) -> Validator:
    """The absolute URL of an HTTP service."""
    return check(
        lambda value: len(value) <= max_chars and value.isprintable() and _has_http_host(value),
        "must be a URL that begins with http:// or https:// and names a host",
    )


def line(max_chars: int = 200, *, repr: bool = True) -> Any:  # noqa: A002, ANN401  # both as in attrs.field
    """A field for an optional name or key: one line of text. Left blank it counts as left out."""
    return attrs.field(
        default=None,
        converter=blank_as_none,
        validator=check(
            lambda value: len(value) <= max_chars and value.isprintable(),
            f"must be at most {max_chars} printable characters",
        ),
        repr=repr,
    )


def blank_as_none(value: str | None) -> str | None:
    """Forms send an empty string for a box that was not filled in."""
    return value if value is not None and value.strip() else None


def _has_http_host(value: str) -> bool:
    try:
        url = urlsplit(value)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname)
