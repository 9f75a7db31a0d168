"""Items that a client puts into the conversation: what they say, and how they are shown."""

from typing import Any, Final

from voice_fsm.web.realtime.errors import RealtimeRefusal
from voice_fsm.web.realtime.items import message
from voice_fsm.wire.realtime import GivenItem, Part

_FITTING: Final = {
    "user": ("input_text", "input_audio"),
    "system": ("input_text",),
    "assistant": ("output_text", "output_audio", "text"),
}


def text_of(item: GivenItem) -> str:
    """What the item says.

    Raises:
        RealtimeRefusal: it holds what this server cannot read, or lacks what it needs.
    """
    match item.type:
        case "message":
            if item.role is None:
                raise _wrong("item.role", "is required")
            parts = enumerate(item.content)
            return "\n".join(_said(item.role, part, f"item.content.{index}") for index, part in parts)
        case "function_call":
            for name in ("name", "call_id", "arguments"):
                if getattr(item, name) is None:
                    raise _wrong(f"item.{name}", "is required")
            return ""
    if item.call_id is None:
        raise _wrong("item.call_id", "is required")
    return item.output or ""


def written(item: GivenItem) -> dict[str, Any]:
    """The item's fields as it is shown."""
    match item.type:
        case "message":
            return message(item.role or "", [_shown(part) for part in item.content])
        case "function_call":
            return {
                "type": item.type,
                "status": "completed",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
    return {"type": item.type, "status": "completed", "call_id": item.call_id, "output": item.output or ""}


def _said(role: str, part: Part, path: str) -> str:
    if part.type not in _FITTING[role]:
        raise _wrong(f"{path}.type", f"must be one of {', '.join(_FITTING[role])}")
    if part.type in ("input_audio", "output_audio"):
        if part.transcript is None:
            raise _wrong(f"{path}.transcript", "is required: audio is heard from the input buffer alone")
        return part.transcript
    if part.text is None:
        raise _wrong(f"{path}.text", "is required")
    return part.text


def _shown(part: Part) -> dict[str, Any]:
    if part.type in ("input_audio", "output_audio"):
        return {"type": part.type, "transcript": part.transcript}
    return {"type": part.type, "text": part.text}


def _wrong(field: str, must: str) -> RealtimeRefusal:
    return RealtimeRefusal("invalid_value", f"`{field}` {must}.", field=field)
