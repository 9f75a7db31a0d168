"""What the service's messages mean, whichever way they are spelt."""

import base64
import json
from typing import Any

import attrs
import pytest

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ProviderError
from voice_fsm.fsm.options import VoiceSettings
from voice_fsm.tts.base import Alignment
from voice_fsm.tts.elevenlabs_wire import (
    SOCKET_FORMATS,
    STREAM_FORMATS,
    Voice,
    read_socket_message,
    read_timestamps_line,
    socket_url,
)
from voice_fsm.tts.reply import Frame

HI = Alignment(("H", "i"), (0.0, 30.0), (30.0, 70.0))
OTHER = {"chars": ["X"], "charStartTimesMs": [0], "charDurationsMs": [1]}
PCM = AudioFormat("pcm", 8000)
SECOND = bytes(16000)


VOICE = Voice(
    voice_id="v",
    model_id="eleven_flash_v2_5",
    output_format=PCM,
    settings=VoiceSettings(),
    alignment=True,
)


@pytest.mark.parametrize(
    "fields",
    [
        {"alignment": {"chars": ["H", "i"], "charStartTimesMs": [0, 30], "charDurationsMs": [30, 40]}},
        {"alignment": {"chars": ["H", "i"], "charStartTimesMs": [0, 30], "charsDurationsMs": [30, 40]}},
        {"alignment": {"chars": ["H", "i"], "char_start_times_ms": [0, 30], "char_durations_ms": [30, 40]}},
        {
            "alignment": None,
            "normalizedAlignment": {
                "chars": ["H", "i"],
                "charStartTimesMs": [0, 30],
                "charDurationsMs": [30, 40],
            },
        },
        {
            "alignment": {"chars": ["H", "i"], "charStartTimesMs": [0, 30], "charDurationsMs": [30, 40]},
            "normalizedAlignment": OTHER,
        },
    ],
)
def test_alignments_of_frames(fields: dict[str, Any]) -> None:
    """All spellings are read, and the text as it was sent goes before the normalized one."""
    frame = read_socket_message(json.dumps({"audio": base64.b64encode(b"ab").decode(), **fields})).frame()

    assert frame == Frame(b"ab", HI)


@pytest.mark.parametrize(
    "alignment",
    [
        "Hi",
        {},
        {"chars": [], "charStartTimesMs": [], "charDurationsMs": []},
        {"chars": ["H"], "charStartTimesMs": [0, 30], "charDurationsMs": [30, 40]},
        {"chars": ["H", "i"], "charStartTimesMs": [0, 30], "charDurationsMs": [30]},
        {"chars": ["H", 1], "charStartTimesMs": [0, 30], "charDurationsMs": [30, 40]},
        {"chars": ["H", "i"], "charStartTimesMs": [0, "soon"], "charDurationsMs": [30, 40]},
        {"chars": ["H", "i"], "charStartTimesMs": None, "charDurationsMs": [30, 40]},
    ],
)
def test_an_alignment_that_is_not_understood_is_none(alignment: Any) -> None:
    """Odd times do not cost the speech they belong to."""
    assert read_socket_message(json.dumps({"audio": "AAAA", "alignment": alignment})).frame() == Frame(
        bytes(3)
    )


@pytest.mark.parametrize("key", ["isFinal", "is_final"])
def test_the_final_frame(key: str) -> None:
    """The end is read in both spellings, without audio."""
    assert read_socket_message(json.dumps({"audio": None, key: True})).frame() == Frame(is_final=True)
    assert not read_socket_message(json.dumps({"audio": "AAAA", key: None})).frame().is_final


@pytest.mark.parametrize(
    ("fields", "context_id"),
    [
        ({"contextId": "a"}, "a"),
        ({"context_id": "a"}, "a"),
        ({"contextId": None}, None),
        ({"contextId": 1}, None),
    ],
)
def test_whose_a_message_is(fields: dict[str, Any], context_id: str | None) -> None:
    """The context is read in both spellings; there may be none."""
    assert read_socket_message(json.dumps(fields)).context_id == context_id


@pytest.mark.parametrize(
    "message", ["", "[]", "null", '{"audio":5}', '{"audio":"A"}', '{"audio":"AAAA*"}', b"\xff", "[" * 100_000]
)
def test_frames_that_are_no_frames(message: str | bytes) -> None:
    """Anything else than the protocol's objects is a bad response."""
    with pytest.raises(ProviderError) as caught:
        read_socket_message(message).frame()

    assert caught.value.code == "tts_bad_response"


def test_timestamps_of_http_are_seconds() -> None:
    """A line's times come out in milliseconds."""
    line = {
        "audio_base64": "YWI=",
        "alignment": {
            "characters": ["H", "i"],
            "character_start_times_seconds": [0, 0.03],
            "character_end_times_seconds": [0.03, 0.07],
        },
    }

    frame = read_timestamps_line(json.dumps(line).encode())

    assert frame.audio == b"ab"
    assert frame.alignment is not None
    assert frame.alignment.ends_ms == pytest.approx(HI.ends_ms)


def test_formats_of_the_endpoints() -> None:
    """Every format of the service has a name of ours; the socket lacks three."""
    assert {str(AudioFormat.parse(name)) for name in STREAM_FORMATS} == STREAM_FORMATS
    assert len(STREAM_FORMATS) == 21
    assert len(SOCKET_FORMATS) == 18


def test_the_address_of_a_socket_keeps_a_prefix() -> None:
    """A service behind a path is addressed behind it."""
    url = socket_url("https://proxy.example/eleven", VOICE)

    assert url.startswith("wss://proxy.example/eleven/v1/text-to-speech/v/multi-stream-input?")


@pytest.mark.parametrize(("model_id", "has"), [("eleven_v3", False), ("eleven_v4_turbo", False), ("x", True)])
def test_models_without_socket(model_id: str, *, has: bool) -> None:
    """The third and fourth generation cannot stream text in."""
    assert attrs.evolve(VOICE, model_id=model_id).has_socket is has
