"""Whole recordings to ElevenLabs: what is asked, what comes of it, and what goes wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from elevenlabs.client import ElevenLabs

from tests.fakes.elevenlabs_batch import FakeElevenLabsBatch
from tests.fakes.http_server import Fault, HttpServer, json_response, response, serve_http
from voice_fsm.errors import ProviderError, ProviderFault
from voice_fsm.fsm.events import Word
from voice_fsm.stt.elevenlabs_batch import ElevenLabsBatch
from voice_fsm.stt.recording import RecordedSpeech, Segment
from voice_fsm.upstream.http import open_client

SECOND = bytes(range(250)) * 128


@asynccontextmanager
async def opened(
    fake: FakeElevenLabsBatch, api_key: str = "the-key"
) -> AsyncIterator[tuple[ElevenLabsBatch, HttpServer]]:
    async with serve_http(fake) as server, open_client(trust_env=False) as client:
        yield (
            ElevenLabsBatch(client=client, api_key=api_key, base_url=server.url, model_id="scribe_v2"),
            server,
        )


def word(text: str, start: float, end: float, kind: str = "word") -> dict[str, Any]:
    return {"text": text, "start": start, "end": end, "type": kind, "logprob": -0.1}


async def test_we_ask_as_the_official_client_does_and_read_as_it_does() -> None:
    """Field by field, the bytes of the recording too."""
    fake = FakeElevenLabsBatch("Hello there. Bye!")
    async with opened(fake) as (batch, server):
        recorded = RecordedSpeech(pcm=SECOND, language_code="en-GB", model_id="scribe_v1")
        ours = await batch.transcribe(recorded)

        def ask_officially() -> Any:
            with httpx.Client() as http:
                official = ElevenLabs(api_key="the-key", base_url=server.url, httpx_client=http)
                return official.speech_to_text.convert(
                    model_id="scribe_v1",
                    file=SECOND,
                    file_format="pcm_s16le_16",
                    language_code="en",
                    timestamps_granularity="word",
                    tag_audio_events=False,
                )

        theirs = await trio.to_thread.run_sync(ask_officially)
    our_form, their_form = fake.forms
    assert our_form.items() <= their_form.items()
    assert our_form["file"] == SECOND
    assert (ours.text, ours.language_code) == (theirs.text, theirs.language_code)
    assert ours.words == tuple(Word(w.text, w.start, w.end) for w in theirs.words if w.type == "word")
    assert (ours.duration_s, ours.estimated) == (1.0, False)


async def test_segments_end_with_sentences_at_pauses_and_in_time() -> None:
    """Each with the text as it stands; a quotation mark does not hide the end of a sentence."""
    fake = FakeElevenLabsBatch(
        "“So.” And then a long word",
        [
            word("“So.”", 0.5, 1.0),
            word(" ", 1.0, 1.1, "spacing"),
            word("And", 1.1, 1.5),
            word(" ", 1.5, 2.5, "spacing"),
            word("then", 2.5, 3.0),
            word(" ", 3.0, 3.1, "spacing"),
            word("a", 3.1, 3.2),
            word(" ", 3.2, 3.3, "spacing"),
            word("long", 3.3, 17.4),
            word(" ", 17.4, 17.5, "spacing"),
            word("word", 17.5, 18.0),
        ],
    )
    async with opened(fake) as (batch, _):
        heard = await batch.transcribe(RecordedSpeech(pcm=SECOND))
    assert heard.segments == (
        Segment("“So.”", 0.5, 1.0),
        Segment("And", 1.1, 1.5),
        Segment("then a long", 2.5, 17.4),
        Segment("word", 17.5, 18.0),
    )


@pytest.mark.parametrize(
    "words",
    [None, "no list", [{"type": "word", "text": "Hi.", "start": None, "end": 1}, {"text": 5}, "x"]],
)
async def test_a_text_without_times_is_one_segment(words: Any) -> None:
    """Nothing is made up for its words."""
    document = {"text": " Hi. ", "words": words}
    async with opened(FakeElevenLabsBatch(trouble=[json_response(document)])) as (batch, _):
        heard = await batch.transcribe(RecordedSpeech(pcm=SECOND))
    assert (heard.text, heard.words, heard.segments) == ("Hi.", (), (Segment("Hi.", 0.0, 1.0),))
    assert heard.language_code is None


async def test_silence_has_no_segments() -> None:
    """And names no model but ours, whatever a client of another service has asked for."""
    fake = FakeElevenLabsBatch("")
    async with opened(fake) as (batch, _):
        heard = await batch.transcribe(RecordedSpeech(pcm=SECOND, model_id="whisper-1"))
    assert (heard.text, heard.words, heard.segments) == ("", (), ())
    assert fake.forms[0]["model_id"] == b"scribe_v2"
    assert "language_code" not in fake.forms[0]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (json_response({"detail": {"status": "quota_exceeded"}}, 401), ProviderFault.QUOTA_EXCEEDED),
        (
            json_response({"detail": {"status": "system_busy"}}, 429),
            ProviderFault.RATE_LIMITED,
        ),
        (json_response({}, 500), ProviderFault.SERVER_ERROR),
        (response(200, b"{"), ProviderFault.BAD_RESPONSE),
        (json_response([]), ProviderFault.BAD_RESPONSE),
        (json_response({"text": None}), ProviderFault.BAD_RESPONSE),
        (Fault.RESET, ProviderFault.TRUNCATED),
        (Fault.CLOSE, ProviderFault.TRUNCATED),
    ],
)
async def test_what_goes_wrong_is_a_provider_error(answer: bytes | Fault, fault: ProviderFault) -> None:
    """With nothing of the service's own words, and no connection left."""
    async with opened(FakeElevenLabsBatch(trouble=[answer])) as (batch, server):
        with pytest.raises(ProviderError) as failure:
            await batch.transcribe(RecordedSpeech(pcm=SECOND))
        assert failure.value.fault == fault
        assert failure.value.code.startswith("stt_")
    await server.wait_until(lambda server: server.live_connections == 0)


@pytest.mark.parametrize("key", ["another", "clé\n"])
async def test_a_key_that_does_not_hold_is_told_and_not_quoted(key: str) -> None:
    """Neither one that the service refuses, nor one that no header can hold."""
    async with opened(FakeElevenLabsBatch(), key) as (batch, _):
        with pytest.raises(ProviderError) as failure:
            await batch.transcribe(RecordedSpeech(pcm=SECOND))
        assert key not in repr(batch)
    assert failure.value.fault == ProviderFault.AUTH_FAILED
    assert key not in str(failure.value)


async def test_a_service_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """After a minute, and as long as the recording is."""
    async with opened(FakeElevenLabsBatch(trouble=[Fault.HANG])) as (batch, _):
        with pytest.raises(ProviderError) as failure:
            await batch.transcribe(RecordedSpeech(pcm=SECOND))
        assert failure.value.fault == ProviderFault.TIMEOUT
        assert 60 <= trio.current_time() <= 62
