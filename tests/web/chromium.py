"""A Chromium whose microphone plays a file, and the test page in it, for tests of any voice server.

Playwright's synchronous interface: tests that use it are plain functions, and a server of theirs runs in
another thread or process.
"""

import json
import os
import shutil
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import moonshine_voice
import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

SPEECH_WAV: Final = Path(moonshine_voice.__file__).parent / "assets" / "two_cities.wav"
"""44 s of a person reading, 48 kHz PCM."""

SILENT_RMS: Final = 0.001
LEVEL_MS: Final = 5
"""Length of one level of `Heard`."""
WAITING_DEVICE_HZ: Final = 48000

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_POLL_MS: Final = 10
_PATIENCE_MS: Final = 15_000

Viewport = tuple[int, int]
Levels = npt.NDArray[np.float64]
DESKTOP: Final[Viewport] = (1440, 960)
PHONE: Final[Viewport] = (390, 844)


@contextmanager
def run_chromium(microphone: Path = SPEECH_WAV) -> Iterator[Browser]:
    """A browser for the block; the test is skipped where there is none, but fails where ``CI`` is set."""
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        reason = f"no Chromium on this machine (looked for {', '.join(_NAMES)})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=[
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone}",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--autoplay-policy=no-user-gesture-required",
            ],
        )
        try:
            yield browser
        finally:
            browser.close()


_TAP: Final = """
const { connect } = AudioNode.prototype;
const sources = {};
AudioNode.prototype.connect = function (target, ...rest) {
  if (this instanceof MediaStreamAudioSourceNode) sources.microphone = this;
  if (target === this.context.destination && this instanceof AnalyserNode) sources.output = this;
  if (window.tap) connectTap();
  return connect.call(this, target, ...rest);
};
function connectTap() {
  for (const [name, source] of Object.entries(sources)) connect.call(source, window.tap[name].node);
}
const { dispatchEvent } = EventTarget.prototype;
EventTarget.prototype.dispatchEvent = function (event) {
  if (window.tap?.isMoment(event)) window.tap.moment.source.offset.value = 1;
  return dispatchEvent.call(this, event);
};
window.startTap = (isMoment) => {
  const { context } = sources.output;
  const always = new ConstantSourceNode(context, { offset: 0 });
  sources.moment = new ConstantSourceNode(context, { offset: 0 });
  const record = () => {
    const levels = [];
    const node = new AudioWorkletNode(context, "capture");
    node.port.onmessage = ({ data }) => {
      const size = data.length / 4;
      for (let at = 0; at < data.length; at += size) {
        levels.push(Math.sqrt(data.subarray(at, at + size).reduce((sum, x) => sum + x * x, 0) / size));
      }
    };
    connect.call(connect.call(always, node), context.destination);
    return { node, levels };
  };
  window.tap = { isMoment, microphone: record(), output: record(), moment: record() };
  window.tap.moment.source = sources.moment;
  always.start();
  sources.moment.start();
  connectTap();
};
"""
"""Three more of the page's recorders (blocks of 20 ms); they start together.

At the microphone, at the output, and at a source that is 0 before a moment in the page and 1 from then on.
"""

_WAITING_DEVICE: Final = """
const STEP = 63 * 128;
window.AudioContext = class extends OfflineAudioContext {
  #isRunning = false;
  constructor() {
    super({ length: 120 * sampleRate, sampleRate });
    window.device = this;
  }
  async resume() {}
  async play(isOver) {
    const pieces = [];
    do pieces.push(await this.#step()); while (!isOver());
    return [...pieces, await this.#step()];
  }
  async #step() {
    const before = this.currentTime;
    const played = this.suspend(before + STEP / sampleRate);
    if (this.#isRunning) super.resume();
    else this.startRendering();
    this.#isRunning = true;
    await played;
    await new Promise((wake) => setTimeout(wake));
    return voiceTest.outputSamples(1000 * (this.currentTime - before));
  }
};
"""
"""In place of the page's audio device: one whose time goes on only while the test listens."""


@attrs.frozen(eq=False)
class Heard:
    """RMS of each 5 ms of what the page's microphone took in and of what the page played, by one clock."""

    microphone: Levels
    output: Levels
    moment: Levels
    """0 before the moment that `Console.start_tap` was told of, then 1."""

    @property
    def sound_after_ms(self) -> int:
        """How long after the moment the page still sounded; 0 where it was silent by then.

        By the clock of the sound itself: it does not count how late anybody looked.
        """
        (after,) = np.nonzero(self.moment)
        (loud,) = np.nonzero(self.output[after[0] :] > SILENT_RMS)
        return LEVEL_MS * (int(loud[-1]) + 1) if len(loud) else 0


