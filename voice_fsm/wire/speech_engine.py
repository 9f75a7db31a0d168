"""ElevenLabs' Speech Engine protocol: a conversation in text between a voice host and a chat server.

The voice host (ElevenLabs, or a session of ours) connects to the chat server and sends what the user said;
the server answers in deltas. There is no message for an interruption: a newer transcript is one.

Source: ElevenLabs' page "Speech Engine / WebSocket" and the official SDKs (Python 2.78, JavaScript 2.73).
"""

from typing import ClassVar, Final, get_args

import attrs

from voice_fsm.wire.codec import Dialect


@attrs.frozen(kw_only=True)
class Said:
    """One entry of the conversation so far."""

    role: str
    """``user`` or ``agent``."""
    content: str


@attrs.frozen(kw_only=True)
class Init:
    """The first message of a connection, once."""

    type: ClassVar[str] = "init"
    conversation_id: str


@attrs.frozen(kw_only=True)
class UserTranscript:
    """All that was said, up to and with what the user said last."""

    type: ClassVar[str] = "user_transcript"
    user_transcript: tuple[Said, ...]
    event_id: int | None = None
    """Rises with every transcript; the answer repeats it."""


@attrs.frozen(kw_only=True)
class Ping:
    type: ClassVar[str] = "ping"


@attrs.frozen(kw_only=True)
class Close:
    """The conversation is over."""

    type: ClassVar[str] = "close"


@attrs.frozen(kw_only=True)
class Error:
    """The voice host found fault with the server, and is about to hang up."""

    type: ClassVar[str] = "error"
    message: str = ""


@attrs.frozen(kw_only=True)
class AgentResponse:
    """A piece of the reply, to be spoken as it stands; the last one says so and is empty."""

    type: ClassVar[str] = "agent_response"
    content: str = ""
    event_id: int | None = None
    is_final: bool = False


@attrs.frozen(kw_only=True)
class Pong:
    type: ClassVar[str] = "pong"


HostMessage = Init | UserTranscript | Ping | Close | Error
ServerMessage = AgentResponse | Pong

FROM_HOST: Final[Dialect[HostMessage]] = Dialect(get_args(HostMessage))
FROM_SERVER: Final[Dialect[ServerMessage]] = Dialect(get_args(ServerMessage))
