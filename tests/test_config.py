import math
import pickle
import re
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm import config
from voice_fsm.audio import AudioFormat
from voice_fsm.config import Settings, load_settings, retirement_warnings, spelling_warnings
from voice_fsm.config.settings import fields
from voice_fsm.config.variables import variable_of
from voice_fsm.errors import ConfigError

DEFAULTS = {
    "HOST": "127.0.0.1",
    "PORT": "8000",
    "WORKERS": "1",
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "console",
    "ALLOWED_ORIGINS": "unset",
    "SERVICE_API_KEYS": "unset",
    "TOKEN_TTL_S": "300",
    "TOKEN_SECRET": "unset",
    "GUARD_VOICE_WS": "true",
    "STT_PROVIDER": "local",
    "TTS_PROVIDER": "local",
    "CHAT_PROVIDER": "demo",
    "STT_FALLBACK": "unset",
    "TTS_FALLBACK": "unset",
    "STT_SAMPLE_RATE": "16000",
    "STT_LANGUAGE_CODE": "unset",
    "STT_COMMIT_STRATEGY": "vad",
    "TTS_OUTPUT_FORMAT": "unset",
    "TTS_SAMPLE_RATE": "24000",
    "MAX_SPEECH_CHARS": "5000",
    "SPEECH_CONCURRENCY": "8",
    "CACHE": "true",
    "CACHE_DIR": "cache",
    "CACHE_DISK_MB": "512",
    "CACHE_MEMORY_MB": "64",
    "MAX_UPLOAD_BYTES": "26214400",
    "MAX_RECORDING_S": "600",
    "TRANSCRIPTION_CONCURRENCY": "4",
    "SYSTEM_PROMPT": "unset",
    "HISTORY_TURNS": "20",
    "BARGE_IN": "partial",
    "BARGE_IN_MIN_WORDS": "1",
    "BARGE_IN_GRACE_MS": "0",
    "UNINTERRUPTIBLE": "false",
    "BARGE_IN_BACKCHANNELS": "ignore",
    "BARGE_IN_DECIDE_WITHIN_MS": "1500",
    "BARGE_IN_RESUME_AFTER_MS": "400",
    "PATIENCE_MS": "unset",
    "SPECULATIVE_MS": "unset",
    "ECHO_FILTER": "true",
    "MAX_LEAD_MS": "unset",
    "FIRST_MESSAGE": "unset",
    "FIRST_MESSAGE_UNINTERRUPTIBLE": "false",
    "IDLE_PROMPT_S": "unset",
    "IDLE_PROMPT_TEXT": "unset",
    "IDLE_PROMPT_TIMES": "1",
    "SLOW_REPLY_AFTER_S": "unset",
    "SLOW_REPLY_TEXT": "One moment, please.",
    "VAD_THRESHOLD": "0.9",
    "VAD_MIN_SPEECH_MS": "30",
    "VAD_SILENCE_MS": "600",
    "ELEVENLABS_API_KEY": "unset",
    "ELEVENLABS_BASE_URL": "https://api.elevenlabs.io",
    "ELEVENLABS_VOICE_ID": "21m00Tcm4TlvDq8ikWAM",
    "ELEVENLABS_MODEL_ID": "eleven_turbo_v2_5",
    "ELEVENLABS_VOICE_STABILITY": "0.9",
    "ELEVENLABS_VOICE_SIMILARITY": "0.9",
    "ELEVENLABS_STT_MODEL_ID": "scribe_v2_realtime",
    "ELEVENLABS_STT_BATCH_MODEL_ID": "scribe_v2",
    "OPENAI_API_KEY": "unset",
    "OPENAI_BASE_URL": "https://api.openai.com/v1",
    "OPENAI_TTS_MODEL": "gpt-4o-mini-tts",
    "OPENAI_TTS_VOICE": "alloy",
    "DG_API_KEY": "unset",
    "DG_BASE_URL": "https://api.deepgram.com",
    "DG_TTS_MODEL_VOICE": "aura-2-asteria-en",
    "CARTESIA_API_KEY": "unset",
    "CARTESIA_BASE_URL": "https://api.cartesia.ai",
    "CARTESIA_VOICE_ID": "e07c00bc-4134-4eae-9ea4-1a55fb45746b",
    "CARTESIA_MODEL_ID": "sonic-3.5",
    "CARTESIA_VERSION": "2026-03-01",
    "CARTESIA_LANGUAGE": "en",
    "LOCAL_VOICE": "unset",
    "PIPER_VOICE": "unset",
    "BACKEND_BASE_URL": "unset",
    "BACKEND_API_KEY": "unset",
    "BACKEND_REGISTRATION_ID": "unset",
    "BACKEND_PROVIDER": "unset",
    "BACKEND_PROVIDER_API_KEY": "unset",
    "BACKEND_MODEL": "unset",
    "BACKEND_PROVIDER_BASE_URL": "unset",
    "BACKEND_REGISTER_PATH": "/v1/register",
    "BACKEND_CHAT_PATH": "/v1/chat",
    "BACKEND_REGISTRATION_TTL_S": "3600",
    "ALLOW_FRONTEND_BACKEND_AUTH": "false",
    "FRONTEND_BACKEND_ALLOWED_URLS": "unset",
    "LLM_BASE_URL": "unset",
    "LLM_API_KEY": "unset",
    "LLM_MODEL": "unset",
    "AGENTS_FILE": "unset",
    "AGENT_ID": "default",
    "CONVERSATIONS_DB": "unset",
    "CONVERSATIONS_KEEP_DAYS": "30",
    "SCREEN_HOOK": "unset",
    "SPEECH_ENGINE_URL": "unset",
    "SPEECH_ENGINE_API_KEY": "unset",
    "SPEECH_ENGINE_ID": "unset",
    "STT_CONNECT_S": "10",
    "STT_GIVE_UP_S": "30",
    "CHAT_CONNECT_S": "5",
    "CHAT_FIRST_BYTE_S": "30",
    "CHAT_STALL_S": "15",
    "CHAT_TOTAL_S": "120",
    "TTS_CONNECT_S": "5",
    "TTS_FIRST_BYTE_S": "10",
    "TTS_STALL_S": "10",
    "TTS_TOTAL_S": "120",
    "CONFIGURE_WITHIN_S": "30",
    "MAX_MESSAGE_BYTES": "1048576",
    "MAX_AUDIO_LEAD_S": "10",
    "IDLE_TIMEOUT_S": "600",
    "MAX_SESSION_S": "3600",
    "MAX_SESSIONS": "200",
    "MAX_OCCUPANCY": "80",
    "DRAIN_S": "20",
    "TCP_USER_TIMEOUT_S": "5",
    "RECORD_DIR": "unset",
    "RECORD_TEXT": "true",
    "RECORD_AUDIO": "false",
    "RECORD_AUDIO_MAX_S": "3600",
    "RECORD_MAX_FILE_BYTES": "10000000",
    "RECORD_MAX_TOTAL_BYTES": "1000000000",
    "RECORD_KEEP_DAYS": "7",
}
"""What the server does when nothing is set: people rely on these."""

