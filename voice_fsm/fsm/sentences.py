"""A reply as it streams -> pieces worth speaking: cleaned, and cut where a speaker would pause.

Why not a library: what there is judges whole texts. pySBD (last release in 2021, its users ask for it to be
archived), the trained splitters and ICU (a native library) would look at the buffer again with every delta,
and take back what they said of a text when they see more of it. stream2sentence pulls its text from a
generator, so each reply would need a thread under Trio, and it too asks a tokenizer about the buffer each
time. Here each character is looked at once, and a border once told stays.

Where pieces end:

- after a full stop and its kin, with closing quotes and brackets, once white space follows; in CJK text, once
  anything follows. So "3.14", "10:30", addresses and file names stay whole.
- not after an abbreviation, initials, a number that stands alone (of a list item, mostly), or a German
  ordinal. Where only the next word can tell (after an ellipsis, "etc.", "a.m.", "No." or a closing quote),
  its first letter is waited for.
- at a newline of `Speakable`.
- at the start of a reply, so that it is heard soon, already after a clause, or a few words.
- after `MAX_WIDTH`, at the last clause or word.

A piece that gives a synthesiser nothing to pronounce is never handed out: its characters go to the next one.
"""

import re
import unicodedata
from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from voice_fsm.fsm.orthography import (
    CLAUSE_MARKS,
    CLOSERS,
    DASHES,
    DOUBTFUL_ABBREVIATIONS,
    OPENERS,
    STOPS,
    TITLES,
    WIDE_CLAUSE_MARKS,
    WIDE_STOPS,
    width,
)
from voice_fsm.fsm.speakable import CODE_REMARK, Speakable

MAX_WIDTH: Final = 250
"""The longest piece. Widths are in characters; an ideograph, spoken as a syllable, counts as three."""
SHORT_WIDTH: Final = 16
"""A sentence below this is joined with the next if that is there; a start below this buys no time."""
FIRST_LOOK_WIDTH: Final = 60
"""When this much of a reply came without a border, its first words go out: at most `FIRST_WORDS_WIDTH`,
so that no lonely word is left of a sentence that was about to end."""
FIRST_WORDS_WIDTH: Final = 45

_CLAUSE_BORDER: Final = re.compile(
    rf"(?:(?<![.\s])[{CLAUSE_MARKS}]|[\u2013\u2014]|(?<= )-)[{re.escape(CLOSERS)}]* "
    rf"|[{WIDE_CLAUSE_MARKS}]"
)
_WORDS: Final = re.compile("[A-Za-z]+(?: [A-Za-z]+)*")
_WITHOUT_STOP: Final = re.compile(r"[ \"-\-/-<=>@-~]+")
"""Of ASCII; those of other scripts are looked at one by one."""
_WORD_BORDER: Final = re.compile(r"(?<![.\d]) |(?<=\d) (?!\d)")
_GO_ON: Final = STOPS + CLAUSE_MARKS + DASHES + ")»"
"""With these the sentence goes on after white space."""
_TAIL: Final = 40
"""Characters in which the end of a sentence is judged."""

_INITIALS: Final = re.compile(r"[^\W\d_](?:\.[^\W\d_])+")
_ELISION: Final = re.compile(r"^\w+['\u2019]")
"""As in "l'avv."."""
_LIST_NUMBER: Final = re.compile(r"(?:\d{1,4}|[A-Za-z]|[IVXLC]{1,5})\.")
_GERMAN_ORDINAL: Final = re.compile(
    r"\b(?:am|vom|zum|der|die|das|den|dem|des|im|bis|seit|ab)\s\d{1,2}\.$", re.IGNORECASE
)


class _Phase(Enum):
    """Where the last character has left a sentence."""

    INSIDE = auto()
    STOPPED = auto()
    """A full stop or the like, and perhaps closing quotes."""
    DOUBTFUL = auto()
    """White space after a stop that may be none; the next word tells."""


class _Verdict(Enum):
    OVER = auto()
    GOES_ON = auto()
    DOUBTFUL = auto()


