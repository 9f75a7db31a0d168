"""Files that are recordings, those that were cut short, and those that are none."""

import pytest

from tests.recording.sessions import GOLDEN
from voice_fsm.recording.lines import End, Lost, Step
from voice_fsm.recording.reading import BadRecording, read_recording

DATA = (GOLDEN / "stop_button.jsonl").read_bytes()
LINES = DATA.splitlines(keepends=True)


def test_a_whole_file_is_read() -> None:
    """Header, steps, end, and nothing to say about it."""
    recording = read_recording(DATA)
    assert recording.header.opened_s == 0
    assert len(recording.lines) == len(LINES) - 2
    assert (recording.end, recording.notes) == (End("closed"), ())


@pytest.mark.parametrize("cut", [1, 20, len(LINES[-1]), len(LINES[-1]) + 1, len(LINES[-1]) + 40])
def test_a_file_that_a_crash_cut_off_is_read_up_to_there(cut: int) -> None:
    """Its last line is left out, and that is said."""
    recording = read_recording(DATA[:-cut])
    assert recording.end is None
    assert recording.is_cut_off is (cut != len(LINES[-1]))
    assert len(recording.notes) == 1 + recording.is_cut_off


def test_what_is_missing_is_said() -> None:
    """Steps that were lost, and the end at the largest size."""
    data = (
        b"".join(LINES[:4])
        + b'{"is":"Lost","steps":3}\n'
        + LINES[5]
        + b'{"is":"End","reason":"size_limit"}\n'
    )
    recording = read_recording(data)
    assert recording.lines[3] == Lost(3)
    assert isinstance(recording.lines[4], Step)
    assert any(note.startswith("3 steps are missing") for note in recording.notes)
    assert any("largest size" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "line 1 is missing: the file is empty"),
        (b"hello", "line 1 is not a recording's header"),
        (b"hello\n", "line 1 is not JSON"),
        (LINES[1], "line 1 is not a recording's header"),
        (LINES[0].replace(b'"format":1', b'"format":2'), "line 1 tells format 2, and this version reads 1"),
        (LINES[0] + b"\n" + LINES[1], "line 2 is not JSON"),
        (LINES[0] + LINES[1] + LINES[0], "line 3 is a second Header"),
        (LINES[0] + LINES[-1] + LINES[1], "line 2 is an End, and the file goes on"),
        (LINES[0] + b"\xff\xfe\n", "line 2 is not JSON"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(data: bytes, why: str) -> None:
    """A sentence with the number of the line."""
    with pytest.raises(BadRecording) as caught:
        read_recording(data)
    assert str(caught.value) == why
