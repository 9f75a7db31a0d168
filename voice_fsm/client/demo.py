"""``voice-fsm demo``: one spoken question through the real socket, told as it happens."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio
from trio_websocket import ConnectionClosed

from voice_fsm.audio import AudioFormat
from voice_fsm.client.conversation import MICROPHONE_HZ, REPLY_HZ, Account, ServerEvent, ask
from voice_fsm.client.recording import read_wav, write_wav
from voice_fsm.config import Access, Settings
from voice_fsm.errors import ConfigError, ProviderError, Upstream
from voice_fsm.fsm.options import TtsOptions
from voice_fsm.tts.base import SpeechAudio
from voice_fsm.tts.local import open_local_tts
from voice_fsm.upstream.websocket import derive_ws_url, open_websocket
from voice_fsm.web.app import create_app
from voice_fsm.web.serve import serve
from voice_fsm.web.serve_config import ServeConfig

QUESTION: Final = "What is twelve times seven?"


@attrs.frozen
class DemoResult:
    """What the demo found."""

    ok: bool
    transcript: str
    reply: str
    audio_s: float
    outcomes: tuple[str, ...]
    latency_ms: dict[str, int]
    errors: tuple[str, ...]
    out: str | None

    def summary(self) -> str:
        """All of it in a few lines for a person."""
        written = f", written to {self.out}" if self.out else ""
        return "\n".join(
            [
                f"heard:   {self.transcript or '(nothing)'}",
                f"reply:   {self.reply or '(none)'}",
                f"audio:   {self.audio_s:.1f} s{written}",
                *(f"latency: {stage.replace('_', ' ')}: {ms}" for stage, ms in self.latency_ms.items()),
                *(f"error:   {message}" for message in self.errors),
            ]
        )


async def run_demo(
    settings: Settings,
    *,
    url: str | None,
    wav: Path | None,
    out: Path | None,
    say: Callable[[str], object],
) -> DemoResult:
    """Ask a server, or one of our own in this process, and give what came of it.

    Raises:
        ConfigError: the recording or the server cannot be used.
        ProviderError: an embedded engine is not installed.
    """
    question = _recorded(wav) if wav is not None else await _synthesized()
    async with _server(settings, url) as address:
        account = await _converse(address, question, say)
    written = out is not None and bool(account.audio)
    if out is not None and written:
        write_wav(out, bytes(account.audio), REPLY_HZ)
    return DemoResult(
        ok=account.succeeded,
        transcript=" ".join(account.transcripts),
        reply=" ".join(account.replies),
        audio_s=round(account.audio_s, 2),
        outcomes=tuple(account.outcomes),
        latency_ms=account.latencies_ms(),
        errors=tuple(account.errors),
        out=str(out) if written else None,
    )


def _recorded(wav: Path) -> bytes:
    try:
        return read_wav(wav, MICROPHONE_HZ)
    except (OSError, ValueError) as error:
        raise ConfigError("--wav", f"cannot use {wav}: {error}") from error


async def _synthesized() -> bytes:
    """The question in the embedded voice, for lack of a human one."""

    async def pieces() -> AsyncIterator[str]:
        await trio.lowlevel.checkpoint()
        yield QUESTION

    options = TtsOptions(output_format=AudioFormat("pcm", MICROPHONE_HZ))
    async with open_local_tts() as tts, tts.speak(pieces(), options) as speech:
        return b"".join([item.data async for item in speech if isinstance(item, SpeechAudio)])


@asynccontextmanager
async def _server(settings: Settings, url: str | None) -> AsyncIterator[str]:
    """The address of the server to ask: the one that is given, or a new one on a free port."""
    if url is not None:
        yield url
        return
    draining = trio.Event()
    async with trio.open_nursery() as nursery:
        addresses: list[str] = await nursery.start(
            partial(serve, create_app(_open(settings), draining), ServeConfig(port=0), draining=draining)
        )
        yield addresses[0].replace("http", "ws", 1) + "/v1/voice/ws"
        nursery.cancel_scope.cancel()


async def _converse(address: str, question: bytes, say: Callable[[str], object]) -> Account:
    """Raises: ConfigError: there is no voice server at the address."""
    try:
        async with open_websocket(derive_ws_url(address), upstream=Upstream.CHAT) as websocket:
            return await ask(websocket, question, lambda event: _tell(event, say))
    except ValueError as error:
        raise ConfigError("--url", f"there is no voice server at {address}: {error}") from error
    except ProviderError as error:
        raise ConfigError("--url", f"there is no voice server at {address} ({error.fault})") from error
    except ConnectionClosed as error:
        code = error.reason.code if error.reason else 1006
        raise ConfigError("--url", f"the server hung up ({code})") from error
    except trio.TooSlowError as error:
        raise ConfigError("--url", "the server did not answer in time.") from error


def _tell(event: ServerEvent, say: Callable[[str], object]) -> None:
    match event:
        case {"type": "state.changed", "from": source, "to": target, "input": cause}:
            say(f"  [{source} -> {target}, {cause}]")
        case {"type": "transcript.partial", "text": text}:
            say(f"  ... {text}")
        case {"type": "transcript.committed", "text": text}:
            say(f"you: {text}")
        case {"type": "assistant.message", "text": text}:
            say(f"assistant: {text}")
        case {"type": "assistant.done", "outcome": outcome}:
            say(f"  (turn {outcome})")
        case {"type": "error", "code": code, "message": message}:
            say(f"error: {code}: {message}")


def _open(settings: Settings) -> Settings:
    """Settings of a server on loopback for ourselves."""
    return attrs.evolve(settings, access=Access())
