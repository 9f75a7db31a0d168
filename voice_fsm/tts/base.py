"""Text to speech: pieces of text in as they are written, audio out as it is made.

To add a provider: one file beside this one with a class that satisfies `TtsProvider`, and its case in
``runtime/services.py``.
"""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs

from voice_fsm.fsm.options import TtsOptions


@attrs.frozen
class SpokenText:
    """The audio from here on says this text: the coarse alignment of providers that give no other."""

    text: str


@attrs.frozen
class Alignment:
    """When each character sounds, in milliseconds from the start of the reply's audio."""

    chars: tuple[str, ...]
    starts_ms: tuple[float, ...]
    ends_ms: tuple[float, ...]


@attrs.frozen
class SpeechAudio:
    """The next audio of the reply, in the options' ``output_format``; whole samples, never empty."""

    data: bytes


@attrs.frozen
class StandIn:
    """From here on another provider speaks, in a voice of its own: this is not what was asked for."""

    name: str


Speech = SpokenText | Alignment | SpeechAudio | StandIn


@attrs.frozen
class VoiceInfo:
    """A voice that may be chosen."""

    id: str
    """What `TtsOptions.voice_id` takes."""
    name: str
    """For people."""
    language: str | None = None
    """Such as ``en`` or ``en-gb``, as the provider writes it; ``None``: several, or not told."""


class TtsProvider(Protocol):
    """A synthesiser, shared by all sessions of the process."""

    name: str

    def check(self, options: TtsOptions) -> None:
        """Say early whether these options can be served.

        Raises:
            ClientError: e.g. ``unsupported_format``, with ``field`` such as ``tts.output_format``.
        """

    def prewarm(self, options: TtsOptions) -> None:
        """A reply with these options will be spoken soon: connect ahead, if that is worth while."""

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """List the voices that a client may ask for.

        Raises:
            ProviderError: the service did not tell.
        """

    def speak(
        self, pieces: AsyncIterable[str], options: TtsOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[Speech]]:
        """Speak one reply. ``pieces`` are sentences or clauses, in order, each fit to be spoken alone.

        Audio of the first piece comes while later ones are still being written. Leaving the context ends
        the synthesis, finished or not. Every text is announced by a `SpokenText` before its audio, or
        told by an `Alignment`.

        Raises:
            ProviderError: on entering or while iterating.
        """
