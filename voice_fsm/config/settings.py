"""All settings, by group; the groups' docstrings open the tables of ``docs/configuration.md``."""

from collections.abc import Iterator
from typing import Any, Final, Literal

import attrs

from voice_fsm.config.variables import (
    DAY,
    HTTP_URL,
    HTTP_URLS,
    KEY,
    KEYS,
    LANGUAGE,
    ORIGINS,
    PATH,
    POSITIVE,
    WS_URL,
    as_http,
    as_text,
    at_least,
    between,
    setting,
    variable_of,
    without_slash,
)
from voice_fsm.errors import ConfigError

OPENAI_URL: Final = "https://api.openai.com/v1"


@attrs.frozen(kw_only=True)
class Server:
    """Where the server listens, and what it logs."""

    host: str = setting("HOST", "127.0.0.1", "Address to listen on; 0.0.0.0 for all.")
    port: int = setting("PORT", 8000, "TCP port to listen on; 0 for any free one.", rule=between(0, 65535))
    workers: int = setting(
        "WORKERS", 1, "Processes. Limits count per process; a session stays in one.", rule=between(1, 256)
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "LOG_LEVEL", "info", "What is logged, and all that is graver."
    )
    log_format: Literal["console", "json"] = setting(
        "LOG_FORMAT", "console", "Log lines for people, or for machines."
    )
    allowed_origins: tuple[str, ...] = setting(
        "ALLOWED_ORIGINS",
        (),
        "Web pages that may open a session, by their origin. Unset: any page, and whoever sends no origin.",
        rule=ORIGINS,
    )


@attrs.frozen(kw_only=True)
class Access:
    """Who may use the server; docs/speech-api.md tells how keys and tokens are sent.

    A token is for one use. Each worker process remembers the tokens that it has seen: with `WORKERS` above 1
    a stolen one may serve once more at each of the others, until it expires.
    """

    service_api_keys: tuple[str, ...] = setting(
        "SERVICE_API_KEYS",
        (),
        "Keys that clients of this server show. Unset: it is open to whoever reaches it.",
        rule=KEYS,
        secret=True,
    )
    token_ttl_s: float = setting(
        "TOKEN_TTL_S",
        300.0,
        "How long a token may wait for its use, in seconds.",
        rule=POSITIVE,
    )
    token_secret: str | None = setting(
        "TOKEN_SECRET",
        None,
        "What tokens are signed with, where several machines share them. Unset: a new one at each start.",
        rule=KEY,
        secret=True,
    )
    guard_voice_ws: bool = setting(
        "GUARD_VOICE_WS",
        default=True,
        help="Whether /v1/voice/ws asks for a key or a token too, where SERVICE_API_KEYS is set.",
    )


@attrs.frozen(kw_only=True)
class Providers:
    """Who does what. A fallback takes over when the provider beside it cannot be reached."""

    stt: Literal["local", "elevenlabs"] = setting(
        "STT_PROVIDER",
        "local",
        "Who turns speech into text.",
        derived="elevenlabs if ELEVENLABS_API_KEY is set, else local",
    )
    tts: Literal["local", "elevenlabs", "openai", "deepgram", "cartesia"] = setting(
        "TTS_PROVIDER",
        "local",
        "Who speaks.",
        derived="elevenlabs if ELEVENLABS_API_KEY is set, else local",
    )
    chat: Literal["demo", "backend", "openai", "speech_engine"] = setting(
        "CHAT_PROVIDER",
        "demo",
        "Who answers: a built-in demonstration, a chat backend (BACKEND_...), an OpenAI-compatible API "
        "(LLM_...), or a Speech Engine server (SPEECH_ENGINE_...).",
        derived="backend if BACKEND_BASE_URL is set, else openai if LLM_BASE_URL is set, "
        "else speech_engine if SPEECH_ENGINE_URL is set, else demo",
    )
    stt_fallback: Literal["local", "elevenlabs"] | None = setting(
        "STT_FALLBACK", None, "Who steps in for STT_PROVIDER."
    )
    tts_fallback: Literal["local", "elevenlabs", "openai", "deepgram", "cartesia"] | None = setting(
        "TTS_FALLBACK", None, "Who steps in for TTS_PROVIDER."
    )


