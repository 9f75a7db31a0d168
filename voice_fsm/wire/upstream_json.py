"""JSON as upstreams write it. For what clients send there is the strict reader of ``codec``."""

import json
import math
from typing import Any, Final

import msgspec


def read_upstream_json(text: str | bytes) -> Any:  # noqa: ANN401  # any JSON value
    """Read one JSON value. NaN and infinity, which Python servers write, are read as null.

    Raises:
        ValueError: it is not JSON, or nested too deeply; nothing of it is quoted.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return _read_leniently(text)


def _read_leniently(text: str | bytes) -> Any:  # noqa: ANN401  # any JSON value
    """Read what msgspec refuses: numbers that JSON does not have, and half surrogate pairs."""
    try:
        return _LENIENT.decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON that can be read") from None


def _no_number(_name: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


_LENIENT: Final = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
