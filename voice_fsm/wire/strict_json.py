"""Strict JSON: what parsers disagree about is refused rather than guessed at."""

import json
from typing import Any, Final, NoReturn

_INTEGER_CHARS: Final = 19
"""A sign and 18 digits: safe in 64 bits."""


def read_strict_json(text: str | bytes) -> Any:  # noqa: ANN401  # any JSON value
    """Read one JSON value (RFC 8259, in UTF-8).

    Raises:
        ValueError: it is not JSON, is nested too deeply, gives a key twice, or holds NaN, infinity, half of a
            surrogate pair or an integer beyond 64 bits. The message says which, and quotes nothing.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        document = _DECODER.decode(text)
        if not text.isascii() or "\\" in text:  # both are quick, and false for audio
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("it is not well-formed Unicode") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos}") from None
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("it gives the same key twice")
    return document


def _integer(digits: str) -> int:
    if len(digits) > _INTEGER_CHARS:
        raise ValueError("it holds a number that is too large")
    return int(digits)


def _fraction(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError("it holds a number that is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction, parse_constant=_constant
)
