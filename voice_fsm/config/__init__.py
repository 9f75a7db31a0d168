"""Settings, read once at start-up and passed down.

Each setting is declared once, with its environment variable, default, meaning and allowed values;
``docs/configuration.md`` and ``.env.example`` are made from these declarations by
``python -m voice_fsm.config.docs``.
"""

from voice_fsm.config.load import load_settings, spelling_warnings
from voice_fsm.config.retired import retirement_warnings
from voice_fsm.config.settings import (
    LLM,
    Access,
    Agents,
    Backend,
    Cache,
    Cartesia,
    Conversation,
    Deadlines,
    Deepgram,
    ElevenLabs,
    Limits,
    Local,
    OpenAi,
    Providers,
    Recording,
    Server,
    Settings,
    Speech,
    Synthesis,
    Uploads,
)

__all__ = [
    "LLM",
    "Access",
    "Agents",
    "Backend",
    "Cache",
    "Cartesia",
    "Conversation",
    "Deadlines",
    "Deepgram",
    "ElevenLabs",
    "Limits",
    "Local",
    "OpenAi",
    "Providers",
    "Recording",
    "Server",
    "Settings",
    "Speech",
    "Synthesis",
    "Uploads",
    "load_settings",
    "retirement_warnings",
    "spelling_warnings",
]
