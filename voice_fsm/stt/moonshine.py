"""The Moonshine engine behind two plain calls: where is speech, and what does it say.

The wheel of ``moonshine-voice`` carries a model for English and Silero's voice activity detector. Two of its
traits, seen in version 0.0.73, shape this module:

- The detector's recurrent state is one static object of the library, so streams that take turns hear each
  other. Here nothing of the engine outlives a call: the caller prepends a little of the audio before, and
  after a quarter of a second the state is that of this audio again.
- ONNX Runtime spreads a model this small over all cores and waits for them spinning: three times the CPU
  time for the same latency. So the model is loaded for one thread.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Final, Self

import attrs
import numpy as np
import numpy.typing as npt

from voice_fsm.errors import ProviderError, ProviderFault, Upstream

Samples = npt.NDArray[np.float32]
"""Sound at `SAMPLE_RATE_HZ`, mono, from -1 to 1."""

SAMPLE_RATE_HZ: Final = 16000
HOP: Final = 512
"""Samples that the detector judges at once."""
HOP_S: Final = HOP / SAMPLE_RATE_HZ
CONTEXT_HOPS: Final = 8
"""How much audio from before makes the detector's answers independent of what it heard last. Measured:
with 4 hops no more answers differed than with 16."""

MODEL_NAME: Final = "tiny-en"

_HEADER_VERSION: Final = 20000
_ARCH_TINY: Final = 0
_ENDLESS_S: Final = "100000"
_COMMON_OPTIONS: Final = {
    "identify_speakers": "false",
    "return_audio_data": "false",
    "vad_max_segment_duration": _ENDLESS_S,
}
# A threshold of zero switches the detector off: all audio is one segment.
_RECOGNISER_OPTIONS: Final = {**_COMMON_OPTIONS, "vad_threshold": "0"}
# One hop per window: each answer stands for itself, and a segment starts with its first hop of speech.
_DETECTOR_OPTIONS: Final = {
    **_COMMON_OPTIONS,
    "skip_transcription": "true",
    "vad_window_duration": str(HOP_S),
    "vad_look_behind_sample_count": str(HOP),
}
_SHORTEST: Final = SAMPLE_RATE_HZ // 4
"""The encoder fails on audio much shorter than this."""


class EngineError(Exception):
    """The engine refused a call; a fault of ours or the library's, not of the audio."""


@attrs.frozen
class _Segment:
    start_s: float
    end_s: float
    text: str


class Moonshine:
    """One loaded model. Calls block; at most one thread may be inside at a time."""

    def __init__(self, api: ModuleType, model_path: str) -> None:
        self._api = api
        # Private, but the version is pinned, and the public classes turn every sample into a Python object.
        self._library = api._MoonshineLib().lib  # noqa: SLF001  # see above
        self._model_path = model_path
        self._recogniser: int | None = self._load(_RECOGNISER_OPTIONS)
        self._detectors: dict[str, int] = {}

    @classmethod
    def load(cls) -> Self:
        """Load the library and its model: about 0.3 s and 100 MB.

        Raises:
            ProviderError: ``stt_unavailable``: not installed, or of no use on this machine.
        """
        try:
            from moonshine_voice import moonshine_api
            from moonshine_voice.utils import get_model_path
        except ImportError as error:
            raise ProviderError(
                Upstream.STT,
                ProviderFault.UNAVAILABLE,
                "Speech recognition on this server is not installed: install voice-fsm[local].",
            ) from error
        try:
            with _one_onnx_thread():
                return cls(moonshine_api, str(get_model_path(MODEL_NAME)))
        except (OSError, EngineError, moonshine_api.MoonshineError) as error:
            raise ProviderError(
                Upstream.STT, ProviderFault.UNAVAILABLE, "Speech recognition on this server cannot be loaded."
            ) from error

    def find_speech(self, samples: Samples, threshold: float) -> npt.NDArray[np.bool_]:
        """Which hops of ``samples`` hold speech, one answer for each whole `HOP`.

        ``threshold`` is the probability from which a hop counts, in steps of 0.1. The first `CONTEXT_HOPS`
        answers may be coloured by what was heard in the call before.

        Raises:
            EngineError: the call failed, or the engine is closed.
        """
        found = np.zeros(len(samples) // HOP, np.bool_)
        for segment in self._segments(self._detector(threshold), samples):
            first, end = round(segment.start_s / HOP_S), round(segment.end_s / HOP_S)
            # A segment includes the hop that ended it, unless the audio ended first.
            found[first : end if end >= len(found) else end - 1] = True
        return found

    def transcribe(self, samples: Samples) -> str:
        """What ``samples`` say. Costs about 40 ms of CPU time for a second of speech.

        Raises:
            EngineError: the call failed, or the engine is closed.
        """
        missing = max(0, _SHORTEST - len(samples))
        padded = np.pad(samples, (0, missing + -(len(samples) + missing) % HOP))
        return " ".join(s.text for s in self._segments(self._recogniser, padded) if s.text)

    def close(self) -> None:
        """Free the model; later calls fail."""
        for handle in (self._recogniser, *self._detectors.values()):
            if handle is not None:
                self._library.moonshine_free_transcriber(handle)
        self._recogniser = None
        self._detectors.clear()

    def _detector(self, threshold: float) -> int | None:
        if self._recogniser is None:
            return None
        name = f"{threshold:.1f}"
        if name not in self._detectors:
            self._detectors[name] = self._load({**_DETECTOR_OPTIONS, "vad_threshold": name})
        return self._detectors[name]

    def _load(self, options: Mapping[str, str]) -> int:
        option = self._api.TranscriberOptionC
        array = (option * len(options))(*(option(k.encode(), v.encode()) for k, v in options.items()))
        handle: int = self._library.moonshine_load_transcriber_from_files(
            os.fsencode(self._model_path), _ARCH_TINY, array, len(options), _HEADER_VERSION
        )
        if handle < 0:
            raise EngineError(f"moonshine: loading failed with {handle}")
        return handle

    def _segments(self, handle: int | None, samples: Samples) -> list[_Segment]:
        if handle is None:
            raise EngineError("moonshine: closed")
        transcript = ctypes.POINTER(self._api.TranscriptC)()
        sound = np.ascontiguousarray(samples, np.float32)
        code = self._library.moonshine_transcribe_without_streaming(
            handle,
            sound.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            len(sound),
            SAMPLE_RATE_HZ,
            0,
            ctypes.byref(transcript),
        )
        if code != 0:
            raise EngineError(f"moonshine: transcribing failed with {code}")
        # The lines belong to the library, which overwrites them in the next call.
        lines = transcript.contents.lines[: transcript.contents.line_count]
        return [_Segment(line.start_time, line.start_time + line.duration, _text(line)) for line in lines]


def _text(line: ctypes.Structure) -> str:
    return ctypes.string_at(line.text).decode(errors="replace").strip() if line.text else ""


@contextmanager
def _one_onnx_thread() -> Iterator[None]:
    # The library offers no option for this; it looks at the variable while it loads a model.
    name = "MOONSHINE_ORT_SINGLE_THREAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
