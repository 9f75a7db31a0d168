from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from tests.web.convai.conftest import ServeAgents
from voice_fsm.runtime.conversations import ConversationKeeper, ConversationStore, open_keeper
from voice_fsm.runtime.session import Services
from voice_fsm.runtime.sound_files import SoundArchive
from voice_fsm.runtime.transcript import ConversationRecord
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript
from voice_fsm.web.auth import Gate
from voice_fsm.web.convai.history import history_routes

LONG = "It was the best of times, it was the worst of times. " * 4
PATH = "/v1/convai/conversations"
SOUND_NAME = "20261121T120000Z_conv-1_ffffff.wav"
SOUND = b"".join(number.to_bytes(3, "big") for number in range(100_000))
"""More than is read at once, and no part of it like another."""


@asynccontextmanager
async def history_app(
    store: ConversationStore | None, gate: Gate | None = None, sounds: SoundArchive | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=history_routes(gate or Gate()))
    app.state.conversations, app.state.sounds = store, sounds
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://voice.example") as client:
        yield client


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[ConversationKeeper]:
    async with open_keeper(tmp_path / "conversations.db", 30) as opened:
        yield opened


async def finished(client: httpx.AsyncClient, conversation_id: str) -> Any:
    """The conversation, once it is over and written."""
    with trio.fail_after(5):
        while True:
            answer = (await client.get(f"{PATH}/{conversation_id}")).json()
            if answer.get("status") == "done":
                return answer
            await trio.sleep(0.01)


async def test_a_conversation_is_kept_as_it_was_heard(
    services: Services,
    stt: ScriptedStt,
    chat: ScriptedChat,
    tts: ScriptedTts,
    agent_server: ServeAgents,
    keeper: ConversationKeeper,
) -> None:
    """Who said what, when and how; of an interrupted reply what was heard, and what it was to be."""
    chat.script = lambda request: [LONG] if request.turn_id < 3 else [60.0]
    tts.ms_per_char = 50
    async with agent_server(services, keeper=keeper) as server, history_app(keeper.store) as client:
        async with server.connect() as talking:
            await talking.send(
                "conversation_initiation_client_data", user_id="u1", source_info={"source": "js_sdk"}
            )
            conversation_id = (await talking.receive())["conversation_id"]
            await talking.send("user_message", text="Tell me.")
            await talking.until("audio")
            await trio.sleep(0.4)
            stt.say(PartialTranscript("stop"), CommittedTranscript("stop it"))
            heard = (await talking.until("agent_response_correction"))[-1]["corrected_agent_response"]
            await talking.send("feedback", score="dislike", event_id=1)
            await talking.until("audio")
            await talking.send("feedback", score="like", event_id=2)
            await talking.send("user_message", text="Bye.")
            await talking.until("agent_response_correction")
        kept = await finished(client, conversation_id)
    assert (kept["agent_id"], kept["user_id"], kept["has_audio"]) == ("default", "u1", False)
    assert kept["metadata"]["termination_reason"] == "client"
    assert kept["metadata"]["conversation_initiation_source"] == "js_sdk"
    assert [
        (
            turn["role"],
            turn["message"],
            turn["interrupted"],
            turn.get("source_medium"),
            turn["source_event_id"],
        )
        for turn in kept["transcript"]
    ] == [
        ("user", "Tell me.", False, "text", 1),
        ("agent", heard, True, None, 1),
        ("user", "stop it", False, "audio", 2),
        ("agent", kept["transcript"][3]["message"], True, None, 2),
        ("user", "Bye.", False, "text", 3),
    ]
    told, answered = kept["transcript"][1], kept["transcript"][3]
    assert told["original_message"] == LONG
    assert (told["feedback"]["score"], answered["feedback"]["score"]) == ("dislike", "like")
    metrics = answered["conversation_turn_metrics"]["metrics"]
    assert 0 <= metrics["first_text"]["elapsed_time"] <= metrics["first_audio_sent"]["elapsed_time"]


async def test_what_is_kept_is_listed_and_forgotten(keeper: ConversationKeeper) -> None:
    """Page by page, and by agent; what was deleted is unknown."""
    for number in range(5):
        await keeper.store.save(
            ConversationRecord(
                conversation_id=f"conv_{number}",
                agent_id="ab"[number % 2],
                started_unix_s=4_000_000_000 + number,
            )
        )
    async with history_app(keeper.store) as client:
        first = (await client.get(PATH, params={"page_size": 3})).json()
        assert [found["conversation_id"] for found in first["conversations"]] == [
            "conv_4",
            "conv_3",
            "conv_2",
        ]
        assert first["has_more"]
        second = (await client.get(PATH, params={"cursor": first["next_cursor"]})).json()
        assert [found["conversation_id"] for found in second["conversations"]] == ["conv_1", "conv_0"]
        assert (second["has_more"], second["next_cursor"]) == (False, None)
        by_agent = (await client.get(PATH, params={"agent_id": "b"})).json()
        assert [found["conversation_id"] for found in by_agent["conversations"]] == ["conv_3", "conv_1"]
        assert (await client.delete(f"{PATH}/conv_3")).status_code == 200
        for path in (f"{PATH}/conv_3", f"{PATH}/nothing"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["detail"]["status"]) == (404, "document_not_found")
        assert (await client.delete(f"{PATH}/conv_3")).status_code == 404
        answer = await client.get(f"{PATH}/conv_1/audio")
        assert (answer.status_code, answer.json()["detail"]["status"]) == (404, "no_audio")


