"""JSON as upstreams write it. For what clients send there is the strict reader of ``codec``."""

import json
import math
from typing import Any, Final


def read_upstream_json(text: str | bytes) -> Any:  # noqa: ANN401  # any JSON value
    """Read one JSON value. NaN and infinity, which Python servers write, are read as null.

    Raises:
        ValueError: it is not JSON, or nested too deeply; nothing of it is quoted.
    """
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON that can be read") from None


def _no_number(_name: str) -> None:
    return None


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


_DECODER: Final = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
