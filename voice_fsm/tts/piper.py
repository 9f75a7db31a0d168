"""The Piper engine: voices that sound human, where the operator has put a voice's file.

Piper fetches its voices at run time; nothing here downloads any. A voice is ``NAME.onnx`` with
``NAME.onnx.json`` beside it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.tts.base import VoiceInfo
from voice_fsm.tts.engine import EngineError

if TYPE_CHECKING:
    from piper import PiperVoice

_LANGUAGE: Final = re.compile(r"([a-z]{2,3})_([A-Z]{2})-")
"""How the names of Piper's files begin: ``en_US-amy-medium``."""
_DOUBLE_BRACKET: Final = re.compile(r"\[(?=\[)")
_VOLUME: Final = 0.8
"""Piper scales each sentence to full scale; a resampler needs room above that."""


class Piper:
    """One voice; satisfies `SpeechEngine`.

    Voices are the file's name, without ``.onnx``, and the names of its speakers, where it has several.
    """

    speeds = (0.25, 4.0)

    def __init__(self, voice: "PiperVoice", name: str) -> None:
        self._voice = voice
        self._name = name
        self.sample_rate_hz: int = voice.config.sample_rate

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a voice's file: about a second.

        Raises:
            ProviderError: ``tts_unavailable``: the package or the file is missing, or the file is broken.
        """
        try:
            from piper import PiperVoice
        except ImportError as error:
            raise _unavailable("The voice of this server needs Piper: install voice-fsm[piper].") from error
        for needed in (path, path.with_name(f"{path.name}.json")):
            if not needed.is_file():
                raise _unavailable(f"The voice of this server is missing: there is no file {needed.name}.")
        try:
            return cls(PiperVoice.load(path), path.stem)
        except Exception as error:  # ONNX Runtime's errors have no base class but this
            raise _unavailable(f"The voice of this server cannot be loaded from {path.name}.") from error

    def find_voice(self, voice_id: str | None) -> str | None:
        """Look the voice or one of its speakers up by name."""
        if voice_id in (None, self._name):
            return ""
        return voice_id if voice_id in self._voice.config.speaker_id_map else None

    def voices(self) -> tuple[VoiceInfo, ...]:
        """The voice, and its speakers if it has several."""
        found = _LANGUAGE.match(self._name)
        language = f"{found[1]}-{found[2]}" if found else None
        names = [self._name, *self._voice.config.speaker_id_map]
        return tuple(VoiceInfo(name, name, language) for name in names)

    def synthesize(self, text: str, voice: str, speed: float) -> Iterator[bytes]:
        """Say ``text``, a sentence at a time."""
        from piper import SynthesisConfig

        config = SynthesisConfig(
            speaker_id=self._voice.config.speaker_id_map.get(voice),
            length_scale=self._voice.config.length_scale / speed,
            volume=_VOLUME,
        )
        as_data = _DOUBLE_BRACKET.sub("[ ", text)  # else what stands in it would be phonemes
        try:
            for sentence in self._voice.synthesize(as_data, config):
                yield sentence.audio_int16_bytes
        except Exception as error:  # ONNX Runtime's errors have no base class but this
            raise EngineError("piper: synthesis failed") from error


def _unavailable(message: str) -> ProviderError:
    return ProviderError(Upstream.TTS, ProviderFault.UNAVAILABLE, message)
