"""What a session asks for, and whether the local recogniser can do it."""

import re
from typing import Final

from voice_fsm.errors import ClientError, ClientFault
from voice_fsm.fsm.options import SttOptions
from voice_fsm.stt.listener import ListeningRules

_ENGLISH: Final = re.compile(r"en|eng|en[-_]\w+", re.IGNORECASE)
_LONGEST_MS: Final = 5000


def check_options(options: SttOptions) -> None:
    """Refuse what no setting of the engine can give.

    Raises:
        ClientError: another language than English, or a compressed format.
    """
    if options.language_code is not None and not _ENGLISH.fullmatch(options.language_code):
        raise ClientError(
            ClientFault.INVALID_FIELD,
            f"Speech recognition on this server knows only English, not {options.language_code[:40]!r}.",
            field="stt.language_code",
        )
    if options.audio_format.codec not in ("pcm", "ulaw"):
        raise ClientError(
            ClientFault.UNSUPPORTED_FORMAT,
            f"Speech recognition on this server does not read {options.audio_format}; send PCM or mu-law.",
            field="stt.audio_format",
        )


def listening_rules(options: SttOptions) -> ListeningRules:
    """When this session's speech begins, pauses and ends.

    Raises:
        ClientError: a value out of range.
    """
    default = ListeningRules()
    pause_s = _seconds("min_silence_duration_ms", options.min_silence_duration_ms, default.pause_s)
    silence_s = _within(
        "vad_silence_threshold_secs", options.vad_silence_threshold_secs, 0.1, 10.0, default.silence_s
    )
    return ListeningRules(
        commit_on_silence=options.commit_strategy == "vad",
        threshold=_within("vad_threshold", options.vad_threshold, 0.1, 0.9, default.threshold),
        silence_s=max(silence_s, pause_s),
        pause_s=pause_s,
        min_speech_s=_seconds("min_speech_duration_ms", options.min_speech_duration_ms, default.min_speech_s),
        timestamps=options.include_timestamps,
    )


def _seconds(field: str, value_ms: int | None, default_s: float) -> float:
    return _within(field, value_ms, 0, _LONGEST_MS, default_s * 1000) / 1000


def _within(field: str, value: float | None, low: float, high: float, default: float) -> float:
    if value is None:
        return default
    if not low <= value <= high:
        raise ClientError(
            ClientFault.INVALID_FIELD, f"{field} is {value}, outside {low} to {high}.", field=f"stt.{field}"
        )
    return value