class SentenceSplitter:
    """Makes one reply speakable. Serves one reply; ``feed`` as it comes, then ``finish``.

    Joined, the pieces are the same however the reply was cut into deltas, and so are the places where it
    may be cut: longer deltas only leave more short sentences together. Held back is never more than
    `MAX_WIDTH` characters, and what `voice_fsm.fsm.speakable` holds.
    """

    def __init__(self, *, code_remark: str = CODE_REMARK) -> None:
        self._speakable = Speakable(code_remark=code_remark)
        self._cutter = _Cutter()

    def feed(self, delta: str) -> list[str]:
        """Take the next text, of any length; give the pieces that are ready, each without outer space."""
        return _join_short(self._cutter.feed(self._speakable.feed(delta)))

    def finish(self) -> list[str]:
        """The reply is complete: give the rest. Nothing may be fed afterwards."""
        return _join_short(self._cutter.feed(self._speakable.finish()) + self._cutter.finish())


class _Cutter:
    """Cuts plain text, character by character."""

    def __init__(self) -> None:
        self._text = ""
        self._width = 0
        self._phase = _Phase.INSIDE
        self._spoken_width = 0
        self._done: list[str] = []

    def feed(self, plain: str) -> list[str]:
        at = 0
        while at < len(plain):
            ordinary = self._ordinary(plain, at)
            if ordinary:
                self._text += ordinary
                self._width += len(ordinary)
            else:
                self._take(plain[at])
            at += len(ordinary) or 1
        return self._give()

    def finish(self) -> list[str]:
        self._cut(len(self._text))
        return self._give()

    def _ordinary(self, plain: str, at: int) -> str:
        """What follows of which each character would only be kept: most of a text, at once."""
        if self._phase is not _Phase.INSIDE or (plain[at] == " " and not self._text):
            return ""
        if self._spoken_width < SHORT_WIDTH:
            found = _WORDS.match(plain, at, at + FIRST_LOOK_WIDTH - 1 - self._width)
        else:
            found = _WITHOUT_STOP.match(plain, at, at + MAX_WIDTH - self._width)
        return found[0] if found else ""

    def _take(self, char: str) -> None:
        if char == "\n":
            self._add(" ")
            self._cut(len(self._text))
            self._phase = _Phase.INSIDE
            return
        over = self._ends_before(char)
        if over and char != " ":
            self._cut(len(self._text))
        self._add(char)
        if over and char == " ":  # white space belongs to what it ends, so that joined sentences stay apart
            self._cut(len(self._text))

    def _give(self) -> list[str]:
        done, self._done = self._done, []
        return done

    def _ends_before(self, char: str) -> bool:
        """Whether the sentence is over, now that ``char`` follows; steps the phase."""
        if self._phase is _Phase.INSIDE:
            return False
        if self._phase is _Phase.STOPPED:
            return self._ends_after_stop(char)
        self._phase = _Phase.STOPPED if char == "»" else _Phase.INSIDE
        return not (char.islower() or char.isdigit() or char in _GO_ON)

    def _ends_after_stop(self, char: str) -> bool:
        if char in STOPS or self._is_closer(char):
            return False
        if char != " ":
            self._phase = _Phase.INSIDE
            return any(stop in WIDE_STOPS for stop in _ending(self._text)[1])
        verdict = _judge(self._text)
        self._phase = _Phase.DOUBTFUL if verdict is _Verdict.DOUBTFUL else _Phase.INSIDE
        return verdict is _Verdict.OVER

    def _is_closer(self, char: str) -> bool:
        if char == '"':
            return self._text.count(char) % 2 == 1
        return char in CLOSERS

    def _add(self, char: str) -> None:
        if char == " " and not self._text:
            return
        self._text += char
        self._width += width(char)
        if self._phase is _Phase.INSIDE:
            if char in STOPS:
                self._phase = _Phase.STOPPED
            elif self._spoken_width < SHORT_WIDTH:
                self._cut_start(char)
        if self._width > MAX_WIDTH:
            self._cut_long()

    def _cut_start(self, char: str) -> None:
        """Let the first words of a reply go as soon as they can stand alone."""
        if self._width < SHORT_WIDTH:
            return
        if (char == " " or char in WIDE_CLAUSE_MARKS) and _ends_clause(self._text[-6:]):
            self._cut(len(self._text))
        elif self._width >= FIRST_LOOK_WIDTH:
            words = _last_border(_WORD_BORDER, self._text[:FIRST_WORDS_WIDTH])
            if words >= SHORT_WIDTH:
                self._cut(words)

    def _cut_long(self) -> None:
        text = self._text[:-1]
        end = _last_border(_CLAUSE_BORDER, text)
        if end < len(text) // 2:
            end = _last_border(_WORD_BORDER, text) or _before_marks(self._text)
        if not self._cut(end):
            self._drop(end)

    def _cut(self, end: int) -> bool:
        """End the piece there, unless that leaves nothing to pronounce."""
        piece = self._text[:end]
        if not _pronounceable(piece):
            return False
        self._done.append(piece)
        self._spoken_width += width(piece)
        self._drop(end)
        return True

    def _drop(self, end: int) -> None:
        self._text = self._text[end:].lstrip()
        self._width = width(self._text)


