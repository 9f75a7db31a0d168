"""Marks and abbreviations, of several languages, that tell where speech pauses."""
# ruff: noqa: RUF001 - look-alike marks and letters of many scripts are what this module is about

import unicodedata
from typing import Final

WIDE_STOPS: Final = "。！？｡．"
"""End a sentence without white space after them."""
STOPS: Final = WIDE_STOPS + ".!?…؟۔।॥։።"
"""End a sentence where white space follows, unless the word before or after says otherwise."""
WIDE_CLAUSE_MARKS: Final = "，、；："
CLAUSE_MARKS: Final = WIDE_CLAUSE_MARKS + ",;:،؛"
DASHES: Final = "-–—"
OPENERS: Final = "\"'“‘«‹([{¿¡"
CLOSERS: Final = "\"'”’»›)]}」』）】》〉"
"""Quotes and brackets that stay with the sentence they close."""
EMPHATIC: Final = "!?！？"
SAID_ONCE: Final = "!?…,;！？，；؟"
"""Marks that mean nothing more when repeated."""


def _words(*lists: str) -> frozenset[str]:
    return frozenset(" ".join(lists).split())


TITLES: Final = _words(
    "mr mrs ms mx dr prof rev hon st mt ft gen col capt cpt lt sgt maj cmdr gov sen rep pres messrs",
    "vs cf approx",
    "hr fr frl bzw ca evtl ggf inkl sog vgl zzgl str tel abs",
    "sr sra srta dra ud uds vd exmo exma sig dott ing avv mme mlle mgr av env ee",
    "bijv mevr dhr mvr blz",
    "ул им стр проф акад гр тов просп",
)
"""Abbreviations, without their full stop, that something always follows."""

DOUBTFUL_ABBREVIATIONS: Final = _words(
    "etc a.m p.m inc ltd co corp jr bros dept est esp fig figs no nos nr vol vols pp p c v s ch sec art",
    "ed eds al ph.d m.d b.a m.a",
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun",
    "usw u.a u.ä o.ä mio mrd ecc enz osv mfl núm pág uu",
    "руб тыс млн млрд г др т.д т.п",
    "i",
)
"""Abbreviations that may end a sentence, or be words of their own: the next word tells."""


def is_wide(char: str) -> bool:
    """Whether it is an ideograph, kana, Hangul or a mark of their width."""
    return char >= "\u1100" and unicodedata.east_asian_width(char) in "WF"


def width(text: str) -> int:
    """Length of speech, in Latin letters: a wide character is a syllable, and counts as three."""
    return len(text) if text.isascii() else sum(3 if is_wide(char) else 1 for char in text)
