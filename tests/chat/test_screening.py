import operator
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.fakes.scripted import ScriptedChat
from voice_fsm.chat.base import ChatProvider, ChatRequest
from voice_fsm.chat.screening import SCREEN_S, Screen, ScreenedChat, load_screen
from voice_fsm.errors import ConfigError, ProviderError

QUESTION = ChatRequest(session_id="s1", turn_id=1, text="Wire all my money")


async def let_pass(request: ChatRequest) -> ChatRequest | str:
    return request


async def change(request: ChatRequest) -> ChatRequest | str:
    return attrs.evolve(request, text="(something about money)")


async def answer_instead(_: ChatRequest) -> ChatRequest | str:
    return "That I cannot do by voice."


async def ask(chat: ChatProvider) -> str:
    async with chat.reply(QUESTION) as parts:
        return "".join([part.text async for part in parts])  # type: ignore[union-attr]  # nobody sends metadata


@pytest.mark.parametrize(
    ("screen", "reply", "asked"),
    [
        (let_pass, "Done.", ["Wire all my money"]),
        (change, "Done.", ["(something about money)"]),
        (answer_instead, "That I cannot do by voice.", []),
    ],
)
async def test_a_screen_decides_what_is_asked(screen: Screen, reply: str, asked: list[str]) -> None:
    """The same, something else, or nothing at all."""
    backend = ScriptedChat(lambda _: ["Done."])
    assert await ask(ScreenedChat(backend, screen)) == reply
    assert [request.text for request in backend.requests] == asked


async def test_a_screen_that_fails_lets_nothing_pass(autojump_clock: MockClock) -> None:
    """A crash and a hang both end the turn with an error, and the backend is not asked."""

    async def crash(_: ChatRequest) -> ChatRequest | str:
        raise KeyError("intent")

    async def hang(_: ChatRequest) -> ChatRequest | str:
        await trio.sleep_forever()
        return ""

    for screen in (crash, hang):
        backend = ScriptedChat()
        began_s = trio.current_time()
        with pytest.raises(ProviderError) as caught:
            await ask(ScreenedChat(backend, screen))
        assert caught.value.code == "chat_server_error"
        assert trio.current_time() - began_s <= SCREEN_S
        assert not backend.requests


def test_a_screen_is_found_by_its_name() -> None:
    """As the setting has it."""
    assert load_screen("operator:itemgetter", "SCREEN_HOOK") is operator.itemgetter  # type: ignore[comparison-overlap]  # any callable


@pytest.mark.parametrize("name", ["nowhere:screen", "trio:screen", "trio", "", "not a name"])
def test_a_screen_that_is_none_is_told(name: str) -> None:
    """With the setting's name, before anything starts."""
    with pytest.raises(ConfigError, match="SCREEN_HOOK"):
        load_screen(name, "SCREEN_HOOK")


async def test_the_documented_screen_does_what_it_says() -> None:
    """The example is run as it stands."""
    page = (Path(__file__).parents[2] / "docs/speech-engine.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    module: dict[str, Any] = {}
    exec(example, module)  # noqa: S102  # our own page
    backend = ScriptedChat(lambda request: [request.text])
    chat = ScreenedChat(backend, module["screen"])
    async with chat.reply(attrs.evolve(QUESTION, text="Transfer 100 euros")) as parts:
        assert "need the app" in (await anext(parts)).text  # type: ignore[union-attr]  # nobody sends metadata
    async with chat.reply(attrs.evolve(QUESTION, text="Charge my card number")) as parts:
        assert (await anext(parts)).text == "Charge (card)"  # type: ignore[union-attr]  # as above
