import json
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.audio import AudioFormat
from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm import effects
from voice_fsm.fsm.options import (
    BackendOptions,
    SessionOptions,
    SttOptions,
    TtsOptions,
    TurnOptions,
    VoiceSettings,
)
from voice_fsm.wire import codec, voice
from voice_fsm.wire.voice import (
    AssistantAudio,
    AssistantAudioAlignment,
    AssistantAudioChunk,
    AssistantAudioEnd,
    AssistantAudioStart,
    AssistantDone,
    AssistantInterrupted,
    AssistantMessage,
    AssistantPaused,
    AssistantResumed,
    AssistantStarted,
    AssistantTextDelta,
    AudioAppend,
    AudioCommit,
    BackendChoice,
    ClientMessage,
    Error,
    Ping,
    PlaybackProgress,
    Pong,
    ResponseCancel,
    ServerMessage,
    SessionClosing,
    SessionConfigure,
    SessionConfigured,
    SessionReady,
    SessionUpdate,
    StateChanged,
    SttPatch,
    SttSessionStarted,
    TextPrompt,
    TranscriptCommitted,
    TranscriptPartial,
    TtsPatch,
    TurnMetrics,
    TurnPatch,
    UserSpeechStarted,
    UserSpeechStopped,
    VoicePatch,
    Word,
)

PCM_24K = AudioFormat("pcm", 24000)
MP3 = AudioFormat("mp3", 44100, 128)

CLIENT_EXAMPLES: list[tuple[str, ClientMessage]] = [
    ('{"type":"session.configure"}', SessionConfigure()),
    (
        """{"type": "session.configure", "session_id": "voice-test-1",
            "backend": {"registration_id": "reg-1"},
            "stt": {"model_id": "scribe_v2_realtime", "sample_rate": 16000, "audio_format": "pcm_16000",
                    "language_code": "en", "commit_strategy": "vad", "vad_threshold": 0.4,
                    "vad_silence_threshold_secs": 1, "min_speech_duration_ms": 100,
                    "min_silence_duration_ms": 100, "include_timestamps": true},
            "tts": {"voice_id": "v1", "model_id": "eleven_turbo_v2_5", "output_format": "mp3_44100_128",
                    "voice_settings": {"stability": 0.9, "similarity_boost": 0.8, "speed": 1.1, "style": 0,
                                       "use_speaker_boost": false}},
            "audio_out": "binary", "events": ["state", "text.delta", "metrics", "alignment"],
            "turn": {"barge_in": "off", "min_words": 2, "min_speech_ms": 200, "grace_ms": 300,
                     "merge_window_ms": 1500, "patience_ms": 700, "speculative_ms": 300,
                     "uninterruptible": true, "backchannels": "interrupt", "echo_filter": false,
                     "pausable": true, "decide_within_ms": 900, "resume_after_ms": 300, "max_lead_ms": 500,
                     "first_message": "Hi.", "first_message_uninterruptible": true,
                     "idle_prompt_s": 9, "idle_prompt_text": "Hello?", "idle_prompt_times": 2,
                     "idle_timeout_s": 60},
            "resume": "token"}""",
        SessionConfigure(
            session_id="voice-test-1",
            backend=BackendChoice(registration_id="reg-1"),
            stt=SttPatch(
                model_id="scribe_v2_realtime",
                sample_rate=16000,
                audio_format=AudioFormat("pcm", 16000),
                language_code="en",
                commit_strategy="vad",
                vad_threshold=0.4,
                vad_silence_threshold_secs=1.0,
                min_speech_duration_ms=100,
                min_silence_duration_ms=100,
                include_timestamps=True,
            ),
            tts=TtsPatch(
                voice_id="v1",
                model_id="eleven_turbo_v2_5",
                output_format=MP3,
                voice_settings=VoicePatch(
                    stability=0.9, similarity_boost=0.8, speed=1.1, style=0.0, use_speaker_boost=False
                ),
            ),
            audio_out="binary",
            events=("state", "text.delta", "metrics", "alignment"),
            turn=TurnPatch(
                barge_in="off",
                min_words=2,
                min_speech_ms=200,
                grace_ms=300,
                merge_window_ms=1500,
                patience_ms=700,
                speculative_ms=300,
                uninterruptible=True,
                backchannels="interrupt",
                echo_filter=False,
                pausable=True,
                decide_within_ms=900,
                resume_after_ms=300,
                max_lead_ms=500,
                first_message="Hi.",
                first_message_uninterruptible=True,
                idle_prompt_s=9.0,
                idle_prompt_text="Hello?",
                idle_prompt_times=2,
                idle_timeout_s=60.0,
            ),
            resume="token",
        ),
    ),
    (
        """{"type": "session.configure", "backend": {"provider": "openai", "api_key": "sk-1", "model": "m",
            "base_url": "https://llm.example/v1", "system_prompt": "Be brief.\\nBe kind."}}""",
        SessionConfigure(
            backend=BackendChoice(
                provider="openai",
                api_key="sk-1",
                model="m",
                base_url="https://llm.example/v1",
                system_prompt="Be brief.\nBe kind.",
            )
        ),
    ),
    ('{"type":"audio.append","audio":"AAEC"}', AudioAppend(audio=b"\x00\x01\x02")),
    ('{"type":"audio.append","audio":""}', AudioAppend(audio=b"")),
    (
        '{"type":"audio.append","audio":"AAE=","sample_rate":48000,"previous_text":"and\\nso"}',
        AudioAppend(audio=b"\x00\x01", sample_rate=48000, previous_text="and\nso"),
    ),
    ('{"type":"audio.commit"}', AudioCommit()),
    ('{"type":"text.prompt","text":" Hello?\\n"}', TextPrompt(text=" Hello?\n")),
    ('{"type":"response.cancel"}', ResponseCancel()),
    ('{"type":"response.cancel","turn_id":3}', ResponseCancel(turn_id=3)),
    (
        '{"type":"playback.progress","turn_id":2,"played_ms":0}',
        PlaybackProgress(turn_id=2, played_ms=0.0),
    ),
    ('{"type":"session.update"}', SessionUpdate()),
    (
        '{"type":"session.update","stt":{"sample_rate":8000},"turn":{"barge_in":"partial"}}',
        SessionUpdate(
            stt=SttPatch(sample_rate=8000, audio_format=AudioFormat("pcm", 8000)),
            turn=TurnPatch(barge_in="partial"),
        ),
    ),
    ('{"type":"ping"}', Ping()),
    ('{"type":"ping","id":"a"}', Ping(id="a")),
    ('{"type":"ping","id":7}', Ping(id=7)),
]

