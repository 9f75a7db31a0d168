"""What each fault of an upstream leads to. One table for the tests and for docs/operations.md.

python -m tests.integration.fault_table    # write the page's table anew
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import attrs

from voice_fsm.errors import PROVIDER_FAULTS, ProviderFault, Upstream

PAGE: Final = Path(__file__).parents[2] / "docs/operations.md"
BEGIN: Final = "<!-- Written by `python -m tests.integration.fault_table`; a test runs each row. -->"
END: Final = "<!-- End of the written part. -->"

SHORT: Final[dict[str, float]] = {
    "STT_CONNECT_S": 4,
    "STT_GIVE_UP_S": 12,
    "CHAT_CONNECT_S": 2,
    "CHAT_FIRST_BYTE_S": 5,
    "CHAT_STALL_S": 3,
    "CHAT_TOTAL_S": 20,
    "TTS_CONNECT_S": 2,
    "TTS_FIRST_BYTE_S": 6,
    "TTS_STALL_S": 4,
    "TTS_TOTAL_S": 25,
}
"""The settings that the tests run with."""

RETRIES_S: Final = 0.75
"""Two retries of a call that fails at once, after 0.25 s and 0.5 s at most."""
ASKED_S: Final = 1.0
"""The pause for which the tests' 429 asks."""
ANSWER_S: Final = 10.0
"""How long the recogniser may leave a commit unanswered; not a setting."""

Way = Literal["stt", "chat", "tts over a WebSocket", "tts over HTTP"]


@attrs.frozen
class Wait:
    """How long it takes at most until the client knows."""

    settings: tuple[str, ...] = ()
    fixed_s: float = 0.0
    words: str = "at once"

    def seconds(self) -> float:
        """With the settings of the tests."""
        return sum(SHORT[setting] for setting in self.settings) + self.fixed_s

    def __str__(self) -> str:
        return " + ".join(f"`{setting}`" for setting in self.settings) or self.words


AT_ONCE: Final = Wait()
RETRIED: Final = Wait(fixed_s=RETRIES_S, words=f"{RETRIES_S:g} s: two retries")
AS_ASKED: Final = Wait(fixed_s=2 * ASKED_S, words="two retries, each after `Retry-After`")
GIVEN_UP: Final = Wait(("STT_GIVE_UP_S",))
GIVEN_UP_HANGING: Final = Wait(("STT_GIVE_UP_S", "STT_CONNECT_S"))
REOPENED: Final = Wait(fixed_s=0.25, words="0.25 s: a new link")
DRIPPED: Final = Wait(fixed_s=ANSWER_S, words=f"{ANSWER_S:g} s; what takes longer is a hang")
UNANSWERED: Final = Wait(fixed_s=ANSWER_S + 0.25, words=f"{ANSWER_S:g} s, then a new link")


@attrs.frozen
class Row:
    """One fault, and what comes of it."""

    way: Way
    fault: str
    told: ProviderFault | None
    """Which error the client gets; none: the session helps itself."""
    wait: Wait
    speaking: bool = False
    """Whether audio of the reply came before."""

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.way.split()[0])

    @property
    def code(self) -> str | None:
        return None if self.told is None else f"{self.upstream}_{self.told}"

    @property
    def retryable(self) -> bool:
        return self.told is None or PROVIDER_FAULTS[self.told][0]

    def cells(self) -> list[str]:
        """The row of the page's table."""
        if self.told is None:
            return [
                self.fault,
                "none",
                "",
                "goes on: audio since the last commit is sent again",
                str(self.wait),
            ]
        code, retryable = f"`{self.code}`", "yes" if self.retryable else "no"
        if self.upstream is Upstream.STT:
            return [self.fault, code, retryable, "any goes on; speech is not heard any more", str(self.wait)]
        outcome = "`failed`, in the middle of its audio" if self.speaking else "`failed`"
        return [self.fault, code, retryable, outcome, str(self.wait)]


def _stt(fault: str, told: ProviderFault | None, wait: Wait) -> Row:
    return Row("stt", fault, told, wait)


def _chat(fault: str, told: ProviderFault, wait: Wait, *, speaking: bool = False) -> Row:
    return Row("chat", fault, told, wait, speaking)


def _socket(fault: str, told: ProviderFault, wait: Wait, *, speaking: bool = False) -> Row:
    return Row("tts over a WebSocket", fault, told, wait, speaking)


def _http(fault: str, told: ProviderFault, wait: Wait, *, speaking: bool = False) -> Row:
    return Row("tts over HTTP", fault, told, wait, speaking)


F = ProviderFault

