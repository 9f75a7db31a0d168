"""The assistant's own voice in what the microphone takes in: which words of a transcript are an echo."""

from difflib import SequenceMatcher
from functools import lru_cache
from typing import Final

from voice_fsm.fsm.backchannels import remark
from voice_fsm.fsm.words import key, keys

RUN: Final = 3
"""So many words in a row are no chance; fewer are an echo only if they are all that was heard."""
ALIKE: Final = 0.8
"""How similar a word and its echo are, by the share of their letters that agree in order."""
MISHEARD: Final = 0.6
"""The same for a word next to words that are an echo."""
MOST_HEARD: Final = 120
MOST_SAID: Final = 160
"""Words that are compared: the newest of a transcript, the last of what was said. Where no pause ends an
utterance, an echo is as long as the reply; words beyond these count as the user's."""


def without_echo(
    heard: str, said: str, *, short: bool, unfinished: bool = False, language_code: str | None = None
) -> str:
    """What of a transcript the assistant did not say.

    Within an echo a word may be misheard, missing or added. ``short``: whether one or two words are an echo
    too, if they are all that was heard, and a single other word beside an echo is one more of it that was
    misheard. ``unfinished``: more words are to come, so that of the first few one may be misheard. Orders are
    never an echo of something else. The words that are kept are as they were.
    """
    words = heard.split()
    earlier, newest = words[:-MOST_HEARD], words[-MOST_HEARD:]
    told = [word for word in keys(said)[-MOST_SAID:] if word.strip("x")]  # not a redacted recording's "xxxx"
    least = RUN
    if short:
        least = min(RUN, max(1, len(newest) - unfinished))
    kept = _unmatched(newest, told, least)
    if short and not earlier and len(kept) == 1 < len(newest) and remark(kept[0], language_code) != "command":
        kept = []
    return " ".join([*earlier, *kept]) if len(kept) < len(newest) else heard


def _unmatched(words: list[str], told: list[str], least: int) -> list[str]:
    heard = [key(word) for word in words]
    kept: list[str] = []
    at = 0
    while at < len(heard):
        letter = heard[at][:1]
        runs = [_run(heard, at, told, begin) for begin, word in enumerate(told) if word[:1] == letter]
        matched, start, end = max(runs, default=(0, 0, 0))
        if matched < least:
            kept.append(words[at])
            at += 1
            continue
        if kept and at and start and _similar(heard[at - 1], told[start - 1]) >= MISHEARD:
            kept.pop()
        at = end
    return kept


def _run(heard: list[str], at: int, told: list[str], begin: int) -> tuple[int, int, int]:
    """How many words agree from here on; where in ``told`` they begin, where in ``heard`` they end."""
    matched, here, there = 0, at, begin
    while here < len(heard) and there < len(told):
        is_last = here == len(heard) - 1
        if _agree(heard[here], told[there], is_last=is_last):
            matched, here, there = matched + 1, here + 1, there + 1
            continue
        if not matched:
            break
        step = _step(heard, here, told, there)
        if step is None:
            break
        here, there = here + step[0], there + step[1]
    return matched, begin, here


def _step(heard: list[str], here: int, told: list[str], there: int) -> tuple[int, int] | None:
    """Past one word that was misheard, added or lost, if the next agrees."""
    for by_heard, by_told in ((1, 1), (1, 0), (0, 1)):
        on_heard, on_told = here + by_heard, there + by_told
        if on_heard < len(heard) and on_told < len(told) and _agree(heard[on_heard], told[on_told]):
            return by_heard, by_told
    return None


def _agree(heard: str, told: str, *, is_last: bool = False) -> bool:
    if heard == told:
        return True
    if heard[:1] != told[:1]:
        return False
    if is_last and told.startswith(heard):  # a partial may end within a word
        return True
    return abs(len(heard) - len(told)) <= 2 and _similar(heard, told) >= ALIKE  # noqa: PLR2004  # letters


@lru_cache(maxsize=1 << 14)
def _similar(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