SERVER_EXAMPLES: list[tuple[ServerMessage, dict[str, Any]]] = [
    (SessionReady(), {"type": "session.ready", "message": "Send session.configure to begin."}),
    (SessionConfigured(session_id="s"), {"type": "session.configured", "session_id": "s"}),
    (
        SttSessionStarted(session_id="s", config={"sample_rate": 16000}),
        {"type": "stt.session_started", "session_id": "s", "config": {"sample_rate": 16000}},
    ),
    (UserSpeechStarted(), {"type": "user.speech_started"}),
    (UserSpeechStopped(), {"type": "user.speech_stopped"}),
    (TranscriptPartial(text="hello wor"), {"type": "transcript.partial", "text": "hello wor"}),
    (TranscriptCommitted(text="hello"), {"type": "transcript.committed", "text": "hello"}),
    (
        TranscriptCommitted(text="hello", words=(Word(text="hello", start=0.5, end=1.25),)),
        {
            "type": "transcript.committed",
            "text": "hello",
            "words": [{"text": "hello", "start": 0.5, "end": 1.25}],
        },
    ),
    (
        AssistantStarted(turn_id=1, text="", cause="silence"),
        {"type": "assistant.started", "turn_id": 1, "text": "", "cause": "silence"},
    ),
    (AssistantStarted(turn_id=1, text="hello"), {"type": "assistant.started", "turn_id": 1, "text": "hello"}),
    (
        AssistantTextDelta(turn_id=1, text="Hi "),
        {"type": "assistant.text.delta", "turn_id": 1, "text": "Hi "},
    ),
    (
        AssistantMessage(turn_id=1, text="Hi there!", metadata={}),
        {"type": "assistant.message", "turn_id": 1, "text": "Hi there!", "metadata": {}},
    ),
    (
        AssistantAudioStart(turn_id=1, output_format=PCM_24K),
        {
            "type": "assistant.audio.start",
            "turn_id": 1,
            "content_type": "application/octet-stream",
            "output_format": "pcm_24000",
        },
    ),
    (
        AssistantAudioChunk(turn_id=1, audio=b"\x00\xff", output_format=MP3, chunk_index=1),
        {
            "type": "assistant.audio.chunk",
            "turn_id": 1,
            "audio": "AP8=",
            "content_type": "audio/mpeg",
            "output_format": "mp3_44100_128",
            "chunk_index": 1,
        },
    ),
    (
        AssistantAudioEnd(turn_id=1, output_format=AudioFormat("ulaw", 8000), chunk_count=42),
        {
            "type": "assistant.audio.end",
            "turn_id": 1,
            "content_type": "audio/basic",
            "output_format": "ulaw_8000",
            "chunk_count": 42,
        },
    ),
    (
        AssistantAudio(turn_id=1, audio=b"abc", output_format=AudioFormat("opus", 48000, 64)),
        {
            "type": "assistant.audio",
            "turn_id": 1,
            "audio": "YWJj",
            "content_type": "audio/ogg",
            "output_format": "opus_48000_64",
        },
    ),
    (
        AssistantAudioAlignment(turn_id=1, chars=("H", "i"), starts_ms=(0.0, 50.0), ends_ms=(50.0, 90.5)),
        {
            "type": "assistant.audio.alignment",
            "turn_id": 1,
            "chars": ["H", "i"],
            "starts_ms": [0.0, 50.0],
            "ends_ms": [50.0, 90.5],
        },
    ),
    (
        AssistantPaused(turn_id=1, played_ms=480.0),
        {"type": "assistant.paused", "turn_id": 1, "played_ms": 480.0},
    ),
    (
        AssistantResumed(turn_id=1, played_ms=480.0),
        {"type": "assistant.resumed", "turn_id": 1, "played_ms": 480.0},
    ),
    (
        AssistantInterrupted(turn_id=1, reason="speech", heard_text="Hi", heard_ms=250.0),
        {
            "type": "assistant.interrupted",
            "turn_id": 1,
            "reason": "speech",
            "heard_text": "Hi",
            "heard_ms": 250.0,
        },
    ),
    (
        AssistantDone(turn_id=1, outcome="interrupted"),
        {"type": "assistant.done", "turn_id": 1, "outcome": "interrupted"},
    ),
    (
        TurnMetrics(turn_id=1, first_text_ms=210.5, first_speech_ms=400.0),
        {"type": "turn.metrics", "turn_id": 1, "first_text_ms": 210.5, "first_speech_ms": 400.0},
    ),
    (
        StateChanged(from_="listening", to="thinking", input="committed", at_ms=1234.5),
        {
            "type": "state.changed",
            "from": "listening",
            "to": "thinking",
            "input": "committed",
            "at_ms": 1234.5,
        },
    ),
    (
        Error(message="No.", code="invalid_field", field="stt.sample_rate"),
        {
            "type": "error",
            "message": "No.",
            "code": "invalid_field",
            "field": "stt.sample_rate",
            "retryable": False,
            "fatal": False,
        },
    ),
    (
        Error(message="Late.", code="chat_timeout", turn_id=4, retryable=True, fatal=True),
        {
            "type": "error",
            "message": "Late.",
            "code": "chat_timeout",
            "turn_id": 4,
            "retryable": True,
            "fatal": True,
        },
    ),
    (SessionClosing(reason="idle"), {"type": "session.closing", "reason": "idle"}),
    (
        SessionClosing(reason="draining", resume="token"),
        {"type": "session.closing", "reason": "draining", "resume": "token"},
    ),
    (Pong(server_time_ms=1795273200000), {"type": "pong", "server_time_ms": 1795273200000}),
    (
        Pong(id="a", server_time_ms=1795273200000),
        {"type": "pong", "id": "a", "server_time_ms": 1795273200000},
    ),
]

