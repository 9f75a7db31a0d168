"""A session's sound, to the sample: where audio lies on the session's clock, and where it ends."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.audio import AudioFormat
from voice_fsm.audio.samples import ulaw_encode
from voice_fsm.fsm.effects import Outcome, TurnEnded, TurnInterrupted, TurnPaused, TurnResumed
from voice_fsm.fsm.playback import PlaybackClock
from voice_fsm.recording.sound import (
    BLOCK,
    HELD_S,
    MAX_WAITING_S,
    RATE_HZ,
    Heard,
    Note,
    Over,
    Reported,
    Sent,
    SessionSound,
    Told,
)

OPENED_S = 100.0
SAME = AudioFormat("pcm", RATE_HZ)

Channel = npt.NDArray[np.int16]


def pcm(seconds: float, value: int = 1000, rate_hz: int = RATE_HZ) -> bytes:
    return np.full(round(seconds * rate_hz), value, "<i2").tobytes()


def heard(at_s: float, audio: bytes, audio_format: AudioFormat = SAME) -> Heard:
    return Heard(OPENED_S + at_s, audio, audio_format)


def sent(at_s: float, audio: bytes, turn_id: int = 1, audio_format: AudioFormat = SAME) -> Sent:
    duration_ms = audio_format.duration_ms(len(audio))
    return Sent(OPENED_S + at_s, turn_id, audio, audio_format, duration_ms)


def paused(at_s: float) -> Told:
    return Told(OPENED_S + at_s, TurnPaused(1, 0.0))


def resumed(at_s: float) -> Told:
    return Told(OPENED_S + at_s, TurnResumed(1, 0.0))


def interrupted(at_s: float, heard_ms: float, turn_id: int = 1) -> Told:
    return Told(OPENED_S + at_s, TurnInterrupted(turn_id, "speech", "", heard_ms))


def reported(at_s: float, heard_ms: float, turn_id: int = 1) -> Reported:
    return Reported(OPENED_S + at_s, turn_id, heard_ms)


def ended(at_s: float, outcome: Outcome, turn_id: int = 1) -> Told:
    return Told(OPENED_S + at_s, TurnEnded(turn_id, outcome))


def over(at_s: float) -> Over:
    return Over(OPENED_S + at_s)


def tracks(notes: Iterable[Note]) -> tuple[Channel, Channel]:
    """Left and right, as they are given bit by bit."""
    sound = SessionSound(OPENED_S)
    blocks: list[bytes] = []
    for note in notes:
        sound.take(note)
        blocks += list(sound.blocks())
    assert all(0 < len(block) <= BLOCK * 4 for block in blocks)
    frames = np.frombuffer(b"".join(blocks), "<i2").reshape(-1, 2)
    return frames[:, 0], frames[:, 1]


def parts(channel: Channel) -> list[tuple[float, float, int]]:
    """Where it is not silent: from, to (in seconds) and the value there."""
    edges = np.flatnonzero(np.diff(channel, prepend=0, append=0))
    spans = [(start, end) for start, end in pairwise(edges) if channel[start]]
    return [(start / RATE_HZ, end / RATE_HZ, int(channel[start])) for start, end in spans]


def test_a_chunk_of_the_microphone_ends_where_it_came() -> None:
    """What follows within the network's jitter goes on without a gap; silence where nothing came."""
    left, right = tracks(
        [
            heard(1.5, pcm(0.5)),
            heard(2.05, pcm(0.5, 2000)),  # 50 ms late
            heard(2.45, pcm(0.5, 3000)),  # 50 ms early
            heard(4.0, pcm(0.5, 4000)),
            over(5.0),
        ]
    )
    assert parts(left) == [(1.0, 1.5, 1000), (1.5, 2.0, 2000), (2.0, 2.5, 3000), (3.5, 4.0, 4000)]
    assert len(left) == len(right) == 5 * RATE_HZ
    assert not right.any()


def test_a_chunk_that_is_longer_than_the_session_begins_with_it() -> None:
    """Nothing comes before the start; what was sent ahead of real time is kept."""
    left, _ = tracks([heard(0.5, pcm(2.0)), over(1.0)])
    assert parts(left) == [(0.0, 2.0, 1000)]