@attrs.frozen(kw_only=True)
class Speech:
    """What sessions start from; `session.configure` can change it."""

    stt_sample_rate_hz: Literal[8000, 16000, 22050, 24000, 44100, 48000] = setting(
        "STT_SAMPLE_RATE", 16000, "Samples a second of the microphone's PCM."
    )
    stt_language_code: str | None = setting(
        "STT_LANGUAGE_CODE", None, "Language of the user, such as en. Unset: the provider finds out."
    )
    stt_commit_strategy: Literal["vad", "local_vad", "manual"] = setting(
        "STT_COMMIT_STRATEGY",
        "vad",
        "Who ends an utterance: STT_PROVIDER by silence, the server's voice detector (VAD_...) by silence, "
        "or the client.",
    )
    tts_output_format: (
        Literal[
            "pcm_8000",
            "pcm_16000",
            "pcm_22050",
            "pcm_24000",
            "pcm_32000",
            "pcm_44100",
            "pcm_48000",
            "ulaw_8000",
            "mp3_22050_32",
            "mp3_44100_32",
            "mp3_44100_64",
            "mp3_44100_96",
            "mp3_44100_128",
            "mp3_44100_192",
            "opus_48000_32",
            "opus_48000_64",
            "opus_48000_96",
            "opus_48000_128",
            "opus_48000_192",
        ]
        | None
    ) = setting(
        "TTS_OUTPUT_FORMAT",
        None,
        "Format of the assistant's audio; docs/providers.md tells which voice speaks which.",
        derived="PCM of TTS_SAMPLE_RATE",
    )


@attrs.frozen(kw_only=True)
class Synthesis:
    """Texts that are spoken outside of conversations, for one request each."""

    sample_rate_hz: Literal[8000, 16000, 22050, 24000, 32000, 44100, 48000] = setting(
        "TTS_SAMPLE_RATE",
        24000,
        "Samples a second of the PCM that a request gets if it asks for nothing else, "
        "and conversations without TTS_OUTPUT_FORMAT.",
    )
    max_chars: int = setting(
        "MAX_SPEECH_CHARS", 5000, "The longest text of one request, in characters.", rule=at_least(1)
    )
    concurrency: int = setting(
        "SPEECH_CONCURRENCY",
        8,
        "Texts that are synthesized at a time; eight times as many may wait, the next is refused.",
        rule=at_least(1),
    )


@attrs.frozen(kw_only=True)
class Cache:
    """Texts that were spoken outside of conversations are kept, and given again to who asks for the same."""

    on: bool = setting("CACHE", default=True, help="Whether anything is kept at all.")
    directory: str = setting("CACHE_DIR", "cache", "Where audio is kept on disk; workers share it.")
    disk_mb: int = setting(
        "CACHE_DISK_MB", 512, "What it may take there, in MB; 0 keeps none on disk.", rule=at_least(0)
    )
    memory_mb: int = setting(
        "CACHE_MEMORY_MB",
        64,
        "What each process keeps in memory beside that, in MB; 0 keeps none.",
        rule=at_least(0),
    )


@attrs.frozen(kw_only=True)
class Uploads:
    """Recordings that are transcribed outside of conversations."""

    max_bytes: int = setting(
        "MAX_UPLOAD_BYTES", 26_214_400, "Size of a recording's file, in bytes.", rule=at_least(1024)
    )
    max_recording_s: float = setting(
        "MAX_RECORDING_S", 600.0, "Length of a recording, in seconds.", rule=POSITIVE
    )
    concurrency: int = setting(
        "TRANSCRIPTION_CONCURRENCY",
        4,
        "Recordings that are transcribed at a time; the next is refused.",
        rule=at_least(1),
    )


