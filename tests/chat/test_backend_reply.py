import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.openai_chat import openai_stream, said
from voice_fsm.chat.backend_reply import decoder_for
from voice_fsm.chat.base import ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.reply import BrokenReplyError
from voice_fsm.errors import ProviderFault

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
JSON = "application/json"
UNTOLD = ""


def decoded(content_type: str, *pieces: bytes, text_key: str | None = None) -> list[ReplyPart]:
    decoder = decoder_for(content_type, text_key)
    parts: list[ReplyPart] = []
    for piece in pieces:
        if decoder.is_over:
            break
        parts += decoder.feed(piece)
    return [*parts, *decoder.end()]


def text_of(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ReplyText))


def metadata_of(parts: list[ReplyPart]) -> dict[str, Any]:
    return {
        key: value for part in parts if isinstance(part, ReplyMetadata) for key, value in part.data.items()
    }


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def events(*values: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)


@pytest.mark.parametrize(
    "document",
    [
        {"response": "Hi"},
        {"reply": "Hi"},
        {"message": "Hi"},
        {"text": "Hi"},
        {"answer": "Hi"},
        {"output": "Hi"},
        {"content": "Hi"},
        {"message": {"role": "assistant", "content": "Hi"}},
        {"response": {"text": "Hi"}},
        {"response": None, "answer": "Hi"},
        {"response": " ", "answer": "Hi"},
        {"response": ["odd"], "answer": "Hi"},
        {"error": None, "response": "Hi"},
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}]},
    ],
)
@pytest.mark.parametrize(
    "content_type", [JSON, "application/vnd.acme+json", UNTOLD, "text/plain", "text/html"]
)
def test_a_whole_reply_in_json(document: object, content_type: str) -> None:
    """The text is found in any of the usual places, whatever the answer calls itself."""
    for indent in (None, 2):
        body = json.dumps(document, indent=indent).encode()
        assert text_of(decoded(content_type, body)) == "Hi"
        assert text_of(decoded(content_type, *(bytes([byte]) for byte in body + b"\n"))) == "Hi"


def test_a_whole_reply_as_a_json_string() -> None:
    """A string alone is the reply."""
    assert text_of(decoded(JSON, b'"Hi"')) == "Hi"


def test_the_order_of_places() -> None:
    """With text in several places, the first of the documented order is the reply."""
    assert text_of(decoded(JSON, json.dumps({"text": "no", "reply": "yes"}).encode())) == "yes"


def test_the_operators_place_is_first() -> None:
    """A configured name wins over the usual ones, and need not be there."""
    body = json.dumps({"response": "no", "utterance": "yes"}).encode()
    assert text_of(decoded(JSON, body, text_key="utterance")) == "yes"
    assert text_of(decoded(JSON, b'{"response": "Hi"}', text_key="utterance")) == "Hi"
    assert text_of(decoded(NDJSON, lines({"text": "no", "u": "y"}, {"u": "es"}), text_key="u")) == "yes"


def test_what_is_not_text_is_metadata() -> None:
    """All other fields go to the client, those of a `metadata` object among them."""
    body = {"response": "Hi", "mood": "glad", "metadata": {"sources": [1]}, "text": "other"}
    assert metadata_of(decoded(JSON, json.dumps(body).encode())) == {
        "mood": "glad",
        "sources": [1],
        "text": "other",
    }
    assert metadata_of(decoded(JSON, b'{"response": "Hi", "metadata": "odd"}')) == {}


@pytest.mark.parametrize(
    "document", [{}, {"response": ""}, {"choices": []}, {"choices": [1]}, {"mood": "glad"}]
)
def test_a_whole_reply_without_text(document: object) -> None:
    """There is no text, and the decoder says where it looked."""
    decoder = decoder_for(JSON)
    decoder.feed(json.dumps(document).encode())
    assert text_of(decoder.end()) == ""
    assert "response, reply" in (decoder.why_silent() or "")


@pytest.mark.parametrize("body", [b"", b"{", b'{"response": "H', b"[1]", b"42", b"nope", b"[" * 50_000])
def test_what_is_no_reply(body: bytes) -> None:
    """Bytes that call themselves JSON and are no object or string are not understood."""
    with pytest.raises(BrokenReplyError) as caught:
        decoded(JSON, body)
    assert caught.value.fault is ProviderFault.BAD_RESPONSE


