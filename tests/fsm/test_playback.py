import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_fsm.fsm.events import SpokenSpan
from voice_fsm.fsm.playback import MAX_CLIENT_LAG_S, PlaybackClock, heard_text, text_between


def test_audio_sent_faster_than_real_time_is_heard_in_real_time() -> None:
    """Two seconds sent at once are half heard after one."""
    clock = PlaybackClock()
    clock.audio_sent(1000, at_s=10)
    clock.audio_sent(1000, at_s=10.1)
    assert clock.heard_ms(11) == pytest.approx(1000)
    assert clock.over_at_s() == pytest.approx(12)


def test_a_gap_in_sending_delays_what_follows() -> None:
    """Silence on the way is not counted as heard."""
    clock = PlaybackClock()
    clock.audio_sent(500, at_s=0)
    clock.audio_sent(500, at_s=2)
    assert clock.heard_ms(1) == pytest.approx(500) or clock.heard_ms(2) == pytest.approx(500)
    assert clock.over_at_s() == pytest.approx(2.5)


def test_the_clients_report_corrects_the_clock() -> None:
    """A client that buffers is behind our reckoning, and its word counts."""
    clock = PlaybackClock()
    clock.audio_sent(2000, at_s=0)
    clock.progress_reported(300, at_s=1)
    assert clock.heard_ms(1) == pytest.approx(300)
    assert clock.over_at_s() == pytest.approx(2.7)


def test_a_client_that_claims_to_stand_still_is_not_waited_for_for_ever() -> None:
    """The end of playback is at most the allowed lag away from our own reckoning."""
    clock = PlaybackClock()
    clock.audio_sent(2000, at_s=0)
    for at_s in range(1, 100):
        clock.progress_reported(0, at_s=at_s)
    assert clock.over_at_s() == pytest.approx(2 + MAX_CLIENT_LAG_S)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3000)), max_size=20),
    st.lists(st.tuples(st.floats(0, 5), st.floats(-1e9, 1e9)), max_size=5),
)
def test_heard_is_never_more_than_sent_nor_less_than_nothing(
    sends: list[tuple[float, float]], reports: list[tuple[float, float]]
) -> None:
    """Whatever is sent and reported, and whenever."""
    clock, now_s = PlaybackClock(), 0.0
    for wait_s, duration_ms in sends:
        now_s += wait_s
        clock.audio_sent(duration_ms, now_s)
    for wait_s, played_ms in reports:
        now_s += wait_s
        clock.progress_reported(played_ms, now_s)
        assert 0 <= clock.heard_ms(now_s) <= clock.sent_ms
    assert clock.heard_ms(clock.over_at_s() + 1e-6) == pytest.approx(clock.sent_ms)


def test_a_clock_that_stands_still_goes_on_where_it_stopped() -> None:
    """Time does not pass for a listener whose client was asked to stand still."""
    clock = PlaybackClock()
    clock.audio_sent(2000, at_s=0)
    clock.pause(1)
    assert clock.is_paused
    assert clock.heard_ms(5) == pytest.approx(1000)
    assert clock.over_at_s() == math.inf
    clock.audio_sent(500, at_s=5)
    clock.progress_reported(900, at_s=6)
    assert clock.heard_ms(6) == pytest.approx(900)
    clock.resume(11)
    assert not clock.is_paused
    assert clock.heard_ms(11) == pytest.approx(900)
    assert clock.over_at_s() == pytest.approx(12.6)


def test_a_listener_who_had_heard_all_stands_no_longer_than_the_pause() -> None:
    """What is sent after the pause plays from then on."""
    clock = PlaybackClock()
    clock.audio_sent(500, at_s=0)
    clock.pause(1)
    clock.resume(3)
    assert clock.heard_ms(3) == pytest.approx(500)
    clock.audio_sent(500, at_s=4)
    assert clock.over_at_s() == pytest.approx(4.5)


def test_resuming_without_a_pause_changes_nothing() -> None:
    """The client was not asked to stand still."""
    clock = PlaybackClock()
    clock.audio_sent(500, at_s=0)
    clock.resume(3)
    assert clock.over_at_s() == pytest.approx(0.5)


SENTENCES = (SpokenSpan("One two three.", 0), SpokenSpan("Four five six.", 1000))
WORDS = (SpokenSpan("One ", 0, 200), SpokenSpan("two ", 200, 400), SpokenSpan("three", 400, 600))


@pytest.mark.parametrize(
    ("spans", "audio_ms", "heard_ms", "text"),
    [
        ((), 0, 0, ""),
        (SENTENCES, 2000, 0, ""),
        (SENTENCES, 2000, 100, ""),
        (SENTENCES, 2000, 600, "One two"[:3]),
        (SENTENCES, 2000, 999, "One two"),
        (SENTENCES, 2000, 1000, "One two three."),
        (SENTENCES, 2000, 1700, "One two three. Four"),
        (SENTENCES, 2000, 2000, "One two three. Four five six."),
        (WORDS, 600, 399, "One"),
        (WORDS, 600, 400, "One two"),
        (WORDS, 600, 600, "One two three"),
    ],
)
def test_heard_text_is_cut_at_a_word_border(
    spans: tuple[SpokenSpan, ...], audio_ms: float, heard_ms: float, text: str
) -> None:
    """A word counts as heard once all of it was."""
    assert heard_text(spans, audio_ms, heard_ms) == text


@pytest.mark.parametrize(
    ("spans", "from_ms", "to_ms", "text"),
    [
        ((), 0, 1000, ""),
        (SENTENCES, -500, 100, "One"),
        (SENTENCES, 400, 480, "two"),
        (SENTENCES, 900, 1100, "three. Four"),
        (SENTENCES, -500, 9000, "One two three. Four five six."),
        (SENTENCES, 5000, 9000, ""),
        (WORDS, 150, 250, "One two"),
        (WORDS, 450, 460, "three"),
    ],
)
def test_text_between_takes_whole_words(
    spans: tuple[SpokenSpan, ...], from_ms: float, to_ms: float, text: str
) -> None:
    """A word of which any part sounds in the time belongs to it."""
    assert text_between(spans, 2000, from_ms, to_ms) == text
