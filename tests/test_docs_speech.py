"""The examples of the page on the speech API, run against a served process."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page, Route, expect

from tests.fakes.recordings import word_error_rate
from tests.integration.speech_process import speech_server
from tests.web.chromium import run_chromium
from voice_fsm.stt.media import decode_recording

PAGE: Final = Path(__file__).parents[1] / "docs" / "speech-api.md"
KEY: Final = "a-key-of-this-test"
SENTENCE: Final = "It is going to rain tomorrow morning."

REACT: Final = """
    const states = [];
    let at = 0;
    export const rendered = (component) => { at = 0; return component(); };
    export const useRef = (first) => useState({ current: first })[0];
    export function useState(first) {
      const mine = at++;
      if (!(mine in states)) states[mine] = first;
      return [states[mine], (next) => { states[mine] = next; }];
    }
"""
"""As much of it as a hook needs."""

TALK: Final = """
    async (key) => {
      const { rendered } = await import("react");
      const { useSpeech } = await import("./hook.js");
      const hook = () => rendered(() => useSpeech(key));
      await hook().speak("Good morning!");
      const during = hook().isSpeaking;
      while (hook().isSpeaking) await new Promise((go) => setTimeout(go, 20));
      await hook().speak("Good morning!");
      hook().stop();
      return [during, hook().isSpeaking];
    }
"""
PLAY: Final = """
    (src) => new Promise((done, failed) => {
      const audio = Object.assign(document.createElement("audio"), { src, controls: true });
      audio.onended = () => done(audio.duration);
      audio.onerror = () => failed(new Error(audio.error.message));
      document.body.append(audio);
      audio.play();
    })
"""


def example(language: str, server: str) -> str:
    """The section's block of code in a language, for this server."""
    section = PAGE.read_text(encoding="utf-8").split("\n## First steps\n")[1].split("\n## ")[0]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert "http://127.0.0.1:8000" in block or language == "jsx"
    return str(block).replace("http://127.0.0.1:8000", server)


def run(directory: Path, *command: str) -> str:
    """Run a program in ``directory``; what it printed."""
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, "KEY": KEY}, check=True, capture_output=True, timeout=60
    )
    return done.stdout.decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with speech_server(tmp_path_factory.mktemp("speech"), SERVICE_API_KEYS=KEY) as url:
        yield url


def test_curl_speaks_into_a_file_and_has_it_transcribed(server: str, tmp_path: Path) -> None:
    """Both commands, as they stand."""
    said = run(tmp_path, "sh", "-ec", example("sh", server))
    assert word_error_rate(SENTENCE, json.loads(said)["text"]) < 0.3
    assert len(decode_recording((tmp_path / "hello.wav").read_bytes(), 16000, 60)) > 16000


def test_python_clients_speak_and_listen(server: str, tmp_path: Path) -> None:
    """Both services' own, with another base URL."""
    said = run(tmp_path, sys.executable, "-c", example("python", server))
    assert word_error_rate(SENTENCE, said) < 0.3
    assert len(decode_recording((tmp_path / "night.mp3").read_bytes(), 16000, 60)) > 16000


def test_javascript_speaks_and_listens(server: str, tmp_path: Path) -> None:
    """In Node, without a package."""
    (tmp_path / "speech.mjs").write_text(example("js", server), encoding="utf-8")
    use = f"""
        import {{ say, transcribe }} from "./speech.mjs";
        console.log(await transcribe(await say("{SENTENCE}", "{KEY}"), "{KEY}"));
        await say("", "{KEY}").catch((error) => console.log(error.message));
    """
    (tmp_path / "use.mjs").write_text(use, encoding="utf-8")
    said, refusal = run(tmp_path, "node", "use.mjs").splitlines()
    assert word_error_rate(SENTENCE, said) < 0.3
    assert "empty_text" in refusal


def connect_test_page(page: Page, server: str) -> None:
    """Without a key it is turned away with a reason; with one it buys a token and is let in."""
    page.goto(f"{server}/test")
    page.get_by_role("button", name="Connect").click()
    expect(page.locator("#close-reason")).to_contain_text("1008")
    page.get_by_label("Server's API key").fill(KEY)
    page.get_by_role("button", name="Connect").click()
    expect(page.locator("#connection")).to_have_text("connected")


def test_a_page_plays_by_react_and_by_an_element(server: str) -> None:
    """To the end, and until it is stopped; the element with a token in its address."""
    files = {
        "": '<script type=importmap>{"imports": {"react": "./react.js"}}</script>',
        "react.js": REACT,
        "speech.js": example("js", server),
        "hook.js": example("jsx", server),
    }
    heard: list[object] = []

    def serve(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        route.fulfill(body=files[name], content_type="text/javascript" if name else "text/html")

    def browse() -> None:
        with run_chromium() as browser:
            page: Page = browser.new_page()
            page.route(f"{server}/example/**", serve)
            page.goto(f"{server}/example/")
            heard.append(page.evaluate(TALK, KEY))
            token = page.evaluate(
                "(ask) => fetch(...ask).then((answer) => answer.json()).then((told) => told.token)",
                [f"{server}/v1/tokens", {"method": "POST", "headers": {"xi-api-key": KEY}}],
            )
            source = f"{server}/v1/text-to-speech/en-us?text=Good%20morning!&token={token}"
            heard.append(page.evaluate(PLAY, source))
            connect_test_page(page, server)

    browse()
    states, duration_s = heard
    assert states == [True, False]
    assert isinstance(duration_s, float)
    assert 0.5 < duration_s < 3
