"""Conversations that were kept, over HTTP: ``/v1/convai/conversations``."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from voice_fsm.errors import ClientFault
from voice_fsm.runtime.conversations import ConversationStore, Position
from voice_fsm.runtime.sound_files import SoundArchive, StoredSound
from voice_fsm.runtime.transcript import ConversationRecord
from voice_fsm.web.auth import Gate
from voice_fsm.web.convai.rest import answering
from voice_fsm.web.speech.refusals import RequestError
from voice_fsm.web.speech.sound import stored_audio

DEFAULT_PAGE: Final = 30
MAX_PAGE: Final = 100

_PATH: Final = "/v1/convai/conversations"
_NOT_FOUND: Final = 404


def history_routes(gate: Gate) -> list[Route]:
    """Routes for an app whose ``state`` has ``conversations`` and ``sounds``; None where none are kept."""

    @answering(gate)
    async def listing(request: Request) -> Response:
        query = request.query_params
        page = await _store(request).page(
            agent_id=query.get("agent_id"), after=_position(query.get("cursor")), size=_page_size(request)
        )
        last = page.records[-1] if page.has_more else None
        return JSONResponse(
            {
                "conversations": [_summary(record) for record in page.records],
                "has_more": page.has_more,
                "next_cursor": last and f"{last.started_unix_s}.{last.conversation_id}",
            }
        )

    @answering(gate)
    async def one(request: Request) -> Response:
        record = await _record(request)
        return JSONResponse(_whole(record, has_audio=await _sound(request, record) is not None))

    @answering(gate)
    async def delete(request: Request) -> Response:
        record, sounds = await _record(request), _sounds(request)
        if sounds is not None:
            await sounds.delete(record.conversation_id)
        await _store(request).delete(record.conversation_id)
        return JSONResponse({})

    @answering(gate)
    async def audio(request: Request) -> Response:
        sound = await _sound(request, await _record(request))
        if sound is None:
            raise RequestError(_NOT_FOUND, "no_audio", "No audio of this conversation is kept.")
        return stored_audio(sound.path, sound.size_bytes, "audio/wav", request.headers.get("range"))

    return [
        Route(_PATH, listing),
        Route(f"{_PATH}/{{conversation_id}}", one),
        Route(f"{_PATH}/{{conversation_id}}", delete, methods=["DELETE"]),
        Route(f"{_PATH}/{{conversation_id}}/audio", audio),
    ]


def _store(request: Request) -> ConversationStore:
    store: ConversationStore | None = request.app.state.conversations
    if store is None:
        raise RequestError(
            _NOT_FOUND,
            "conversations_not_kept",
            "This server keeps no conversations; CONVERSATIONS_DB is unset.",
        )
    return store


def _sounds(request: Request) -> SoundArchive | None:
    sounds: SoundArchive | None = request.app.state.sounds
    return sounds


async def _record(request: Request) -> ConversationRecord:
    record = await _store(request).get(request.path_params["conversation_id"])
    if record is None:
        raise RequestError(_NOT_FOUND, "document_not_found", "No conversation of this id is kept.")
    return record


async def _sound(request: Request, record: ConversationRecord) -> StoredSound | None:
    sounds = _sounds(request)
    return None if sounds is None else await sounds.find(record.conversation_id)


def _position(cursor: str | None) -> Position | None:
    if not cursor:
        return None
    start, _, conversation_id = cursor.partition(".")
    if not (start.isascii() and start.isdigit() and len(start) < MAX_PAGE):
        raise _invalid("cursor", "must be the `next_cursor` of the page before")
    return int(start[:15]), conversation_id


def _page_size(request: Request) -> int:
    text = request.query_params.get("page_size", str(DEFAULT_PAGE))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MAX_PAGE):
        raise _invalid("page_size", f"must be from 1 to {MAX_PAGE}")
    return int(text[:4])


def _invalid(field: str, must: str) -> RequestError:
    return RequestError(422, ClientFault.INVALID_FIELD, f"`{field}` {must}.", field=f"query.{field}")


def _summary(record: ConversationRecord) -> dict[str, Any]:
    return {
        "agent_id": record.agent_id,
        "conversation_id": record.conversation_id,
        "start_time_unix_secs": record.started_unix_s,
        "call_duration_secs": round(record.duration_s),
        "message_count": len(record.entries),
        "status": record.status,
        "call_successful": "unknown",
        "termination_reason": record.ended_by,
    }


def _whole(record: ConversationRecord, *, has_audio: bool) -> dict[str, Any]:
    return {
        "agent_id": record.agent_id,
        "conversation_id": record.conversation_id,
        "user_id": record.user_id,
        "status": record.status,
        "transcript": [_turn(entry) for entry in record.entries],
        "metadata": {
            "start_time_unix_secs": record.started_unix_s,
            "call_duration_secs": round(record.duration_s),
            "termination_reason": record.ended_by,
            "text_only": record.text_only,
            "conversation_initiation_source": record.source or "unknown",
        },
        "has_audio": has_audio,
        "has_user_audio": has_audio,
        "has_response_audio": has_audio,
        "has_auxiliary_audio": False,
    }


def _turn(entry: dict[str, Any]) -> dict[str, Any]:
    turn = {
        "role": entry["role"],
        "message": entry["message"],
        "time_in_call_secs": int(entry["at_s"]),
        "source_event_id": entry["turn_id"],
        "interrupted": "original" in entry,
    }
    if "original" in entry:
        turn["original_message"] = entry["original"]
    if "medium" in entry:
        turn["source_medium"] = entry["medium"]
    if "feedback" in entry:
        turn["feedback"] = {"score": entry["feedback"], "time_in_call_secs": int(entry["at_s"])}
    if "metrics" in entry:
        turn["conversation_turn_metrics"] = {"metrics": _metrics(entry["metrics"])}
    return turn


def _metrics(timed: dict[str, float | None]) -> dict[str, Any]:
    """As ElevenLabs has them, by name and in seconds; the names are those of `turn.metrics`."""
    return {
        name.removesuffix("_ms"): {"elapsed_time": value / 1000}
        for name, value in timed.items()
        if name.endswith("_ms") and value is not None
    }
