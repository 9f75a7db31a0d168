import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.speech.entry import NotAnEntryError, decode, encode
from voice_fsm.tts.base import Alignment, Speech, SpeechAudio, SpokenText

TIMES = st.floats(0, 1e6)
ITEMS = st.lists(
    st.builds(SpokenText, st.text())
    | st.builds(SpeechAudio, st.binary(min_size=1))
    | st.lists(st.tuples(st.characters(), TIMES, TIMES)).map(
        lambda rows: Alignment(
            *(tuple(column) for column in zip(*rows, strict=True)) if rows else ((), (), ())
        )
    ),
    max_size=6,
)
SAMPLE: list[Speech] = [SpokenText("Hi \ud83d"), SpeechAudio(b"\0\1"), Alignment(("H",), (0.0,), (2.5,))]


@settings(max_examples=50)
@given(ITEMS)
def test_what_was_written_is_read(items: list[Speech]) -> None:
    """Audio, texts and times come back as they were, in their order."""
    assert decode("key", encode("key", items)) == tuple(items)


@pytest.mark.parametrize("position", range(0, len(encode("key", SAMPLE)), 7))
def test_damage_is_noticed(position: int) -> None:
    """One wrong bit, anywhere, and it is no entry; nor is what was cut off there."""
    data = bytearray(encode("key", SAMPLE))
    data[position] ^= 4
    for damaged in (bytes(data), encode("key", SAMPLE)[:position]):
        with pytest.raises(NotAnEntryError):
            decode("key", damaged)


def test_an_entry_belongs_to_its_key() -> None:
    """A file that was given another name is no entry."""
    with pytest.raises(NotAnEntryError):
        decode("other", encode("key", SAMPLE))
