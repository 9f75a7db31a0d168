"""Settings to the upstreams that all sessions of the process share.

A new provider is registered here: one line in the function of its kind.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Literal

import httpx
import trio

from voice_fsm import config
from voice_fsm.audio import AudioFormat
from voice_fsm.chat.backend import BackendChat, BackendConfig
from voice_fsm.chat.base import ChatProvider
from voice_fsm.chat.demo import DemoChat
from voice_fsm.chat.openai import OpenAiChat, OpenAiConfig
from voice_fsm.chat.screening import ScreenedChat, load_screen
from voice_fsm.chat.speech_engine import SpeechEngineConfig, open_speech_engine_chat
from voice_fsm.errors import Upstream
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.options import BackendOptions, SessionOptions, SttOptions, TtsOptions, TurnOptions
from voice_fsm.metrics import Metrics
from voice_fsm.runtime.companding import Companding
from voice_fsm.runtime.guards import (
    FallbackStt,
    FallbackTts,
    GuardedChat,
    GuardedStt,
    GuardedTts,
    with_fallback,
)
from voice_fsm.runtime.recorder import Recorder, open_recorder
from voice_fsm.runtime.recorder_files import RecorderConfig
from voice_fsm.runtime.session import Services
from voice_fsm.runtime.sound_recorder import SoundConfig, SoundRecorder, open_sound_recorder
from voice_fsm.runtime.turn import SlowReply
from voice_fsm.speech.cache import SpeechCache
from voice_fsm.speech.disk import DiskStore
from voice_fsm.speech.service import SpeechConfig, SpeechService, open_speech
from voice_fsm.stt.base import SttProvider
from voice_fsm.stt.elevenlabs import ElevenLabsStt, ElevenLabsSttConfig
from voice_fsm.stt.elevenlabs_batch import ElevenLabsBatch
from voice_fsm.stt.local import open_local_stt
from voice_fsm.stt.recording import Transcribe, transcribe
from voice_fsm.tts.base import TtsProvider
from voice_fsm.tts.cartesia import CartesiaTtsConfig, open_cartesia_tts
from voice_fsm.tts.deepgram import DeepgramTtsConfig, open_deepgram_tts
from voice_fsm.tts.elevenlabs import ElevenLabsTtsConfig, open_elevenlabs_tts
from voice_fsm.tts.local import open_local_tts
from voice_fsm.tts.openai import OpenAiTtsConfig, open_openai_tts
from voice_fsm.upstream.breaker import Breaker
from voice_fsm.upstream.http import Deadlines, open_client
from voice_fsm.upstream.retry import RetryPolicy
from voice_fsm.upstream.websocket import background_nursery
from voice_fsm.vad.hysteresis import VadRules

_MB: Final = 1_000_000

SttName = Literal["local", "elevenlabs"]
_LAG_S: Final[dict[SttName, float]] = {"elevenlabs": 2.5, "local": 5.0}
"""The service has its first words within a second, but for the network; ours may be 4 s behind under load."""
TtsName = Literal["local", "elevenlabs", "openai", "deepgram", "cartesia"]


@asynccontextmanager
async def open_services(settings: config.Settings, draining: trio.Event) -> AsyncIterator[Services]:
    """Load engines and open clients; leaving closes them all.

    Raises:
        ProviderError: an engine that the settings ask for is not installed.
        ConfigError: sessions are to be recorded where nothing can be written.
    """
    conversation = settings.conversation
    async with AsyncExitStack() as stack:
        client, metrics = await stack.enter_async_context(open_client()), _make_metrics(settings)
        # What fails is counted where it is known, with the links that broke later.
        stt_breaker = Breaker(Upstream.STT)
        metrics.watch_breaker(Upstream.STT, lambda: stt_breaker.is_open)
        stt = await stack.enter_async_context(open_recogniser(settings, stt_breaker))
        yield Services(
            stt=stt,
            chat=await open_chat(settings, stack, client, metrics),
            tts=await _open_voice(settings, stack, client, metrics),
            defaults=default_options(settings),
            limits=limits(settings),
            stt_connect_s=settings.deadlines.stt_connect_s,
            stt_give_up_s=settings.deadlines.stt_give_up_s,
            stt_lag_s=recogniser_lag_s(settings),
            max_audio_lead_s=settings.limits.max_audio_lead_s,
            vad_rules=VadRules(
                threshold=settings.vad.threshold,
                min_speech_ms=settings.vad.min_speech_ms,
                silence_ms=settings.vad.silence_ms,
            ),
            slow_reply=(
                SlowReply(conversation.slow_reply_after_s, conversation.slow_reply_text)
                if conversation.slow_reply_after_s is not None
                else None
            ),
            recorder=await _open_recorder(settings, stack),
            sound_recorder=await _open_sound_recorder(settings, stack),
            metrics=metrics,
            companding=await _open_companding(stack),
            draining=draining,
        )


async def _open_companding(stack: AsyncExitStack) -> Companding:
    companding, tasks = Companding(), await stack.enter_async_context(background_nursery())
    tasks.start_soon(companding.run)
    return companding


@asynccontextmanager
async def open_speech_alone(settings: config.Settings) -> AsyncIterator[SpeechService]:
    """Run the service that speaks texts, and nothing else that a server has.

    Raises:
        ProviderError: the engine that the settings ask for is not installed.
    """
    async with AsyncExitStack() as stack:
        client, metrics = await stack.enter_async_context(open_client()), _make_metrics(settings)
        tts = await _open_voice(settings, stack, client, metrics)
        yield await stack.enter_async_context(open_speech_service(settings, tts, metrics))


async def _open_voice(
    settings: config.Settings, stack: AsyncExitStack, client: httpx.AsyncClient, metrics: Metrics
) -> TtsProvider:
    chosen = settings.providers
    first = GuardedTts(
        await _open_tts(chosen.tts, settings, stack, client), _watched_breaker(Upstream.TTS, metrics)
    )
    if chosen.tts_fallback is None:
        return first
    return FallbackTts(first, await _open_tts(chosen.tts_fallback, settings, stack, client))


def _make_metrics(settings: config.Settings) -> Metrics:
    return Metrics(worker=str(os.getpid()) if settings.server.workers > 1 else "")


def _watched_breaker(upstream: Upstream, metrics: Metrics) -> Breaker:
    breaker = Breaker(upstream, tell=metrics.upstream_failed)
    metrics.watch_breaker(upstream, lambda: breaker.is_open)
    return breaker


def open_speech_service(
    settings: config.Settings, tts: TtsProvider, metrics: Metrics | None = None
) -> AbstractAsyncContextManager[SpeechService]:
    """Run the service that speaks texts outside of conversations with this voice."""
    chosen = settings.synthesis
    return open_speech(
        tts,
        SpeechConfig(
            identity=voice_identity(settings),
            max_chars=chosen.max_chars,
            concurrency=chosen.concurrency,
            max_waiting=8 * chosen.concurrency,
        ),
        _make_cache(settings.cache),
        metrics,
    )


def _make_cache(chosen: config.Cache) -> SpeechCache:
    if not chosen.on:
        return SpeechCache(0)
    directory = Path(chosen.directory) / "speech"
    disk = DiskStore(directory, chosen.disk_mb * _MB) if chosen.disk_mb else None
    return SpeechCache(chosen.memory_mb * _MB, disk)


def voice_identity(settings: config.Settings) -> str:
    """What a text's sound depends on beside the request: the provider's settings, which show no secrets."""
    name = settings.providers.tts
    return f"{name} {getattr(settings, name)}"


def default_options(settings: config.Settings) -> SessionOptions:
    """What a session is that its client leaves all to us."""
    speech, conversation = settings.speech, settings.conversation
    output_format = speech.tts_output_format or f"pcm_{settings.synthesis.sample_rate_hz}"
    return SessionOptions(
        stt=SttOptions(
            audio_format=AudioFormat("pcm", speech.stt_sample_rate_hz),
            language_code=speech.stt_language_code,
            commit_strategy=speech.stt_commit_strategy,
        ),
        tts=TtsOptions(output_format=AudioFormat.parse(output_format)),
        turn=TurnOptions(
            barge_in=conversation.barge_in,
            min_words=conversation.barge_in_min_words,
            grace_ms=conversation.barge_in_grace_ms,
            uninterruptible=conversation.uninterruptible,
            backchannels=conversation.barge_in_backchannels,
            decide_within_ms=conversation.barge_in_decide_within_ms,
            resume_after_ms=conversation.barge_in_resume_after_ms,
            patience_ms=conversation.patience_ms,
            speculative_ms=conversation.speculative_ms,
            echo_filter=conversation.echo_filter,
            max_lead_ms=conversation.max_lead_ms,
            first_message=conversation.first_message,
            first_message_uninterruptible=conversation.first_message_uninterruptible,
            idle_prompt_s=conversation.idle_prompt_s,
            idle_prompt_text=conversation.idle_prompt_text,
            idle_prompt_times=conversation.idle_prompt_times,
            idle_timeout_s=settings.limits.idle_timeout_s,
        ),
    )


def limits(settings: config.Settings) -> Limits:
    """What a session may take. Thinking is cut off after all that its upstreams may take has passed."""
    wait = settings.deadlines
    return Limits(
        configure_within_s=settings.limits.configure_within_s,
        idle_s=settings.limits.idle_timeout_s,
        session_s=settings.limits.max_session_s,
        thinking_s=wait.chat_total_s + RetryPolicy().budget_s + wait.tts_connect_s + wait.tts_first_byte_s,
        history_turns=settings.conversation.history_turns,
    )


async def _open_recorder(settings: config.Settings, stack: AsyncExitStack) -> Recorder | None:
    chosen = settings.recording
    if chosen.directory is None:
        return None
    return await stack.enter_async_context(
        open_recorder(
            RecorderConfig(
                directory=Path(chosen.directory),
                text="plain" if chosen.text else "redacted",
                max_file_bytes=chosen.max_file_bytes,
                max_total_bytes=chosen.max_total_bytes,
                keep_days=chosen.keep_days,
            )
        )
    )


async def _open_sound_recorder(settings: config.Settings, stack: AsyncExitStack) -> SoundRecorder | None:
    chosen = settings.recording
    if chosen.directory is None or not chosen.audio:
        return None
    sound = SoundConfig(directory=Path(chosen.directory), max_s=chosen.audio_max_s)
    return await stack.enter_async_context(open_sound_recorder(sound))


@asynccontextmanager
async def open_recogniser(
    settings: config.Settings, breaker: Breaker | None = None
) -> AsyncIterator[SttProvider]:
    """Load or connect the recogniser that the settings choose, with the one that steps in for it.

    Raises:
        ProviderError: an engine that the settings ask for is not installed.
    """
    chosen = settings.providers
    async with AsyncExitStack() as stack:
        stt: SttProvider = GuardedStt(await _open_stt(chosen.stt, settings, stack), breaker)
        if chosen.stt_fallback is not None:
            second_stt = await _open_stt(chosen.stt_fallback, settings, stack)
            stt = FallbackStt(stt, second_stt, patience_s=settings.deadlines.stt_connect_s / 2)
        yield stt


def recogniser_lag_s(settings: config.Settings) -> float:
    """How far the slowest recogniser of the settings may be behind with its first words while it keeps up."""
    chosen = settings.providers
    return max(_LAG_S[name] for name in (chosen.stt, chosen.stt_fallback) if name is not None)


def make_transcribe(settings: config.Settings, stt: SttProvider, client: httpx.AsyncClient) -> Transcribe:
    """Choose who transcribes whole recordings: ElevenLabs has a service for them, others hear them out."""
    by_link = partial(transcribe, stt)
    if settings.providers.stt != "elevenlabs":
        return by_link
    chosen = settings.elevenlabs
    batch = ElevenLabsBatch(
        client=client,
        api_key=chosen.api_key or "",
        base_url=chosen.base_url,
        model_id=chosen.stt_batch_model_id,
        connect_s=settings.deadlines.stt_connect_s,
    )
    if settings.providers.stt_fallback is None:
        return batch.transcribe
    return with_fallback(batch.transcribe, by_link)


async def _open_stt(name: SttName, settings: config.Settings, stack: AsyncExitStack) -> SttProvider:
    match name:
        case "local":
            return await stack.enter_async_context(open_local_stt())
        case "elevenlabs":
            chosen = settings.elevenlabs
            return ElevenLabsStt(
                ElevenLabsSttConfig(
                    api_key=chosen.api_key or "", base_url=chosen.base_url, model_id=chosen.stt_model_id
                )
            )


async def _open_tts(
    name: TtsName, settings: config.Settings, stack: AsyncExitStack, client: httpx.AsyncClient
) -> TtsProvider:
    match name:
        case "local":
            piper = settings.local.piper_voice
            return await stack.enter_async_context(
                open_local_tts(voice=settings.local.voice, piper_voice=Path(piper) if piper else None)
            )
        case "elevenlabs":
            eleven = settings.elevenlabs
            return await stack.enter_async_context(
                open_elevenlabs_tts(
                    ElevenLabsTtsConfig(
                        api_key=eleven.api_key or "",
                        voice_id=eleven.voice_id,
                        base_url=eleven.base_url,
                        model_id=eleven.model_id,
                        stability=eleven.voice_stability,
                        similarity_boost=eleven.voice_similarity,
                        deadlines=_tts_deadlines(settings),
                    ),
                    client,
                )
            )
        case "openai":
            openai = settings.openai
            return await stack.enter_async_context(
                open_openai_tts(
                    OpenAiTtsConfig(
                        api_key=openai.api_key or "",
                        base_url=openai.base_url,
                        model_id=openai.tts_model,
                        voice_id=openai.tts_voice,
                        deadlines=_tts_deadlines(settings),
                    ),
                    client,
                )
            )

        case "deepgram":
            deepgram = settings.deepgram
            return await stack.enter_async_context(
                open_deepgram_tts(
                    DeepgramTtsConfig(
                        api_key=deepgram.api_key or "",
                        base_url=deepgram.base_url,
                        model_voice=deepgram.tts_model_voice,
                        deadlines=_tts_deadlines(settings),
                    ),
                    client,
                )
            )
        case "cartesia":
            cartesia = settings.cartesia
            return await stack.enter_async_context(
                open_cartesia_tts(
                    CartesiaTtsConfig(
                        api_key=cartesia.api_key or "",
                        base_url=cartesia.base_url,
                        voice_id=cartesia.voice_id,
                        model_id=cartesia.model_id,
                        version=cartesia.version,
                        language=cartesia.language,
                        deadlines=_tts_deadlines(settings),
                    ),
                    client,
                )
            )


def _tts_deadlines(settings: config.Settings) -> Deadlines:
    wait = settings.deadlines
    return Deadlines(
        connect_s=wait.tts_connect_s,
        first_byte_s=wait.tts_first_byte_s,
        stall_s=wait.tts_stall_s,
        total_s=wait.tts_total_s,
    )


async def open_chat(
    settings: config.Settings, stack: AsyncExitStack, client: httpx.AsyncClient, metrics: Metrics
) -> ChatProvider:
    """Open the chat provider that the settings choose, behind its breaker and the operator's screen."""
    chat = GuardedChat(await _open_chat(settings, stack, client), _watched_breaker(Upstream.CHAT, metrics))
    name = settings.conversation.screen
    return chat if name is None else ScreenedChat(chat, load_screen(name, "SCREEN_HOOK"))


