"""The Moonshine engine behind a plain call: what does this say.

The wheel of ``moonshine-voice`` carries a model for English. Two traits of its version 0.0.73 shape this
module:

- The library looks for speech by itself, with a detector whose recurrent state is one static object, so
  streams that take turns hear each other. Here it is switched off.
- ONNX Runtime spreads a model this small over all cores and waits for them spinning: three times the CPU
  time for the same latency. So the model is loaded for one thread.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from voice_fsm.errors import ProviderError, ProviderFault, Upstream

Samples = npt.NDArray[np.float32]
"""Sound at `SAMPLE_RATE_HZ`, mono, from -1 to 1."""

SAMPLE_RATE_HZ: Final = 16000

MODEL_NAME: Final = "tiny-en"

_HEADER_VERSION: Final = 20000
_ARCH_TINY: Final = 0
_OPTIONS: Final = {
    "identify_speakers": "false",
    "return_audio_data": "false",
    # A threshold of zero switches the library's detector off: all audio is one segment.
    "vad_threshold": "0",
    "vad_max_segment_duration": "100000",
}
_SHORTEST: Final = SAMPLE_RATE_HZ // 4
"""The encoder fails on audio much shorter than this."""
_BLOCK: Final = 512
"""Samples that the library takes at once; of a part of it, it would take none."""


class EngineError(Exception):
    """The engine refused a call; a fault of ours or the library's, not of the audio."""


class Moonshine:
    """One loaded model. Calls block; at most one thread may be inside at a time."""

    def __init__(self, api: ModuleType, model_path: str) -> None:
        self._api = api
        # Private, but the version is pinned, and the public classes turn every sample into a Python object.
        self._library = api._MoonshineLib().lib  # noqa: SLF001  # see above
        self._model_path = model_path
        self._handle: int | None = self._load()

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

    def transcribe(self, samples: Samples) -> str:
        """What ``samples`` say. Costs about 40 ms of CPU time for a second of speech.

        Raises:
            EngineError: the call failed, or the engine is closed.
        """
        missing = max(0, _SHORTEST - len(samples))
        padded = np.pad(samples, (0, missing + -(len(samples) + missing) % _BLOCK))
        return " ".join(filter(None, self._lines(padded)))

    def close(self) -> None:
        """Free the model; later calls fail."""
        if self._handle is not None:
            self._library.moonshine_free_transcriber(self._handle)
            self._handle = None

    def _load(self) -> int:
        option = self._api.TranscriberOptionC
        options = [option(name.encode(), value.encode()) for name, value in _OPTIONS.items()]
        array = (option * len(options))(*options)
        handle: int = self._library.moonshine_load_transcriber_from_files(
            os.fsencode(self._model_path), _ARCH_TINY, array, len(options), _HEADER_VERSION
        )
        if handle < 0:
            raise EngineError(f"moonshine: loading failed with {handle}")
        return handle

    def _lines(self, samples: Samples) -> list[str]:
        if self._handle is None:
            raise EngineError("moonshine: closed")
        transcript = ctypes.POINTER(self._api.TranscriptC)()
        sound = np.ascontiguousarray(samples, np.float32)
        code = self._library.moonshine_transcribe_without_streaming(
            self._handle,
            sound.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            len(sound),
            SAMPLE_RATE_HZ,
            0,
            ctypes.byref(transcript),
        )
        if code != 0:
            raise EngineError(f"moonshine: transcribing failed with {code}")
        # The lines belong to the library, which overwrites them in the next call.
        return [_text(line) for line in transcript.contents.lines[: transcript.contents.line_count]]


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
