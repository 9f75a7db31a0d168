"""What one session was asked to be: frozen, complete (defaults filled in), changed by ``attrs.evolve``."""

from typing import Literal

import attrs

from voice_fsm.audio import AudioFormat

PCM_16K = AudioFormat("pcm", 16000)
PCM_24K = AudioFormat("pcm", 24000)


@attrs.frozen(kw_only=True)
class SttOptions:
    """How speech is transcribed. ``None`` leaves the choice to the provider."""

    audio_format: AudioFormat = PCM_16K
    """What `audio.append` and binary frames hold; PCM or mu-law."""
    commit_strategy: Literal["vad", "local_vad", "manual"] = "vad"
    """Who ends utterances: the recogniser, the server's own voice detector, or the client alone."""
    model_id: str | None = None
    language_code: str | None = None
    vad_threshold: float | None = None
    vad_silence_threshold_secs: float | None = None
    min_speech_duration_ms: int | None = None
    min_silence_duration_ms: int | None = None
    include_timestamps: bool = False


@attrs.frozen(kw_only=True)
class VoiceSettings:
    """How the voice sounds. ``None`` leaves the choice to the provider."""

    stability: float | None = None
    similarity_boost: float | None = None
    style: float | None = None
    use_speaker_boost: bool | None = None
    speed: float | None = None
    """1.0 is the voice's own pace."""


@attrs.frozen(kw_only=True)
class TtsOptions:
    """How replies are spoken."""

    output_format: AudioFormat = PCM_24K
    silent: bool = False
    """Whether replies are text alone."""
    voice_id: str | None = None
    model_id: str | None = None
    voice_settings: VoiceSettings = VoiceSettings()


@attrs.frozen(kw_only=True)
class BackendOptions:
    """Which chat backend answers, where a client may choose it. Empty: the server's own."""

    registration_id: str | None = None
    provider: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    model: str | None = None
    base_url: str | None = None
    system_prompt: str | None = None


@attrs.frozen(kw_only=True)
class TurnOptions:
    """When the user is taken to interrupt, to go on, or to have left."""

    barge_in: Literal["partial", "vad", "off"] = "partial"
    """What interrupts: words alone, or the voice detector's word that somebody speaks, and then words."""
    min_words: int = 1
    """Words a partial needs before it interrupts."""
    min_speech_ms: int = 0
    """How long an utterance has to go on before it interrupts."""
    backchannels: Literal["ignore", "interrupt"] = "ignore"
    """What sounds of listening ("mm-hmm", "okay") do."""
    echo_filter: bool = True
    """Whether the assistant's own words, heard by the microphone, are nobody's."""
    pausable: bool = False
    """Whether the client can stand still and play on: it is told when the reply is paused and resumed."""
    decide_within_ms: int = 1500
    """How long a reply is paused at most before what the user does is taken for an interruption or not."""
    resume_after_ms: int = 400
    """How long after speech without words a paused reply goes on."""
    max_lead_ms: int | None = None
    """How far audio is sent ahead of what the listener hears; ``None``: as fast as it comes."""
    uninterruptible: bool = False
    """Whether the turns that begin are spoken to their end, whatever the user says."""
    grace_ms: int = 0
    """How long after the first audio of a turn nothing said interrupts it."""
    patience_ms: int | None = None
    """How long an utterance that breaks off is waited upon before it is answered; ``None``: not at all."""
    speculative_ms: int | None = None
    """How long a partial has to stand for its reply to be asked for before the commit; ``None``: never."""
    respond: Literal["auto", "asked"] = "auto"
    """Whether what is said is answered as soon as it is final, or kept until the client asks (`Respond`)."""
    merge_window_ms: int | None = None
    """How long after a commit a further one is joined to it while the assistant thinks; ``None``: always."""
    first_message: str | None = None
    """Spoken as soon as the session is configured."""
    first_message_uninterruptible: bool = False
    idle_prompt_s: float | None = None
    """Silence after which the assistant speaks by itself; ``None``: it does not."""
    idle_prompt_text: str | None = None
    """What it says then; ``None``: the chat backend is asked."""
    idle_prompt_times: int = 1
    """How often it does so before the user has said something again."""
    idle_timeout_s: float = 600.0


@attrs.frozen(kw_only=True)
class SessionOptions:
    """All of one session's choices."""

    stt: SttOptions = SttOptions()
    tts: TtsOptions = TtsOptions()
    backend: BackendOptions = BackendOptions()
    turn: TurnOptions = TurnOptions()
