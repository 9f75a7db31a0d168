import math

import numpy as np
import trio
from trio.testing import wait_all_tasks_blocked

from voice_fsm.fsm.options import PCM_16K
from voice_fsm.runtime.microphone import COMMIT_TAIL_MS, KEEP_S, WORDLESS_S, Heard, LeadMeter, Microphone
from voice_fsm.stt.local import MAX_BACKLOG_S
from voice_fsm.stt.local_link import MAX_STEP_S

SECOND = PCM_16K.bytes_per_second


def tone(value: int, duration_ms: float) -> bytes:
    return np.full(int(duration_ms * 16), value, "<i2").tobytes()


async def test_pieces_that_waited_are_taken_as_one() -> None:
    """No queue of tiny frames: what came meanwhile goes out together, up to the next commit."""
    microphone = Microphone(PCM_16K)
    microphone.put(b"ab")
    microphone.put(b"cd")
    microphone.commit()
    microphone.put(b"ef")
    assert await microphone.take() == Heard(b"abcd", commit=True)
    assert await microphone.take() == Heard(b"ef", commit=False)


async def test_taking_waits_for_audio() -> None:
    """An empty microphone holds its reader until something comes."""
    microphone = Microphone(PCM_16K)
    taken: list[Heard] = []
    async with trio.open_nursery() as nursery:

        async def take() -> None:
            taken.append(await microphone.take())

        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        assert taken == []
        microphone.put(b"ab")
    assert taken == [Heard(b"ab", commit=False)]


async def test_who_waits_for_audio_may_lend_a_shorter_way() -> None:
    """Audio takes it while it is open, the queue when it is not, and never overtakes; a new link gets all."""
    microphone = Microphone(PCM_16K)
    sent: list[bytes] = []
    is_open = True
    taken: list[Heard] = []

    def send_now(audio: bytes) -> bool:
        if is_open:
            sent.append(audio)
        return is_open

    async def take() -> None:
        taken.append(await microphone.take(send_now))

    microphone.put(b"ab")
    await take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        microphone.put(b"cd")
        microphone.put(b"ef")
        is_open = False
        microphone.put(b"gh")
        is_open = True
        microphone.put(b"ij")
    microphone.put(b"kl")
    await take()
    assert sent == [b"cd", b"ef"]
    assert taken == [Heard(b"ab", commit=False), Heard(b"ghij", commit=False), Heard(b"kl", commit=False)]
    microphone.rewind()
    assert await microphone.take() == Heard(b"abcdefghijkl", commit=False)


async def test_a_new_link_gets_what_was_not_committed() -> None:
    """Sent and unanswered comes again, with its commit, before what is new."""
    microphone = Microphone(PCM_16K)
    microphone.put(b"ab")
    microphone.commit()
    await microphone.take()
    microphone.put(b"cd")
    microphone.rewind()
    assert await microphone.take() == Heard(b"ab", commit=True)
    assert await microphone.take() == Heard(b"cd", commit=False)


async def test_an_answered_commit_forgets_exactly_its_own_audio() -> None:
    """With the client's commits the border is known to the byte."""
    microphone = Microphone(PCM_16K)
    microphone.put(b"ab")
    microphone.commit()
    microphone.put(b"cd")
    await microphone.take()
    await microphone.take()
    microphone.committed("ab")
    microphone.rewind()
    assert await microphone.take() == Heard(b"cd", commit=False)


