"""Whole recordings: where they are cut, and what comes of the parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import trio

from voice_fsm.errors import ProviderError, ProviderFault, Upstream
from voice_fsm.fsm.events import Word
from voice_fsm.fsm.options import SttOptions
from voice_fsm.stt.base import CommittedTranscript, PartialTranscript, Transcript
from voice_fsm.stt.recording import (
    LONGEST_SEGMENT_S,
    SHORTEST_SEGMENT_S,
    RecordedSpeech,
    Segment,
    quiet_cuts,
    transcribe,
)

BYTES_PER_S = 32000


def noise(seconds: float) -> bytes:
    """Loud all the time."""
    samples = np.random.default_rng(7).integers(-9000, 9000, int(seconds * 16000))
    return samples.astype("<i2").tobytes()


class CountingLink:
    """Tells of each commit how much audio it was of; ``failure`` comes in the place of the first."""

    session_id = "link"

    def __init__(self, failure: ProviderError | None) -> None:
        self.config: dict[str, Any] = {"language_code": "en", "timestamps": "estimated"}
        self.failure = failure
        self.heard_bytes = 0
        self._from_bytes = 0
        self._to_us, self._transcripts = trio.open_memory_channel[Transcript](10)

    async def send(self, audio: bytes, *, previous_text: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self.heard_bytes += len(audio)

    def send_now(self, audio: bytes) -> bool:
        return False

    async def commit(self) -> None:
        start_s, end_s = self._from_bytes / BYTES_PER_S, self.heard_bytes / BYTES_PER_S
        self._from_bytes = self.heard_bytes
        self._to_us.send_nowait(PartialTranscript("par"))
        words = (Word("all", start_s, start_s + 1), Word("of it", end_s - 1, end_s))
        self._to_us.send_nowait(CommittedTranscript(" all of it", words))
        await trio.lowlevel.checkpoint()

    def __aiter__(self) -> AsyncIterator[Transcript]:
        return self

    async def __anext__(self) -> Transcript:
        if self.failure is not None:
            raise self.failure
        return await self._transcripts.receive()


class CountingStt:
    name = "counting"

    def __init__(self, failure: ProviderError | None = None) -> None:
        self.links: list[CountingLink] = []
        self.options: SttOptions | None = None
        self._failure = failure

    @asynccontextmanager
    async def connect(self, options: SttOptions) -> AsyncIterator[CountingLink]:
        await trio.lowlevel.checkpoint()
        self.options = options
        self.links.append(CountingLink(self._failure))
        yield self.links[-1]


def test_a_short_recording_is_not_cut() -> None:
    """It is one segment."""
    assert quiet_cuts(noise(LONGEST_SEGMENT_S)) == ()
    assert quiet_cuts(b"") == ()


def test_a_cut_is_where_it_is_quietest() -> None:
    """Amid the only pause, in whole samples."""
    pcm = noise(20) + bytes(int(0.4 * BYTES_PER_S)) + noise(15)
    (cut,) = quiet_cuts(pcm)
    assert cut % 2 == 0
    assert 20.0 < cut / BYTES_PER_S < 20.4


def test_segments_of_unbroken_sound_keep_their_bounds() -> None:
    """None is longer than a recogniser hears without a commit of its own."""
    pcm = noise(200)
    cuts = (0, *quiet_cuts(pcm), len(pcm))
    lengths_s = [(end - start) / BYTES_PER_S for start, end in pairwise(cuts)]
    assert max(lengths_s) <= LONGEST_SEGMENT_S
    assert min(lengths_s[:-1]) >= SHORTEST_SEGMENT_S


async def test_all_of_a_recording_is_heard_segment_by_segment() -> None:
    """Each is committed once; a little silence follows the last."""
    stt, pcm = CountingStt(), noise(60)
    result = await transcribe(stt, RecordedSpeech(pcm=pcm, language_code="en"))
    heard_bytes = stt.links[0].heard_bytes
    assert len(pcm) < heard_bytes < len(pcm) + BYTES_PER_S
    assert stt.options == SttOptions(commit_strategy="manual", language_code="en", include_timestamps=True)
    cuts_s = [cut / BYTES_PER_S for cut in (0, *quiet_cuts(pcm), heard_bytes)]
    assert result.segments == tuple(Segment("all of it", start, end) for start, end in pairwise(cuts_s))
    assert result.text == " ".join(["all of it"] * len(result.segments))
    assert len(result.words) == 2 * len(result.segments)
    assert (result.duration_s, result.language_code, result.estimated) == (60.0, "en", True)


async def test_a_recogniser_that_fails_is_told() -> None:
    """In a group, since it listens while it speaks."""
    failure = ProviderError(Upstream.STT, ProviderFault.LOST, "Gone.")
    with pytest.RaisesGroup(pytest.RaisesExc(ProviderError, match="Gone")):
        await transcribe(CountingStt(failure), RecordedSpeech(pcm=noise(1)))