@pytest.mark.parametrize(
    "query", ["page_size=0", "page_size=101", "page_size=x", "page_size=\u0663", "cursor=x", "cursor=-1.c"]
)
async def test_a_wrong_question_is_told_with_its_field(keeper: ConversationKeeper, query: str) -> None:
    """422, as ElevenLabs tells it."""
    async with history_app(keeper.store) as client:
        answer = await client.get(f"{PATH}?{query}")
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


async def test_who_has_no_key_sees_nothing(keeper: ConversationKeeper) -> None:
    """Of any of it."""
    async with history_app(keeper.store, Gate(("key",))) as client:
        for method, path in (("GET", ""), ("GET", "/c"), ("DELETE", "/c"), ("GET", "/c/audio")):
            assert (await client.request(method, PATH + path)).status_code == 401
        assert (await client.get(PATH, headers={"xi-api-key": "key"})).status_code == 200


async def test_where_nothing_is_kept_that_is_what_is_told() -> None:
    """The setting is named."""
    async with history_app(None) as client:
        answer = await client.get(PATH)
        assert (answer.status_code, answer.json()["detail"]["status"]) == (404, "conversations_not_kept")


async def test_a_store_that_fails_is_told_as_such(
    keeper: ConversationKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, and when to come again."""

    async def fail(_: str) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError("disk full")

    monkeypatch.setattr(keeper.store, "get", fail)
    async with history_app(keeper.store) as client:
        answer = await client.get(f"{PATH}/c")
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert "disk" not in answer.text


@pytest.fixture
async def sounds(keeper: ConversationKeeper, tmp_path: Path) -> SoundArchive:
    """Two conversations are kept, one of them with its sound."""
    for number in (1, 2):
        record = ConversationRecord(
            conversation_id=f"conv_{number}", agent_id="a", started_unix_s=4_000_000_000
        )
        await keeper.store.save(record)
    (tmp_path / SOUND_NAME).write_bytes(SOUND)
    return SoundArchive(tmp_path)


async def test_the_sound_of_a_conversation_is_given(keeper: ConversationKeeper, sounds: SoundArchive) -> None:
    """All of it, in as many pieces as it takes."""
    async with history_app(keeper.store, sounds=sounds) as client:
        answer = await client.get(f"{PATH}/conv_1/audio")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
        assert (answer.headers["accept-ranges"], answer.headers["content-length"]) == (
            "bytes",
            str(len(SOUND)),
        )
        assert answer.content == SOUND
        for number, has_audio in ((1, True), (2, False)):
            kept = (await client.get(f"{PATH}/conv_{number}")).json()
            kinds = ("has_audio", "has_user_audio", "has_response_audio")
            assert [kept[kind] for kind in kinds] == [has_audio] * 3
        answer = await client.get(f"{PATH}/conv_2/audio")
        assert (answer.status_code, answer.json()["detail"]["status"]) == (404, "no_audio")
        answer = await client.get(f"{PATH}/conv_3/audio")
        assert (answer.status_code, answer.json()["detail"]["status"]) == (404, "document_not_found")


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=4-7", 206, SOUND[4:8]),
        ("bytes=-5", 206, SOUND[-5:]),
        ("bytes=290000-", 206, SOUND[290_000:]),
        (f"bytes={len(SOUND)}-", 416, b""),
        ("bytes=7-4", 416, b""),
        ("bytes=0-1,4-5", 200, SOUND),
        ("lines=1-2", 200, SOUND),
    ],
)
async def test_a_player_gets_the_part_that_it_asks_for(
    keeper: ConversationKeeper, sounds: SoundArchive, asked: str, status: int, part: bytes
) -> None:
    """One range of bytes; what is no such thing is passed over."""
    async with history_app(keeper.store, sounds=sounds) as client:
        answer = await client.get(f"{PATH}/conv_1/audio", headers={"Range": asked})
        assert (answer.status_code, answer.content) == (status, part)
        assert answer.headers["content-length"] == str(len(part))
        if status == 206:
            start = SOUND.index(part)
            assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{len(SOUND)}"


async def test_a_conversation_takes_its_sound_along(
    keeper: ConversationKeeper, sounds: SoundArchive, tmp_path: Path
) -> None:
    """Whoever deletes it deletes that, and nothing else."""
    async with history_app(keeper.store, sounds=sounds) as client:
        assert (await client.delete(f"{PATH}/conv_2")).status_code == 200
        assert await sounds.find("conv_1") is not None
        assert (await client.delete(f"{PATH}/conv_1")).status_code == 200
        assert (await client.get(f"{PATH}/conv_1/audio")).status_code == 404
    assert await sounds.find("conv_1") is None
    assert not await trio.Path(tmp_path / SOUND_NAME).exists()


async def test_a_sound_that_cannot_be_removed_keeps_its_conversation(
    keeper: ConversationKeeper, sounds: SoundArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503: nobody is told that it is gone while it is there."""

    def fail(_: Path, *, missing_ok: bool) -> None:
        raise PermissionError(missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    async with history_app(keeper.store, sounds=sounds) as client:
        assert (await client.delete(f"{PATH}/conv_1")).status_code == 503
        assert (await client.get(f"{PATH}/conv_1")).json()["has_audio"]
