"""How long a service may take that is sent text over a socket while its audio comes back."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from voice_fsm.errors import ProviderFault, Upstream
from voice_fsm.upstream.faults import provider_error
from voice_fsm.upstream.http import Deadlines

T = TypeVar("T")


class Patience:
    """What is left of the deadlines. They run while audio is owed for text that was sent, and we wait for it.

    How much of the text a piece of audio covers is not known, so any audio settles what is owed until more
    text is sent; after the last text only the end does.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._stall_s = deadlines.stall_s
        self._step_s = deadlines.first_byte_s
        self._left_s = deadlines.total_s
        self._begun = False
        self._owed = False
        self._is_for_the_end = False
        """Whether all text was sent, so that nothing but the final frame settles what is owed."""
        self._has_ended = False
        self._waiting = trio.CancelScope()
        self._since_s = 0.0

    def expect_audio(self) -> None:
        """Text is about to be sent."""
        if not self._owed:
            self._owed = True
            self._run_clock()

    def expect_audio_to_the_end(self) -> None:
        """The end of the text is about to be sent."""
        self._is_for_the_end = True
        self.expect_audio()

    def audio_came(self) -> None:
        """Some audio is here."""
        self._begun = True
        self._step_s = self._stall_s
        self._owed = self._is_for_the_end

    def end(self) -> None:
        """Nothing more is to come: whoever waits is let go."""
        self._has_ended = True
        self._waiting.cancel()

    async def wait_for(self, step: Callable[[], Awaitable[T]]) -> T | None:
        """Wait for the service to say something; ``None``: nothing more is to come.

        Raises:
            ProviderError: TIMEOUT or STALLED.
        """
        with trio.CancelScope() as self._waiting:
            self._run_clock()
            said = await step()
            self._spend()
            return said
        if self._has_ended:
            return None
        stalled = self._begun and self._step_s < self._left_s
        raise provider_error(Upstream.TTS, ProviderFault.STALLED if stalled else ProviderFault.TIMEOUT)

    def _run_clock(self) -> None:
        if self._owed:
            self._since_s = trio.current_time()
            self._waiting.deadline = self._since_s + min(self._step_s, self._left_s)

    def _spend(self) -> None:
        if self._owed:
            waited_s = trio.current_time() - self._since_s
            self._left_s = max(0.0, self._left_s - waited_s)
            if not self._begun:
                self._step_s = max(0.0, self._step_s - waited_s)