ROWS: Final = (
    _stt("refused", F.UNREACHABLE, GIVEN_UP),
    _stt("DNS failure", F.UNREACHABLE, GIVEN_UP),
    _stt("TLS failure", F.UNREACHABLE, GIVEN_UP),
    _stt("401", F.AUTH_FAILED, AT_ONCE),
    _stt("wrong key, told on the open link", F.AUTH_FAILED, AT_ONCE),
    _stt("422", F.REJECTED, AT_ONCE),
    _stt("429 with Retry-After", F.RATE_LIMITED, GIVEN_UP),
    _stt("500", F.SERVER_ERROR, GIVEN_UP),
    _stt("hang in the handshake", F.TIMEOUT, GIVEN_UP_HANGING),
    _stt("hang before the session starts", F.TIMEOUT, GIVEN_UP_HANGING),
    _stt("clean close before the session starts", F.LOST, GIVEN_UP),
    _stt("garbage in the handshake", F.BAD_RESPONSE, GIVEN_UP),
    _stt("hang midway", None, UNANSWERED),
    _stt("reset midway", None, REOPENED),
    _stt("truncated frame", None, REOPENED),
    _stt("garbage midway", None, REOPENED),
    _stt("clean close midway", None, REOPENED),
    _stt("session time limit", None, REOPENED),
    _stt("slow drip of an answer", None, DRIPPED),
    _chat("refused", F.UNREACHABLE, RETRIED),
    _chat("DNS failure", F.UNREACHABLE, RETRIED),
    _chat("TLS failure", F.UNREACHABLE, RETRIED),
    _chat("401", F.AUTH_FAILED, AT_ONCE),
    _chat("422", F.REJECTED, AT_ONCE),
    _chat("429 with Retry-After", F.RATE_LIMITED, AS_ASKED),
    _chat("429 with a Retry-After over 2 s", F.RATE_LIMITED, AT_ONCE),
    _chat("500", F.SERVER_ERROR, RETRIED),
    _chat("hang before the first byte", F.TIMEOUT, Wait(("CHAT_FIRST_BYTE_S",))),
    _chat("hang midway", F.STALLED, Wait(("CHAT_STALL_S",)), speaking=True),
    _chat("reset before the first byte", F.TRUNCATED, RETRIED),
    _chat("reset midway", F.TRUNCATED, AT_ONCE, speaking=True),
    _chat("truncated chunk", F.TRUNCATED, AT_ONCE, speaking=True),
    _chat("garbage", F.BAD_RESPONSE, AT_ONCE),
    _chat("garbage midway", F.BAD_RESPONSE, AT_ONCE, speaking=True),
    _chat("clean close midway", F.TRUNCATED, AT_ONCE, speaking=True),
    _chat("empty reply", F.BAD_RESPONSE, AT_ONCE),
    _chat("slow drip", F.TIMEOUT, Wait(("CHAT_TOTAL_S",)), speaking=True),
    _socket("refused", F.UNREACHABLE, RETRIED),
    _socket("DNS failure", F.UNREACHABLE, RETRIED),
    _socket("TLS failure", F.UNREACHABLE, RETRIED),
    _socket("401", F.AUTH_FAILED, AT_ONCE),
    _socket("wrong key, told on the open socket", F.AUTH_FAILED, AT_ONCE),
    _socket("422", F.REJECTED, AT_ONCE),
    _socket("429 with Retry-After", F.RATE_LIMITED, AS_ASKED),
    _socket("500", F.SERVER_ERROR, RETRIED),
    _socket("hang in the handshake", F.TIMEOUT, Wait(("TTS_CONNECT_S",))),
    _socket("hang before the first byte", F.TIMEOUT, Wait(("TTS_FIRST_BYTE_S",))),
    _socket("hang midway", F.STALLED, Wait(("TTS_STALL_S",)), speaking=True),
    _socket("reset before the first byte", F.UNREACHABLE, RETRIED),
    _socket("reset midway", F.TRUNCATED, AT_ONCE, speaking=True),
    _socket("truncated frame", F.TRUNCATED, AT_ONCE, speaking=True),
    _socket("garbage", F.BAD_RESPONSE, AT_ONCE),
    _socket("garbage midway", F.BAD_RESPONSE, AT_ONCE, speaking=True),
    _socket("clean close midway", F.TRUNCATED, AT_ONCE, speaking=True),
    _socket("no audio at all", F.BAD_RESPONSE, AT_ONCE),
    _socket("slow drip", F.TIMEOUT, Wait(("TTS_TOTAL_S",)), speaking=True),
    _http("refused", F.UNREACHABLE, RETRIED),
    _http("401", F.AUTH_FAILED, AT_ONCE),
    _http("422", F.REJECTED, AT_ONCE),
    _http("429 with Retry-After", F.RATE_LIMITED, AS_ASKED),
    _http("500", F.SERVER_ERROR, RETRIED),
    _http("hang before the first byte", F.TIMEOUT, Wait(("TTS_FIRST_BYTE_S",))),
    _http("hang midway", F.STALLED, Wait(("TTS_STALL_S",)), speaking=True),
    _http("reset before the first byte", F.TRUNCATED, RETRIED),
    _http("reset midway", F.TRUNCATED, AT_ONCE, speaking=True),
    _http("truncated chunk", F.TRUNCATED, AT_ONCE, speaking=True),
    _http("garbage", F.BAD_RESPONSE, AT_ONCE),
    _http("clean close midway", F.TRUNCATED, AT_ONCE, speaking=True),
    _http("slow drip", F.TIMEOUT, Wait(("TTS_TOTAL_S",))),
)  # fmt: skip

_TITLES: Final[dict[Way, str]] = {
    "stt": "Speech to text (ElevenLabs)",
    "chat": "Chat (`backend` and `openai`)",
    "tts over a WebSocket": "Text to speech (ElevenLabs), a reply that is still being written",
    "tts over HTTP": "Text to speech (ElevenLabs), a reply known as a whole",
}
_HEAD: Final = ["fault", "error", "retryable", "turn", "at the latest after"]


def rows_of(way: Way) -> dict[str, Row]:
    """The rows of one way, by their fault."""
    return {row.fault: row for row in ROWS if row.way == way}


def tables() -> str:
    """The written part of the page."""
    return "\n".join([BEGIN, "", *_lines(), END])


def _lines() -> Iterator[str]:
    for way, title in _TITLES.items():
        yield from (f"### {title}", "")
        for cells in [_HEAD, ["---"] * len(_HEAD), *(row.cells() for row in rows_of(way).values())]:
            yield f"| {' | '.join(cells)} |"
        yield ""


def rewritten(page: str) -> str:
    """The page with its written part made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{tables()}{after}"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