def _judge(text: str) -> _Verdict:
    """Whether a sentence is over, whose text stops and is followed by white space."""
    word, stop, closers = _ending(text)
    if closers or text.count("«") > text.count("»"):
        return _Verdict.DOUBTFUL
    if stop != ".":
        return _Verdict.DOUBTFUL if "…" in stop or ".." in stop else _Verdict.OVER
    if _LIST_NUMBER.fullmatch(text) or _GERMAN_ORDINAL.search(text[-_TAIL:]):
        return _Verdict.GOES_ON
    return _judge_word(_ELISION.sub("", word.lstrip(OPENERS + DASHES)))


def _ending(text: str) -> tuple[str, str, str]:
    """The last word, the marks that stop it, and the quotes and brackets closed after them."""
    body = text.rstrip(CLOSERS + " ")
    token = body[body.rfind(" ") + 1 :]
    word = token.rstrip(STOPS)
    return word, token[len(word) :], text[len(body) :]


def _judge_word(word: str) -> _Verdict:
    """Whether a full stop after this word ends a sentence."""
    folded = word.casefold()
    if folded in DOUBTFUL_ABBREVIATIONS:
        return _Verdict.DOUBTFUL
    is_initial = len(word) == 1 and word.isupper()
    if is_initial or folded in TITLES or _INITIALS.fullmatch(folded):
        return _Verdict.GOES_ON
    return _Verdict.OVER


def _join_short(sentences: Iterable[str]) -> list[str]:
    """Put very short sentences together with the one after them."""
    pieces: list[str] = []
    for sentence in sentences:
        if pieces and _is_short(pieces[-1]) and width(pieces[-1]) + width(sentence) <= MAX_WIDTH:
            pieces[-1] += sentence
        else:
            pieces.append(sentence)
    return [piece.strip() for piece in pieces]


def _is_short(piece: str) -> bool:
    return width(piece) < SHORT_WIDTH and piece.rstrip()[-1] in STOPS + CLOSERS


def _ends_clause(text: str) -> bool:
    return _last_border(_CLAUSE_BORDER, text) == len(text)


def _last_border(border: re.Pattern[str], text: str) -> int:
    """Where the last such border ends; 0 if there is none."""
    return max((match.end() for match in border.finditer(text)), default=0)


def _before_marks(text: str) -> int:
    """The last place to cut a text without borders: never before a mark that belongs to a letter."""
    end = len(text) - 1
    while end > 1 and unicodedata.category(text[end])[0] == "M":
        end -= 1
    return end


def _pronounceable(text: str) -> bool:
    return any(char.isalnum() or unicodedata.category(char)[0] == "S" for char in text)