@attrs.define
class Console:
    """The test page as its user sees it, and as `window.voiceTest` tells of it."""

    page: Page
    complaints: list[str] = attrs.field(factory=list)
    """Errors and warnings in the browser's console, and uncaught exceptions."""

    def connect(self, settings: Mapping[str, str] | None = None) -> None:
        """Connect with these settings, by their fields' labels, and wait until the server listens."""
        for label, value in (settings or {}).items():
            self.set(label, value)
        self.press("Connect")
        self.wait_for("voiceTest.state === 'listening'")

    def set(self, label: str, value: str) -> None:
        """Fill in a field, or choose from a list, by its label."""
        field = self.page.get_by_label(label, exact=True)
        if field.evaluate("element => element.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)

    def press(self, name: str) -> None:
        """Press a button by its name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def prompt(self, text: str) -> None:
        """Type to the assistant."""
        self.set("Text prompt", text)
        self.press("Send")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression holds; whatever it is, the page's policy does not hinder it.

        Raises:
            AssertionError: it did not come true in 15 s.
        """
        held = self.page.evaluate(
            f"""async () => {{
                const start = performance.now();
                while (!({condition})) {{
                    if (performance.now() - start > {_PATIENCE_MS}) return false;
                    await new Promise((wake) => setTimeout(wake, {_POLL_MS}));
                }}
                return true;
            }}"""
        )
        assert held, f"never true: {condition}; received: {self.types_received()[-12:]}"

    def look(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.page.evaluate(f"() => {expression}")

    def types_received(self) -> list[str]:
        """Types of the server's last messages, oldest first."""
        types: list[str] = self.look("voiceTest.events().map(({message}) => message.type)")
        return types

    def received(self, type_: str) -> list[dict[str, Any]]:
        """The server's last messages of one type, oldest first."""
        messages: list[dict[str, Any]] = self.look(
            f"voiceTest.events({json.dumps(type_)}).map(({{message}}) => message)"
        )
        return messages

    def start_tap(self, moment: str = "() => false") -> None:
        """Record from here on what `heard` tells; once for each page, when it is connected.

        ``moment`` is a JavaScript predicate of the events that the page's parts dispatch to each other.
        """
        self.page.evaluate(f"startTap({moment})")
        self.wait_for("tap.moment.levels.length > 0")

    def heard(self) -> Heard:
        """What has been recorded since `start_tap`."""
        levels = self.look("[tap.microphone.levels, tap.output.levels, tap.moment.levels]")
        return Heard(*map(np.array, levels))

    def heard_after(self, duration_ms: int) -> Heard:
        """The same, once the moment has come and the record is so much longer than now."""
        self.wait_for("tap.moment.levels.at(-1) > 0")
        levels = self.look("tap.output.levels.length") + duration_ms // LEVEL_MS
        self.wait_for(f"Math.min(tap.output.levels.length, tap.moment.levels.length) >= {levels}")
        return self.heard()

    def use_waiting_device(self) -> None:
        """Before connecting: let no sound go out but in `listen`."""
        self.page.evaluate(f"(sampleRate) => {{ {_WAITING_DEVICE} }}", WAITING_DEVICE_HZ)

    def listen(self, until: str) -> Levels:
        """Every sample that goes out until a JavaScript expression holds, and for a moment more.

        At `WAITING_DEVICE_HZ`.
        """
        encoded: str = self.page.evaluate(
            f"""async () => {{
                const {{ toBase64 }} = await import("/test/codec.js");
                const samples = Float32Array.from((await device.play(() => {until})).flat());
                return toBase64(new Uint8Array(samples.buffer));
            }}"""
        )
        return np.frombuffer(b64decode(encoded), "<f4").astype(float)

    def loudest(self, duration_ms: int) -> float:
        """The greatest RMS of 20 ms of output, watched for a while."""
        rms: float = self.page.evaluate(
            """async (durationMs) => {
                const end = performance.now() + durationMs;
                let loudest = 0;
                while (performance.now() < end) {
                    loudest = Math.max(loudest, voiceTest.outputRms(20));
                    await new Promise((wake) => setTimeout(wake, 5));
                }
                return loudest;
            }""",
            duration_ms,
        )
        return rms


@contextmanager
def open_console(
    browser: Browser,
    url: str,
    viewport: Viewport = DESKTOP,
    color_scheme: Literal["light", "dark"] = "light",
) -> Iterator[Console]:
    """The page of the server at ``url`` in a fresh profile.

    Raises:
        AssertionError: on leaving the block: the browser complained about the page.
    """
    width, height = viewport
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=color_scheme, permissions=["microphone"]
    )
    context.set_default_timeout(_PATIENCE_MS)
    context.add_init_script(_TAP)
    page = context.new_page()
    console = Console(page)
    page.on(
        "console",
        lambda message: (
            console.complaints.append(message.text) if message.type in {"error", "warning"} else None
        ),
    )
    page.on("pageerror", lambda error: console.complaints.append(str(error)))
    try:
        page.goto(f"{url}/test")
        console.wait_for("window.voiceTest && document.querySelector('.node')")
        yield console
        assert console.complaints == []
    finally:
        context.close()
