from collections.abc import Callable

import pytest

from tests.fakes.openai_chat import (
    DONE,
    ROLE,
    STOP,
    USAGE,
    completion_chunk,
    event,
    groq_stream,
    lm_studio_stream,
    ollama_stream,
    openai_stream,
    said,
    vllm_stream,
)
from voice_fsm.chat.base import ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.openai_stream import OpenAiStream
from voice_fsm.chat.reply import BrokenReplyError
from voice_fsm.errors import ProviderFault


def decoded(*pieces: bytes) -> list[ReplyPart]:
    stream = OpenAiStream()
    parts = [part for piece in pieces for part in stream.feed(piece)]
    return [*parts, *stream.end()]


def text_of(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ReplyText))


def facts_of(parts: list[ReplyPart]) -> dict[str, object]:
    return {
        key: value for part in parts if isinstance(part, ReplyMetadata) for key, value in part.data.items()
    }


@pytest.mark.parametrize("write", [openai_stream, groq_stream, vllm_stream, ollama_stream])
def test_each_hosts_stream_is_read(write: Callable[..., list[bytes]]) -> None:
    """Text, finish reason and model come out of the streams of all hosts, even byte by byte."""
    events = write("Hel", "l\u00f6", "!")
    for pieces in (events, [bytes([byte]) for byte in b"".join(events)]):
        parts = decoded(*pieces)
        assert text_of(parts) == "Hell\u00f6!"
        assert facts_of(parts)["finish_reason"] == "stop"
        assert facts_of(parts)["model"] == "small-1"


def test_token_counts_are_told() -> None:
    """Of the usage figures the three that all hosts know are passed on."""
    assert facts_of(decoded(*openai_stream("Hi")))["usage"] == USAGE
    assert "usage" not in facts_of(decoded(*groq_stream("Hi")))


def test_thoughts_in_the_text_are_left_to_the_filter() -> None:
    """Where a host mixes thoughts into the text, they are in the decoder's text too."""
    assert text_of(decoded(*lm_studio_stream("Hi"))) == "<think>Well, the user</think>\n\nHi"


@pytest.mark.parametrize(
    "chunk",
    [
        completion_chunk(choices=[]),
        completion_chunk(choices=["odd"]),
        event({"choices": None}),
        event({}),
        completion_chunk(choices=[{"index": 0, "delta": None, "finish_reason": None}]),
        completion_chunk(choices=[{"index": 0}]),
        completion_chunk({"content": None}),
        completion_chunk({"content": ""}),
        completion_chunk({"content": ["odd"]}),
        completion_chunk({"reasoning": "Hmm"}),
        completion_chunk({"reasoning_content": "Hmm"}),
        completion_chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        completion_chunk(choices=[{"index": 1, "delta": {"content": "another choice"}}]),
        completion_chunk({}, finish_reason=""),
        b": ping\n\n",
        b"data:\n\n",
        b"event: ping\n\n",
    ],
)
def test_chunks_without_text_say_nothing(chunk: bytes) -> None:
    """Nothing but content is text, and no oddity stops the stream."""
    stream = OpenAiStream()
    assert text_of(stream.feed(chunk)) == ""
    assert not stream.is_complete


def test_a_refusal_is_spoken() -> None:
    """The words of a refusal come in place of content."""
    refusal = completion_chunk({"refusal": "I can't help."})
    assert text_of(decoded(ROLE, refusal, STOP, DONE)) == "I can't help."


def test_the_finishing_chunk_may_carry_text() -> None:
    """The last words, which vLLM sends with the end, are not lost."""
    last = completion_chunk({"content": "end."}, finish_reason="stop")
    assert text_of(decoded(said("The "), last)) == "The end."


@pytest.mark.parametrize("ending", [[STOP], [DONE], [STOP, DONE], [DONE.rstrip()], [b"data: [DONE]\r\n"]])
def test_either_sign_of_the_end_is_enough(ending: list[bytes]) -> None:
    """A finish reason or the mark ends a reply, also without a blank line after it."""
    assert text_of(decoded(said("Hi"), *ending)) == "Hi"


