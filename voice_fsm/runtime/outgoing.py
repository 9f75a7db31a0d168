"""The queue to the client. Its writer alone sends; whoever has something to say puts it here.

A turn's output takes credits, so a slow client slows its turn down. Notices take none, so a barge-in is told
however full the queue is. They go before audio that waits, and audio may be held back: while the reply is
paused, or for as long as the client has enough of it. Interrupting a turn is one plain call, `flush`: what it
queued is dropped, its credits come back, and from then on nothing of it is taken.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from voice_fsm.audio import AudioFormat
from voice_fsm.fsm.effects import Notice
from voice_fsm.tts.base import Alignment

MAX_TURN_OUTPUT: Final = 8
"""Pieces of a turn's text that may wait to be sent, and as many of its audio."""
MAX_CHUNK_MS: Final = 500.0
"""Audio that came while the writer was busy goes out as one message, up to this."""
MANY_NOTICES: Final = 64
"""From so many waiting notices on a client is not listened to: what it asks for would only add to them."""
BURST: Final = 8
"""Items that may be taken at once, and in a row before other tasks get their turn."""
MAX_NOTICES: Final = 256
"""Notices that may wait; a client that lets more pile up is not reading."""


@attrs.frozen
class TextDelta:
    """The next piece of the reply's text."""

    turn_id: int
    text: str


@attrs.frozen
class AudioChunk:
    """The next audio of the reply."""

    turn_id: int
    output_format: AudioFormat
    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")


@attrs.frozen
class SpeechTiming:
    """When the reply's characters sound."""

    turn_id: int
    alignment: Alignment


@attrs.frozen
class Answer:
    """What a door says by itself, in its own words, such as the answer to a ping."""

    message: object


Voice = AudioChunk | SpeechTiming
TurnOutput = TextDelta | Voice
Item = Notice | Answer | TurnOutput


class SlowClient(Exception):  # noqa: N818  # names the peer's fault, as in ``trio.BusyResourceError``'s family
    """The client does not read what it is sent."""