SERVER: codec.Dialect[ServerMessage] = codec.Dialect(get_args(ServerMessage))


def refusal(type_: str, **fields: Any) -> ClientError:
    with pytest.raises(ClientError) as caught:
        voice.decode(json.dumps({"type": type_, **fields}))
    return caught.value


def nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def words_of(message: Any, field: str) -> tuple[str, ...]:
    return get_args(attrs.fields_dict(message)[field].type)


# --- client to server -------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "message"), CLIENT_EXAMPLES)
def test_client_message_is_read(text: str, message: ClientMessage) -> None:
    """Each message of the contract is understood, with and without its optional fields."""
    assert voice.decode(text) == message


def test_every_client_message_has_an_example() -> None:
    """The table above leaves out no message, and no two messages share a type."""
    classes = get_args(ClientMessage)
    assert {type(message) for _, message in CLIENT_EXAMPLES} == set(classes)
    assert len({cls.type for cls in classes}) == len(classes)


@pytest.mark.parametrize(
    ("path", "good", "bad", "must"),
    [
        (
            "stt.sample_rate",
            [8000, 16000, 22050, 24000, 44100, 48000],
            [0, 11025, 32000],
            "must be one of 8000",
        ),
        (
            "stt.audio_format",
            ["pcm_8000", "pcm_48000", "ulaw_8000"],
            ["pcm_32000", "mp3_44100_128", "ulaw_16000", "alaw_8000", "wav"],
            "must be",
        ),
        ("stt.vad_threshold", [0.1, 0.9], [0.09, 0.91, 1], "must be from 0.1 to 0.9"),
        ("stt.vad_silence_threshold_secs", [0.3, 3], [0.29, 3.01, -1], "must be from 0.3 to 3.0"),
        ("stt.min_speech_duration_ms", [50, 2000], [49, 2001], "must be from 50 to 2000"),
        ("stt.min_silence_duration_ms", [50, 2000], [49, 2001], "must be from 50 to 2000"),
        (
            "stt.commit_strategy",
            ["vad", "local_vad", "manual"],
            ["VAD", "auto"],
            'must be one of "vad", "local_vad", "manual"',
        ),
        ("stt.include_timestamps", [True, False], [1, "yes"], "must be true or false"),
        ("stt.language_code", ["en", "x" * 200], ["x" * 201, "e\nn"], "must be at most 200 printable"),
        (
            "tts.output_format",
            ["pcm_32000", "ulaw_8000", "alaw_8000", "mp3_22050_32", "opus_48000_192"],
            ["ulaw_0000", "mp3_44100_000", "mp3_11111_128", "flac"],
            "must",
        ),
        ("tts.voice_settings.stability", [0, 0.5, 1], [-0.1, 1.1], "must be from 0 to 1"),
        ("tts.voice_settings.similarity_boost", [0, 1], [-1, 2], "must be from 0 to 1"),
        ("tts.voice_settings.style", [0, 1], [-1, 2], "must be from 0 to 1"),
        ("tts.voice_settings.speed", [0.25, 1, 4], [0.24, 4.1], "must be from 0.25 to 4"),
        ("turn.barge_in", ["partial", "vad", "off"], ["on", True], 'must be one of "partial", "vad", "off"'),
        ("turn.min_words", [1, 20], [0, -1], "must be at least 1"),
        ("turn.min_speech_ms", [0, 5000], [-1], "must be at least 0"),
        ("turn.grace_ms", [0, 5000], [-1], "must be at least 0"),
        ("turn.merge_window_ms", [0, 5000], [-1], "must be at least 0"),
        ("turn.idle_timeout_s", [0.5, 3600], [0, -1], "must be more than 0"),
        ("session_id", ["voice-test-1", "é" * 200], ["x" * 201, "a\x00b", "a\u202eb"], "must be at most 200"),
        ("resume", ["token"], ["x" * 201], "must be at most 200"),
        ("backend.api_key", ["x" * 4096], ["x" * 4097, "a\r\nb"], "must be at most 4096"),
        (
            "backend.base_url",
            ["http://localhost:11434/v1", "https://[::1]/"],
            ["localhost", "ftp://x", "https://", "http://[", "http://a b\n", "https://x/" + "y" * 2000],
            "must be a URL that begins with http:// or https://",
        ),
        ("audio_out", ["json", "binary"], ["base64"], 'must be one of "json", "binary"'),
        ("events", [[], ["state"]], ["state", {"state": True}], "must be a list"),
    ],
)
def test_settings_keep_to_their_ranges(path: str, good: list[Any], bad: list[Any], must: str) -> None:
    """Values at the edge are taken; those beyond get an error with the field's path and what it allows."""
    for value in good:
        assert isinstance(
            voice.decode(json.dumps({"type": "session.configure", **nested(path, value)})), SessionConfigure
        )
    for value in bad:
        error = refusal("session.configure", **nested(path, value))
        assert (error.fault, error.field) == (ClientFault.INVALID_FIELD, path)
        assert error.message.startswith(f"`{path}` {must}")