SECRETS = {
    "SERVICE_API_KEYS",
    "TOKEN_SECRET",
    "ELEVENLABS_API_KEY",
    "OPENAI_API_KEY",
    "DG_API_KEY",
    "CARTESIA_API_KEY",
    "BACKEND_API_KEY",
    "BACKEND_PROVIDER_API_KEY",
    "LLM_API_KEY",
    "SPEECH_ENGINE_API_KEY",
}


def refusal(**environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ)
    return caught.value


def of(settings: Settings, path: str) -> Any:
    group, name = path.split(".")
    return getattr(getattr(settings, group), name)


def test_defaults_stand_for_what_is_unset() -> None:
    """An empty environment gives a server that works by itself, on this machine alone."""
    assert load_settings({}) == Settings()
    assert Settings().masked() == DEFAULTS


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("HOST", " 0.0.0.0 ", "server.host", "0.0.0.0"),
        ("PORT", "0", "server.port", 0),
        ("PORT", "65535", "server.port", 65535),
        ("LOG_LEVEL", "WARNING", "server.log_level", "warning"),
        ("LOG_FORMAT", "json", "server.log_format", "json"),
        (
            "ALLOWED_ORIGINS",
            "https://a.example, http://localhost:3000,",
            "server.allowed_origins",
            ("https://a.example", "http://localhost:3000"),
        ),
        ("STT_SAMPLE_RATE", "8000", "speech.stt_sample_rate_hz", 8000),
        ("TTS_OUTPUT_FORMAT", "mp3_44100_128", "speech.tts_output_format", "mp3_44100_128"),
        ("SYSTEM_PROMPT", "Be brief, and kind.", "conversation.system_prompt", "Be brief, and kind."),
        ("FIRST_MESSAGE_UNINTERRUPTIBLE", "on", "conversation.first_message_uninterruptible", True),
        ("MAX_LEAD_MS", "800", "conversation.max_lead_ms", 800),
        ("IDLE_PROMPT_TIMES", "0", "conversation.idle_prompt_times", 0),
        ("SLOW_REPLY_AFTER_S", "2.5", "conversation.slow_reply_after_s", 2.5),
        ("BARGE_IN_GRACE_MS", "250", "conversation.barge_in_grace_ms", 250),
        ("ELEVENLABS_VOICE_STABILITY", "1", "elevenlabs.voice_stability", 1.0),
        ("ELEVENLABS_MODEL_ID", "eleven_turbo_v2.5", "elevenlabs.model_id", "eleven_turbo_v2_5"),
        ("ELEVENLABS_MODEL_ID", "eleven_flash_v2_5", "elevenlabs.model_id", "eleven_flash_v2_5"),
        ("ELEVENLABS_BASE_URL", "http://127.0.0.1:9/", "elevenlabs.base_url", "http://127.0.0.1:9"),
        ("ALLOW_FRONTEND_BACKEND_AUTH", "True", "backend.allow_frontend_auth", True),
        ("ALLOW_FRONTEND_BACKEND_AUTH", "1", "backend.allow_frontend_auth", True),
        ("ALLOW_FRONTEND_BACKEND_AUTH", "off", "backend.allow_frontend_auth", False),
        (
            "FRONTEND_BACKEND_ALLOWED_URLS",
            "https://llm.example/v1/",
            "backend.frontend_allowed_urls",
            ("https://llm.example/v1",),
        ),
        ("DRAIN_S", "0", "limits.drain_s", 0.0),
        ("CHAT_STALL_S", "0.25", "deadlines.chat_stall_s", 0.25),
    ],
)
def test_variable_sets_its_field(name: str, text: str, path: str, value: object) -> None:
    """A value comes through with its field's type."""
    read = of(load_settings({name: text}), path)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("PORT", "abc", "must be a whole number from 0 to 65535, not 'abc'"),
        ("PORT", "65536", "must be a whole number from 0 to 65535, not '65536'"),
        ("PORT", "-1", "must be a whole number from 0 to 65535, not '-1'"),
        ("PORT", "80.0", "must be a whole number"),
        ("PORT", "8_000", "must be a whole number"),
        ("PORT", "٨٠", "must be a whole number"),
        ("PORT", "9" * 5000, "must be a whole number from 0 to 65535, not '" + "9" * 60 + "'"),
        ("CHAT_STALL_S", "0", "must be a number above 0, not '0'"),
        ("CHAT_STALL_S", "nan", "must be a number above 0, not 'nan'"),
        ("CHAT_STALL_S", "inf", "must be a number"),
        ("CHAT_STALL_S", "9" * 400, "must be a number"),
        ("CHAT_STALL_S", "15s", "must be a number"),
        ("LOG_FORMAT", "xml", "must be one of console, json, not 'xml'"),
        ("STT_SAMPLE_RATE", "11025", "must be one of 8000, 16000, 22050, 24000, 44100, 48000, not '11025'"),
        ("ALLOW_FRONTEND_BACKEND_AUTH", "maybe", "must be true or false, not 'maybe'"),
        ("BARGE_IN", "on", "must be one of partial, vad, off, not 'on'"),
        ("HISTORY_TURNS", "-1", "must be a whole number of at least 0"),
        ("MAX_MESSAGE_BYTES", "1023", "must be a whole number of at least 1024"),
        ("ELEVENLABS_VOICE_STABILITY", "1.1", "must be a number from 0 to 1"),
        ("ELEVENLABS_BASE_URL", "api.elevenlabs.io", "must be text that is an http:// or https:// URL"),
        ("ELEVENLABS_BASE_URL", "https://", "must be text that is an http:// or https:// URL"),
        ("ELEVENLABS_BASE_URL", "https://[", "must be text that is an http:// or https:// URL"),
        ("ELEVENLABS_BASE_URL", "https://a.example:https", "must be text that is an http:// or https:// URL"),
        ("ELEVENLABS_BASE_URL", "https://a.example:65536", "must be text that is an http:// or https:// URL"),
        ("ELEVENLABS_BASE_URL", "https://a.example:0", "must be text that is an http:// or https:// URL"),
        ("BACKEND_CHAT_PATH", "v1/chat", "must be text that begins with /"),
        ("ALLOWED_ORIGINS", "https://a.example/", "must be a comma-separated list of origins such as"),
        ("ALLOWED_ORIGINS", "*", "must be a comma-separated list of origins such as"),
        (
            "FRONTEND_BACKEND_ALLOWED_URLS",
            "https://a.example,b.example",
            "must be a comma-separated list of http",
        ),
    ],
)
def test_wrong_value_names_its_variable_and_what_is_allowed(name: str, text: str, allowed: str) -> None:
    """The operator learns which variable to mend and how."""
    error = refusal(**{name: text})
    assert error.field == name
    assert error.message.startswith(f"{name}: {allowed}")