PIECES: list[tuple[Any, ...]] = [
    ({"delta": "Hel"}, {"delta": "lo"}),
    ({"text": "Hel"}, {"text": "lo"}),
    ({"content": "Hel"}, {"content": "lo"}),
    ({"token": "Hel"}, {"token": "lo"}),
    ({"response": "Hel", "done": False}, {"response": "lo"}, {"response": "", "done": True}),
    ({"message": {"role": "assistant", "content": "Hel"}}, {"message": {"content": "lo"}}),
    ({"delta": {"content": "Hel"}}, {"delta": {"content": "lo"}}),
    ({"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}, {"type": "done", "done": True}),
    ({"delta": ""}, {"text": "Hel"}, {"text": "lo"}),
    # OpenAI's responses: the whole text once more, under another name
    (
        {"type": "response.reasoning_summary_text.delta", "delta": "Hm"},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {"type": "response.output_text.done", "text": "Hello"},
    ),
    # Anthropic's messages
    (
        {"type": "message_start", "message": {"role": "assistant", "content": []}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "Hm"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    ),
    ({"reasoning": "Hm"}, {"thinking": "Hm"}, {"text": "Hello"}),
]


@pytest.mark.parametrize("values", PIECES)
def test_pieces_in_json(values: tuple[Any, ...]) -> None:
    """Pieces are found in any of the usual places, thoughts are not, as events and as lines alike."""
    for content_type, body in (
        (SSE, events(*values)),
        (UNTOLD, events(*values)),
        (NDJSON, lines(*values)),
        (NDJSON, lines(*values).rstrip()),
        (JSON, lines(*values)),
        (UNTOLD, lines(*values)),
    ):
        assert text_of(decoded(content_type, body)) == "Hello"
        assert text_of(decoded(content_type, *(bytes([byte]) for byte in body))) == "Hello"


@pytest.mark.parametrize(
    ("content_type", "write"), [(SSE, events), (UNTOLD, events), (NDJSON, lines), (JSON, lines)]
)
def test_pieces_as_json_strings(content_type: str, write: Callable[..., bytes]) -> None:
    """Strings alone are text, which keeps their blanks and newlines safe."""
    assert text_of(decoded(content_type, write("Hel", "lo\n", " you"))) == "Hello\n you"


def test_text_streams_before_the_end() -> None:
    """Pieces are there as they come, not when all has come."""
    decoder = decoder_for(NDJSON)
    assert text_of(decoder.feed(b'{"delta": "Hel"}\n{"del')) == "Hel"
    decoder = decoder_for(SSE)
    assert text_of(decoder.feed(b"data: Hel\n\ndata: l")) == "Hel"
    decoder = decoder_for("text/plain")
    assert text_of(decoder.feed(b"Hel")) == "Hel"
    decoder = decoder_for(JSON)
    assert text_of(decoder.feed(lines({"delta": "Hel"}, {"delta": "lo"}))) == "Hello"


def test_metadata_in_a_stream() -> None:
    """Objects without text are metadata, but for what only frames the stream."""
    values = (
        {"type": "start", "id": "m1"},
        {"delta": "Hi", "index": 0},
        {"metadata": {"mood": "glad"}, "done": True},
    )
    for content_type, body in ((SSE, events(*values)), (NDJSON, lines(*values))):
        assert metadata_of(decoded(content_type, body)) == {"id": "m1", "mood": "glad"}


def test_named_events() -> None:
    """Events are told apart by name: metadata, ends, thoughts, pings, and text."""
    stream = (
        b'event: metadata\ndata: {"mood": "glad"}\n\n'
        b"event: metadata\ndata: odd\n\n"
        b"event: thinking\ndata: Hm\n\n"
        b"event: ping\ndata: 12:00\n\n"
        b"event: token\ndata: Hel\n\n"
        b'event: custom\ndata: {"delta": "lo"}\n\n'
        b"event: done\ndata: Hello\n\n"
        b"data: more\n\n"
    )  # fmt: skip
    parts = decoded(SSE, stream)
    assert text_of(parts) == "Hello"
    assert metadata_of(parts) == {"mood": "glad"}


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b"data: Hello\n\ndata:  world\n\ndata: [DONE]\n\ndata: x\n\n", "Hello world"),
        (b"data: one\ndata: two\n\n", "one\ntwo"),
        (b"data: 42\n\ndata:  true\n\n", "42 true"),
        (b'data: "a\\n"\n\ndata: b\n\n', "a\nb"),
        (b"data: Hello\n\ndata:  world", "Hello world"),
        (b"data: Hello\n\ndata: [DONE]", "Hello"),
        (b": ping\n\ndata: Hello\n\n", "Hello"),
    ],
)
def test_plain_text_in_events(stream: bytes, text: str) -> None:
    """Data that is not JSON is text; the last event needs no blank line."""
    for content_type in (SSE, UNTOLD, "text/plain"):
        assert text_of(decoded(content_type, stream)) == text


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([b"Hello"], "Hello"),
        ([b"Hel", b"lo"], "Hello"),
        ([b"\xef\xbb\xbfHello"], "Hello"),
        (["\u00e9".encode()[:1], "\u00e9".encode()[1:]], "\u00e9"),
        ([b"\xff"], "\ufffd"),
        ([b"a\xc3"], "a\ufffd"),
        ([b"id"], "id"),
        ([b"i", b"d", b"ea"], "idea"),
        ([b"<b>Hi"], "<b>Hi"),
        ([b"data is data"], "data is data"),
        ([b'"Hi," she said.'], '"Hi," she said.'),
        ([b"[laughs] Hi"], "[laughs] Hi"),
        ([b"  ", b" Hi"], "   Hi"),
        ([], ""),
    ],
)
@pytest.mark.parametrize("content_type", ["text/plain", UNTOLD, "application/octet-stream"])
def test_plain_text(content_type: str, pieces: list[bytes], text: str) -> None:
    """Text may just be text, cut anywhere, also where it begins like another format."""
    assert text_of(decoded(content_type, *pieces)) == text