@pytest.mark.parametrize(
    ("type_", "field", "value"),
    [
        ("text.prompt", "text", ""),
        ("text.prompt", "text", " \n\t"),
        ("text.prompt", "text", "x" * 8001),
        ("audio.append", "sample_rate", 11025),
        ("response.cancel", "turn_id", 0),
        ("response.cancel", "turn_id", "1"),
        ("ping", "id", 1.5),
        ("ping", "id", ["a"]),
    ],
)
def test_other_messages_keep_to_their_ranges(type_: str, field: str, value: Any) -> None:
    """A value out of range is named, whichever message holds it."""
    others = {"audio": ""} if type_ == "audio.append" else {}
    error = refusal(type_, **others, **{field: value})
    assert (error.fault, error.field) == (ClientFault.INVALID_FIELD, field)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"played_ms": 5}, "turn_id"),
        ({"turn_id": 1}, "played_ms"),
        ({"turn_id": 1, "played_ms": -1}, "played_ms"),
        ({"turn_id": 0, "played_ms": 1}, "turn_id"),
    ],
)
def test_playback_progress_needs_both_numbers(fields: dict[str, Any], field: str) -> None:
    """A report of playback names its turn and how far it got."""
    assert refusal("playback.progress", **fields).field == field


def test_longest_prompt_is_taken() -> None:
    """8,000 characters are a prompt, whatever they are."""
    text = "é" * 8000
    assert voice.decode(json.dumps({"type": "text.prompt", "text": text})) == TextPrompt(text=text)


