"""Write ``docs/errors.md`` anew from the tables in `voice_fsm.errors`: ``python -m voice_fsm.error_docs``."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from voice_fsm.errors import CLIENT_FAULTS, PROVIDER_FAULTS, SESSION_FAULTS, Upstream

PAGE: Final = "docs/errors.md"
"""Path of the page in the repository."""

_INTRODUCTION: Final = """\
# Error codes

<!-- Written by `python -m voice_fsm.error_docs`; a test fails when it differs from the code. -->

What goes wrong is told in an [`error`](frontend.md#error) event. Branch on its `code`: codes are stable, but
new ones may come. `message` is a sentence for a person and may change. `retryable` says whether the very same
request may succeed later.
"""

_CLIENT: Final = """\
## Mistakes of the client

The message at fault has no effect, and the session goes on; `retryable` is false. Two come with an effect:
after `resume_unavailable` the session is configured all the same, and of what is `audio_too_fast` only the
surplus is lost. What only the recogniser can judge, such as its languages, is told after
`session.configured`; speech is then not heard until a `session.configure` or `session.update` that it can
serve.
"""

_PROVIDER: Final = """\
## Failures of an upstream

The code is `{upstream}_{fault}`. What follows depends on the upstream:

- `chat_…`, `tts_…`: the turn ends. The event carries its `turn_id`; `assistant.done` with the outcome
  `failed` comes after it. The next utterance begins a new turn.
- `stt_…`: the server tried for `STT_GIVE_UP_S` seconds to have a link again, or saw that trying would not
  help. Speech is not heard until the next `session.configure` or `session.update`, which tries afresh. Text
  prompts are answered meanwhile, and a reply that is being spoken goes on.

An upstream that has failed five times in a row is left alone for 10 s. Whoever needs it meanwhile is told at
once, with the code of its last failure.
"""

_SESSION: Final = """\
## What befalls a session

`turn_timeout` ends a turn as above. The others are `fatal`: the server closes the socket after them, with the
code beside them.
"""


def page() -> str:
    """The text of ``docs/errors.md``."""
    return "\n".join(
        [
            _INTRODUCTION,
            _CLIENT,
            *_table(["code", "meaning"], ([f"`{fault}`", told] for fault, told in CLIENT_FAULTS.items())),
            _PROVIDER,
            *_table([*Upstream, "retryable", "meaning"], _provider_rows()),
            _SESSION,
            *_table(["code", "retryable", "closes with", "meaning"], _session_rows()),
        ]
    )


def main(root: Path) -> None:
    """Write the page below ``root``, the repository."""
    (root / PAGE).write_text(page(), encoding="utf-8")


def _provider_rows() -> Iterator[list[str]]:
    for fault, (retryable, told) in PROVIDER_FAULTS.items():
        yield [*(f"`{upstream}_{fault}`" for upstream in Upstream), _yes_no(retryable), told]


def _session_rows() -> Iterator[list[str]]:
    for fault, (retryable, close_code, told) in SESSION_FAULTS.items():
        yield [f"`{fault}`", _yes_no(retryable), str(close_code or "—"), told]


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    for row in [head, ["---"] * len(head), *rows]:
        yield f"| {' | '.join(row)} |"
    yield ""


if __name__ == "__main__":  # pragma: no cover  # the command; what it does is main
    main(Path(__file__).parents[1])
