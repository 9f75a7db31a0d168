import attrs
import pytest

from voice_fsm.chat.base import ChatRequest
from voice_fsm.chat.conversation import HistoryLimits, chat_messages, estimated_tokens
from voice_fsm.fsm.history import Exchange

ENOUGH = HistoryLimits()


def asked(text: str, *history: Exchange) -> ChatRequest:
    return ChatRequest(session_id="s", turn_id=1, text=text, history=history)


def written(messages: list[dict[str, str]]) -> list[str]:
    return [f"{message['role']}: {message['content']}" for message in messages]


def test_a_first_question_stands_alone() -> None:
    """Without a past and a prompt there is the question."""
    assert written(chat_messages(asked("Hi"), " ", ENOUGH)) == ["user: Hi"]


def test_the_past_goes_with_the_question() -> None:
    """System prompt, exchanges from the oldest on, then the question."""
    messages = chat_messages(
        asked("Bye", Exchange("Hi", "Hello."), Exchange("How?", "Well.")), "Be kind.", ENOUGH
    )
    assert written(messages) == [
        "system: Be kind.",
        "user: Hi",
        "assistant: Hello.",
        "user: How?",
        "assistant: Well.",
        "user: Bye",
    ]


def test_an_interrupted_reply_is_what_was_heard_of_it() -> None:
    """The model sees that it was cut off, and where."""
    messages = chat_messages(asked("Stop", Exchange("Tell", "Once upon ", interrupted=True)), "", ENOUGH)
    assert written(messages) == ["user: Tell", "assistant: Once upon \u2014", "user: Stop"]


def test_a_reply_that_nobody_heard_was_not_given() -> None:
    """Two questions in a row become one message, as models' templates want roles to alternate."""
    messages = chat_messages(asked("and blue?", Exchange("Is it red", "", interrupted=True)), "", ENOUGH)
    assert written(messages) == ["user: Is it red\nand blue?"]


def test_a_greeting_needs_no_question() -> None:
    """An exchange without the user's words is the assistant's alone."""
    assert written(chat_messages(asked("Hi", Exchange("", "Welcome!")), "", ENOUGH)) == [
        "assistant: Welcome!",
        "user: Hi",
    ]


def test_context_of_the_front_end_is_no_instruction() -> None:
    """It comes before the question, in the role of the user and marked, never in the system's."""
    request = attrs.evolve(asked("Buy it", Exchange("Hi", "Hello.")), context=("On page 2.",))
    assert written(chat_messages(request, "Be kind.", ENOUGH)) == [
        "system: Be kind.",
        "user: Hi",
        "assistant: Hello.",
        "user: [Context from the application, for information:]\nOn page 2.\nBuy it",
    ]


@pytest.mark.parametrize(("max_exchanges", "kept"), [(0, 0), (1, 1), (3, 3), (20, 10)])
def test_the_past_is_bounded_by_exchanges(max_exchanges: int, kept: int) -> None:
    """The newest exchanges are kept."""
    history = [Exchange(f"q{n}", f"a{n}") for n in range(10)]
    limits = HistoryLimits(max_exchanges=max_exchanges)
    messages = chat_messages(asked("last", *history), "prompt", limits)
    assert messages[0]["role"] == "system"
    assert [message["content"] for message in messages if message["role"] == "assistant"] == [
        f"a{n}" for n in range(10 - kept, 10)
    ]


def test_the_past_is_bounded_by_tokens() -> None:
    """Whole exchanges are left out, from the oldest on; the question always goes."""
    history = [Exchange("q" * 40, f"{n}" * 40) for n in range(9)]
    messages = chat_messages(asked("x" * 4000, *history), "", HistoryLimits(max_tokens=45))
    assert [message["content"][0] for message in messages] == ["q", "7", "q", "8", "x"]


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("日本語", 3), ("caf\u00e9", 2)]
)
def test_tokens_are_estimated_for_any_script(text: str, tokens: int) -> None:
    """Four characters of ASCII are a token, any other character is one of its own."""
    assert estimated_tokens(text) == tokens
