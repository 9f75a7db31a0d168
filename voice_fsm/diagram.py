"""The session machine drawn from its code, for the docs and for ``voice-fsm diagram``.

``python -m voice_fsm.diagram`` writes ``docs/state-machine.md`` anew.
"""
# ruff: noqa: E501  # a table's row is one line

import shutil
import subprocess
from pathlib import Path
from typing import Final, Literal

from voice_fsm.errors import ConfigError
from voice_fsm.fsm.chart import SessionChart

DiagramFormat = Literal["mermaid", "svg", "table"]

_PAGE: Final = Path("docs/state-machine.md")

_STATES: Final = """\
| state | meaning |
|---|---|
| `unconfigured` | The socket is open; the client has not said yet what it wants. Ends by itself after 30 s. |
| `listening` | The microphone goes to the recogniser. Nothing is being answered. |
| `speculating` | The user's words have stood for a while. The chat backend was asked as if they were final; nobody is told. |
| `holding` | What was said breaks off ("... and, um"). Ends when more is said, or after `turn.patience_ms` without a word. |
| `thinking` | A turn has begun; nothing of its answer is audible yet. Ends by itself: every upstream has a deadline. |
| `speaking` | The listener hears the answer. Ends when it has been *played*, not when it has been sent. |
| `hesitating` | Somebody began to speak while the assistant did. No audio is sent until words, or time, decide. |
| `closed` | The session is over. |
"""

_INTRODUCTION: Final = """\
# The session machine

<!-- Written by `python -m voice_fsm.diagram`; a test fails when it differs from the code. -->

Every voice session is this machine and nothing beside it: there is no flag that also knows who is speaking.
The client sees it move in `state.changed` events, the test page lights its states, metrics carry their names.
"""

_RULES: Final = """\
## What the picture leaves out

- **Reports carry their turn's number.** Text, audio and failures of a turn that is over change nothing.
- **`may_interrupt`** is the barge-in policy of the session: `turn.barge_in`, `min_words`, `min_speech_ms`,
  `grace_ms`, sounds of listening (`backchannels`) and the assistant's own echo (`echo_filter`). What it does not
  let through leaves the assistant speaking. A text prompt always interrupts.
- **`voice`** is the voice detector's word that somebody speaks, **`words`** a partial transcript. With
  `turn.barge_in` `vad` the first pauses the reply and the second decides; without words time does
  (`decision_due`): speech that goes on interrupts, a cough does not.
- **The assistant speaks by itself** first of all (`turn.first_message`) and into a long `silence`
  (`turn.idle_prompt_s`).
- **`configure` with a turn under way** ends that turn first. `session.update` changes settings and leaves the
  turn alone.
- **An utterance while thinking** cancels the turn and starts one that answers both utterances
  (`turn.merge_window_ms`). An interruption while thinking is up to the client's stop button alone: there is
  nothing to be heard yet that speech could interrupt.
- **A turn ends once**: `completed`, `interrupted` (it was audible, or the client asked for silence), `cancelled`
  (nothing was audible) or `failed`. Its last event is `assistant.done`.
- **Time** enters as a number on each event. What time alone brings about (`playback_over`, a turn that thinks
  for too long, silence, the longest session) the core names as one deadline.
- **Links to the recogniser** come and go without moving the machine: a session without one still answers text.
"""


def render(diagram_format: DiagramFormat) -> str:
    """Draw the chart.

    Raises:
        ConfigError: SVG needs Graphviz' ``dot``, which is not installed.
    """
    if diagram_format == "mermaid":
        return f"{SessionChart:mermaid}".strip() + "\n"
    if diagram_format == "table":
        return f"{SessionChart:md}".strip() + "\n"
    dot = shutil.which("dot")
    if dot is None:
        raise ConfigError("PATH", "drawing SVG needs Graphviz; install it, or use --format mermaid.")
    drawn = subprocess.run(  # noqa: S603  # our own text to a program found on PATH
        [dot, "-Tsvg"], input=f"{SessionChart:dot}", capture_output=True, check=True, text=True
    )
    return drawn.stdout


def page() -> str:
    """The text of ``docs/state-machine.md``."""
    return "\n".join(
        [
            _INTRODUCTION,
            f"```mermaid\n{render('mermaid')}```\n",
            _STATES,
            "## Transitions\n",
            render("table"),
            _RULES,
        ]
    )


if __name__ == "__main__":
    _PAGE.write_text(page())