async def _open_chat(
    settings: config.Settings, stack: AsyncExitStack, client: httpx.AsyncClient
) -> ChatProvider:
    wait = settings.deadlines
    deadlines = Deadlines(
        connect_s=wait.chat_connect_s,
        first_byte_s=wait.chat_first_byte_s,
        stall_s=wait.chat_stall_s,
        total_s=wait.chat_total_s,
    )
    match settings.providers.chat:
        case "demo":
            return DemoChat()
        case "backend":
            return BackendChat(client, _backend_config(settings, deadlines))
        case "speech_engine":
            return await stack.enter_async_context(
                open_speech_engine_chat(_speech_engine_config(settings, deadlines))
            )
        case "openai":
            return OpenAiChat(
                client,
                OpenAiConfig(
                    base_url=settings.llm.base_url or "",
                    api_key=settings.llm.api_key or "",
                    model=settings.llm.model or "",
                    system_prompt=settings.conversation.system_prompt or "",
                    allowed_base_urls=settings.backend.frontend_allowed_urls,
                    deadlines=deadlines,
                ),
            )


def _speech_engine_config(settings: config.Settings, deadlines: Deadlines) -> SpeechEngineConfig:
    chosen = settings.speech_engine
    return SpeechEngineConfig(url=chosen.url or "", api_key=chosen.api_key or "", deadlines=deadlines)


def _backend_config(settings: config.Settings, deadlines: Deadlines) -> BackendConfig:
    chosen = settings.backend
    return BackendConfig(
        base_url=chosen.base_url or "",
        api_key=chosen.api_key or "",
        defaults=BackendOptions(
            registration_id=chosen.registration_id,
            provider=chosen.provider,
            api_key=chosen.provider_api_key,
            model=chosen.model,
            base_url=chosen.provider_base_url,
            system_prompt=settings.conversation.system_prompt,
        ),
        register_path=chosen.register_path,
        chat_path=chosen.chat_path,
        allowed_base_urls=chosen.frontend_allowed_urls,
        registration_ttl_s=chosen.registration_ttl_s,
        deadlines=deadlines,
    )
