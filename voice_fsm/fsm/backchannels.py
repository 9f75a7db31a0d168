"""Sounds of listening, which do not interrupt, and words that always do; a table a language."""

import re
from collections.abc import Mapping
from typing import Final, Literal

from voice_fsm.fsm.languages import language_of
from voice_fsm.fsm.words import keys

Remark = Literal["backchannel", "command", "words"]

_LISTENING: Final[Mapping[str, str]] = {
    "en": (
        "yes, yeah, yep, yup, ya, ok, okay, right, alright, all right, sure, cool, nice, great, good, fine, "
        "got it, i see, i know, go on, really, exactly, true, of course, indeed, wow, makes sense, thanks"
    ),
    "de": (
        "ja, jaja, jo, jep, ok, okay, genau, stimmt, klar, alles klar, gut, schön, richtig, verstehe, "
        "ich verstehe, aha, achso, ach so, echt, wirklich, natürlich, weiter, danke, super"
    ),
    "fr": (
        "oui, ouais, ok, okay, d'accord, bien, très bien, bien sûr, voilà, exactement, je vois, "
        "je comprends, ah bon, vraiment, c'est vrai, merci, super"
    ),
    "es": (
        "sí, ya, ok, okay, vale, claro, bueno, bien, muy bien, exacto, entiendo, ya veo, de acuerdo, "
        "de verdad, por supuesto, ajá, gracias"
    ),
    "it": (
        "sì, ok, okay, va bene, bene, certo, giusto, esatto, capisco, ho capito, d'accordo, davvero, "
        "già, ecco, vero, grazie"
    ),
    "pt": (
        "sim, ok, okay, tá, tá bom, está bem, certo, claro, bom, muito bem, exato, entendo, entendi, "
        "pois, pois é, é verdade, sei, obrigado, obrigada"
    ),
    "nl": (
        "ja, jaja, jawel, ok, oké, okay, goed, precies, klopt, juist, natuurlijk, ik snap het, "
        "ik begrijp het, echt, leuk, prima, oh ja, dank je"
    ),
}
_COMMANDS: Final[Mapping[str, str]] = {
    "en": "stop, wait, hold on, hang on, pause, enough, quiet, be quiet, shut up, cancel, never mind, no",
    "de": "stopp, stop, halt, warte, warten sie, moment, pause, genug, ruhe, still, schluss, nein",
    "fr": "stop, arrête, arrêtez, attends, attendez, un instant, pause, assez, silence, ça suffit, non",
    "es": "para, pare, alto, espera, espere, un momento, pausa, basta, silencio, cállate, no",
    "it": "stop, ferma, fermati, aspetta, aspetti, un momento, un attimo, pausa, basta, silenzio, no",
    "pt": "para, pare, espera, espere, um momento, pausa, chega, basta, silêncio, cala-te, não",
    "nl": "stop, wacht, wacht even, ho, moment, pauze, genoeg, stil, hou op, nee",
}
_HUM: Final = re.compile(r"(?:h?m+h*)+|(?:h?u+h+)+|h?u+m+|(?:a+h+a*)+m*|a?ha+|o+h+|e+h*m*")
"""Hums are the same everywhere: mm, mhm, uh-huh, um, ah, ähm, oh, eh."""
_MOST_WORDS: Final = 3
"""Of a phrase in the tables."""

_Phrases = frozenset[tuple[str, ...]]


def _read(table: Mapping[str, str]) -> dict[str | None, _Phrases]:
    """By language; ``None`` for all of them together."""
    phrases: dict[str | None, _Phrases] = {
        language: frozenset(tuple(keys(phrase)) for phrase in listed.split(","))
        for language, listed in table.items()
    }
    return phrases | {None: _Phrases().union(*phrases.values())}


_BACKCHANNELS: Final = _read(_LISTENING)
_ORDERS: Final = _read(_COMMANDS)


def remark(text: str, language_code: str | None) -> Remark:
    """What words mean to one who is speaking; of a language that is not known, all tables count."""
    words = keys(text)
    language = language_of(language_code)
    rest = _without(words, _BACKCHANNELS[language])
    if not rest:
        return "backchannel"
    return "command" if _begins(rest, _ORDERS[language]) else "words"


def _without(words: list[str], phrases: _Phrases) -> list[str]:
    """What follows the sounds of listening that a text begins with."""
    while words:
        length = 1 if _HUM.fullmatch(words[0]) else _begins(words, phrases)
        if not length:
            break
        words = words[length:]
    return words


def _begins(words: list[str], phrases: _Phrases) -> int:
    """How many words the longest phrase has that the words begin with."""
    lengths = range(min(_MOST_WORDS, len(words)), 0, -1)
    return next((length for length in lengths if tuple(words[:length]) in phrases), 0)