@pytest.mark.parametrize("name", sorted(SECRETS))
@pytest.mark.parametrize("text", ["sk secret", "sk-„secret“"])
def test_wrong_secret_is_not_repeated(name: str, text: str) -> None:
    """A key that no HTTP header can hold is refused by name only."""
    error = refusal(**{name: text})
    assert re.fullmatch(f"{name}: must be [a-z -]+ of ASCII characters without spaces", error.message)


def test_url_with_a_password_is_refused_and_not_repeated() -> None:
    """A password in a URL would end up in logs; not in this error either."""
    error = refusal(BACKEND_BASE_URL="https://user:hunter2@backend.example")
    assert error.field == "BACKEND_BASE_URL"
    assert "hunter2" not in error.message


@pytest.mark.parametrize("text", ["", "  "])
def test_empty_value_counts_as_unset(text: str, tmp_path: Path) -> None:
    """An empty variable changes nothing, and does not hide the file's value."""
    assert load_settings({"PORT": text}) == Settings()
    dotenv = tmp_path / ".env"
    dotenv.write_text("PORT=9000\nHOST=\n")
    assert load_settings({"PORT": text}, dotenv).server == config.Server(port=9000)


def test_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's variables win; the file stands for the rest, word for word, and changes nothing."""
    monkeypatch.setenv("HOME_OF_TEST", "expanded")
    dotenv = tmp_path / ".env"
    dotenv.write_text(
        '# comment\nexport PORT=9000\nHOST=0.0.0.0\nSYSTEM_PROMPT="Say ${HOME_OF_TEST}. # Now."\nFLAG\n'
    )
    environ = {"PORT": "9001"}
    settings = load_settings(environ, dotenv)
    assert settings.server == config.Server(port=9001, host="0.0.0.0")
    assert settings.conversation.system_prompt == "Say ${HOME_OF_TEST}. # Now."
    assert environ == {"PORT": "9001"}