def test_the_assistant_is_heard_from_when_it_was_sent() -> None:
    """Chunk after chunk, however fast they were sent; a gap where it starved the client."""
    _, right = tracks([sent(1.0, pcm(1.0)), sent(1.1, pcm(1.0, 2000)), sent(4.0, pcm(0.5, 3000)), over(6.0)])
    assert parts(right) == [(1.0, 2.0, 1000), (2.0, 3.0, 2000), (4.0, 4.5, 3000)]


def test_an_interruption_silences_to_the_sample() -> None:
    """Whatever was sent already, and whatever of the turn comes later; the next turn is heard."""
    _, right = tracks(
        [
            sent(1.0, pcm(5.0)),
            interrupted(2.25, 1250.0),
            ended(2.25, "interrupted"),
            sent(2.3, pcm(1.0)),
            sent(3.0, pcm(0.5, 2000), turn_id=2),
            ended(3.5, "completed", turn_id=2),
            over(8.0),
        ]
    )
    assert parts(right) == [(1.0, 2.25, 1000), (3.0, 3.5, 2000)]


def test_what_the_client_says_was_not_heard_is_silent() -> None:
    """Its reports put the end of playback behind the server's reckoning, over a gap too."""
    _, right = tracks([sent(1.0, pcm(1.0)), sent(3.0, pcm(9.0, 2000)), interrupted(5.0, 2500.0), over(20.0)])
    assert parts(right) == [(1.0, 2.0, 1000), (3.0, 4.5, 2000)]
    _, right = tracks([sent(1.0, pcm(1.0)), sent(3.0, pcm(9.0, 2000)), interrupted(5.0, 250.0), over(20.0)])
    assert parts(right) == [(1.0, 1.25, 1000)]


def test_the_client_may_tell_afterwards_what_was_heard() -> None:
    """Of the turn that was interrupted, until another one sounds; of a turn that was heard out, never."""
    notes: list[Note] = [sent(1.0, pcm(9.0)), reported(2.0, 500.0), interrupted(4.0, 3000.0)]
    _, right = tracks([*notes, reported(4.2, 2000.0), reported(4.3, 2500.0), over(8.0)])
    assert parts(right) == [(1.0, 3.0, 1000)]
    second = sent(5.0, pcm(1.0, 2000), turn_id=2)
    _, right = tracks([*notes, second, reported(5.5, 500.0), over(8.0)])
    assert parts(right) == [(1.0, 4.0, 1000), (5.0, 6.0, 2000)]
    _, right = tracks([sent(1.0, pcm(1.0)), ended(2.0, "completed"), reported(2.1, 900.0), over(8.0)])
    assert parts(right) == [(1.0, 2.0, 1000)]


def test_while_the_reply_is_paused_nothing_is_heard() -> None:
    """It goes on where it stood, with all that was left."""
    notes: list[Note] = [sent(1.0, pcm(2.0)), paused(1.5), sent(1.6, pcm(1.0, 2000)), resumed(4.0)]
    _, right = tracks([*notes, ended(6.5, "completed"), over(8.0)])
    assert parts(right) == [(1.0, 1.5, 1000), (4.0, 5.5, 1000), (5.5, 6.5, 2000)]
    _, right = tracks([*notes[:3], interrupted(3.0, 500.0), over(8.0)])
    assert parts(right) == [(1.0, 1.5, 1000)]


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_turn_that_fails_is_cut_there(outcome: Outcome) -> None:
    """As its history is."""
    _, right = tracks([sent(1.0, pcm(5.0)), ended(2.0, outcome), over(8.0)])
    assert parts(right) == [(1.0, 2.0, 1000)]


def test_a_session_that_ends_cuts_what_it_was_saying() -> None:
    """Also where nobody said that the turn was over."""
    _, right = tracks([sent(1.0, pcm(5.0)), over(2.0)])
    assert parts(right) == [(1.0, 2.0, 1000)]


def test_a_turn_that_was_heard_sooner_than_reckoned_gives_way() -> None:
    """A client may report that it is done; the next turn is not held up."""
    notes: list[Note] = [sent(1.0, pcm(5.0)), ended(2.0, "completed"), sent(3.0, pcm(1.0, 2000), turn_id=2)]
    _, right = tracks([*notes, over(9.0)])
    assert parts(right) == [(1.0, 3.0, 1000), (3.0, 4.0, 2000)]


