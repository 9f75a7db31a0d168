"""The whole of it, as its first user meets it.

The page in Chromium, the server in a process of its own, the embedded engines, and a person's recorded voice
for a microphone.
"""

import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import moonshine_voice
import pytest

from tests.web.chromium import Console, open_console, run_chromium

RECORDING = Path(moonshine_voice.__file__).parent / "assets" / "clone-test.wav"
AUDIBLE_RMS = 0.01
SILENT_RMS = 0.001


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """``voice-fsm serve`` with nothing set."""
    command = [sys.executable, "-m", "voice_fsm", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as server:
        assert server.stdout is not None
        address = next(line for line in server.stdout if "Talk to it" in line).split()[4]
        try:
            yield address.removesuffix("/test")
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person says a sentence, and is silent for two minutes."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    with wave.open(str(RECORDING)) as source, wave.open(str(path), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(source.getnframes()))
        target.writeframes(bytes(2 * 120 * source.getframerate()))
    return path


@pytest.fixture
def console(url: str, microphone: Path) -> Iterator[Console]:
    with run_chromium(microphone) as browser, open_console(browser, url) as page:
        yield page


def test_a_person_speaks_is_answered_aloud_and_interrupts(console: Console) -> None:
    """Real speech in, real audio out; speaking again over the answer silences the page."""
    console.connect()
    console.press("Start microphone")
    console.wait_for("voiceTest.events('transcript.committed').length > 0")
    (committed, *_) = console.received("transcript.committed")
    # The browser's own noise suppression has its say, so not every word is certain.
    assert {"America", "very", "well."} <= set(committed["text"].split())
    console.wait_for("voiceTest.state === 'speaking'")
    assert console.loudest(2000) > AUDIBLE_RMS
    console.wait_for("voiceTest.state === 'listening'")
    (done,) = console.received("assistant.done")
    assert done["outcome"] == "completed"
    console.press("Stop microphone")

    console.prompt("Tell me a long story")
    console.wait_for("voiceTest.state === 'speaking'")
    assert console.loudest(1000) > AUDIBLE_RMS
    console.press("Start microphone")  # the recording begins anew: the person speaks over the story
    console.wait_for("voiceTest.events('assistant.interrupted').length > 0")
    silent_after_ms = console.page.evaluate(
        """async (silent) => {
            const start = performance.now();
            while (voiceTest.outputRms(20) > silent && performance.now() - start < 5000)
                await new Promise((wake) => setTimeout(wake, 5));
            return performance.now() - start;
        }""",
        SILENT_RMS,
    )
    assert silent_after_ms < 1000
    (interrupted,) = console.received("assistant.interrupted")
    assert interrupted["reason"] == "speech"
    assert interrupted["heard_ms"] > 0
    assert console.look("voiceTest.violations") == []