def test_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the environment is that of the process, at the time of the call."""
    monkeypatch.setenv("MAX_SESSIONS", "7")
    assert load_settings().limits.max_sessions == 7


def test_missing_file_is_no_error(tmp_path: Path) -> None:
    """A .env is optional."""
    assert load_settings({}, tmp_path / ".env") == Settings()


def test_file_that_is_not_text_is_a_config_error(tmp_path: Path) -> None:
    """A .env in another encoding is told by its path."""
    dotenv = tmp_path / ".env"
    dotenv.write_bytes("PORT=9000".encode("utf-16"))
    with pytest.raises(ConfigError) as caught:
        load_settings({}, dotenv)
    assert caught.value.field == str(dotenv)


@pytest.mark.parametrize(
    ("environ", "providers"),
    [
        ({}, ("local", "local", "demo")),
        ({"ELEVENLABS_API_KEY": "k"}, ("elevenlabs", "elevenlabs", "demo")),
        ({"ELEVENLABS_API_KEY": "k", "STT_PROVIDER": "local"}, ("local", "elevenlabs", "demo")),
        ({"ELEVENLABS_API_KEY": " "}, ("local", "local", "demo")),
        ({"BACKEND_BASE_URL": "http://b"}, ("local", "local", "backend")),
        ({"LLM_BASE_URL": "http://l", "LLM_MODEL": "m"}, ("local", "local", "openai")),
        (
            {"BACKEND_BASE_URL": "http://b", "LLM_BASE_URL": "http://l", "LLM_MODEL": "m"},
            ("local", "local", "backend"),
        ),
        (
            {
                "BACKEND_BASE_URL": "http://b",
                "LLM_BASE_URL": "http://l",
                "LLM_MODEL": "m",
                "CHAT_PROVIDER": "openai",
            },
            ("local", "local", "openai"),
        ),
        ({"SPEECH_ENGINE_URL": "wss://e/ws"}, ("local", "local", "speech_engine")),
        ({"BACKEND_BASE_URL": "http://b", "CHAT_PROVIDER": "demo"}, ("local", "local", "demo")),
    ],
)
def test_providers_follow_from_what_is_set(environ: dict[str, str], providers: tuple[str, str, str]) -> None:
    """A key or address is enough to choose its provider; an explicit choice goes before that."""
    chosen = load_settings(environ).providers
    assert (chosen.stt, chosen.tts, chosen.chat) == providers


@pytest.mark.parametrize(
    ("environ", "variable", "message"),
    [
        ({"STT_PROVIDER": "elevenlabs"}, "ELEVENLABS_API_KEY", "is needed for STT_PROVIDER=elevenlabs"),
        ({"TTS_PROVIDER": "elevenlabs"}, "ELEVENLABS_API_KEY", "is needed for TTS_PROVIDER=elevenlabs"),
        ({"TTS_PROVIDER": "openai"}, "OPENAI_API_KEY", "is needed for TTS_PROVIDER=openai"),
        ({"TTS_PROVIDER": "deepgram"}, "DG_API_KEY", "is needed for TTS_PROVIDER=deepgram"),
        ({"TTS_PROVIDER": "cartesia"}, "CARTESIA_API_KEY", "is needed for TTS_PROVIDER=cartesia"),
        ({"RECORD_AUDIO": "true"}, "RECORD_DIR", "is needed for RECORD_AUDIO=true"),
        ({"STT_FALLBACK": "elevenlabs"}, "ELEVENLABS_API_KEY", "is needed for STT_FALLBACK=elevenlabs"),
        ({"TTS_FALLBACK": "elevenlabs"}, "ELEVENLABS_API_KEY", "is needed for TTS_FALLBACK=elevenlabs"),
        ({"CHAT_PROVIDER": "backend"}, "BACKEND_BASE_URL", "is needed for CHAT_PROVIDER=backend"),
        ({"CHAT_PROVIDER": "openai"}, "LLM_BASE_URL", "is needed for CHAT_PROVIDER=openai"),
        ({"LLM_BASE_URL": "http://l"}, "LLM_MODEL", "is needed for CHAT_PROVIDER=openai"),
        ({"STT_FALLBACK": "local"}, "STT_FALLBACK", "must differ from STT_PROVIDER"),
        ({"TTS_FALLBACK": "local"}, "TTS_FALLBACK", "must differ from TTS_PROVIDER"),
        (
            {"ELEVENLABS_API_KEY": "k", "TTS_FALLBACK": "elevenlabs"},
            "TTS_FALLBACK",
            "must differ from TTS_PROVIDER",
        ),
    ],
)
def test_settings_have_to_fit_together(environ: dict[str, str], variable: str, message: str) -> None:
    """A provider without what it needs stops the start, and the message names what is missing."""
    error = refusal(**environ)
    assert (error.field, error.message) == (variable, f"{variable}: {message}")


def test_a_server_like_openais_may_want_no_key() -> None:
    """Only OpenAI itself is known to refuse whoever shows none."""
    settings = load_settings({"TTS_PROVIDER": "openai", "OPENAI_BASE_URL": "http://speech.example/v1/"})
    assert (settings.openai.base_url, settings.openai.api_key) == ("http://speech.example/v1", None)


@pytest.mark.parametrize(
    ("environ", "path", "value"),
    [
        ({"DEEPGRAM_BASE_URL": "wss://dg.example/"}, "deepgram.base_url", "https://dg.example"),
        ({"DEEPGRAM_BASE_URL": "http://a", "DG_BASE_URL": "http://b"}, "deepgram.base_url", "http://b"),
        ({"DEEPGRAM_API_KEY": "k"}, "deepgram.api_key", "k"),
        ({"CARTESIA_BASE_URL": "ws://127.0.0.1:9"}, "cartesia.base_url", "http://127.0.0.1:9"),
        ({"CARTESIA_VERSION": "2024-06-10"}, "cartesia.version", "2024-06-10"),
    ],
)
def test_voices_settings_have_the_names_and_spellings_in_use(
    environ: dict[str, str], path: str, value: str
) -> None:
    """A second name serves where the first is unset, and a WebSocket's address names its host as well."""
    assert of(load_settings(environ), path) == value
    assert spelling_warnings(environ) == ()


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {"TTS_PROVIDER": "openai", "OPENAI_API_KEY": "k", "OPENAI_TTS_MODEL": "tts-1"},
            ("OPENAI_TTS_MODEL: OpenAI ends tts-1 on 2027-01-06", "gpt-realtime-2.1-mini"),
        ),
        (
            {"TTS_FALLBACK": "openai", "OPENAI_API_KEY": "k"},
            ("OPENAI_TTS_MODEL: OpenAI ends gpt-4o-mini-tts on 2027-01-06", "TTS_PROVIDER"),
        ),
        (
            {"TTS_PROVIDER": "cartesia", "CARTESIA_API_KEY": "k", "CARTESIA_MODEL_ID": "sonic-english"},
            ("CARTESIA_MODEL_ID: Cartesia ended sonic-english on 2026-06-01", "sonic-3.5"),
        ),
    ],
)
def test_a_retired_model_in_use_is_warned_of(environ: dict[str, str], told: tuple[str, str]) -> None:
    """One warning tells when it ends and what there is instead; the model stays as it was set."""
    settings = load_settings(environ)
    (warning,) = retirement_warnings(settings)
    begin, successor = told
    assert warning.startswith(begin)
    assert successor in warning
    assert settings.cartesia.model_id == environ.get("CARTESIA_MODEL_ID", "sonic-3.5")


