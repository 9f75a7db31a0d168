"""Utterances that break off: the recogniser heard a pause, and the user is still thinking."""

from collections.abc import Mapping
from typing import Final

from voice_fsm.fsm.languages import language_of
from voice_fsm.fsm.words import key, keys

_DANGLING: Final[Mapping[str, str]] = {
    "en": (
        "um uh er erm hmm and or but so because with without to the a an my your his her their our its "
        "of for from in on at by if when that which who than then like is are was were i we they plus "
        "dot underscore dash hyphen slash"
    ),
    "de": (
        "äh ähm hm und oder aber also weil mit ohne zu zum zur der die das den dem des ein eine einen "
        "einem mein meine dein deine von vom für aus in im an am bei wenn dass als wie ist sind war ich "
        "wir plus punkt unterstrich minus bindestrich"
    ),
    "fr": (
        "euh hum et ou mais donc parce que qui avec sans à au aux le la les l un une des mon ma mes ton "
        "ta de du pour par dans en sur chez si quand comme est sont je nous plus point arobase tiret"
    ),
    "es": (
        "eh em este y e o pero porque con sin a al el la los las un una mi mis tu su de del para por en "
        "si cuando que como es son yo nosotros más punto arroba guión"
    ),
    "it": (
        "ehm eh e o ma quindi perché con senza a al alla il lo la i gli le un uno una mio mia tuo di "
        "del della per da in su se quando che come è sono io noi più punto chiocciola trattino"
    ),
    "pt": (
        "hum eh e ou mas então porque com sem a ao à o os as um uma meu minha teu de do da para por em "
        "no na se quando que como é são eu nós mais ponto arroba hífen"
    ),
    "nl": (
        "eh ehm uhm en of maar dus omdat met zonder naar te de het een mijn jouw van voor uit in op aan "
        "bij als wanneer dat die dan is zijn was ik wij plus punt apenstaartje streepje"
    ),
}
_DIGITS: Final[Mapping[str, str]] = {
    "en": "zero oh one two three four five six seven eight nine double triple",
    "de": "null eins zwei zwo drei vier fünf sechs sieben acht neun",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
    "pt": "zero um dois três quatro cinco seis sete oito nove",
    "nl": "nul een twee drie vier vijf zes zeven acht negen",
}
_SPELT: Final = 2
"""So many digits or letters in a row, one at a time, may be the beginning of a longer row."""


def _read(table: Mapping[str, str]) -> dict[str | None, frozenset[str]]:
    """By language; ``None`` for all of them together."""
    words: dict[str | None, frozenset[str]] = {
        language: frozenset(keys(listed)) for language, listed in table.items()
    }
    return words | {None: frozenset[str]().union(*words.values())}


_LAST_WORDS: Final = _read(_DANGLING)
_DIGIT_WORDS: Final = _read(_DIGITS)


def is_unfinished(text: str, language_code: str | None) -> bool:
    """Whether more is likely to come: a filler, an open clause, a number or address that is being spelt."""
    text = text.rstrip()
    if text.endswith("?"):
        return False
    if text.endswith((",", "…", "...", "-", "\u2014", "@")):
        return True
    words, language = keys(text), language_of(language_code)
    if not words:
        return False
    return words[-1] in _LAST_WORDS[language] or _is_being_spelt(words, language) or _is_open_address(text)


def _is_being_spelt(words: list[str], language: str | None) -> bool:
    if len(words) < _SPELT:
        return False
    tail = words[-_SPELT:]
    return all(word in _DIGIT_WORDS[language] or len(word) == 1 for word in tail)


def _is_open_address(text: str) -> bool:
    """An e-mail address without its dot, such as "anna@example"."""
    last = text.rsplit(maxsplit=1)[-1]
    name, at_sign, domain = last.partition("@")
    return bool(at_sign and key(name)) and "." not in domain.rstrip(".")
