"""The eSpeak NG engine, out of the wheel ``espeakng-loader``: small, robotic, and at once.

It speaks some 130 languages at a thousand times real time. Text is data for it: neither SSML nor phoneme
input is switched on.
"""

import ctypes
import os
import re
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, Self

import numpy as np

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.tts.base import VoiceInfo
from voice_fsm.tts.engine import EngineError

DEFAULT_VOICE: Final = "en-us+adam"
"""Of all variants the one that a recogniser understands best: 4 % of words wrong, 20 % with plain en-us."""

# The library is one for the process, however many objects here stand for it, and it is not re-entrant.
_LIBRARY: Final = threading.Lock()

_SYNCHRONOUS: Final = 2
_DONT_EXIT: Final = 0x8000
_CHARS_UTF8: Final = 1
_END_PAUSE: Final = 0x1000
_POSITION_CHARACTER: Final = 1
_RATE: Final = 1
_VOLUME: Final = 2

_VOLUME_PERCENT: Final = 80
"""At 100 some voices reach full scale, and a resampler needs room above that."""
_SPEEDS: Final = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
_WORDS_PER_MINUTE: Final = (88, 170, 249, 319, 383, 493, 655)
"""Rates at which speech lasts 1/speed as long as at 170, measured: pauses shrink less than words."""

_LONGEST_PART: Final = 300
"""Characters said in one call: about 20 s of sound in 25 ms."""
# The longest part that ends with punctuation, else with a space, else anywhere.
_PART: Final = re.compile(
    rf".{{1,{_LONGEST_PART}}}(?:(?<=[.!?;:,])(?=\s)|$)|.{{1,{_LONGEST_PART}}}(?=\s)|.{{1,{_LONGEST_PART}}}",
    re.DOTALL,
)

_Callback: Final = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class Espeak:
    """The loaded library; satisfies `SpeechEngine`. Voices are ``language`` or ``language+variant``."""

    speeds = (_SPEEDS[0], _SPEEDS[-1])

    def __init__(self, library_path: str, data_path: Path) -> None:
        with _LIBRARY:
            self._library, self.sample_rate_hz = _initialize(library_path, data_path)
            self._voices = _list_voices(self._library)
        self._variants = {file.name.lower(): file.name for file in (data_path / "voices" / "!v").iterdir()}

    @classmethod
    def load(cls) -> Self:
        """Load the library and its data: a few milliseconds.

        Raises:
            ProviderError: ``tts_unavailable``: not installed, or of no use on this machine.
        """
        try:
            import espeakng_loader
        except ImportError as error:
            raise ProviderError(
                Upstream.TTS,
                ProviderFault.UNAVAILABLE,
                "Speech synthesis on this server is not installed: install voice-fsm[local].",
            ) from error
        try:
            return cls(espeakng_loader.get_library_path(), Path(espeakng_loader.get_data_path()))
        except (OSError, RuntimeError, EngineError) as error:
            raise ProviderError(
                Upstream.TTS, ProviderFault.UNAVAILABLE, "Speech synthesis on this server cannot be loaded."
            ) from error

    def find_voice(self, voice_id: str | None) -> str | None:
        """Look a voice up by its language (``en-gb``), with or without a variant (``en-gb+f3``).

        Only names from the library's own lists go to it: it takes them for paths of files.
        """
        language, plus, variant = (DEFAULT_VOICE if voice_id is None else voice_id).lower().partition("+")
        found = self._voices.get(language)
        if found is None or (plus and variant not in self._variants):
            return None
        identifier, _ = found
        return f"{identifier}+{self._variants[variant]}" if plus else identifier

    def voices(self) -> tuple[VoiceInfo, ...]:
        """One for each language."""
        return tuple(
            VoiceInfo(language, name, language) for language, (_, name) in sorted(self._voices.items())
        )

    def synthesize(self, text: str, voice: str, speed: float) -> Iterator[bytes]:
        """Say ``text``, in parts of at most 300 characters."""
        words_per_minute = round(float(np.interp(speed, _SPEEDS, _WORDS_PER_MINUTE)))
        for part in parts(text):
            yield self._say(part, voice, words_per_minute)

    def _say(self, text: str, voice: str, words_per_minute: int) -> bytes:
        sound = bytearray()

        def keep(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
            if samples:
                sound.extend(ctypes.string_at(samples, count * 2))
            return 0

        callback = _Callback(keep)
        data = text.encode()
        flags = _CHARS_UTF8 | (0 if text[-1:].isalnum() else _END_PAUSE)
        with _LIBRARY:
            _succeed(self._library.espeak_SetVoiceByName(voice.encode()))
            _succeed(self._library.espeak_SetParameter(_RATE, words_per_minute, 0))
            _succeed(self._library.espeak_SetParameter(_VOLUME, _VOLUME_PERCENT, 0))
            self._library.espeak_SetSynthCallback(callback)
            _succeed(
                self._library.espeak_Synth(data, len(data) + 1, 0, _POSITION_CHARACTER, 0, flags, None, None)
            )
        return bytes(sound)


def parts(text: str) -> Iterator[str]:
    """Cut ``text`` where its punctuation or its spaces allow, so that no part is said for long."""
    return filter(None, map(str.strip, _PART.findall(text)))


@cache
def _initialize(library_path: str, data_path: Path) -> tuple[ctypes.CDLL, int]:
    """Load the library, once in a process; gives its sample rate too.

    A second `espeak_Initialize` frees the phoneme tables that the voice in use still points to: noise, or a
    crash.

    Raises:
        OSError: there is no library.
        EngineError: it has no data.
    """
    library = _declare(ctypes.CDLL(library_path))
    sample_rate_hz: int = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data_path), _DONT_EXIT)
    if sample_rate_hz <= 0:
        raise EngineError("espeak: no data")
    return library, sample_rate_hz


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_ListVoices.argtypes = [ctypes.c_void_p]
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.espeak_SetSynthCallback.argtypes = [_Callback]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return library


def _list_voices(library: ctypes.CDLL) -> Mapping[str, tuple[str, str]]:
    """Each language, and identifier and name of the voice that suits it best (the lowest priority)."""
    best: dict[str, tuple[int, str, str]] = {}
    voices = library.espeak_ListVoices(None)
    index = 0
    while voices[index]:
        voice = voices[index].contents
        for priority, language in _languages(voice.languages):
            candidate = (priority, voice.identifier.decode(), voice.name.decode())
            best[language] = min(candidate, best.get(language, candidate))
        index += 1
    return {language: (identifier, name) for language, (_, identifier, name) in best.items()}


def _languages(address: int) -> Iterator[tuple[int, str]]:
    """Entries of a priority byte and a name; a zero priority ends them."""
    while priority := ctypes.string_at(address, 1)[0]:
        name = ctypes.string_at(address + 1)
        yield priority, name.decode().lower()
        address += len(name) + 2


def _succeed(code: int) -> None:
    if code != 0:
        raise EngineError(f"espeak: failed with {code}")