@pytest.mark.parametrize(
    "environ",
    [
        {"OPENAI_TTS_MODEL": "tts-1", "CARTESIA_MODEL_ID": "sonic-english"},
        {"TTS_PROVIDER": "openai", "OPENAI_BASE_URL": "http://other/v1", "OPENAI_TTS_MODEL": "tts-1"},
    ],
)
def test_a_model_that_is_not_in_use_or_somebody_elses_is_not_warned_of(environ: dict[str, str]) -> None:
    """A server of one's own may well go on serving what OpenAI ends."""
    assert retirement_warnings(load_settings(environ)) == ()


def test_fallbacks_are_taken() -> None:
    """Each step may have a second provider."""
    providers = load_settings(
        {"ELEVENLABS_API_KEY": "k", "STT_FALLBACK": "local", "TTS_FALLBACK": "LOCAL"}
    ).providers
    assert (providers.stt_fallback, providers.tts_fallback) == ("local", "local")


def test_rules_hold_for_settings_made_in_code() -> None:
    """Settings that break a rule cannot be made, wherever they come from."""
    with pytest.raises(ConfigError, match="PORT: must be a whole number from 0 to 65535"):
        config.Server(port=-1)
    with pytest.raises(ConfigError, match="ELEVENLABS_API_KEY"):
        Settings(providers=config.Providers(tts="elevenlabs"))


