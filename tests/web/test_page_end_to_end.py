"""The whole of it, as its first user meets it.

The page in Chromium, the server in a process of its own, the embedded engines, and a person's recorded voice
for a microphone.
"""

import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import moonshine_voice
import numpy as np
import pytest

from tests.bench import sounds
from tests.fakes.recordings import to_pcm
from tests.web.chromium import LEVEL_MS, SILENT_RMS, Console, open_console, run_chromium
from voice_fsm.stt.moonshine import SAMPLE_RATE_HZ, Samples

RECORDING = Path(moonshine_voice.__file__).parent / "assets" / "clone-test.wav"
AUDIBLE_RMS = 0.01


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """``voice-fsm serve``, with time to decide and a doubt of single words.

    Kept waiting by other tests, it notices silence late, and the recogniser may take a cough for a "Yeah."
    """
    command = [sys.executable, "-m", "voice_fsm", "serve", "--port", "0"]
    env = {**os.environ, "BARGE_IN_DECIDE_WITHIN_MS": "5000", "BARGE_IN_MIN_WORDS": "3"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
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


# --- barge-in, heard in the page --------------------------------------------------------------------


@contextmanager
def conversation(url: str, prompt: str, sound: Samples, directory: Path) -> Iterator[Console]:
    """The page in the middle of a reply; half a second later its microphone hears ``sound``."""
    path = directory / "microphone.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes(to_pcm(sounds.after_silence(sound, before_s=0.5, after_s=60)))
    with run_chromium(path) as browser, open_console(browser, url) as console:
        console.connect({"Barge-in": "vad"})
        console.start_tap()
        console.prompt(prompt)
        console.wait_for("voiceTest.state === 'speaking'")
        assert console.loudest(300) > AUDIBLE_RMS
        console.press("Start microphone")
        yield console


def test_a_user_who_speaks_up_hears_silence_before_there_are_words(url: str, tmp_path: Path) -> None:
    """The page fades out on the voice detector's word; words then stop the reply."""
    said = next(each for each in sounds.human_utterances() if "to Heaven" in each.text)
    with conversation(url, "Tell me a long story", said.samples, tmp_path) as console:
        console.wait_for("voiceTest.events('assistant.done').length > 0")
        types = console.types_received()
        assert types.index("assistant.paused") < types.index("assistant.interrupted")
        assert "assistant.resumed" not in types
        heard = console.heard()
    onset = np.argmax(heard.microphone > heard.microphone.max() / 10)
    last = np.flatnonzero(heard.output > SILENT_RMS)[-1]
    assert 0 < LEVEL_MS * (last - onset) < 1000  # 0.2 s on a machine with nothing else to do


def test_a_cough_leaves_the_reply_to_be_heard_to_its_end(url: str, tmp_path: Path) -> None:
    """At most it pauses it."""
    with conversation(url, "Hello", sounds.cough(4), tmp_path) as console:
        console.wait_for("voiceTest.events('assistant.done').length > 0")
        (done,) = console.received("assistant.done")
        assert done["outcome"] == "completed"
        assert console.heard().microphone.max() > AUDIBLE_RMS, "the cough came before the end"
