"""The messages of ``/v1/convai/conversation``: ElevenLabs' Agents protocol, from the server's side.

Field names and shapes are those that the official clients read and write (``elevenlabs`` 2.78 for Python,
``@elevenlabs/client`` 1.25); docs/compatibility.md tells what is supported. What a client may send beyond
that is ignored, as its newer versions will bring types and fields that nobody here knows.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Literal, get_args

import attrs

from voice_fsm.audio import AudioFormat
from voice_fsm.wire import codec
from voice_fsm.wire.checks import between, check, line, one_of
from voice_fsm.wire.converter import CONVERTER, base64_text
from voice_fsm.wire.voice import FIXED_CHARS

SUBPROTOCOL: Final = "convai"
"""Browsers and the JavaScript client insist on it where they offer it; the Python client offers none."""
AUDIO_FORMATS: Final = (
    "pcm_8000",
    "pcm_16000",
    "pcm_22050",
    "pcm_24000",
    "pcm_44100",
    "pcm_48000",
    "ulaw_8000",
)
"""The only ones that the JavaScript client can play and record."""

DEFAULT_EVENTS: Final = frozenset({
    "audio",
    "interruption",
    "agent_response",
    "agent_response_correction",
    "user_transcript",
    "tentative_user_transcript",
    "conversation_initiation_metadata",
    "ping",
})  # fmt: skip
"""What a client is told that asks for nothing else."""
TEXT_CHARS: Final = 8000

Scalar = str | int | float | bool


# --- parts of client messages -----------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class PromptOverride:
    """What the model is told about its part, and which model."""

    prompt: str | None = None
    llm: str | None = line()


@attrs.frozen(kw_only=True)
class AgentOverride:
    """How the agent opens the conversation, in which language, and what it is."""

    first_message: str | None = attrs.field(
        default=None,
        validator=check(lambda value: len(value) <= FIXED_CHARS, f"must be at most {FIXED_CHARS} characters"),
    )
    """Empty: the agent waits for the user."""
    language: str | None = line(20)
    prompt: PromptOverride | None = None


@attrs.frozen(kw_only=True)
class TtsOverride:
    """How the agent sounds."""

    voice_id: str | None = line()
    model_id: str | None = line()
    stability: float | None = attrs.field(default=None, validator=between(0, 1))
    similarity_boost: float | None = attrs.field(default=None, validator=between(0, 1))
    speed: float | None = attrs.field(default=None, validator=between(0.25, 4))


@attrs.frozen(kw_only=True)
class ConversationOverride:
    """Which channels the conversation has, and what the client wants to be told."""

    text_only: bool | None = None
    client_events: tuple[str, ...] | None = None


@attrs.frozen(kw_only=True)
class ConfigOverride:
    """What a client wants otherwise than the agent has it; each has to be allowed by the agent."""

    agent: AgentOverride | None = None
    tts: TtsOverride | None = None
    conversation: ConversationOverride | None = None
    text_only: bool | None = None
    """Where the Python client puts it."""

    def is_text_only(self) -> bool | None:
        """What either place says; ``None``: neither does."""
        nested = self.conversation.text_only if self.conversation else None
        return self.text_only if nested is None else nested


@attrs.frozen(kw_only=True)
class SourceInfo:
    """Which client this is."""

    source: str | None = line()
    version: str | None = line()


# --- client to server -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Initiation:
    """The first message: overrides, values of template variables, who the user is."""

    type: ClassVar[str] = "conversation_initiation_client_data"
    conversation_config_override: ConfigOverride = ConfigOverride()
    custom_llm_extra_body: Mapping[str, Any] = attrs.field(factory=dict)
    dynamic_variables: Mapping[str, Scalar] = attrs.field(factory=dict)
    user_id: str | None = line()
    source_info: SourceInfo = SourceInfo()


@attrs.frozen(kw_only=True)
class UserAudioChunk:
    """Microphone audio in the format that the metadata named. On the wire it has no ``type``."""

    type: ClassVar[str] = "user_audio_chunk"
    user_audio_chunk: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Pong:
    """The answer to a ping."""

    type: ClassVar[str] = "pong"
    event_id: int


@attrs.frozen(kw_only=True)
class UserMessage:
    """The user typed. Blank or no text says nothing."""

    type: ClassVar[str] = "user_message"
    text: str | None = None


@attrs.frozen(kw_only=True)
class UserActivity:
    """The user is busy in the front end; the agent is not to grow impatient."""

    type: ClassVar[str] = "user_activity"


@attrs.frozen(kw_only=True)
class ContextualUpdate:
    """What the front end thinks the agent should know; no reply follows."""

    type: ClassVar[str] = "contextual_update"
    text: str
    context_id: str | None = line()
    """An update of the same id replaces the one before."""


@attrs.frozen(kw_only=True)
class ClientToolResult:
    """What came of a tool call."""

    type: ClassVar[str] = "client_tool_result"
    tool_call_id: str
    result: Any = None
    is_error: bool = False


@attrs.frozen(kw_only=True)
class Feedback:
    """What the user thinks of a reply."""

    type: ClassVar[str] = "feedback"
    score: Literal["like", "dislike"] | None = None
    """``None``: nothing any more."""
    event_id: int | None = None


@attrs.frozen(kw_only=True)
class MultimodalMessage:
    """Typed text with files."""

    type: ClassVar[str] = "multimodal_message"
    text: UserMessage | None = None
    file: Mapping[str, Any] | None = None
    files: tuple[Mapping[str, Any], ...] = ()


@attrs.frozen(kw_only=True)
class Unknown:
    """A message of a type that this server does not know; the protocol asks to ignore it."""

    type: ClassVar[str] = ""
    name: str


ClientMessage = (
    Initiation
    | UserAudioChunk
    | Pong
    | UserMessage
    | UserActivity
    | ContextualUpdate
    | ClientToolResult
    | Feedback
    | MultimodalMessage
)


# --- server to client -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ServerEvent:
    """Base of all server messages: on the wire the fields stand in an object named by ``body``."""

    type: ClassVar[str]
    body: ClassVar[str]


@attrs.frozen(kw_only=True)
class Metadata(ServerEvent):
    """The conversation has begun. Always the first message: the JavaScript client looks at no other."""

    type: ClassVar[str] = "conversation_initiation_metadata"
    body: ClassVar[str] = "conversation_initiation_metadata_event"
    conversation_id: str
    agent_output_audio_format: AudioFormat
    user_input_audio_format: AudioFormat


@attrs.frozen(kw_only=True)
class Ping(ServerEvent):
    """To be answered by a pong with the same id."""

    type: ClassVar[str] = "ping"
    body: ClassVar[str] = "ping_event"
    event_id: int
    ping_ms: int | None
    """Time that the last pong took; the key has to be there even if nothing is known."""


@attrs.frozen(kw_only=True)
class Alignment:
    """When each character sounds, in milliseconds from the start of the message's audio."""

    chars: tuple[str, ...]
    char_start_times_ms: tuple[int, ...]
    char_durations_ms: tuple[int, ...]