@attrs.frozen(kw_only=True)
class Conversation:
    """How the assistant takes and keeps its turn."""

    system_prompt: str | None = setting(
        "SYSTEM_PROMPT", None, "What the model is told about its part, where the server registers or asks it."
    )
    history_turns: int = setting(
        "HISTORY_TURNS", 20, "Earlier turns that the chat provider is shown.", rule=at_least(0)
    )
    barge_in: Literal["partial", "vad", "off"] = setting(
        "BARGE_IN",
        "partial",
        "What interrupts the assistant: a partial transcript, or already the voice detector (vad).",
    )
    barge_in_min_words: int = setting(
        "BARGE_IN_MIN_WORDS", 1, "Words that a partial transcript needs to interrupt.", rule=at_least(1)
    )
    barge_in_grace_ms: int = setting(
        "BARGE_IN_GRACE_MS",
        0,
        "Time after the first audio of a turn in which nothing said interrupts it, in ms.",
        rule=at_least(0),
    )
    uninterruptible: bool = setting(
        "UNINTERRUPTIBLE",
        default=False,
        help="Whether turns are spoken to their end, whatever the user says.",
    )
    barge_in_backchannels: Literal["ignore", "interrupt"] = setting(
        "BARGE_IN_BACKCHANNELS",
        "ignore",
        "What sounds of listening, such as mm-hmm and okay, do to a reply.",
    )
    barge_in_decide_within_ms: int = setting(
        "BARGE_IN_DECIDE_WITHIN_MS",
        1500,
        "How long a reply is paused at most when the voice detector hears speech (BARGE_IN=vad), in ms.",
        rule=between(100, 10_000),
    )
    barge_in_resume_after_ms: int = setting(
        "BARGE_IN_RESUME_AFTER_MS",
        400,
        "How long after speech without words it goes on, in ms.",
        rule=between(0, 10_000),
    )
    patience_ms: int | None = setting(
        "PATIENCE_MS",
        None,
        "How long an utterance that breaks off (um, and, a number being spelt) is waited upon, in ms. "
        "Unset: not at all.",
        rule=between(0, 10_000),
    )
    speculative_ms: int | None = setting(
        "SPECULATIVE_MS",
        None,
        "How long a partial transcript has to stand for the chat provider to be asked before it is final, in "
        "ms. Costs calls in vain. Unset: never.",
        rule=between(50, 10_000),
    )
    echo_filter: bool = setting(
        "ECHO_FILTER",
        default=True,
        help="Whether the assistant's own words, heard by the microphone, are taken out of transcripts.",
    )
    max_lead_ms: int | None = setting(
        "MAX_LEAD_MS",
        None,
        "How far a reply's audio is sent ahead of what is heard, in ms. Unset: as fast as it comes.",
        rule=at_least(100),
    )
    first_message: str | None = setting(
        "FIRST_MESSAGE", None, "What the assistant says as soon as a session is configured."
    )
    first_message_uninterruptible: bool = setting(
        "FIRST_MESSAGE_UNINTERRUPTIBLE",
        default=False,
        help="Whether what the user says leaves the first message alone.",
    )
    idle_prompt_s: float | None = setting(
        "IDLE_PROMPT_S",
        None,
        "Silence after which the assistant speaks by itself, in seconds. Unset: it does not.",
        rule=POSITIVE,
    )
    idle_prompt_text: str | None = setting(
        "IDLE_PROMPT_TEXT", None, "What it says then. Unset: the chat provider is asked."
    )
    idle_prompt_times: int = setting(
        "IDLE_PROMPT_TIMES",
        1,
        "How often it does so before the user has said something again.",
        rule=at_least(0),
    )
    screen: str | None = setting(
        "SCREEN_HOOK",
        None,
        "An async function of yours, as package.module:function, that sees each question before the chat "
        "provider does, and may change it or answer in its place.",
    )
    slow_reply_after_s: float | None = setting(
        "SLOW_REPLY_AFTER_S",
        None,
        "How long the chat provider may be silent before SLOW_REPLY_TEXT is spoken. Unset: it is not.",
        rule=POSITIVE,
    )
    slow_reply_text: str = setting(
        "SLOW_REPLY_TEXT", "One moment, please.", "What is said while a reply is slow to come."
    )


@attrs.frozen(kw_only=True)
class VAD:
    """The server's own voice detector, which hears the user speak before there are words.

    It listens where BARGE_IN or `turn.barge_in` is vad, where STT_COMMIT_STRATEGY or `stt.commit_strategy` is
    local_vad, and for clients that ask for `speech` events.
    """

    threshold: float = setting(
        "VAD_THRESHOLD",
        0.9,
        "Probability from which a sound counts as speech: higher for fewer coughs and doors.",
        rule=between(0.1, 0.95),
    )
    min_speech_ms: int = setting(
        "VAD_MIN_SPEECH_MS", 30, "Speech that is a start, in ms.", rule=between(30, 2000)
    )
    silence_ms: int = setting(
        "VAD_SILENCE_MS", 600, "Silence after which speech has stopped, in ms.", rule=between(100, 5000)
    )


