"""OpenAI's Realtime protocol on the wire: settings merged, messages read, events written."""

import json
from typing import Any

import pytest

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError
from voice_fsm.wire import realtime as wire
from voice_fsm.wire.realtime_session import INITIAL, SessionConfig, merged


def heard(config: SessionConfig, **changes: Any) -> SessionConfig:
    return merged(config, {"audio": {"input": changes}})


def test_only_what_is_named_changes() -> None:
    """At every level; ``null`` switches off."""
    config = heard(INITIAL, turn_detection={"silence_duration_ms": 300}, transcription={"model": "m"})
    config = heard(config, transcription={"language": "en"})
    detection, transcription = config.audio.input.turn_detection, config.audio.input.transcription
    assert detection is not None
    assert transcription is not None
    assert (detection.type, detection.silence_duration_ms, detection.create_response) == (
        "server_vad",
        300,
        True,
    )
    assert (transcription.model, transcription.language) == ("m", "en")
    config = heard(config, turn_detection=None)
    assert config.audio.input.turn_detection is None
    assert config.audio.input.transcription == transcription


def test_another_kind_begins_anew() -> None:
    """Nothing of the one before is left in it."""
    config = heard(INITIAL, turn_detection={"silence_duration_ms": 300, "create_response": False})
    config = heard(config, turn_detection={"type": "semantic_vad", "eagerness": "low"})
    detection = config.audio.input.turn_detection
    assert detection is not None
    assert (detection.silence_duration_ms, detection.create_response) == (None, True)
    config = heard(config, format={"type": "audio/pcmu"})
    assert config.audio.input.format.audio_format == AudioFormat("ulaw", 8000)


def test_lists_are_replaced_and_unknown_fields_pass() -> None:
    """Newer clients have fields that nobody here knows."""
    tool = {"type": "function", "name": "a", "parameters": {"type": "object"}}
    config = merged(INITIAL, {"tools": [tool, {**tool, "name": "b"}], "new": {"a": 1}})
    config = merged(config, {"tools": [tool]})
    assert [tool.name for tool in config.tools or ()] == ["a"]
    assert merged(config, {"tools": []}).tools == ()


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"type": "chat"}, "type"),
        ({"output_modalities": ["audio", "text"]}, "output_modalities"),
        ({"instructions": 5}, "instructions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "mcp"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools.0.name"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"audio": []}, "audio"),
        ({"audio": {"input": {"format": {"type": "audio/pcma"}}}}, "audio.input.format"),
        ({"audio": {"input": {"format": {"rate": 16000}}}}, "audio.input.format.rate"),
        ({"audio": {"input": {"turn_detection": {"threshold": 2}}}}, "audio.input.turn_detection.threshold"),
        ({"audio": {"output": {"speed": 2}}}, "audio.output.speed"),
        ({"audio": {"output": {"voice": {"name": "x"}}}}, "audio.output.voice"),
    ],
)
def test_bad_values_are_told_with_their_path(patch: dict[str, Any], path: str) -> None:
    """From the session on."""
    with pytest.raises(ClientError) as refused:
        merged(INITIAL, patch)
    assert refused.value.field == f"session.{path}"


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"type": "input_audio_buffer.append", "audio": "?"}, "audio"),
        ({"type": "session.update"}, "session"),
        ({"type": "conversation.item.truncate", "item_id": "i", "audio_end_ms": -1}, "audio_end_ms"),
        ({"type": "response.create", "response": {"conversation": "none"}}, "response.conversation"),
        ({"type": "response.create", "response": {"input": []}}, "response.input"),
        ({"type": "response.create", "response": {"tools": [{}]}}, "response.tools"),
    ],
)
def test_bad_messages_are_told_with_their_path(message: dict[str, Any], path: str) -> None:
    """What is out of reach is refused, not passed over."""
    with pytest.raises(ClientError) as refused:
        wire.structure(message)
    assert refused.value.field == path


def test_audio_is_written_like_all_events() -> None:
    """Though by another way, which is faster."""
    delta = wire.AudioDelta(response_id="r", item_id="i", delta=b"\1\2")
    fields = {"response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0, "delta": "AQI="}
    other = wire.ServerEvent(delta.type, fields)
    assert json.loads(wire.encode(delta, "e")) == json.loads(wire.encode(other, "e"))