@attrs.frozen(kw_only=True)
class Audio(ServerEvent):
    """The next audio of a turn."""

    type: ClassVar[str] = "audio"
    body: ClassVar[str] = "audio_event"
    audio_base_64: bytes = attrs.field(repr=False)
    event_id: int
    alignment: Alignment | None = None


@attrs.frozen(kw_only=True)
class UserTranscript(ServerEvent):
    """What the user said."""

    type: ClassVar[str] = "user_transcript"
    body: ClassVar[str] = "user_transcription_event"
    user_transcript: str
    event_id: int


@attrs.frozen(kw_only=True)
class TentativeUserTranscript(ServerEvent):
    """The best guess at what the user is saying."""

    type: ClassVar[str] = "tentative_user_transcript"
    body: ClassVar[str] = "tentative_user_transcription_event"
    user_transcript: str
    event_id: int


@attrs.frozen(kw_only=True)
class AgentResponse(ServerEvent):
    """The whole text of a turn."""

    type: ClassVar[str] = "agent_response"
    body: ClassVar[str] = "agent_response_event"
    agent_response: str
    event_id: int


@attrs.frozen(kw_only=True)
class AgentResponseCorrection(ServerEvent):
    """What of an interrupted turn's text the user heard."""

    type: ClassVar[str] = "agent_response_correction"
    body: ClassVar[str] = "agent_response_correction_event"
    original_agent_response: str
    corrected_agent_response: str
    event_id: int


@attrs.frozen(kw_only=True)
class AgentResponseMetadata(ServerEvent):
    """What the chat backend said beside the text."""

    type: ClassVar[str] = "agent_response_metadata"
    body: ClassVar[str] = "agent_response_metadata_event"
    metadata: Mapping[str, Any]
    event_id: int


@attrs.frozen(kw_only=True)
class AgentChatResponsePart(ServerEvent):
    """The reply's text as it is written: one start, deltas, one stop."""

    type: ClassVar[str] = "agent_chat_response_part"
    body: ClassVar[str] = "text_response_part"
    kind: Literal["start", "delta", "stop"]
    text: str = ""
    event_id: int


@attrs.frozen(kw_only=True)
class TentativeAgentResponse(ServerEvent):
    """The reply's text so far, before it has been spoken."""

    type: ClassVar[str] = "internal_tentative_agent_response"
    body: ClassVar[str] = "tentative_agent_response_internal_event"
    tentative_agent_response: str