@pytest.mark.parametrize(
    "pieces", [[], [said("Hi")], [said("Hi"), b'data: {"cho'], [said("Hi"), b": bye\n\n"]]
)
def test_an_end_without_a_sign_is_a_cut(pieces: list[bytes]) -> None:
    """Ollama fails like this: the body just ends."""
    with pytest.raises(BrokenReplyError) as caught:
        decoded(*pieces)
    assert caught.value.fault is ProviderFault.TRUNCATED


def test_nothing_after_the_mark_counts() -> None:
    """What follows [DONE] is not read."""
    assert text_of(decoded(said("Hi"), DONE + b"data: {]\n\n" + said("x"))) == "Hi"


def test_stages_of_the_end() -> None:
    """With the finish reason the text is complete; with the mark all is over."""
    stream = OpenAiStream()
    stream.feed(said("Hi"))
    assert not stream.is_complete
    stream.feed(STOP)
    assert stream.is_complete
    assert not stream.is_over
    stream.feed(DONE)
    assert stream.is_over


@pytest.mark.parametrize(
    ("piece", "fault"),
    [
        (event({"error": {"message": "m", "type": "server_error"}}), ProviderFault.SERVER_ERROR),
        (event({"error": {"message": "m", "code": 400}}) + DONE, ProviderFault.REJECTED),
        (event({"error": {"message": "m", "code": 503}}) + DONE, ProviderFault.OVERLOADED),
        (event({"error": {"code": "insufficient_quota"}}), ProviderFault.QUOTA_EXCEEDED),
        (event({"error": {"code": "rate_limit_exceeded"}}), ProviderFault.RATE_LIMITED),
        (event({"error": {"type": "overloaded_error"}}), ProviderFault.OVERLOADED),
        (
            event({"error": {"type": "invalid_request_error", "code": "context_length_exceeded"}}),
            ProviderFault.REJECTED,
        ),
        (event({"error": "text"}), ProviderFault.SERVER_ERROR),
        (
            event({"error": {"message": "Compute error."}, "message": "Compute error."}),
            ProviderFault.SERVER_ERROR,
        ),
        (b"event: error\n" + event({"message": "Compute error."}), ProviderFault.SERVER_ERROR),
        (event({"type": "error", "message": "m"}), ProviderFault.SERVER_ERROR),
        (completion_chunk({}, x_groq={"id": "r", "error": "over"}), ProviderFault.SERVER_ERROR),
        (b"data: {]\n\n", ProviderFault.BAD_RESPONSE),
        (b"data: 42\n\n", ProviderFault.BAD_RESPONSE),
        (b"data: " + b"[" * 50_000 + b"\n\n", ProviderFault.BAD_RESPONSE),
    ],
)
def test_errors_in_the_stream(piece: bytes, fault: ProviderFault) -> None:
    """An error in any host's shape breaks the reply, even with [DONE] behind it."""
    stream = OpenAiStream()
    stream.feed(said("Hi"))
    with pytest.raises(BrokenReplyError) as caught:
        stream.feed(piece)
    assert caught.value.fault is fault


@pytest.mark.parametrize(
    ("reason", "word"), [("length", "tokens"), ("content_filter", "filter"), ("tool_calls", "tool")]
)
def test_why_there_may_be_no_text(reason: str, word: str) -> None:
    """A finish reason that explains an empty reply is told as a sentence."""
    stream = OpenAiStream()
    stream.feed(completion_chunk(finish_reason=reason))
    assert word in (stream.why_silent() or "")


def test_a_plain_stop_explains_nothing() -> None:
    """There is no sentence for an empty reply that just stopped."""
    stream = OpenAiStream()
    stream.feed(STOP)
    assert stream.why_silent() is None
