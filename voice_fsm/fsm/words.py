"""Words as they are compared: without case, marks and punctuation."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

_NOT_A_LETTER: Final = re.compile(r"[\W_]+")
_DRAWN_OUT: Final = re.compile(r"(.)\1{2,}")


@lru_cache(maxsize=1 << 12)  # a partial repeats the words of the one before
def key(word: str) -> str:
    """What two spellings of one word share: "Mm-hmm," and "mmhmm", "Sí" and "si"; blank for a dash."""
    plain = unicodedata.normalize("NFKD", word.casefold())
    letters = "".join(char for char in plain if not unicodedata.combining(char))
    return _DRAWN_OUT.sub(r"\1\1", _NOT_A_LETTER.sub("", letters))


def keys(text: str) -> list[str]:
    """The words of a text, to be compared."""
    return [found for word in text.split() if (found := key(word))]


def same_words(one: str, other: str) -> bool:
    """Whether two texts differ in spelling alone."""
    return one == other or keys(one) == keys(other)