@attrs.frozen(kw_only=True)
class Interruption(ServerEvent):
    """Throw away the audio of this turn and of those before it; no more of it follows."""

    type: ClassVar[str] = "interruption"
    body: ClassVar[str] = "interruption_event"
    event_id: int


@attrs.frozen(kw_only=True)
class ClientToolCall(ServerEvent):
    """The front end is to do or look something up; answered by `ClientToolResult`."""

    type: ClassVar[str] = "client_tool_call"
    body: ClassVar[str] = "client_tool_call"
    tool_name: str
    tool_call_id: str
    parameters: Mapping[str, Any]
    event_id: int
    expects_response: bool


@attrs.frozen(kw_only=True)
class VadScore(ServerEvent):
    """Whether the user is speaking, by the voice detector: told when that changes."""

    type: ClassVar[str] = "vad_score"
    body: ClassVar[str] = "vad_score_event"
    vad_score: float


@attrs.frozen(kw_only=True)
class AsrMetadata(ServerEvent):
    """The recogniser listens."""

    type: ClassVar[str] = "asr_initiation_metadata"
    body: ClassVar[str] = "asr_initiation_metadata_event"
    session_id: str
    config: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Error(ServerEvent):
    """Something went wrong. ``code`` and ``error_type`` are ElevenLabs', ``reason`` is our stable code."""

    type: ClassVar[str] = "error"
    body: ClassVar[str] = "error_event"
    code: int = attrs.field(validator=one_of((1000, 1002, 1008, 1011)))
    error_type: str
    message: str
    reason: str
    details: Mapping[str, Any]


ServerMessage = (
    Metadata
    | Ping
    | Audio
    | UserTranscript
    | TentativeUserTranscript
    | AgentResponse
    | AgentResponseCorrection
    | AgentResponseMetadata
    | AgentChatResponsePart
    | TentativeAgentResponse
    | Interruption
    | ClientToolCall
    | VadScore
    | AsrMetadata
    | Error
)


# --- frames -----------------------------------------------------------------------------------------

_CLIENT: Final[codec.Dialect[ClientMessage]] = codec.Dialect(get_args(ClientMessage))


def decode(text: str | bytes) -> ClientMessage | Unknown:
    """Read a frame from a client.

    Raises:
        ClientError: it is not a JSON object, has neither ``type`` nor audio, or a field is wrong.
    """
    document = codec.read_object(text)
    name = document.get("type")
    if name is None and UserAudioChunk.type in document:
        document["type"] = UserAudioChunk.type
    elif isinstance(name, str) and name not in _CLIENT:
        return Unknown(name=name)
    return _CLIENT.structure(document)


def encode(message: ServerMessage) -> str:
    """Write a frame to a client."""
    if isinstance(message, Audio) and message.alignment is None:
        return _encode_audio(message)
    fields = CONVERTER.unstructure(message)
    if isinstance(message, AgentChatResponsePart):
        fields["type"] = fields.pop("kind")
    return codec.write_object({"type": message.type, message.body: fields})


def _encode_audio(audio: Audio) -> str:
    """The same without a search through base64 for what to escape."""
    data = base64_text(audio.audio_base_64)
    return f'{{"type":"audio","audio_event":{{"audio_base_64":"{data}","event_id":{audio.event_id}}}}}'


# --- overrides --------------------------------------------------------------------------------------

Override = Literal[
    "first_message", "language", "prompt", "llm", "voice", "text_only", "client_events", "extra_body"
]
"""What an agent may allow its clients to choose."""

_TTS_FIELDS: Final = tuple(field.name for field in attrs.fields(TtsOverride))


def overrides_in(message: Initiation) -> Iterator[tuple[Override, str]]:
    """What a client wants otherwise: the permission it takes, and the path of the field."""
    config = message.conversation_config_override
    agent, tts = config.agent or AgentOverride(), config.tts or TtsOverride()
    prompt, conversation = agent.prompt or PromptOverride(), config.conversation or ConversationOverride()
    wanted: list[tuple[Override, str, object]] = [
        ("first_message", "agent.first_message", agent.first_message),
        ("language", "agent.language", agent.language),
        ("prompt", "agent.prompt.prompt", prompt.prompt),
        ("llm", "agent.prompt.llm", prompt.llm),
        *(("voice", f"tts.{name}", getattr(tts, name)) for name in _TTS_FIELDS),
        ("text_only", "text_only", config.text_only),
        ("text_only", "conversation.text_only", conversation.text_only),
        ("client_events", "conversation.client_events", conversation.client_events),
    ]
    for permission, path, value in wanted:
        if value is not None:
            yield permission, f"conversation_config_override.{path}"
    if message.custom_llm_extra_body:
        yield "extra_body", "custom_llm_extra_body"