async def test_a_commit_by_the_recogniser_keeps_only_a_tail() -> None:
    """Where the recogniser decides, a little audio may belong to the next utterance and is kept."""
    microphone = Microphone(PCM_16K)
    for value in range(20):
        microphone.put(tone(value, 100))
    await microphone.take()
    microphone.committed("ab")
    microphone.rewind()
    heard = await microphone.take()
    assert heard.audio == b"".join(tone(value, 100) for value in range(20 - COMMIT_TAIL_MS // 100, 20))


async def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    """While the recogniser is away only the newest audio is kept, and the loss is counted."""
    microphone = Microphone(PCM_16K)
    for second in range(int(KEEP_S) + 5):
        microphone.put(tone(second, 1000))
    assert microphone.dropped_bytes == 5 * SECOND
    heard = await microphone.take()
    assert len(heard.audio) == KEEP_S * SECOND
    assert heard.audio[:2] == tone(5, 1)[:2]


async def test_long_speech_without_a_commit_does_not_count_as_lost() -> None:
    """What was sent is forgotten first when the bound is reached; nothing unsent is dropped."""
    microphone = Microphone(PCM_16K)
    for second in range(int(KEEP_S) * 3):
        microphone.put(tone(second, 1000))
        await microphone.take()
        microphone.heard_words()
    assert microphone.dropped_bytes == 0
    microphone.rewind()
    assert len((await microphone.take()).audio) == KEEP_S * SECOND


async def test_what_is_to_be_said_again_counts_towards_the_bound() -> None:
    """While the next link is away too, the oldest goes, and now it is lost."""
    microphone = Microphone(PCM_16K)
    microphone.heard_words()
    for second in range(20):
        microphone.put(tone(second, 1000))
        await microphone.take()
    microphone.rewind()
    for second in range(20, 40):
        microphone.put(tone(second, 1000))
    assert microphone.dropped_bytes == (40 - KEEP_S) * SECOND
    assert len((await microphone.take()).audio) == KEEP_S * SECOND


async def test_a_new_link_begins_where_the_answers_of_the_old_one_end() -> None:
    """Its times are counted from there."""
    microphone = Microphone(PCM_16K)
    await hear(microphone, range(3))
    microphone.committed("ab")
    microphone.put(tone(3, 1000))
    microphone.rewind()
    assert microphone.link_began_s == 3 - COMMIT_TAIL_MS / 1000


async def hear(microphone: Microphone, seconds: range) -> None:
    for second in seconds:
        microphone.put(tone(second, 1000))
        await microphone.take()


async def heard_again(microphone: Microphone) -> list[int]:
    """Which seconds a new link is given."""
    microphone.rewind()
    audio = (await microphone.take()).audio
    return [second for second in range(40) if tone(second, 1000) in audio]


async def test_silence_is_kept_for_a_shorter_time() -> None:
    """Of what the recogniser took and heard no words in, a new link gets the newest part."""
    microphone = Microphone(PCM_16K)
    await hear(microphone, range(20))
    assert await heard_again(microphone) == list(range(20 - int(WORDLESS_S), 20))


async def test_words_that_a_slow_recogniser_has_yet_to_find_are_no_silence() -> None:
    """Ours takes audio while it is behind; if it then gives up, the next link is given all of that."""
    microphone = Microphone(PCM_16K)
    await hear(microphone, range(10))
    until = 10 + math.ceil(MAX_BACKLOG_S + MAX_STEP_S)
    await hear(microphone, range(10, until))
    assert set(await heard_again(microphone)) >= set(range(10, until))


async def test_nothing_is_forgotten_from_the_first_word_on() -> None:
    """Words keep all since shortly before them, and a commit that is not answered does too."""
    for note in (Microphone.heard_words, Microphone.commit):
        microphone = Microphone(PCM_16K)
        await hear(microphone, range(2))
        note(microphone)
        await hear(microphone, range(2, 25))
        assert set(await heard_again(microphone)) >= set(range(2))


async def test_after_an_answer_silence_is_forgotten_again() -> None:
    """The words were committed."""
    microphone = Microphone(PCM_16K)
    await hear(microphone, range(5))
    microphone.heard_words()
    microphone.committed("ab")
    await hear(microphone, range(5, 25))
    assert await heard_again(microphone) == list(range(25 - int(WORDLESS_S), 25))


async def test_what_a_recogniser_could_not_answer_yet_is_no_silence() -> None:
    """Audio that waited for a link, or went to one only now, is kept as far as memory goes."""
    microphone = Microphone(PCM_16K)
    for second in range(20):
        microphone.put(tone(second, 1000))
    await microphone.take()
    await hear(microphone, range(20, 22))
    assert await heard_again(microphone) == list(range(2, 22))


async def test_audio_at_another_rate_is_resampled() -> None:
    """A client that says its rate with each chunk is heard at the configured one."""
    microphone = Microphone(PCM_16K)
    for _ in range(20):
        microphone.put(np.zeros(4800, "<i2").tobytes(), 48000)
    heard = await microphone.take()
    assert abs(len(heard.audio) - 2 * SECOND) < SECOND / 10


def test_the_lead_meter_admits_real_time_and_a_bounded_lead() -> None:
    """Ten seconds at once pass, the eleventh does not, and time makes room again."""
    meter = LeadMeter(10)
    assert all(meter.admits(1, now_s=100) for _ in range(10))
    assert not meter.admits(1, now_s=100)
    assert meter.admits(1, now_s=101)
    assert not meter.admits(1, now_s=101)
    assert meter.admits(10, now_s=200)


async def test_what_was_committed_is_the_context_of_what_follows() -> None:
    """The last words stand before the audio that waits; silence that was committed says nothing of it."""
    microphone = Microphone(PCM_16K)
    microphone.previous_text = "given by the client"
    microphone.committed("Good morning.")
    assert microphone.previous_text == "Good morning."
    microphone.committed(" ")
    assert microphone.previous_text == "Good morning."
