"""Streams of chat completions as each host writes them, and a host that plays them."""

import json
from collections.abc import Iterable
from typing import Any

import attrs

from tests.fakes.http_server import Request, Step, json_response, streamed

DONE = b"data: [DONE]\n\n"


def event(chunk: Any) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


def completion_chunk(
    delta: Any = None, *, finish_reason: str | None = None, choices: list[Any] | None = None, **extra: Any
) -> bytes:
    """Write one event as OpenAI does; ``choices`` replaces the one choice made of ``delta``."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish_reason}
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1790000000,
            "model": "small-1",
            "choices": [choice] if choices is None else choices,
            **extra,
        }
    )


def said(text: str) -> bytes:
    return completion_chunk({"content": text})


USAGE = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
STOP = completion_chunk(finish_reason="stop")
ROLE = completion_chunk({"role": "assistant", "content": ""})


def openai_stream(*texts: str) -> list[bytes]:
    """Write a reply as OpenAI does: role, pieces, end, usage with null before it, the mark."""
    usage = completion_chunk(choices=[], usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 0}})
    return [ROLE, *map(said, texts), STOP, usage, DONE]


def groq_stream(*texts: str) -> list[bytes]:
    """Write a reply as Groq does: ids and usage in ``x_groq``."""
    first = completion_chunk({"role": "assistant", "content": ""}, x_groq={"id": "req_1"})
    last = completion_chunk(finish_reason="stop", x_groq={"id": "req_1", "usage": USAGE})
    return [first, *map(said, texts), last, DONE]


def vllm_stream(*texts: str) -> list[bytes]:
    """Write a reply as vLLM does: thinking apart, the last text in the finishing chunk."""
    thought = completion_chunk({"reasoning": "Hmm.", "reasoning_content": "Hmm."})
    last = {"index": 0, "delta": {"content": texts[-1]}, "finish_reason": "stop", "stop_reason": None}
    return [ROLE, thought, *map(said, texts[:-1]), completion_chunk(choices=[last]), DONE]


def ollama_stream(*texts: str) -> list[bytes]:
    """Write a reply as old Ollama did: the role in each chunk, "" for no finish reason."""
    pieces = [completion_chunk({"role": "assistant", "content": text}, finish_reason="") for text in texts]
    return [*pieces, STOP, completion_chunk(choices=[], usage=USAGE), DONE]


def lm_studio_stream(*texts: str) -> list[bytes]:
    """Write a reply as LM Studio does with a reasoning model whose thoughts it leaves in the text."""
    return [
        ROLE,
        said("<think>"),
        said("Well, the user"),
        said("</think>\n\n"),
        *map(said, texts),
        STOP,
        DONE,
    ]


@attrs.define
class OpenAiHost:
    """A host with one model; plays ``steps`` to every question."""

    steps: list[Step] = attrs.field(factory=lambda: streamed(*openai_stream("Hel", "lo")))
    calls: list[Request] = attrs.field(factory=list)

    def __call__(self, request: Request) -> Iterable[Step]:
        if request.path != "/v1/chat/completions":
            return [json_response({"error": {"message": "Unknown path", "code": None}}, 404)]
        self.calls.append(request)
        return self.steps