class Outgoing:
    """Bounded, ordered, and aware of turns. One task at a time may `take`.

    ``voice_due_s`` tells when the next audio may go; infinity while none may. `wake` when it has come closer.
    """

    def __init__(self, voice_due_s: Callable[[], float] = lambda: -math.inf) -> None:
        self._voice_due_s = voice_due_s
        self._items: list[Notice | Answer | TextDelta] = []
        self._voice: list[Voice] = []
        self._notices = 0
        self._text_credits = trio.Semaphore(MAX_TURN_OUTPUT, max_value=MAX_TURN_OUTPUT)
        self._voice_credits = trio.Semaphore(MAX_TURN_OUTPUT, max_value=MAX_TURN_OUTPUT)
        self._admitted: int | None = None
        self.untold: frozenset[type] = frozenset()
        """Of items, those of which the client is not told: they are dropped, and nobody is woken."""
        self._in_a_row = 0
        self._finished = False
        self._in_hand: list[Item] = []
        self._writer = trio.lowlevel.ParkingLot()
        self._drained = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    def admit(self, turn_id: int) -> None:
        """Take this turn's output from now on, and no other's."""
        self._admitted = turn_id

    def admits(self, turn_id: int) -> bool:
        """Whether output of this turn is taken."""
        return self._admitted == turn_id

    @property
    def has_room(self) -> bool:
        """Whether few notices wait."""
        return self._notices < MANY_NOTICES

    def put(self, notice: Notice | Answer) -> None:
        """Queue a notice.

        Raises:
            SlowClient: too many wait already.
        """
        if self._finished or type(notice) in self.untold:
            return
        if self._notices >= MAX_NOTICES:
            raise SlowClient
        self._notices += 1
        self._items.append(notice)
        self.wake()

    async def put_output(self, output: TurnOutput) -> None:
        """Queue output when there is a credit for it; that of a turn not admitted is dropped."""
        if not self._wants(output) or self._joined(output):
            return
        credit = self._credits_of(output)
        try:
            credit.acquire_nowait()
        except trio.WouldBlock:
            await credit.acquire()
            if not self._wants(output):
                credit.release()
                return
        if isinstance(output, TextDelta):
            self._items.append(output)
        else:
            self._voice.append(output)
        self.wake()

    async def wait_for_room(self) -> None:
        """Wait while many notices wait; at once, and without a checkpoint, while few do."""
        while self._notices >= MANY_NOTICES and not self._finished:
            await self._room.park()

    def flush(self, turn_id: int) -> None:
        """Drop what waits of this turn, and take no more of it."""
        if self._admitted == turn_id:
            self._admitted = None
        for output in [*self._items, *self._voice]:
            if isinstance(output, TurnOutput) and output.turn_id == turn_id:
                self._credits_of(output).release()
        self._items = [
            item for item in self._items if not (isinstance(item, TextDelta) and item.turn_id == turn_id)
        ]
        self._voice = [voice for voice in self._voice if voice.turn_id != turn_id]
        self._tell_if_drained()

    def wake(self) -> None:
        """Have the writer look again: audio that was held back may go, or there is something new."""
        if self._writer:  # to unpark nobody takes as long as to queue something
            self._writer.unpark()

    def finish(self) -> None:
        """Take nothing more; once all is sent, `take` gives nothing."""
        self._finished = True
        self.wake()
        self._room.unpark_all()

    async def take(self) -> Sequence[Item]:
        """What to send next, in order; empty at the end. Taking it says that what was taken before is sent.

        What waits is given without a turn of the scheduler, up to `BURST`; to be cancelled it always can. Of
        audio there is never more than one piece, so that what interrupts it is not far behind.
        """
        self._settle()
        if self._in_a_row < BURST:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._in_a_row = 0
            await trio.lowlevel.checkpoint()
        while not (items := self._next()):  # what woke us may have been flushed before we ran
            if self._finished:
                return items
            self._in_a_row = 0
            if self._voice:
                with trio.CancelScope(deadline=self._voice_due_s()):
                    await self._writer.park()
            else:
                await self._writer.park()
        self._in_a_row += len(items)
        self._in_hand = items
        if self._room and self.has_room:
            self._room.unpark_all()
        return items

    async def drained(self) -> None:
        """Wait until all output that was put has been sent or dropped."""
        while not self._is_drained:
            await self._drained.park()

    def _next(self) -> list[Item]:
        items: list[Item] = []
        if self._items:
            items += self._items[:BURST]
            del self._items[:BURST]
            self._notices -= sum(not isinstance(item, TextDelta) for item in items)
        if self._voice and not self._items and self._is_voice_due:
            items.append(self._voice.pop(0))
        return items

    @property
    def _is_voice_due(self) -> bool:
        return self._finished or self._voice_due_s() <= trio.current_time()

    def _credits_of(self, output: TurnOutput) -> trio.Semaphore:
        return self._text_credits if isinstance(output, TextDelta) else self._voice_credits

    @property
    def _is_drained(self) -> bool:
        return self._text_credits.value == self._voice_credits.value == MAX_TURN_OUTPUT

    def _wants(self, output: TurnOutput) -> bool:
        return output.turn_id == self._admitted and not self._finished and type(output) not in self.untold

    def _joined(self, output: TurnOutput) -> bool:
        """Add audio to audio that still waits: sessions per core are won by fewer, larger messages."""
        last = self._voice[-1] if self._voice else None
        if not (isinstance(output, AudioChunk) and isinstance(last, AudioChunk)):
            return False
        if output.output_format.duration_ms(len(last.data) + len(output.data)) > MAX_CHUNK_MS:
            return False
        self._voice[-1] = AudioChunk(output.turn_id, output.output_format, last.data + output.data)
        return True

    def _settle(self) -> None:
        for item in self._in_hand:
            if isinstance(item, TurnOutput):
                self._credits_of(item).release()
                self._tell_if_drained()
        self._in_hand = []

    def _tell_if_drained(self) -> None:
        if self._drained and self._is_drained:
            self._drained.unpark_all()