@pytest.mark.parametrize("audio", ["AAE", "not base64!", "AAE=\n"])
def test_audio_that_is_not_base64_has_its_own_code(audio: str) -> None:
    """A client that sends broken audio can tell it from a wrong setting."""
    error = refusal("audio.append", audio=audio)
    assert (error.code, error.field) == ("invalid_audio", "audio")


def test_sample_rate_has_to_agree_with_the_audio_format() -> None:
    """Either of the two fields is enough; if both are given they say the same."""
    error = refusal("session.update", stt={"sample_rate": 8000, "audio_format": "pcm_16000"})
    assert (error.fault, error.field) == (ClientFault.INVALID_FIELD, "stt.sample_rate")
    message = voice.decode('{"type":"session.update","stt":{"sample_rate":8000,"audio_format":"ulaw_8000"}}')
    assert message == SessionUpdate(stt=SttPatch(sample_rate=8000, audio_format=AudioFormat("ulaw", 8000)))


def test_names_left_blank_count_as_left_out() -> None:
    """A form sends "" for a box that was not filled in."""
    blank = dict.fromkeys(("model_id", "language_code"), " ")
    backend = dict.fromkeys((field.name for field in attrs.fields(BackendChoice)), "")
    message = voice.decode(
        json.dumps({"type": "session.configure", "session_id": "", "stt": blank, "backend": backend})
    )
    assert message == SessionConfigure(stt=SttPatch(), backend=BackendChoice())


# --- server to client -------------------------------------------------------------------------------


@pytest.mark.parametrize(("message", "fields"), SERVER_EXAMPLES)
def test_server_message_is_written(message: ServerMessage, fields: dict[str, Any]) -> None:
    """Each event has the contract's fields and its number, and nothing for what is not known."""
    assert json.loads(voice.encode(message, seq=9)) == {**fields, "seq": 9}