@attrs.frozen(kw_only=True)
class ElevenLabs:
    """ElevenLabs, for speech to text and text to speech."""

    api_key: str | None = setting("ELEVENLABS_API_KEY", None, "API key.", rule=KEY, secret=True)
    base_url: str = setting(
        "ELEVENLABS_BASE_URL",
        "https://api.elevenlabs.io",
        "Where its API is; its WebSockets are on the same host.",
        rule=HTTP_URL,
        converter=without_slash,
    )
    voice_id: str = setting("ELEVENLABS_VOICE_ID", "21m00Tcm4TlvDq8ikWAM", "The assistant's voice.")
    model_id: str = setting(
        "ELEVENLABS_MODEL_ID",
        "eleven_turbo_v2_5",
        "Model that speaks. The old spelling eleven_turbo_v2.5 works too.",
        converter=lambda name: "eleven_turbo_v2_5" if name == "eleven_turbo_v2.5" else name,
    )
    voice_stability: float = setting(
        "ELEVENLABS_VOICE_STABILITY", 0.9, "How even the voice is.", rule=between(0, 1)
    )
    voice_similarity: float = setting(
        "ELEVENLABS_VOICE_SIMILARITY", 0.9, "How close to its original the voice is.", rule=between(0, 1)
    )
    stt_model_id: str = setting("ELEVENLABS_STT_MODEL_ID", "scribe_v2_realtime", "Model that listens.")
    stt_batch_model_id: str = setting(
        "ELEVENLABS_STT_BATCH_MODEL_ID", "scribe_v2", "Model that transcribes recordings."
    )


@attrs.frozen(kw_only=True)
class OpenAi:
    """OpenAI's text to speech, or that of a server with the same API."""

    api_key: str | None = setting(
        "OPENAI_API_KEY", None, "API key; needed at OpenAI itself.", rule=KEY, secret=True
    )
    base_url: str = setting(
        "OPENAI_BASE_URL",
        OPENAI_URL,
        "Where its API is; /audio/speech is appended.",
        rule=HTTP_URL,
        converter=without_slash,
    )
    tts_model: str = setting("OPENAI_TTS_MODEL", "gpt-4o-mini-tts", "Model that speaks.")
    tts_voice: str = setting("OPENAI_TTS_VOICE", "alloy", "The assistant's voice.")


@attrs.frozen(kw_only=True)
class Deepgram:
    """Deepgram, for text to speech."""

    api_key: str | None = setting(
        "DG_API_KEY", None, "API key.", rule=KEY, secret=True, also="DEEPGRAM_API_KEY"
    )
    base_url: str = setting(
        "DG_BASE_URL",
        "https://api.deepgram.com",
        "Where its API is; its WebSockets are on the same host.",
        rule=HTTP_URL,
        converter=as_http,
        also="DEEPGRAM_BASE_URL",
    )
    tts_model_voice: str = setting(
        "DG_TTS_MODEL_VOICE", "aura-2-asteria-en", "The assistant's voice, which is a model."
    )


@attrs.frozen(kw_only=True)
class Cartesia:
    """Cartesia, for text to speech."""

    api_key: str | None = setting("CARTESIA_API_KEY", None, "API key.", rule=KEY, secret=True)
    base_url: str = setting(
        "CARTESIA_BASE_URL",
        "https://api.cartesia.ai",
        "Where its API is; its WebSockets are on the same host.",
        rule=HTTP_URL,
        converter=as_http,
    )
    voice_id: str = setting(
        "CARTESIA_VOICE_ID", "e07c00bc-4134-4eae-9ea4-1a55fb45746b", "The assistant's voice."
    )
    model_id: str = setting("CARTESIA_MODEL_ID", "sonic-3.5", "Model that speaks.")
    version: str = setting(
        "CARTESIA_VERSION", "2026-03-01", "Version of its API, by the day that it is of.", rule=DAY
    )
    language: str = setting(
        "CARTESIA_LANGUAGE", "en", "Language of the replies, by its two-letter code.", rule=LANGUAGE
    )


@attrs.frozen(kw_only=True)
class Local:
    """The engines on this machine."""

    voice: str | None = setting("LOCAL_VOICE", None, "Voice of espeak-ng, such as en-gb. Unset: its default.")
    piper_voice: str | None = setting(
        "PIPER_VOICE", None, "Path of a Piper voice (.onnx, with its .json beside it), spoken instead."
    )


