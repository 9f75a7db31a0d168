"""Agents: named ways to talk, each with its voice, its part and its chat, for clients that ask by id.

They come from one TOML file (docs/agents.md), or there is one, made of the server's own settings.
"""

import re
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, get_args

import attrs

from voice_fsm import config
from voice_fsm.chat.base import Tool
from voice_fsm.errors import ClientError, ClientFault, ConfigError
from voice_fsm.fsm.options import PCM_16K, SessionOptions
from voice_fsm.runtime.client_tools import ClientTool, ClientTools
from voice_fsm.runtime.services import open_chat
from voice_fsm.runtime.session import Services
from voice_fsm.upstream.http import open_client
from voice_fsm.wire import codec
from voice_fsm.wire.checks import above, blank_as_none, check, http_url, line, spoken
from voice_fsm.wire.convai import (
    AUDIO_FORMATS,
    ConfigOverride,
    Initiation,
    Override,
    Scalar,
    TtsOverride,
    overrides_in,
)
from voice_fsm.wire.voice import (
    FIXED_CHARS,
    SessionUpdate,
    SttPatch,
    TtsPatch,
    TurnPatch,
    VoicePatch,
    merge_options,
)

HARMLESS: Final[tuple[Override, ...]] = ("first_message", "language", "voice", "text_only", "client_events")
"""What clients may choose unless the agent says otherwise: not what the model is told, nor which it is."""

_VARIABLE: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_VARIABLE_NAME: Final = "AGENTS_FILE"


@attrs.frozen(kw_only=True)
class AgentTool:
    """A tool that the agent's front ends have."""

    name: str = attrs.field(
        validator=check(
            lambda value: bool(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value)),
            "must be 1 to 64 letters, digits, dashes or underscores",
        )
    )
    description: str = ""
    parameters: Mapping[str, Any] = attrs.field(factory=lambda: {"type": "object", "properties": {}})
    """JSON schema of the arguments."""
    expects_response: bool = True
    timeout_s: float = attrs.field(default=20.0, validator=above(0))


@attrs.frozen(kw_only=True)
class AgentLlm:
    """An OpenAI-compatible API of the agent's own."""

    base_url: str = attrs.field(validator=http_url(2000))
    model: str = attrs.field(validator=spoken(200))
    api_key: str | None = line(4096, repr=False)


@attrs.frozen(kw_only=True)
class AgentBackend:
    """A chat backend of the agent's own, or a registration of its own with the server's."""

    base_url: str | None = attrs.field(default=None, validator=http_url(2000))
    api_key: str | None = line(4096, repr=False)
    registration_id: str | None = line()


