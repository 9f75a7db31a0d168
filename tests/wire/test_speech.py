import json

import pytest

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError
from voice_fsm.wire import codec
from voice_fsm.wire import speech as wire


def decode(text: str) -> wire.ClientMessage:
    return wire.structure(codec.read_object(text))


def synthesize(**fields: object) -> wire.Synthesize:
    message = decode(json.dumps({"action": "synthesize", "text": "Hi.", **fields}))
    assert isinstance(message, wire.Synthesize)
    return message


def test_what_a_plain_client_sends() -> None:
    """Action and text are enough, and a cancel is an action alone."""
    assert decode('{"action":"synthesize","text":"Hi."}') == wire.Synthesize(text="Hi.")
    assert decode('{"action":"cancel"}') == wire.Cancel()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "pcm_24000"),
        ({"format": "pcm"}, "pcm_24000"),
        ({"sample_rate": 16000}, "pcm_16000"),
        ({"format": "pcm", "sample_rate": 8000}, "pcm_8000"),
        ({"format": "pcm_44100"}, "pcm_44100"),
        ({"format": "pcm_44100", "sample_rate": 44100}, "pcm_44100"),
        ({"format": "ulaw"}, "ulaw_8000"),
        ({"format": "ulaw", "sample_rate": 8000}, "ulaw_8000"),
        ({"format": "mp3"}, "mp3_44100_128"),
        ({"format": "mp3_22050_32"}, "mp3_22050_32"),
        ({"format": "opus"}, "opus_48000_64"),
        ({"format": None, "sample_rate": None}, "pcm_24000"),
    ],
)
def test_formats(fields: dict[str, object], name: str) -> None:
    """A codec alone, a format's whole name, a rate alone, or what fits together of them."""
    assert synthesize(**fields).output_format(24000) == AudioFormat.parse(name)


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"text": None}, "text", "invalid_field"),
        ({"text": 5}, "text", "invalid_field"),
        ({"format": "flac"}, "format", "invalid_field"),
        ({"format": "pcm_12345"}, "format", "invalid_field"),
        ({"format": "ulaw", "sample_rate": 16000}, "sample_rate", "invalid_field"),
        ({"format": "pcm_16000", "sample_rate": 24000}, "sample_rate", "invalid_field"),
        ({"sample_rate": 12345}, "sample_rate", "invalid_field"),
        ({"speed": 9}, "speed", "invalid_field"),
        ({"id": "x" * 201}, "id", "invalid_field"),
        ({"id": 1.5}, "id", "invalid_field"),
        ({"cache": "no"}, "cache", "invalid_field"),
        ({"voice": "a\nb"}, "voice", "invalid_field"),
        ({"action": "sing"}, None, "unknown_type"),
        ({"action": None}, None, "malformed_message"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, object], field: str | None, code: str) -> None:
    """By its field, or as an action that nobody knows."""
    with pytest.raises(ClientError) as caught:
        synthesize(**fields)
    assert (caught.value.field, caught.value.code) == (field, code)


@pytest.mark.parametrize(
    ("value", "found"),
    [("a", "a"), (7, 7), (True, None), (1.5, None), ("x" * 201, None), ([], None), (None, None)],
)
def test_the_id_of_a_request_that_is_wrong(value: object, found: object) -> None:
    """It is told with the error, if it is one at all."""
    assert wire.id_of({"id": value}) == found


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (wire.Done(), '{"action":"done"}'),
        (wire.Done(id="a"), '{"action":"done","id":"a"}'),
        (wire.Cancelled(), '{"action":"cancelled"}'),
        (wire.Cancelled(id=3, dropped=2), '{"action":"cancelled","id":3,"dropped":2}'),
        (
            wire.Error(code="empty_text", message="Nothing."),
            '{"action":"error","code":"empty_text","message":"Nothing.","retryable":false}',
        ),
    ],
)
def test_what_the_server_says(message: wire.ServerMessage, text: str) -> None:
    """A plain client sees the base contract, to the letter."""
    assert wire.encode(message) == text