@attrs.frozen(kw_only=True)
class Backend:
    """The chat backend, for CHAT_PROVIDER=backend.

    Without BACKEND_REGISTRATION_ID the server registers the model that BACKEND_PROVIDER and the variables
    after it describe, and uses the id that it is given.
    """

    base_url: str | None = setting(
        "BACKEND_BASE_URL", None, "Where the backend is.", rule=HTTP_URL, converter=without_slash
    )
    api_key: str | None = setting(
        "BACKEND_API_KEY", None, "The server's key to the backend.", rule=KEY, secret=True
    )
    registration_id: str | None = setting(
        "BACKEND_REGISTRATION_ID", None, "A model that is registered already."
    )
    provider: str | None = setting("BACKEND_PROVIDER", None, "Who runs the model that is to be registered.")
    provider_api_key: str | None = setting(
        "BACKEND_PROVIDER_API_KEY", None, "The backend's key to BACKEND_PROVIDER.", rule=KEY, secret=True
    )
    model: str | None = setting("BACKEND_MODEL", None, "Name of the model that is to be registered.")
    provider_base_url: str | None = setting(
        "BACKEND_PROVIDER_BASE_URL",
        None,
        "Where the backend finds BACKEND_PROVIDER.",
        rule=HTTP_URL,
        converter=without_slash,
    )
    register_path: str = setting(
        "BACKEND_REGISTER_PATH", "/v1/register", "Path that registers a model.", rule=PATH
    )
    chat_path: str = setting("BACKEND_CHAT_PATH", "/v1/chat", "Path that answers a turn.", rule=PATH)
    registration_ttl_s: float = setting(
        "BACKEND_REGISTRATION_TTL_S",
        3600.0,
        "How long a registration is used before it is made anew.",
        rule=POSITIVE,
    )
    allow_frontend_auth: bool = setting(
        "ALLOW_FRONTEND_BACKEND_AUTH",
        default=False,
        help="Whether clients may bring a model, key and prompt of their own in session.configure.",
    )
    frontend_allowed_urls: tuple[str, ...] = setting(
        "FRONTEND_BACKEND_ALLOWED_URLS",
        (),
        "Values of backend.base_url that clients may bring, beside BACKEND_PROVIDER_BASE_URL "
        "(or LLM_BASE_URL). Unset: no others.",
        rule=HTTP_URLS,
        converter=lambda urls: tuple(map(without_slash, urls)),
    )


@attrs.frozen(kw_only=True)
class LLM:
    """An OpenAI-compatible API, for CHAT_PROVIDER=openai."""

    base_url: str | None = setting(
        "LLM_BASE_URL",
        None,
        "Where it is, up to and with /v1.",
        rule=HTTP_URL,
        converter=without_slash,
    )
    api_key: str | None = setting("LLM_API_KEY", None, "API key, where one is needed.", rule=KEY, secret=True)
    model: str | None = setting("LLM_MODEL", None, "Name of the model.")


@attrs.frozen(kw_only=True)
class Agents:
    """Agents, for clients of `/v1/convai/conversation` ([agents.md](agents.md))."""

    file: str | None = setting(
        "AGENTS_FILE",
        None,
        "Path of the TOML file that lists them. Unset: there is one, made of the server's settings.",
    )
    default_id: str = setting("AGENT_ID", "default", "Id of that one agent.")
    conversations_db: str | None = setting(
        "CONVERSATIONS_DB",
        None,
        "Path of the SQLite file that keeps what is said to and by agents. Unset: nothing is kept.",
    )
    conversations_keep_days: float = setting(
        "CONVERSATIONS_KEEP_DAYS", 30.0, "Days after which a conversation is forgotten.", rule=POSITIVE
    )