def test_one_elevenlabs_key_serves_the_speech_engine_too() -> None:
    """It made the engine, as a rule; another one can be set."""
    assert load_settings({"ELEVENLABS_API_KEY": "sk-1"}).speech_engine.api_key == "sk-1"
    both = {"ELEVENLABS_API_KEY": "sk-1", "SPEECH_ENGINE_API_KEY": "sk-2"}
    assert load_settings(both).speech_engine.api_key == "sk-2"


def test_secrets_are_shown_nowhere() -> None:
    """Neither the repr nor the view for printing holds a key; the view says whether there is one."""
    environ = dict.fromkeys(SECRETS, "sk-secret") | {"BACKEND_BASE_URL": "http://b"}
    settings = load_settings(environ)
    assert "sk-secret" not in repr(settings)
    masked = settings.masked()
    assert "sk-secret" not in str(masked)
    assert {name for name, text in masked.items() if text == "set"} == SECRETS
    assert masked["BACKEND_BASE_URL"] == "http://b"


def test_masked_view_shows_values_as_one_writes_them() -> None:
    """What is printed can be copied back into the environment."""
    environ = {
        "ALLOWED_ORIGINS": "https://a.example,https://b.example",
        "ALLOW_FRONTEND_BACKEND_AUTH": "true",
        "CHAT_STALL_S": "0.5",
        "MAX_SESSION_S": "12345678",
        "STT_SAMPLE_RATE": "8000",
    }
    masked = load_settings(environ).masked()
    assert {name: masked[name] for name in environ} == environ
    assert load_settings({name: text for name, text in masked.items() if text != "unset"}) == load_settings(
        environ
    )


