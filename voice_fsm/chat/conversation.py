"""The conversation so far as chat messages, cut to what a model may be sent."""

from collections.abc import Iterable
from typing import Any, Final

import attrs

from voice_fsm.chat.base import ChatRequest
from voice_fsm.fsm.history import Exchange

INTERRUPTED_MARK: Final = " \u2014"
"""Ends what was heard of an interrupted reply: a dash, which is harmless should the model take it up."""

CONTEXT_NOTE: Final = "[Context from the application, for information:]\n"
"""Opens what the front end says of the situation. It has the role of the user, as whoever holds the front end
can make it say anything."""

_CHARS_PER_TOKEN: Final = 4
"""Of ASCII text, roughly; any other character counts as a token of its own."""

Message = dict[str, Any]


@attrs.frozen(kw_only=True)
class HistoryLimits:
    """How much of the past goes with each question; the oldest exchanges are left out first."""

    max_exchanges: int = 20
    max_tokens: int = 4000
    """Estimated; without the system prompt and the question itself."""


def chat_messages(request: ChatRequest, system_prompt: str, limits: HistoryLimits) -> list[Message]:
    """Write the messages of one question: system prompt, past, question.

    Neighbours of one role are joined, since many models' templates insist on alternation: a reply of which
    nothing was heard leaves two questions in a row.
    """
    messages = [
        message for exchange in _recent(request.history, limits) for message in _messages_of(exchange)
    ]
    if request.context:
        messages.append({"role": "user", "content": CONTEXT_NOTE + "\n".join(request.context)})
    messages.append({"role": "user", "content": request.text})
    if system_prompt.strip():
        messages.insert(0, {"role": "system", "content": system_prompt})
    return _joined(messages)


def estimated_tokens(text: str) -> int:
    """Guess how many tokens a text has, for any language, rather too many than too few."""
    ascii_chars = len(text.encode("ascii", "ignore"))
    return -(-ascii_chars // _CHARS_PER_TOKEN) + len(text) - ascii_chars


def _recent(history: tuple[Exchange, ...], limits: HistoryLimits) -> list[Exchange]:
    recent: list[Exchange] = []
    tokens = 0
    for exchange in reversed(history[-limits.max_exchanges :] if limits.max_exchanges else ()):
        tokens += estimated_tokens(exchange.user) + estimated_tokens(exchange.assistant)
        if tokens > limits.max_tokens:
            break
        recent.append(exchange)
    return recent[::-1]


def _messages_of(exchange: Exchange) -> Iterable[Message]:
    if exchange.user.strip():
        yield {"role": "user", "content": exchange.user}
    heard = exchange.assistant.rstrip()
    if heard:
        mark = INTERRUPTED_MARK if exchange.interrupted else ""
        yield {"role": "assistant", "content": heard + mark}


def _joined(messages: list[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1]["content"] += "\n" + message["content"]
        else:
            joined.append(message)
    return joined
