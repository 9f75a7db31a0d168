"""The listing of ElevenLabs' voices, against the fake."""

from typing import Any

import pytest

from tests.fakes.elevenlabs_tts import FakeElevenLabsTts, Misfortune, Refuse, Trouble, serve_elevenlabs_tts
from voice_fsm.errors import ProviderError
from voice_fsm.tts.base import VoiceInfo
from voice_fsm.tts.elevenlabs_voices import list_voices
from voice_fsm.upstream.http import Deadlines, open_client


async def listing(fake: FakeElevenLabsTts, api_key: str = "xi-key") -> tuple[VoiceInfo, ...]:
    async with serve_elevenlabs_tts(fake) as url, open_client() as client:
        return await list_voices(client, url, api_key, Deadlines(first_byte_s=2))


async def test_all_pages_are_read() -> None:
    """Voices come with name and language, page after page in the service's order."""
    fake = FakeElevenLabsTts(voices=frozenset({"voice-1", "voice-2", "voice-3"}))

    voices = await listing(fake)

    assert voices == tuple(VoiceInfo(f"voice-{n}", f"Voice-{n}", "en") for n in (1, 2, 3))
    assert [request.path for request in fake.requests] == [
        "/v2/voices?page_size=100",
        "/v2/voices?page_size=100&next_page_token=2",
    ]


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Refuse(401, {"status": "quota_exceeded"}), "tts_quota_exceeded"),
        (Refuse(500), "tts_server_error"),
        (Refuse(200, body=b'{"voices": "all"}'), "tts_bad_response"),
        (Refuse(200, body=b"<html>"), "tts_bad_response"),
        (Trouble.HANG, "tts_timeout"),
        (Trouble.RESET, "tts_truncated"),
    ],
)
async def test_failures_are_told(autojump_clock: Any, trouble: Misfortune, code: str) -> None:
    """What is no listing is an error with the usual code."""
    with pytest.raises(ProviderError) as caught:
        await listing(FakeElevenLabsTts(troubles=[trouble]))
    assert caught.value.code == code


async def test_voices_without_label_or_name_are_listed() -> None:
    """Only the id is sure; what has none is left out."""
    body = b'{"voices": [{"voice_id": "v1", "labels": {}}, {"name": "nobody"}, 7], "has_more": false}'

    assert await listing(FakeElevenLabsTts(troubles=[Refuse(200, body=body)])) == (VoiceInfo("v1", "v1"),)
