"""Speech to text on this machine: no network, no account, English only.

One model serves all links. It is used by one thread at a time, so local recognition takes at most one core;
who needs more runs more processes. Recognition runs in that thread, the event loop only keeps bytes. Audio
that comes while a step is under way goes into the next one, and while other links wait for the engine a step
leaves partials out: a busy engine gives fewer of them, not later ones.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.options import SttOptions
from voice_fsm.stt.listener import SpeechEngine
from voice_fsm.stt.local_link import LocalSttLink
from voice_fsm.stt.local_options import check_options, listening_rules
from voice_fsm.stt.moonshine import Moonshine
from voice_fsm.stt.turnstile import Turnstile
from voice_fsm.vad.engines import ThoroughJudges

MAX_BACKLOG_S: Final = 3.0
MAX_WAIT_S: Final = 1.0
"""No new link is opened while a step waits longer than this for the engine."""

_TALKER_COST: Final = 0.2
"""CPU seconds for a second of unbroken speech on a core of an EPYC: 0.15 to 0.24 alone, 0.08 among ten."""
_TALKING_SHARE: Final = 0.5
"""In a conversation with an assistant, at most half the time is the user's."""
_CLOSE_S: Final = 5.0


def default_max_sessions(cpu_count: int) -> int:
    """How many conversations one process can follow: 10, or 5 where the only core has other work too."""
    cores_to_use = 1.0 if cpu_count > 1 else 0.5
    return int(cores_to_use / (_TALKER_COST * _TALKING_SHARE))


@asynccontextmanager
async def open_local_stt(
    *, max_sessions: int | None = None, max_backlog_s: float = MAX_BACKLOG_S
) -> AsyncIterator["LocalStt"]:
    """Load the model; free it on leaving, when all links have been left.

    ``max_sessions`` ``None`` is `default_max_sessions` of this machine.

    Raises:
        ProviderError: ``stt_unavailable``: not installed, or of no use on this machine.
    """
    turnstile = Turnstile()
    engine = await turnstile.call(Moonshine.load)
    try:
        yield LocalStt(
            engine,
            ThoroughJudges(),
            turnstile,
            max_sessions=max_sessions or default_max_sessions(os.cpu_count() or 1),
            max_backlog_s=max_backlog_s,
        )
    finally:
        # In turn: freeing the model under a step that is still at work would crash.
        with trio.move_on_after(_CLOSE_S, shield=True):
            async with turnstile.turn():
                engine.close()


class LocalStt:
    """The recogniser of this process; satisfies `SttProvider`."""

    name = "local"

    def __init__(
        self,
        engine: SpeechEngine,
        judges: ThoroughJudges,
        turnstile: Turnstile,
        *,
        max_sessions: int,
        max_backlog_s: float,
    ) -> None:
        self._engine = engine
        self._judges = judges
        self._turnstile = turnstile
        self._max_sessions = max_sessions
        self._max_backlog_s = max_backlog_s
        self._open_links = 0

    @asynccontextmanager
    async def connect(self, options: SttOptions) -> AsyncIterator[LocalSttLink]:
        """Open a link; nobody may iterate it any more when it is left.

        All of the options count, except ``model_id``: there is one model. Times of words are estimates, see
        `voice_fsm.stt.listener.estimate_words`.

        Raises:
            ProviderError: ``stt_overloaded``: one more could not be kept up with.
            ClientError: another language than English, a compressed format, a value out of range.
        """
        check_options(options)
        rules = listening_rules(options)
        if self._open_links >= self._max_sessions or self._turnstile.longest_wait_s > MAX_WAIT_S:
            raise ProviderError(
                Upstream.STT,
                ProviderFault.OVERLOADED,
                "Speech recognition on this server has no room for another session. Try again later.",
            )
        judge = self._judges.lend()
        link = LocalSttLink(
            self._engine,
            judge,
            rules,
            options.audio_format,
            self._turnstile,
            max_backlog_s=self._max_backlog_s,
        )
        self._open_links += 1
        try:
            await trio.lowlevel.checkpoint()
            yield link
        finally:
            self._open_links -= 1
            link.close()
            self._judges.take_back(judge)
