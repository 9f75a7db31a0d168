import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.fakes.http_server import Fault, Pause, Step, chunk, chunked_head, serve_http, streamed
from tests.fakes.openai_chat import DONE, ROLE, STOP, completion_chunk, said
from voice_fsm.chat.base import ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.openai_stream import OpenAiStream
from voice_fsm.chat.reply import Reply
from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.upstream.http import Deadlines, ask

HEAD = chunked_head(X_Request_Id="r1")


async def parts_of(client: httpx.AsyncClient, *steps: Step) -> list[ReplyPart]:
    async with serve_http(lambda _: steps) as server:
        return await read(client, server.url)


async def failure_of(client: httpx.AsyncClient, *steps: Step) -> ProviderError:
    async with serve_http(lambda _: steps) as server:
        with pytest.raises(ProviderError) as caught:
            await read(client, server.url)
    return caught.value


async def read(client: httpx.AsyncClient, url: str) -> list[ReplyPart]:
    call = client.build_request("POST", url)
    async with ask(client, call, upstream=Upstream.CHAT, deadlines=Deadlines()) as answer:
        return [part async for part in Reply(answer, OpenAiStream())]


def events(*pieces: bytes) -> list[bytes]:
    return [chunk(piece) for piece in pieces]


async def test_parts_come_in_order(client: httpx.AsyncClient) -> None:
    """Text comes piece by piece, the facts last."""
    parts = await parts_of(client, *streamed(ROLE, said("Hel"), said("lo"), STOP, DONE))
    assert parts == [
        ReplyText("Hel"),
        ReplyText("lo"),
        ReplyMetadata({"model": "small-1", "finish_reason": "stop"}),
    ]


async def test_text_begins_with_its_first_word(client: httpx.AsyncClient) -> None:
    """Thoughts, and blanks before the first word, make no part; blanks later do."""
    pieces = ["\n", "<think>", "Hm", "</think>", "\n\n", "Hi", " ", "you", " <"]
    parts = await parts_of(client, *streamed(*map(said, pieces), DONE))
    assert parts[:-1] == [ReplyText(text) for text in ("Hi", " ", "you", " ", "<")]


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ([ROLE, STOP, DONE], "The chat backend gave an empty answer."),
        ([said(" \n"), STOP, DONE], "The chat backend gave an empty answer."),
        ([said("<think>Hm"), STOP, DONE], "The chat backend gave an empty answer."),
        (
            [said("<think>Hm"), completion_chunk(finish_reason="length"), DONE],
            "The chat model had no tokens left before it said anything.",
        ),
    ],
)
async def test_an_empty_reply_is_an_error(
    client: httpx.AsyncClient, pieces: list[bytes], sentence: str
) -> None:
    """A reply with nothing to say out loud is told, with its reason if there is one."""
    error = await failure_of(client, *streamed(*pieces))
    assert (error.fault, error.message) == (ProviderFault.BAD_RESPONSE, sentence)


async def test_a_failure_in_the_stream_carries_the_facts_of_the_call(client: httpx.AsyncClient) -> None:
    """Status and request id are there for the log."""
    failing = events(said("Hi"), b'data: {"error": "s3cr3t"}\n\n')
    error = await failure_of(client, HEAD, *failing, Fault.HANG)
    assert (error.fault, error.status, error.request_id) == (ProviderFault.SERVER_ERROR, 200, "r1")
    assert "s3cr3t" not in error.message


async def test_an_event_without_end_is_an_error(client: httpx.AsyncClient) -> None:
    """An event longer than a megabyte is not collected."""
    error = await failure_of(client, HEAD, *[chunk(b"x" * 200_000)] * 6, Fault.HANG)
    assert error.fault is ProviderFault.BAD_RESPONSE


@pytest.mark.parametrize(
    ("ending", "after_s"),
    [
        pytest.param([Fault.HANG], 0.5, id="hang"),
        pytest.param([Fault.RESET], 0, id="reset"),
        pytest.param([Fault.CLOSE], 0, id="cut"),
        pytest.param([b"nonsense\r\n"], 0, id="nonsense"),
        pytest.param([Pause(0.3), *events(DONE), Fault.HANG], 0.4, id="late mark"),
    ],
)
async def test_nothing_can_spoil_a_complete_text(
    client: httpx.AsyncClient, clock: MockClock, ending: list[Step], after_s: float
) -> None:
    """Once the host has told that the text is complete, what becomes of the connection does not matter."""
    parts = await parts_of(client, HEAD, *events(said("Hi"), STOP), *ending)
    assert parts[0] == ReplyText("Hi")
    assert trio.current_time() == pytest.approx(after_s, abs=0.09)


async def test_the_end_is_no_pause_for_the_text(client: httpx.AsyncClient, clock: MockClock) -> None:
    """All text is there before the connection is looked after."""
    async with serve_http(lambda _: [HEAD, *events(said("Hi"), STOP, DONE), Fault.HANG]) as server:
        call = client.build_request("POST", server.url)
        async with ask(client, call, upstream=Upstream.CHAT, deadlines=Deadlines()) as answer:
            reply = Reply(answer, OpenAiStream())
            assert await anext(reply) == ReplyText("Hi")
            assert isinstance(await anext(reply), ReplyMetadata)
            assert trio.current_time() == 0
            with pytest.raises(StopAsyncIteration):
                await anext(reply)
            with pytest.raises(StopAsyncIteration):
                await anext(reply)
