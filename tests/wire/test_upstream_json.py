import pytest

from voice_fsm.wire.upstream_json import read_upstream_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, true, null, "x"]}', {"a": [1, 2.5, True, None, "x"]}),
        (b'{"a": "\xc3\xa9"}', {"a": "\u00e9"}),
        ("[NaN, Infinity, -Infinity, 1e999]", [None, None, None, None]),
        ('"\\ud83d"', "\ud83d"),
    ],
)
def test_values_are_read(text: str | bytes, value: object) -> None:
    """JSON is read as it is, but for numbers that JSON does not have: they are null."""
    assert read_upstream_json(text) == value


@pytest.mark.parametrize("text", ["", "{", "nope", b"\xff", "[" * 100_000, "9" * 5000])
def test_what_is_not_json_is_an_error(text: str | bytes) -> None:
    """Nonsense, bad UTF-8, depth and length all fail alike."""
    with pytest.raises(ValueError, match="not JSON"):
        read_upstream_json(text)
