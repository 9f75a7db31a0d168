"""Speech to text: audio in, transcripts out.

To add a provider: one file beside this one with a class that satisfies `SttProvider`, and its case in
``runtime/services.py``.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import attrs

from voice_fsm.fsm.events import Word
from voice_fsm.fsm.options import SttOptions


@attrs.frozen
class PartialTranscript:
    """The best guess at the utterance under way; replaces the one before it. Never blank."""

    text: str


@attrs.frozen
class CommittedTranscript:
    """The final text of one utterance; ``text`` may be blank when silence was committed."""

    text: str
    words: tuple[Word, ...] = ()


Transcript = PartialTranscript | CommittedTranscript


class SttLink(Protocol):
    """One open link to a recogniser, for one session. One task sends while another iterates."""

    @property
    def session_id(self) -> str:
        """The provider's own name of this link."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What the provider says it was configured to; for information."""

    async def send(self, audio: bytes, *, previous_text: str | None = None) -> None:
        """Hand over audio: whole samples in the options' format, any length up to a second or so.

        ``previous_text`` is context that a provider may use with a link's first audio, and ignores later.

        Raises:
            ProviderError: the link is broken.
        """

    def send_now(self, audio: bytes) -> bool:
        """Hand over audio as `send` does, if that takes no waiting; ``False``: `send` it, nothing was done.

        Only while nobody is in `send` or `commit`.
        """

    async def commit(self) -> None:
        """End the utterance now; a `CommittedTranscript` follows, blank if nothing was said.

        Raises:
            ProviderError: the link is broken.
        """

    def __aiter__(self) -> AsyncIterator[Transcript]:
        """Transcripts in order. Ends only by an error or by closing the link.

        Raises:
            ProviderError: the link broke; ``retryable`` tells whether a new one may work.
        """


class SttProvider(Protocol):
    """A recogniser, shared by all sessions of the process."""

    name: str

    def connect(self, options: SttOptions) -> AbstractAsyncContextManager[SttLink]:
        """Open a link. Entering it waits until the provider is ready to listen; the caller sets the deadline.

        Raises:
            ProviderError: on entering: no link to be had, e.g. ``stt_overloaded``, ``stt_auth_failed``.
            ClientError: on entering: the options ask for what this provider cannot do.
        """