def test_every_server_message_has_an_example() -> None:
    """The table above leaves out no message, and no two messages share a type."""
    classes = get_args(ServerMessage)
    assert {type(message) for message, _ in SERVER_EXAMPLES} == set(classes)
    assert len({cls.type for cls in classes}) == len(classes)


def test_words_of_the_machine_are_words_of_the_wire() -> None:
    """Reasons and outcomes that the session machine gives are those that the messages take."""
    assert words_of(AssistantInterrupted, "reason") == get_args(effects.InterruptReason)
    assert words_of(AssistantDone, "outcome") == get_args(effects.Outcome)
    assert words_of(SessionClosing, "reason") == get_args(effects.ClosingReason)


def test_binary_frame_has_two_numbers_before_the_audio() -> None:
    """A binary frame begins with turn and chunk, big-endian, four bytes each."""
    assert voice.encode_audio_frame(1, 258, b"audio") == b"\x00\x00\x00\x01\x00\x00\x01\x02audio"


def test_secrets_and_audio_stay_out_of_reprs() -> None:
    """A message can be logged without the key it holds, and without a screen of bytes."""
    assert "sk-1" not in repr(SessionConfigure(backend=BackendChoice(api_key="sk-1")))
    chunk = AssistantAudioChunk(turn_id=1, audio=b"zz", output_format=PCM_24K, chunk_index=1)
    assert "zz" not in repr(
        (AudioAppend(audio=b"zz"), chunk, AssistantAudio(turn_id=1, audio=b"zz", output_format=MP3))
    )


# --- round trips ------------------------------------------------------------------------------------

SENTENCE = st.text(min_size=1, max_size=50).filter(str.strip)
NAME = st.none() | st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)
TURN = st.integers(1, 2**32 - 1)
MS = st.floats(0, 1e9)
FORMATS = st.sampled_from(
    ["pcm_8000", "pcm_24000", "ulaw_8000", "alaw_8000", "mp3_44100_128", "opus_48000_64"]
).map(AudioFormat.parse)
RATE = st.none() | st.sampled_from(voice.SAMPLE_RATES_HZ)
STT = st.builds(
    SttPatch,
    sample_rate=RATE,
    model_id=NAME,
    language_code=NAME,
    vad_threshold=st.none() | st.floats(0.1, 0.9),
    vad_silence_threshold_secs=st.none() | st.floats(0.3, 3.0),
    min_speech_duration_ms=st.none() | st.integers(50, 2000),
    min_silence_duration_ms=st.none() | st.integers(50, 2000),
)
SHARE = st.none() | st.floats(0, 1)
TTS = st.builds(
    TtsPatch,
    output_format=st.none() | FORMATS,
    voice_id=NAME,
    model_id=NAME,
    voice_settings=st.none()
    | st.builds(
        VoicePatch, stability=SHARE, similarity_boost=SHARE, style=SHARE, speed=st.none() | st.floats(0.25, 4)
    ),
)
COUNT = st.none() | st.integers(1, 10**6)
TURN_PATCH = st.builds(
    TurnPatch,
    barge_in=st.sampled_from([None, "partial", "vad", "off"]),
    min_words=COUNT,
    min_speech_ms=COUNT,
    grace_ms=COUNT,
    merge_window_ms=COUNT,
    idle_timeout_s=st.none() | st.floats(0.1, 1e6),
)
BACKEND = st.builds(
    BackendChoice,
    registration_id=NAME,
    provider=NAME,
    api_key=NAME,
    model=NAME,
    base_url=st.sampled_from([None, "http://127.0.0.1:1/v1"]),
    system_prompt=st.none() | SENTENCE,
)
CLIENT_MESSAGES = st.one_of(
    st.builds(
        SessionConfigure,
        session_id=NAME,
        backend=st.none() | BACKEND,
        stt=st.none() | STT,
        tts=st.none() | TTS,
        turn=st.none() | TURN_PATCH,
        resume=NAME,
    ),
    st.builds(SessionUpdate, stt=st.none() | STT, tts=st.none() | TTS, turn=st.none() | TURN_PATCH),
    st.builds(AudioAppend, audio=st.binary(), sample_rate=RATE, previous_text=st.none() | SENTENCE),
    st.builds(AudioCommit),
    st.builds(TextPrompt, text=SENTENCE),
    st.builds(ResponseCancel, turn_id=st.none() | TURN),
    st.builds(PlaybackProgress, turn_id=TURN, played_ms=MS),
    st.builds(Ping, id=st.none() | st.text() | st.integers(-(10**17), 10**17)),
)
JSON_OBJECTS = st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | st.lists(st.text()))
SERVER_MESSAGES = st.one_of(
    st.builds(SttSessionStarted, session_id=st.text(), config=JSON_OBJECTS),
    st.builds(
        TranscriptCommitted,
        text=st.text(),
        words=st.none() | st.lists(st.builds(Word, text=st.text(), start=MS, end=MS)).map(tuple),
    ),
    st.builds(AssistantTextDelta, turn_id=TURN, text=st.text()),
    st.builds(AssistantMessage, turn_id=TURN, text=st.text(), metadata=JSON_OBJECTS),
    st.builds(
        AssistantAudioChunk,
        turn_id=TURN,
        audio=st.binary(),
        output_format=FORMATS,
        chunk_index=st.integers(1, 2**32 - 1),
    ),
    st.builds(
        AssistantAudioAlignment,
        turn_id=TURN,
        chars=st.lists(st.text()).map(tuple),
        starts_ms=st.lists(MS).map(tuple),
        ends_ms=st.lists(MS).map(tuple),
    ),
    st.builds(
        Error,
        message=st.text(),
        code=st.text(),
        field=st.none() | st.text(),
        turn_id=st.none() | TURN,
        retryable=st.booleans(),
    ),
    st.builds(StateChanged, from_=st.text(), to=st.text(), input=st.text(), at_ms=MS),
    st.sampled_from([message for message, _ in SERVER_EXAMPLES]),
)