@attrs.frozen(kw_only=True)
class SpeechEngine:
    """ElevenLabs' Speech Engine protocol: to a chat server that speaks it, and from ElevenLabs to us."""

    url: str | None = setting(
        "SPEECH_ENGINE_URL",
        None,
        "WebSocket of the Speech Engine server that answers, for CHAT_PROVIDER=speech_engine.",
        rule=WS_URL,
    )
    api_key: str | None = setting(
        "SPEECH_ENGINE_API_KEY",
        None,
        "Key that signs the calls to SPEECH_ENGINE_URL, and that proves calls of /v1/speech-engine/ws.",
        derived="ELEVENLABS_API_KEY",
        rule=KEY,
        secret=True,
    )
    engine_id: str | None = setting(
        "SPEECH_ENGINE_ID",
        None,
        "The engine (seng_...) or agent that GET /api/token gives conversation tokens for.",
    )


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long the server waits for others, in seconds, before the turn or link is given up."""

    stt_connect_s: float = setting(
        "STT_CONNECT_S", 10.0, "For a link to the recogniser to be ready.", rule=POSITIVE
    )
    stt_give_up_s: float = setting(
        "STT_GIVE_UP_S", 30.0, "For a lost link to be made again, with all attempts.", rule=POSITIVE
    )
    chat_connect_s: float = setting(
        "CHAT_CONNECT_S", 5.0, "For a connection to the chat provider.", rule=POSITIVE
    )
    chat_first_byte_s: float = setting(
        "CHAT_FIRST_BYTE_S", 30.0, "For the first text of a reply.", rule=POSITIVE
    )
    chat_stall_s: float = setting(
        "CHAT_STALL_S", 15.0, "For the next piece of a reply that has begun.", rule=POSITIVE
    )
    chat_total_s: float = setting("CHAT_TOTAL_S", 120.0, "For a whole reply.", rule=POSITIVE)
    tts_connect_s: float = setting(
        "TTS_CONNECT_S", 5.0, "For a connection to the synthesiser.", rule=POSITIVE
    )
    tts_first_byte_s: float = setting(
        "TTS_FIRST_BYTE_S", 10.0, "For the first audio of a text.", rule=POSITIVE
    )
    tts_stall_s: float = setting(
        "TTS_STALL_S", 10.0, "For the next piece of audio that has begun.", rule=POSITIVE
    )
    tts_total_s: float = setting("TTS_TOTAL_S", 120.0, "For all audio of a text.", rule=POSITIVE)


@attrs.frozen(kw_only=True)
class Limits:
    """What a client, a session and the process may take."""

    configure_within_s: float = setting(
        "CONFIGURE_WITHIN_S", 30.0, "Time to send session.configure, in seconds.", rule=POSITIVE
    )
    max_message_bytes: int = setting(
        "MAX_MESSAGE_BYTES", 1_048_576, "Size of a client's message; beyond it 1009.", rule=at_least(1024)
    )
    max_audio_lead_s: float = setting(
        "MAX_AUDIO_LEAD_S",
        10.0,
        "How far microphone audio may run ahead of real time, in seconds; the surplus is dropped.",
        rule=POSITIVE,
    )
    idle_timeout_s: float = setting(
        "IDLE_TIMEOUT_S",
        600.0,
        "Time without speech, prompt or reply after which a session ends, in seconds.",
        rule=POSITIVE,
    )
    max_session_s: float = setting("MAX_SESSION_S", 3600.0, "Length of a session, in seconds.", rule=POSITIVE)
    max_sessions: int = setting(
        "MAX_SESSIONS", 200, "Sessions at a time; the next is refused with 1013.", rule=at_least(1)
    )
    max_occupancy: float = setting(
        "MAX_OCCUPANCY",
        80.0,
        "Share of a core, in per cent, that the sessions of a process may take, before new ones are refused "
        "with 1013; 0: whatever it is.",
        rule=between(0, 100),
    )
    drain_s: float = setting(
        "DRAIN_S",
        20.0,
        "Time that connections get to end by themselves when the server stops, in seconds.",
        rule=at_least(0),
    )
    tcp_user_timeout_s: float = setting(
        "TCP_USER_TIMEOUT_S",
        5.0,
        "Time after which a client that takes no data is cut off, in seconds (Linux).",
        rule=POSITIVE,
    )


@attrs.frozen(kw_only=True)
class Recording:
    """The flight recorder: every event and effect of each session, for `voice-fsm replay`, and its sound."""

    directory: str | None = setting(
        "RECORD_DIR", None, "Directory to write a file for each session to. Unset: nothing is recorded."
    )
    text: bool = setting(
        "RECORD_TEXT", True, "Whether the words that were said are recorded, or placeholders of their length."
    )
    audio: bool = setting(
        "RECORD_AUDIO",
        False,
        "Whether what was heard of each session is recorded as well, in `RECORD_DIR`: 3.8 MB a minute.",
    )
    audio_max_s: float = setting(
        "RECORD_AUDIO_MAX_S",
        3600.0,
        "Where the sound of a session's recording ends, in seconds.",
        rule=between(1, 60_000),
    )
    max_file_bytes: int = setting(
        "RECORD_MAX_FILE_BYTES",
        10_000_000,
        "Where the steps of a session's recording end.",
        rule=at_least(10_000),
    )
    max_total_bytes: int = setting(
        "RECORD_MAX_TOTAL_BYTES",
        1_000_000_000,
        "Size of all recordings together; the oldest are removed.",
        rule=at_least(10_000),
    )
    keep_days: float = setting(
        "RECORD_KEEP_DAYS", 7.0, "Days after which a recording is removed.", rule=POSITIVE
    )


@attrs.frozen(kw_only=True)
class Settings:
    """All settings. They fit together: a provider has what it needs."""

    server: Server = Server()
    access: Access = Access()
    providers: Providers = Providers()
    speech: Speech = Speech()
    synthesis: Synthesis = Synthesis()
    cache: Cache = Cache()
    uploads: Uploads = Uploads()
    conversation: Conversation = Conversation()
    vad: VAD = VAD()
    elevenlabs: ElevenLabs = ElevenLabs()
    openai: OpenAi = OpenAi()
    deepgram: Deepgram = Deepgram()
    cartesia: Cartesia = Cartesia()
    local: Local = Local()
    backend: Backend = Backend()
    llm: LLM = LLM()
    agents: Agents = Agents()
    speech_engine: SpeechEngine = SpeechEngine()
    deadlines: Deadlines = Deadlines()
    limits: Limits = Limits()
    recording: Recording = Recording()

    def __attrs_post_init__(self) -> None:
        _check_speech_providers(self)
        _check_chat_provider(self)
        if self.recording.audio:
            _need("RECORD_DIR", self.recording.directory, "RECORD_AUDIO=true")

    def masked(self) -> dict[str, str]:
        """Every variable and its value as text, with "set" or "unset" in the place of a secret."""
        return {
            variable_of(field).name: _masked(field, getattr(getattr(self, group), field.name))
            for group, field in fields()
        }


def groups() -> dict[str, Any]:
    """The class of each group of settings, by its name in `Settings`."""
    return {group.name: group.type for group in attrs.fields(Settings)}


def fields() -> Iterator[tuple[str, "attrs.Attribute[Any]"]]:
    """Every setting, with the name of its group."""
    for name, group in groups().items():
        for field in attrs.fields(group):
            yield name, field


def _masked(field: "attrs.Attribute[Any]", value: object) -> str:
    if variable_of(field).secret:
        return "set" if value else "unset"
    return as_text(value) or "unset"


# --- what has to fit together -----------------------------------------------------------------------


def _check_speech_providers(settings: Settings) -> None:
    chosen = settings.providers
    for step, provider, fallback in (
        ("STT", chosen.stt, chosen.stt_fallback),
        ("TTS", chosen.tts, chosen.tts_fallback),
    ):
        _need_key(settings, provider, f"{step}_PROVIDER")
        _need_key(settings, fallback, f"{step}_FALLBACK")
        if fallback == provider:
            raise ConfigError(f"{step}_FALLBACK", f"must differ from {step}_PROVIDER")


def _need_key(settings: Settings, provider: str | None, by: str) -> None:
    match provider:
        case "elevenlabs":
            _need("ELEVENLABS_API_KEY", settings.elevenlabs.api_key, f"{by}=elevenlabs")
        case "openai" if settings.openai.base_url == OPENAI_URL:
            _need("OPENAI_API_KEY", settings.openai.api_key, f"{by}=openai")
        case "deepgram":
            _need("DG_API_KEY", settings.deepgram.api_key, f"{by}=deepgram")
        case "cartesia":
            _need("CARTESIA_API_KEY", settings.cartesia.api_key, f"{by}=cartesia")


def _check_chat_provider(settings: Settings) -> None:
    match settings.providers.chat:
        case "backend":
            _need("BACKEND_BASE_URL", settings.backend.base_url, "CHAT_PROVIDER=backend")
        case "openai":
            _need("LLM_BASE_URL", settings.llm.base_url, "CHAT_PROVIDER=openai")
            _need("LLM_MODEL", settings.llm.model, "CHAT_PROVIDER=openai")
        case "speech_engine":
            _need("SPEECH_ENGINE_URL", settings.speech_engine.url, "CHAT_PROVIDER=speech_engine")


def _need(variable: str, value: str | None, by: str) -> None:
    if not value:
        raise ConfigError(variable, f"is needed for {by}")
