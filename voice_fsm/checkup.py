"""``voice-fsm check``: the settings in force, and each upstream tried for real."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import attrs
import trio

from voice_fsm.chat.base import ChatRequest, ReplyText
from voice_fsm.config import Settings
from voice_fsm.errors import ProviderError, ProviderFault, VoiceError
from voice_fsm.runtime.services import open_services
from voice_fsm.runtime.session import Services
from voice_fsm.runtime.voice_activity import for_recogniser
from voice_fsm.tts.base import SpeechAudio

TRY_S: Final = 30.0
"""How long one upstream may take, whatever its own deadlines say."""

_VARIABLES: Final = {
    # provider: (its key, its address)
    "elevenlabs": ("ELEVENLABS_API_KEY", "ELEVENLABS_BASE_URL"),
    "backend": ("BACKEND_API_KEY", "BACKEND_BASE_URL"),
    "openai": ("LLM_API_KEY", "LLM_BASE_URL"),
    "speech_engine": ("SPEECH_ENGINE_API_KEY", "SPEECH_ENGINE_URL"),
}
_VOICE_VARIABLES: Final = _VARIABLES | {
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "deepgram": ("DG_API_KEY", "DG_BASE_URL"),
    "cartesia": ("CARTESIA_API_KEY", "CARTESIA_BASE_URL"),
}
_NOTHING_NAMED: Final = ("its key", "its address")
_ADVICE: Final = {
    ProviderFault.UNREACHABLE: "Is {address} right, and can this machine reach it?",
    ProviderFault.TIMEOUT: "Is {address} right? A proxy or firewall may swallow the connection.",
    ProviderFault.AUTH_FAILED: "Check {key}: the service does not accept it.",
    ProviderFault.QUOTA_EXCEEDED: "The account behind {key} has nothing left to spend.",
    ProviderFault.RATE_LIMITED: "Too many requests with {key} at this moment; try again in a minute.",
    ProviderFault.REJECTED: "The service is there but refuses what is asked: check model, voice and path.",
    ProviderFault.BAD_RESPONSE: "What answers at {address} does not seem to be the service that is meant.",
    ProviderFault.UNAVAILABLE: "For the embedded engines: pip install 'voice-fsm[local]'.",
}


@attrs.frozen
class Finding:
    """What came of trying one upstream."""

    name: str
    ok: bool
    text: str


async def check_upstreams(settings: Settings) -> list[Finding]:
    """Try the recogniser, the chat backend and the voice that the settings choose, one after the other."""
    chosen = settings.providers
    stt = _VARIABLES.get(chosen.stt, _NOTHING_NAMED)
    chat = _VARIABLES.get(chosen.chat, _NOTHING_NAMED)
    tts = _VOICE_VARIABLES.get(chosen.tts, _NOTHING_NAMED)
    try:
        async with open_services(settings, trio.Event()) as services:
            return [
                await _attempt(f"speech to text ({chosen.stt})", stt, lambda: _try_stt(services)),
                await _attempt(f"chat ({chosen.chat})", chat, lambda: _try_chat(services)),
                await _attempt(f"text to speech ({chosen.tts})", tts, lambda: _try_tts(services)),
            ]
    except VoiceError as error:
        return [Finding("engines", ok=False, text=error.message)]


async def _attempt(name: str, variables: tuple[str, str], work: Callable[[], Awaitable[str]]) -> Finding:
    began_s = trio.current_time()
    try:
        with trio.fail_after(TRY_S):
            found = await work()
    except trio.TooSlowError:
        advice = _advice(variables, ProviderFault.TIMEOUT)
        return Finding(name, ok=False, text=f"no answer within {TRY_S:g} s. {advice}")
    except ProviderError as error:
        return Finding(name, ok=False, text=f"{error.message} {_advice(variables, error.fault)}".strip())
    except VoiceError as error:
        return Finding(name, ok=False, text=error.message)
    return Finding(name, ok=True, text=f"{found}, after {trio.current_time() - began_s:.2f} s")


def _advice(variables: tuple[str, str], fault: ProviderFault) -> str:
    key, address = variables
    return _ADVICE.get(fault, "").format(key=key, address=address)


async def _try_stt(services: Services) -> str:
    options = for_recogniser(services.defaults.stt)
    with trio.fail_after(services.stt_connect_s):
        async with services.stt.connect(options) as link:
            await link.send(bytes(options.audio_format.size_bytes(500)))
            return f"listens ({link.session_id})"


async def _try_chat(services: Services) -> str:
    request = ChatRequest(session_id="voice-fsm-check", turn_id=1, text="Hello! Please answer in one word.")
    reply = ""
    async with services.chat.reply(request) as parts:
        async for part in parts:
            if isinstance(part, ReplyText):
                reply += part.text
    return f"answers {reply[:60]!r}"


async def _try_tts(services: Services) -> str:
    options = services.defaults.tts
    services.tts.check(options)
    size = 0
    async with services.tts.speak(_Once("Hello!"), options) as speech:
        async for item in speech:
            if isinstance(item, SpeechAudio):
                size += len(item.data)
    if not size:
        raise VoiceError("tts_bad_response", "It answered, but without any audio.")
    return f"speaks ({options.output_format.duration_ms(size) / 1000:.1f} s of {options.output_format})"


class _Once:
    """One piece of text."""

    def __init__(self, text: str) -> None:
        self._texts = [text]

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        if not self._texts:
            raise StopAsyncIteration
        return self._texts.pop()
