"""The agents' file and what comes of it."""

import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.fakes.scripted import ScriptedChat, ScriptedStt, ScriptedTts
from tests.test_docs_examples import example
from voice_fsm import config
from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError, ConfigError
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.runtime.agents import Agent, fill, load_agents, open_agents, read_agents
from voice_fsm.runtime.guards import GuardedChat
from voice_fsm.runtime.session import Services


def settings_with(path: Path) -> config.Settings:
    return config.Settings(agents=config.Agents(file=str(path)))


def test_the_example_of_the_page_is_read_as_it_says() -> None:
    """Every kind of field that the page shows arrives where it belongs."""
    support, phone = read_agents(tomllib.loads(example("toml", "agents.md")))
    options = support.options(SessionOptions())
    assert (support.id, support.name, support.private) == ("support", "Support", None)
    assert options.turn.first_message == "Hello {{name}}, how can I help?"
    assert (options.stt.language_code, options.tts.voice_id) == ("en", "en-gb")
    assert options.tts.voice_settings.speed == 1.1
    assert (options.turn.min_words, options.turn.idle_prompt_s) == (2, 20.0)
    assert support.allowed_overrides == ("first_message", "language", "text_only")
    assert support.llm is not None
    assert support.llm.model == "small-1"
    (tool,) = support.tools
    assert (tool.name, tool.expects_response, tool.timeout_s) == ("show_order", True, 20.0)
    assert tool.parameters["required"] == ["number"]
    assert "sk-" not in repr(support)
    spoken = phone.options(SessionOptions())
    assert spoken.stt.audio_format == spoken.tts.output_format == AudioFormat("ulaw", 8000)
    assert phone.private
    assert phone.backend is not None


def test_every_field_is_on_the_page() -> None:
    """A field that nobody knows of helps nobody."""
    page = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
    assert [field.name for field in attrs.fields(Agent) if f"`{field.name}`" not in page] == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "there is no agent in it; each begins with [[agents]]"),
        ({"agents": []}, "there is no agent in it; each begins with [[agents]]"),
        ({"agent": []}, "`agent` is not known; the file is a list of [[agents]]"),
        ({"agents": [1]}, "`agents.0` must be a table"),
        ({"agents": [{}]}, "`agents.0.id` is required"),
        (
            {"agents": [{"id": "a b"}]},
            "`agents.0.id` must be 1 to 100 letters, digits, dots, dashes or underscores",
        ),
        ({"agents": [{"id": "a"}, {"id": "a"}]}, "two agents have the same `id`"),
        ({"agents": [{"id": "a"}, {"id": "b", "name": 5}]}, "`agents.1.name` must be a string"),
        (
            {"agents": [{"id": "a", "tts": {"voice_settings": {"speed": 9}}}]},
            "`agents.0.tts.voice_settings.speed` must be from 0.25 to 4",
        ),
        ({"agents": [{"id": "a", "llm": {"model": "m"}}]}, "`agents.0.llm.base_url` is required"),
        (
            {"agents": [{"id": "a", "tts": {"output_format": "mp3_44100_128"}}]},
            "`agents.0.tts.output_format` must be one of pcm_8000",
        ),
        (
            {"agents": [{"id": "a", "allowed_overrides": ["everything"]}]},
            "`agents.0.allowed_overrides.0` must be one of",
        ),
        (
            {"agents": [{"id": "a", "backend": {}, "llm": {"base_url": "http://l", "model": "m"}}]},
            "`agents.0` has both `llm` and `backend`; one of them answers",
        ),
        (
            {"agents": [{"id": "a", "tools": [{"name": "t", "kind": "client"}]}]},
            "`agents.0.tools.0.kind` is not known; there are description",
        ),
        ({"agents": [{"id": "a", "tools": [{"name": "a tool"}]}]}, "`agents.0.tools.0.name` must be 1 to 64"),
        (
            {"agents": [{"id": "a", "turn": {"pausable": True}}]},
            "`agents.0.turn.pausable` cannot be: the players of this protocol do not stand still",
        ),
        (
            {"agents": [{"id": "a", "colour": "red"}]},
            "`agents.0.colour` is not known; there are allowed_overrides",
        ),
        (
            {"agents": [{"id": "a", "tts": {"voice": "v"}}]},
            "`agents.0.tts.voice` is not known; there are model_id",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_path(document: dict[str, Any], message: str) -> None:
    """A sentence that names the variable and the field."""
    with pytest.raises(ConfigError) as error:
        read_agents(document)
    assert str(error.value).startswith(f"AGENTS_FILE: {message}")
    assert error.value.field == "AGENTS_FILE"


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot be read"), (b"\xff", "cannot be read"), (b"a =", "is not TOML")]
)
def test_a_file_that_cannot_be_read_stops_the_start(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    """Missing, not text, not TOML."""
    path = tmp_path / "agents.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_agents(settings_with(path))


def test_without_a_file_there_is_one_agent_as_the_settings_say() -> None:
    """It has no wishes of its own, but the audio that all official clients can play."""
    (agent,) = load_agents(config.Settings())
    assert agent == Agent(id="default")
    assert agent.options(SessionOptions()).tts.output_format == AudioFormat("pcm", 16000)


async def test_an_agent_may_have_a_chat_of_its_own(tmp_path: Path) -> None:
    """The others share the server's."""
    path = tmp_path / "agents.toml"
    path.write_text(
        '[[agents]]\nid="a"\n[[agents]]\nid="b"\nllm={base_url="http://l/v1",model="m"}\n'
        '[[agents]]\nid="c"\nbackend={base_url="http://b",api_key="k"}\n'
    )
    services = Services(stt=ScriptedStt(), chat=ScriptedChat(), tts=ScriptedTts())
    async with open_agents(settings_with(path), services) as agents:
        assert agents.get("a").services is services
        names = []
        for agent_id in ("b", "c"):
            chat = agents.get(agent_id).services.chat
            assert isinstance(chat, GuardedChat)
            names.append(chat.name)
        assert names == ["openai", "backend"]
        with pytest.raises(ClientError, match="no agent"):
            agents.get("d")


async def test_tools_need_a_model_that_can_ask_for_them(tmp_path: Path) -> None:
    """The start is refused, rather than that the tools never be called."""
    path = tmp_path / "agents.toml"
    path.write_text('[[agents]]\nid="a"\n[[agents.tools]]\nname="t"\n')
    services = Services(stt=ScriptedStt(), chat=ScriptedChat(), tts=ScriptedTts())
    with pytest.raises(ConfigError, match="the tools of the agent 'a' need a chat that is OpenAI-compatible"):
        async with open_agents(settings_with(path), services):
            pass


def test_variables_are_filled_in_by_name() -> None:
    """Whatever they are; braces of other shapes are text."""
    assert fill("{{a}} {{ b_1 }} {c} {{}}", {"a": True, "b_1": 2.5}) == "True 2.5 {c} {{}}"
    with pytest.raises(ClientError) as error:
        fill("{{a}}{{b}}", {"a": 1})
    assert error.value.field == "dynamic_variables.b"
    assert fill("{{a}}", {"a": "{{b}}"}) == "{{b}}"  # values are not templates
