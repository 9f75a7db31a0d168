"""Plain text as it is written for a voice, in good order."""

import re
import string
import unicodedata
from enum import Enum, auto
from typing import Final

from voice_fsm.fsm.orthography import CLAUSE_MARKS, CLOSERS, EMPHATIC, SAID_ONCE, STOPS, is_wide

REPEATS_MAX: Final = 3
"""Marks in a row that are more than this say nothing, as in a ruler."""

_CLAUSE_ENDS: Final = STOPS + CLAUSE_MARKS
_NO_BREAK_SPACES: Final = "\u00a0\u202f\u2007"
_JOINERS: Final = "\u200c\u200d"
_ALPHANUMERICS: Final = string.ascii_letters + string.digits
_ARROWS: Final = "→⇒"
_PICTURE: Final = re.compile(
    "[\u231a-\u231b\u23cf\u23e9-\u23fa\u2500-\u27bf\u2934-\u2935\u2b00-\u2bff\u3030\u303d\U0001f000-\U0001faff]"
)


class _Gap(Enum):
    """White space that was seen, and no word since."""

    NONE = auto()
    SPACE = auto()
    PICTURE = auto()
    """A picture stood in it: no space is left before a mark that ends a clause."""


class PlainText:
    """What is to be spoken: white space, pictures and repeated punctuation are put in order here."""

    def __init__(self) -> None:
        self._ready: list[str] = []
        self._last = "\n"
        self._gap = _Gap.NONE
        """It comes out with the next word, or at once where it decides that a sentence or clause is over."""
        self._ended = True
        """Whether the text stops, perhaps within quotes or brackets, at the end of a clause."""
        self._repeated = ""
        """The mark, or the exclamation and question marks, that the text ends with."""
        self._word_length = 0

    def take(self) -> str:
        """Give what has come since the last call."""
        ready = "".join(self._ready)
        self._ready.clear()
        return ready

    @property
    def last(self) -> str:
        """The last character, be it white space."""
        return self._last if self._gap is _Gap.NONE else " "

    @property
    def ends_in_operand(self) -> bool:
        """Whether an asterisk that follows may multiply: after a number, a variable or a bracket."""
        return self._last.isdigit() or self._last == ")" or self._word_length == 1

    def add_all(self, text: str) -> None:
        for char in text:
            self.add(char)

    def add(self, char: str) -> None:
        if char.isalnum():
            self._word_length = self._word_length + 1 if self.last.isalnum() else 1
            self._repeated = ""
            self._ended = False
            self._put(char)
        elif char.isspace() and char not in _NO_BREAK_SPACES:
            self._space(_Gap.SPACE)
        elif _PICTURE.match(char):
            self._space(_Gap.PICTURE)
        elif char in _JOINERS:
            self._join(char)
        elif char in _ARROWS:
            self.comma()
        else:
            self._mark(char)

    def add_words(self, words: str) -> None:
        """What `add_all` would do with these, at once.

        They are of ASCII letters and digits, with single spaces, marks before those, or apostrophes between.
        """
        last_length = len(words) - len(words.rstrip(_ALPHANUMERICS))
        goes_on = last_length == len(words) and self.last.isalnum()
        self._word_length = last_length + (self._word_length if goes_on else 0)
        self._repeated = ""
        self._ended = False
        self._put(words)
        self._last = words[-1]

    def comma(self) -> None:
        """Part two things, in place of the space between them."""
        if not self._ended:
            self._gap = _Gap.NONE
            self._put(",")
            self._ended = True
        self._space(_Gap.SPACE)

    def end_sentence(self) -> None:
        """Put a full stop where no mark stands."""
        if not self._ended:
            self._gap = _Gap.NONE
            self._put("。" if is_wide(self._last) else ".")
            self._ended = True

    def break_(self) -> None:
        """What follows has nothing to do with what came before."""
        self._gap = _Gap.NONE
        self._repeated = ""
        self._word_length = 0
        self._ended = True
        if self._last != "\n":
            self._put("\n")

    def _put(self, char: str) -> None:
        if self._gap is not _Gap.NONE:
            self._ready.append(" ")
            self._gap = _Gap.NONE
        self._ready.append(char)
        self._last = char

    def _space(self, gap: _Gap) -> None:
        self._repeated = ""
        if not self._ended:
            if self._gap is not _Gap.PICTURE:
                self._gap = gap
        elif self._last not in " \n":
            self._put(" ")

    def _mark(self, char: str) -> None:
        run = self._repeated
        if not (run.endswith(char) or (char in EMPHATIC and run[-1:] in EMPHATIC)):
            run = ""
        if (char in SAID_ONCE and char in run) or run == char * REPEATS_MAX:
            return
        self._repeated = run + char
        if self._gap is _Gap.PICTURE and char in _CLAUSE_ENDS:
            self._gap = _Gap.NONE
        if char not in CLOSERS:
            self._ended = char in _CLAUSE_ENDS
        self._put(char)

    def _join(self, char: str) -> None:
        """Joiners shape letters of Indic and Arabic scripts; elsewhere they glue emoji together."""
        if self._gap is _Gap.NONE and unicodedata.category(self._last)[0] in "LM":
            self._ready.append(char)