@attrs.frozen(kw_only=True)
class Agent:
    """One way to talk. ``stt``, ``tts`` and ``turn`` are as in `session.configure`."""

    id: str = attrs.field(
        validator=check(
            lambda value: bool(re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", value)),
            "must be 1 to 100 letters, digits, dots, dashes or underscores",
        )
    )
    name: str | None = line()
    private: bool | None = None
    """Whether a signed URL is needed. ``None``: where the server has keys."""
    first_message: str | None = attrs.field(
        default=None,
        converter=blank_as_none,
        validator=check(lambda value: len(value) <= FIXED_CHARS, f"must be at most {FIXED_CHARS} characters"),
    )
    prompt: str | None = None
    language: str | None = line(20)
    stt: SttPatch = attrs.field(factory=SttPatch)
    tts: TtsPatch = attrs.field(factory=TtsPatch)
    turn: TurnPatch = attrs.field(factory=TurnPatch)
    llm: AgentLlm | None = None
    backend: AgentBackend | None = None
    allowed_overrides: tuple[Override, ...] = HARMLESS
    client_events: tuple[str, ...] | None = None
    dynamic_variables: Mapping[str, Scalar] = attrs.field(factory=dict)
    tools: tuple[AgentTool, ...] = ()

    def options(self, defaults: SessionOptions) -> SessionOptions:
        """What a session of this agent starts from; 16 kHz PCM both ways, as all official clients can."""
        base = attrs.evolve(
            defaults,
            stt=attrs.evolve(defaults.stt, audio_format=PCM_16K),
            tts=attrs.evolve(defaults.tts, output_format=PCM_16K),
        )
        patch = SessionUpdate(
            stt=attrs.evolve(self.stt, language_code=self.language or self.stt.language_code),
            tts=self.tts,
            turn=self.turn,
        )
        return with_first_message(merge_options(base, patch), self.first_message)


@attrs.frozen(kw_only=True)
class Conversation:
    """What one client's conversation with an agent is to be."""

    options: SessionOptions
    text_only: bool
    client_events: frozenset[str] | None
    """``None``: the usual ones."""


@attrs.frozen
class HostedAgent:
    """An agent, and the services that its sessions use."""

    agent: Agent
    services: Services

    def converse(self, message: Initiation) -> Conversation:
        """Work out what the client's first message asks for.

        Raises:
            ClientError: ``override_not_allowed`` or ``missing_variable``.
        """
        agent = self.agent
        for permission, field in overrides_in(message):
            if permission not in agent.allowed_overrides:
                raise ClientError(
                    ClientFault.OVERRIDE_NOT_ALLOWED,
                    f"The agent does not allow its clients to choose `{field}`.",
                    field=field,
                )
        override = message.conversation_config_override
        asked = override.conversation.client_events if override.conversation else None
        events = agent.client_events if asked is None else asked
        return Conversation(
            options=self._options(message),
            text_only=bool(override.is_text_only()),
            client_events=None if events is None else frozenset(events),
        )

    def _options(self, message: Initiation) -> SessionOptions:
        override = message.conversation_config_override
        variables = {**self.agent.dynamic_variables, **message.dynamic_variables}
        options = merge_options(self.agent.options(self.services.defaults), _patch(override))
        opening = override.agent.first_message if override.agent else None
        options = with_first_message(options, opening)
        if options.turn.first_message is not None:
            options = with_first_message(options, fill(options.turn.first_message, variables))
        prompt = override.agent.prompt if override.agent else None
        system_prompt = self.agent.prompt if prompt is None or prompt.prompt is None else prompt.prompt
        return attrs.evolve(
            options,
            backend=attrs.evolve(
                options.backend,
                system_prompt=None if system_prompt is None else fill(system_prompt, variables),
                model=prompt.llm if prompt else None,
            ),
        )


def with_first_message(options: SessionOptions, text: str | None) -> SessionOptions:
    """The same with another opening; an empty one: the user begins. ``None`` changes nothing."""
    if text is None:
        return options
    return attrs.evolve(options, turn=attrs.evolve(options.turn, first_message=text.strip() or None))


class Agents:
    """All agents of the server, by id."""

    def __init__(self, agents: Mapping[str, HostedAgent]) -> None:
        self._agents = agents

    def get(self, agent_id: str) -> HostedAgent:
        """Find one.

        Raises:
            ClientError: ``unknown_agent``.
        """
        try:
            return self._agents[agent_id]
        except KeyError:
            raise ClientError(
                ClientFault.UNKNOWN_AGENT, "This server has no agent of this id.", field="agent_id"
            ) from None


@asynccontextmanager
async def open_agents(settings: config.Settings, services: Services) -> AsyncIterator[Agents]:
    """Make the agents' services out of the server's own; leaving closes what they have for themselves."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_client())
        hosted = {}
        for agent in load_agents(settings):
            own = _settings_of(agent, settings)
            if agent.tools and own.providers.chat != "openai":
                raise _wrong(f"the tools of the agent {agent.id!r} need a chat that is OpenAI-compatible")
            served = (
                services
                if own is settings
                else attrs.evolve(services, chat=await open_chat(own, stack, client, services.metrics))
            )
            hosted[agent.id] = HostedAgent(agent, served)
        yield Agents(hosted)


def client_tools(agent: Agent) -> ClientTools:
    """The agent's tools, for one conversation."""
    return ClientTools(
        ClientTool(
            tool=Tool(name=tool.name, description=tool.description, parameters=tool.parameters),
            expects_response=tool.expects_response,
            timeout_s=tool.timeout_s,
        )
        for tool in agent.tools
    )


def load_agents(settings: config.Settings) -> tuple[Agent, ...]:
    """Read the agents' file, or make the one agent that there is without it.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong; the message has the path.
    """
    path = settings.agents.file
    if path is None:
        return (Agent(id=settings.agents.default_id),)
    return read_agents(_read_toml(Path(path)))


def read_agents(document: Mapping[str, Any]) -> tuple[Agent, ...]:
    """Make agents of the file's document.

    Raises:
        ConfigError: something in it is wrong; the message has the path.
    """
    for name in document.keys() - {"agents"}:
        raise _wrong(f"`{name}` is not known; the file is a list of [[agents]]")
    tables = document.get("agents")
    if not isinstance(tables, list) or not tables:
        raise _wrong("there is no agent in it; each begins with [[agents]]")
    agents = tuple(_read_agent(table, f"agents.{index}") for index, table in enumerate(tables))
    if len({agent.id for agent in agents}) < len(agents):
        raise _wrong("two agents have the same `id`")
    return agents


def fill(text: str, variables: Mapping[str, Scalar]) -> str:
    """Put values in the places of ``{{ name }}``.

    Raises:
        ClientError: ``missing_variable``: one has no value.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in variables:
            raise ClientError(
                ClientFault.MISSING_VARIABLE,
                f"The agent's texts need a value for the variable {name!r}.",
                field=f"dynamic_variables.{name}",
            )
        return str(variables[name])

    return _VARIABLE.sub(value_of, text)


def _patch(override: ConfigOverride) -> SessionUpdate:
    tts = override.tts or TtsOverride()
    return SessionUpdate(
        stt=SttPatch(language_code=override.agent.language if override.agent else None),
        tts=TtsPatch(
            voice_id=tts.voice_id,
            model_id=tts.model_id,
            voice_settings=VoicePatch(
                stability=tts.stability, similarity_boost=tts.similarity_boost, speed=tts.speed
            ),
        ),
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise _wrong(f"{path} cannot be read as UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise _wrong(f"{path} is not TOML: {error}") from None


def _read_agent(table: object, path: str) -> Agent:
    if not isinstance(table, dict):
        raise _wrong(f"`{path}` must be a table")
    _refuse_unknown(table, Agent, path)
    try:
        agent = codec.structure(table, Agent)
    except ClientError as error:
        raise _wrong(error.message.replace("`", f"`{path}.", 1).rstrip(".")) from None
    if agent.llm is not None and agent.backend is not None:
        raise _wrong(f"`{path}` has both `llm` and `backend`; one of them answers")
    if agent.turn.pausable:
        raise _wrong(f"`{path}.turn.pausable` cannot be: the players of this protocol do not stand still")
    for name, chosen in (
        ("stt.audio_format", agent.stt.audio_format),
        ("tts.output_format", agent.tts.output_format),
    ):
        if chosen is not None and str(chosen) not in AUDIO_FORMATS:
            raise _wrong(f"`{path}.{name}` must be one of {', '.join(AUDIO_FORMATS)}")
    return agent


def _refuse_unknown(table: Mapping[str, Any], cls: Any, path: str) -> None:  # noqa: ANN401  # an attrs class
    """In a message an unknown field is ignored; in a file of settings it is a typing error."""
    known = {field.name: field.type for field in attrs.fields(cls)}
    for name, value in table.items():
        if name not in known:
            raise _wrong(f"`{path}.{name}` is not known; there are {', '.join(sorted(known))}")
        kinds = [kind for kind in (known[name], *get_args(known[name])) if attrs.has(kind)]
        if kinds and isinstance(value, dict):
            _refuse_unknown(value, kinds[0], f"{path}.{name}")
        elif kinds and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    _refuse_unknown(item, kinds[0], f"{path}.{name}.{index}")


def _settings_of(agent: Agent, settings: config.Settings) -> config.Settings:
    """The server's settings with the agent's own chat in them."""
    if agent.llm is not None:
        return attrs.evolve(
            settings,
            providers=attrs.evolve(settings.providers, chat="openai"),
            llm=config.LLM(base_url=agent.llm.base_url, model=agent.llm.model, api_key=agent.llm.api_key),
        )
    if agent.backend is not None:
        own = {name: value for name, value in attrs.asdict(agent.backend).items() if value is not None}
        return attrs.evolve(
            settings,
            providers=attrs.evolve(settings.providers, chat="backend"),
            backend=attrs.evolve(settings.backend, **own),
        )
    return settings


def _wrong(what: str) -> ConfigError:
    return ConfigError(_VARIABLE_NAME, what)