@pytest.mark.parametrize("content_type", [SSE, UNTOLD])
def test_openais_chunks_are_known(content_type: str) -> None:
    """A backend that hands through what its model host streams needs no adapting."""
    parts = decoded(content_type, *openai_stream("Hel", "lo"))
    assert text_of(parts) == "Hello"
    assert metadata_of(parts)["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (SSE, said("Hi")),
        (SSE, b'data: Hi\n\ndata: {"delta": "th'),
        (NDJSON, b'{"delta": "Hi"}\n{"delta": "th'),
        (NDJSON, b'{"choices": [{"delta": {"content": "Hi"}}]}\n'),
    ],
)
def test_a_cut_is_told_where_it_can_be(content_type: str, body: bytes) -> None:
    """Half an object at the end, or OpenAI's chunks without their end, are no end."""
    with pytest.raises(BrokenReplyError) as caught:
        decoded(content_type, body)
    assert caught.value.fault is ProviderFault.TRUNCATED


@pytest.mark.parametrize(
    ("content_type", "body", "fault"),
    [
        (JSON, b'{"error": "s3cr3t"}', ProviderFault.SERVER_ERROR),
        (JSON, b'{"error": {"code": "insufficient_quota"}, "response": ""}', ProviderFault.QUOTA_EXCEEDED),
        (NDJSON, lines({"delta": "Hi"}, {"error": {"status": 503}}), ProviderFault.OVERLOADED),
        (NDJSON, lines({"delta": "Hi"}, 42), ProviderFault.BAD_RESPONSE),
        (NDJSON, b"nope\n", ProviderFault.BAD_RESPONSE),
        (SSE, events({"delta": "Hi"}, {"error": "s3cr3t"}), ProviderFault.SERVER_ERROR),
        (SSE, events({"delta": "Hi"}, {"type": "error", "code": 429}), ProviderFault.RATE_LIMITED),
        (SSE, b"event: error\ndata: s3cr3t\n\n", ProviderFault.SERVER_ERROR),
        (SSE, b'event: error\ndata: {"code": 401}\n\n', ProviderFault.AUTH_FAILED),
        ("text/html", b"<!DOCTYPE html><p>s3cr3t", ProviderFault.BAD_RESPONSE),
        (UNTOLD, b"\n<html>", ProviderFault.BAD_RESPONSE),
    ],
)
def test_errors_in_replies(content_type: str, body: bytes, fault: ProviderFault) -> None:
    """Errors in the place of text break the reply, and are not quoted."""
    with pytest.raises(BrokenReplyError) as caught:
        decoded(content_type, body)
    assert caught.value.fault is fault
    assert "s3cr3t" not in repr(caught.value)


@pytest.mark.parametrize("content_type", [JSON, UNTOLD])
def test_whole_replies_are_bounded(content_type: str) -> None:
    """A reply that does not end is an error before it is much memory."""
    decoder = decoder_for(content_type)
    with pytest.raises(BrokenReplyError):
        list(map(decoder.feed, [b'{"response": "', *[b"x" * 65_536] * 17]))


def test_stages_of_the_end() -> None:
    """The decoder that was chosen tells when its text is complete and when all is over."""
    decoder = decoder_for(UNTOLD)
    assert not decoder.is_complete
    assert decoder.why_silent() is None
    for event in openai_stream("Hi")[:-2]:
        decoder.feed(event)
    assert decoder.is_complete
    assert not decoder.is_over
    decoder.feed(b"data: [DONE]\n\n")
    assert decoder.is_over
    assert decoder.why_silent() is None
    assert decoder_for(NDJSON).why_silent() is None
    plain = decoder_for("text/plain")
    plain.feed(b"Hello")
    assert plain.why_silent() is None
