"""Models that their vendors have ended, or will: what is set still goes out, with a word of warning.

From developers.openai.com/api/docs/deprecations and docs.cartesia.ai/build-with-cartesia/tts-models
(its page on older models), seen 2026-11-21.
"""

from collections.abc import Iterator
from typing import Final

from voice_fsm.config.settings import OPENAI_URL, Settings

_OPENAI: Final = (
    "OpenAI ends {model} on 2027-01-06, like all its models for /v1/audio/speech; the successor that it "
    "names, gpt-realtime-2.1-mini, is not served there. Plan for another TTS_PROVIDER or OPENAI_BASE_URL."
)
_CARTESIA: Final = "Cartesia ended {model} on 2026-06-01; its successor is sonic-3.5."

OPENAI_MODELS: Final = ("tts-1", "tts-1-1106", "tts-1-hd", "tts-1-hd-1106", "gpt-4o-mini-tts")
CARTESIA_MODELS: Final = (
    "sonic",
    "sonic-english",
    "sonic-multilingual",
    "sonic-2-2025-03-07",
    "sonic-turbo-2025-03-07",
)
RETIRED: Final[dict[str, str]] = {
    **{model: _OPENAI.format(model=model) for model in OPENAI_MODELS},
    **{model: _CARTESIA.format(model=model) for model in CARTESIA_MODELS},
}
"""What to know about a model, in a sentence or two."""


def retirement_warnings(settings: Settings) -> tuple[str, ...]:
    """A sentence or two for each model in use that is retired, or soon will be."""
    return tuple(
        f"{variable}: {RETIRED[model]}" for variable, model in _models_in_use(settings) if model in RETIRED
    )


def _models_in_use(settings: Settings) -> Iterator[tuple[str, str]]:
    speaking = {settings.providers.tts, settings.providers.tts_fallback}
    if "openai" in speaking and settings.openai.base_url == OPENAI_URL:
        yield "OPENAI_TTS_MODEL", settings.openai.tts_model
    if "cartesia" in speaking:
        yield "CARTESIA_MODEL_ID", settings.cartesia.model_id
