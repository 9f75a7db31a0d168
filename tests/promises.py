"""What every client is promised, checked on all that one was told."""

from collections import Counter
from collections.abc import Sequence

from voice_fsm.fsm.effects import (
    AudioEnded,
    AudioStarted,
    ReplyTold,
    TurnEnded,
    TurnInterrupted,
    TurnPaused,
    TurnResumed,
    TurnStarted,
)
from voice_fsm.runtime.outgoing import AudioChunk, Item, SpeechTiming, TextDelta


def check_promises(told: Sequence[Item]) -> None:  # noqa: C901  # one line a promise
    """No stale output, every turn ended once, audio bracketed."""
    silenced: set[int] = set()
    ended: Counter[int] = Counter()
    started: list[int] = []
    audio_of: int | None = None
    paused: int | None = None
    for item in told:
        turn_id = getattr(item, "turn_id", None)
        assert turn_id not in ended, f"{item} after the end of its turn"
        match item:
            case TurnStarted():
                assert not started or ended[started[-1]] == 1, "a turn begins when the one before has ended"
                started.append(item.turn_id)
            case AudioStarted():
                assert audio_of is None
                audio_of = item.turn_id
            case AudioChunk():
                assert item.turn_id == audio_of, "audio only between its start and its end"
                assert paused is None, "no audio while paused"
            case TurnPaused():
                assert paused is None
                assert item.turn_id == started[-1]
                paused = item.turn_id
            case TurnResumed():
                assert item.turn_id == paused
                paused = None
            case AudioEnded():
                assert item.turn_id == audio_of
                audio_of = None
            case TurnInterrupted():
                silenced.add(item.turn_id)
            case TurnEnded():
                ended[item.turn_id] += 1
                paused = None
                assert (item.outcome == "interrupted") == (item.turn_id in silenced)
        if isinstance(item, AudioChunk | TextDelta | SpeechTiming | ReplyTold):
            assert item.turn_id not in silenced, "stale output"
    assert set(started) == set(ended)
    assert set(ended.values()) <= {1}
    assert audio_of is None