@pytest.mark.parametrize("rate_hz", [8000, 22050, 24000, 44100, 48000])
def test_other_rates_lie_at_the_same_times(rate_hz: int) -> None:
    """Through a filter that keeps sound back: its tail comes, and none beyond a cut."""
    audio_format = AudioFormat("pcm", rate_hz)
    pieces = [pcm(0.1, 1000, rate_hz)] * 20
    notes: list[Note] = [
        *(sent(1.0 + number / 100, piece, 1, audio_format) for number, piece in enumerate(pieces)),
        *(heard(2.0 + number / 10, piece, audio_format) for number, piece in enumerate(pieces)),
        interrupted(2.5, 1500.0),
        over(4.0),
    ]
    left, right = tracks(sorted(notes, key=lambda note: note.at_s))
    for channel, start_s, end_s in ((left, 1.9, 3.9), (right, 1.0, 2.5)):
        start, end = round(start_s * RATE_HZ), round(end_s * RATE_HZ)
        assert not channel[:start].any()
        assert not channel[end + 1 :].any()
        assert abs(int(np.median(channel[start:end])) - 1000) < 5
        assert np.abs(channel[start + 50 : end - 50] - 1000).max() < 30


def test_mu_law_is_decoded_and_other_codecs_are_silence() -> None:
    """Silence as long as they are: what follows lies where it was heard."""
    ulaw, mp3 = AudioFormat("ulaw", 8000), AudioFormat("mp3", 44100, 128)
    left, right = tracks(
        [
            sent(1.0, bytes(16_000), 1, mp3),
            sent(1.0, pcm(1.0)),
            heard(2.0, ulaw_encode(pcm(1.0, 1000, 8000)), ulaw),
            over(4.0),
        ]
    )
    assert parts(right) == [(2.0, 3.0, 1000)]
    assert abs(int(np.median(left[RATE_HZ : 2 * RATE_HZ])) - 1000) < 30


def test_only_so_much_waits_to_be_heard() -> None:
    """The rest is silence of the right length."""
    half = pcm(MAX_WAITING_S / 2)
    notes: list[Note] = [sent(1.0, half), sent(1.0, half), sent(1.0, pcm(1.0, 2000)), sent(1.0, half)]
    _, right = tracks([*notes, heard(200.0, pcm(1.0)), over(201.0)])
    assert parts(right) == [(1.0, 121.0, 1000), (121.0, 122.0, 2000)]


def test_what_can_change_is_kept_back_and_no_more() -> None:
    """Long silence is given in blocks; the rest when the session ends."""
    sound = SessionSound(OPENED_S)
    sound.take(heard(1.0, pcm(0.1)))
    assert list(sound.blocks()) == []
    sound.take(heard(60.0, pcm(0.1)))
    given_frames = sum(len(block) for block in sound.blocks()) // 4
    assert given_frames == (60 - HELD_S) * RATE_HZ
    sound.take(over(60.0))
    assert given_frames + sum(len(block) for block in sound.blocks()) // 4 == 60 * RATE_HZ


def test_it_is_told_whether_there_was_sound() -> None:
    """Events alone are none."""
    sound = SessionSound(OPENED_S)
    sound.take(ended(1.0, "completed"))
    assert not sound.has_begun
    sound.take(sent(2.0, pcm(0.1), turn_id=2))
    assert sound.has_begun


@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "pause", "resume"]), st.integers(1, 3000), st.integers(1, 2000)),
        max_size=30,
    ),
    st.integers(1, 3000),
)
def test_as_much_is_on_the_track_as_the_session_reckons(
    acts: list[tuple[str, int, int]], wait_ms: int
) -> None:
    """Whatever was sent when, and however often paused: the playback clock of the machine agrees."""
    notes: list[Note] = []
    clock, at_ms = PlaybackClock(), 0
    for what, after_ms, long_ms in acts:
        at_ms += after_ms
        at_s = at_ms / 1000
        match what:
            case "send":
                notes.append(sent(at_s, pcm(long_ms / 1000)))
                clock.audio_sent(long_ms, at_s)
            case "pause" if not clock.is_paused:
                notes.append(paused(at_s))
                clock.pause(at_s)
            case "resume" if clock.is_paused:
                notes.append(resumed(at_s))
                clock.resume(at_s)
    at_s = (at_ms + wait_ms) / 1000
    heard_ms = clock.heard_ms(at_s)
    _, right = tracks([*notes, interrupted(at_s, heard_ms), over(at_s + 1)])
    assert abs(np.count_nonzero(right) - heard_ms * 16) <= 2
    assert not right[round(at_s * RATE_HZ) + 1 :].any()