@given(CLIENT_MESSAGES)
def test_what_a_client_writes_the_server_reads(message: ClientMessage) -> None:
    """Client messages survive the wire as they are."""
    assert voice.decode(codec.encode(message)) == message


@given(SERVER_MESSAGES, st.integers(1, 2**53))
def test_what_the_server_writes_a_client_reads(message: ServerMessage, seq: int) -> None:
    """Server messages survive the wire as they are, with their number beside them."""
    text = voice.encode(message, seq)
    assert SERVER.decode(text) == message
    assert json.loads(text)["seq"] == seq


@given(SERVER_MESSAGES, st.integers(1, 2**53))
def test_every_event_is_written_as_the_codec_does(message: ServerMessage, seq: int) -> None:
    """The quick way for audio chunks gives the very text that the codec gives."""
    assert voice.encode(message, seq) == codec.encode(message, seq=seq)


# --- fuzzing ----------------------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@st.composite
def spoilt_examples(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A message of the contract with one of its values, at any depth, replaced by anything."""
    document = json.loads(draw(st.sampled_from(CLIENT_EXAMPLES))[0])
    path, parent = [], document
    while True:
        key = draw(st.sampled_from(sorted(parent)))
        path.append(key)
        if not (isinstance(parent[key], dict) and draw(st.booleans())):
            break
        parent = parent[key]
    parent[key] = draw(ANY_JSON)
    return ".".join(path), document


@given(spoilt_examples())
def test_spoilt_message_is_refused_where_it_was_spoilt(spoilt: tuple[str, dict[str, Any]]) -> None:
    """One wrong value in a right message raises nothing but `ClientError`, which leads to that value."""
    path, document = spoilt
    error = None
    try:
        voice.decode(json.dumps(document))
    except ClientError as refused:
        error = refused
    if error is not None and error.fault in (ClientFault.INVALID_FIELD, ClientFault.INVALID_AUDIO):
        assert error.field is not None
        # `sample_rate` is also at fault where it disagrees with `audio_format`.
        assert error.field.startswith(path) or (path, error.field) == ("stt.audio_format", "stt.sample_rate")


@given(st.binary() | st.text() | ANY_JSON.map(json.dumps))
def test_any_frame_gives_a_message_or_a_client_error(frame: str | bytes) -> None:
    """No frame whatever raises anything but `ClientError`."""
    try:
        message = voice.decode(frame)
    except ClientError:
        return
    assert isinstance(message, get_args(ClientMessage))


# --- options ----------------------------------------------------------------------------------------

DEFAULTS = SessionOptions(
    stt=SttOptions(language_code="de", vad_threshold=0.5),
    tts=TtsOptions(voice_id="house", voice_settings=VoiceSettings(stability=0.9, speed=1.2)),
    backend=BackendOptions(provider="house", api_key="sk-house", base_url="https://house.example"),
    turn=TurnOptions(min_words=3),
)


@pytest.mark.parametrize("message", [SessionConfigure(), SessionUpdate()])
def test_message_that_says_nothing_changes_nothing(message: SessionConfigure | SessionUpdate) -> None:
    """What is left out comes from the options that were there."""
    assert voice.merge_options(DEFAULTS, message) == DEFAULTS


def test_what_a_message_gives_goes_over_the_options() -> None:
    """Given fields replace those of the options, one by one, in nested groups too."""
    message = SessionConfigure(
        stt=SttPatch(audio_format=AudioFormat("ulaw", 8000), vad_threshold=0.3, include_timestamps=False),
        tts=TtsPatch(output_format=MP3, voice_settings=VoicePatch(speed=0.5, use_speaker_boost=False)),
        turn=TurnPatch(barge_in="off", grace_ms=0),
    )
    assert voice.merge_options(DEFAULTS, message) == SessionOptions(
        stt=SttOptions(audio_format=AudioFormat("ulaw", 8000), language_code="de", vad_threshold=0.3),
        tts=TtsOptions(
            output_format=MP3,
            voice_id="house",
            voice_settings=VoiceSettings(stability=0.9, speed=0.5, use_speaker_boost=False),
        ),
        backend=DEFAULTS.backend,
        turn=TurnOptions(barge_in="off", min_words=3),
    )


def test_sample_rate_alone_means_pcm() -> None:
    """The contract's audio is PCM, so a rate by itself names a format."""
    options = SessionOptions(stt=SttOptions(audio_format=AudioFormat("ulaw", 8000)))
    merged = voice.merge_options(options, SessionUpdate(stt=SttPatch(sample_rate=24000)))
    assert merged.stt == SttOptions(audio_format=PCM_24K)


def test_backend_of_a_client_takes_nothing_from_the_servers() -> None:
    """A client's base URL is never called with the server's key."""
    message = SessionConfigure(backend=BackendChoice(base_url="https://client.example"))
    assert voice.merge_options(DEFAULTS, message).backend == BackendOptions(base_url="https://client.example")


@pytest.mark.parametrize(
    ("patch", "options"),
    [
        (SttPatch, SttOptions),
        (VoicePatch, VoiceSettings),
        (TtsPatch, TtsOptions),
        (TurnPatch, TurnOptions),
        (BackendChoice, BackendOptions),
    ],
)
def test_every_field_of_a_patch_is_an_option(patch: Any, options: Any) -> None:
    """Nothing that a client may set is lost on the way to the options, and every option can be set.

    But for those that only clients of other protocols can use.
    """
    names = {field.name for field in attrs.fields(patch)} - {"sample_rate"}
    assert names == {field.name for field in attrs.fields(options)} - {"respond", "silent"}


@given(STT)
def test_overlay_gives_exactly_what_was_given(patch: SttPatch) -> None:
    """Each option is the patch's where it has one, and the default otherwise."""
    merged = voice.merge_options(DEFAULTS, SessionUpdate(stt=patch)).stt
    for field in attrs.fields(SttOptions):
        given_value = getattr(patch, field.name)
        default = getattr(DEFAULTS.stt, field.name)
        assert getattr(merged, field.name) == (default if given_value is None else given_value)


@pytest.mark.parametrize("field", ["provider", "api_key", "model", "base_url", "system_prompt"])
def test_backend_details_are_credentials(field: str) -> None:
    """Whatever describes a backend needs the operator's leave, also beside a registration."""
    detail: dict[str, Any] = {field: "https://x.example"}
    assert BackendChoice(**detail).has_credentials
    assert BackendChoice(registration_id="reg-1", **detail).has_credentials


def test_registration_is_no_credential() -> None:
    """A backend that is registered already may be named by anybody."""
    assert not BackendChoice(registration_id="reg-1").has_credentials
    assert not BackendChoice().has_credentials