def test_every_secret_is_declared_as_one() -> None:
    """A variable whose name says key is kept out of sight."""
    declared = {variable_of(field).name for _, field in fields() if variable_of(field).secret}
    assert declared == SECRETS
    assert declared == {name for name in DEFAULTS if name.endswith(("_KEY", "_KEYS", "_SECRET"))}


def test_every_tts_format_is_an_audio_format() -> None:
    """The formats that may be set are formats that the server knows."""
    chosen, _none = get_args(attrs.fields(config.Speech).tts_output_format.type)
    names = get_args(chosen)
    assert [str(AudioFormat.parse(name)) for name in names] == list(names)


def test_settings_survive_the_way_to_another_process() -> None:
    """Workers are given the settings that were read once."""
    settings = load_settings({"ELEVENLABS_API_KEY": "k", "PORT": "9"})
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301  # our own bytes


@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        ("ELEVENLABS_APIKEY", ("ELEVENLABS_APIKEY is not a setting; ELEVENLABS_API_KEY is.",)),
        ("MAX_SESSION", ("MAX_SESSION is not a setting; MAX_SESSIONS is.",)),
        ("STT_PROVIDERS", ("STT_PROVIDERS is not a setting; STT_PROVIDER is.",)),
        ("TTS_PROVIDER", ()),
        ("HOSTNAME", ()),
        ("PATH", ()),
        ("XTTS_PROVIDER", ()),
        ("LOG_SOMETHING_ELSE", ()),
        ("BACKEND_COLOUR", ()),
    ],
)
def test_misspelt_variable_is_pointed_out(name: str, warnings: tuple[str, ...], tmp_path: Path) -> None:
    """What begins like a setting and looks like one is told, from both sources; other programs' are not."""
    assert spelling_warnings({name: "x"}) == warnings
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"{name}=x\n")
    assert spelling_warnings({}, dotenv) == warnings


@given(st.sampled_from(sorted(DEFAULTS)), st.text(st.characters(exclude_characters="\0")))
def test_any_value_is_taken_or_refused_by_name(name: str, text: str) -> None:
    """No value whatever raises anything but a `ConfigError` that names a variable."""
    try:
        settings = load_settings({name: text})
    except ConfigError as error:
        refused = error.field
    else:
        refused = None
        numbers = [getattr(getattr(settings, group), field.name) for group, field in fields()]
        assert all(math.isfinite(number) for number in numbers if isinstance(number, float))
    assert refused is None or refused in DEFAULTS
