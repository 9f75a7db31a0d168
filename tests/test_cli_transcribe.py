"""``voice-fsm transcribe``."""

import json
import wave
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fakes.recordings import load, to_pcm
from voice_fsm.cli import main


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(to_pcm(load("beckett"))[: 3 * 32000])
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STT_PROVIDER", "local")
    monkeypatch.setattr("voice_fsm.cli.transcribe.configure_logging", lambda *_: None)  # it is the process's


def test_a_recording_is_told_with_its_words(recording: Path) -> None:
    """No server, no network: the text, and when each word was said."""
    done = CliRunner().invoke(main, ["transcribe", str(recording), "--json", "--language", "en"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["text"].lower().startswith("ever tried")
    assert [word["text"] for word in told["words"]] == told["text"].split()
    assert (told["duration_s"], told["language"], told["words_estimated"]) == (3.0, "en", True)


def test_what_is_no_recording_is_said_in_a_sentence(tmp_path: Path) -> None:
    """Without a traceback, and with a code that scripts see."""
    path = tmp_path / "notes.txt"
    path.write_text("not a recording")
    done = CliRunner().invoke(main, ["transcribe", str(path)])
    assert done.exit_code == 1
    assert done.output.startswith("Error: The file is no recording")
