"""Sums as people say them and recognisers write them: "what's twelve times seven?", "3.5 + 4".

The four operations, chained, multiplication and division first; exact, and without ``eval``.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

LARGEST: Final = 10**15
"""No number, and no result, goes beyond this."""
OPERANDS_MAX: Final = 20
DECIMALS: Final = 4
_TEXT_MAX: Final = 300
"""Characters; whatever is longer is no sum."""

_UNITS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_DIGITS: Final = {word: str(value) for value, word in enumerate(_UNITS[:10])}
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL: Final = {word: value for value, word in enumerate(_UNITS)}
_ROUND: Final = {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_OPERATORS: Final = {
    **dict.fromkeys(("plus", "+"), "plus"),
    **dict.fromkeys(("minus", "less", "-", "−"), "minus"),  # noqa: RUF001 - a true minus sign
    **dict.fromkeys(("times", "x", "*", "×"), "times"),  # noqa: RUF001 - a true multiplication sign
    **dict.fromkeys(("over", "/", "÷"), "divided by"),
}
_REWRITES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"['\u2019]", ""),
        (r"(?<=[a-z])-(?=[a-z])", " "),
        (r"\ban? (?=hundred|thousand|million|billion|trillion)", "one "),
        (r"\badd (.+) (?:and|to) (.+)", r"\1 plus \2"),
        (r"\bsubtract (.+) from (.+)", r"\2 minus \1"),
        (r"\bmultiply (.+) (?:by|with|and) (.+)", r"\1 times \2"),
        (r"\bdivide (.+) by (.+)", r"\1 over \2"),
        (r"\b(?:multiplied|times) by\b", "times"),
        (r"\bdivided by\b", "over"),
        (r"\btake away\b", "minus"),
    )
)
_TOKEN: Final = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+|[-+*/×÷−]")  # noqa: RUF001 - see above
_AROUND: Final = frozenset(
    {"what", "whats", "is", "how", "much", "does", "do", "calculate", "compute", "work", "out", "tell", "me"}
    | {"can", "could", "would", "you", "please", "the", "answer", "result", "of", "and", "so", "then", "now"}
    | {"equal", "equals", "make", "makes", "be", "um", "uh", "er", "erm", "hmm", "okay", "ok", "well", "hey"}
)
"""Words that may stand before or after a sum."""


def solve(text: str) -> str | None:
    """Answer a sum with a sentence; ``None`` if the text is no sum."""
    tokens = _tokens(text)
    numbers, operators = _parse(tokens)
    if None in numbers or not operators or len(numbers) > OPERANDS_MAX:
        return None
    operands = [number for number in numbers if number is not None]
    try:
        result = _evaluate(operands, operators)
    except ZeroDivisionError:
        return "I can't divide by zero. Nobody can."
    if max(map(abs, [*operands, result])) > LARGEST:
        return "Those numbers are too big for me."
    asked = _written(operands[0])
    for operator, operand in zip(operators, operands[1:], strict=True):
        asked += f" {operator} {_written(operand)}"
    rounded = round(result, DECIMALS)
    about = "" if rounded == result else "about "
    return f"{asked[0].upper()}{asked[1:]} is {about}{_written(rounded)}."


def parse_number(text: str) -> int | None:
    """Read a whole number in digits or words; ``None`` if it is none."""
    number = _number(_tokens(text))
    return int(number) if number is not None and number.denominator == 1 else None


def spell(number: int) -> str:
    """Write 0 to 100 in words."""
    if number == 100:  # noqa: PLR2004 - the end of the range
        return "one hundred"
    tens, unit = divmod(number, 10)
    if number < len(_UNITS):
        return _UNITS[number]
    return _TENS[tens - 2] + (f"-{_UNITS[unit]}" if unit else "")


def _tokens(text: str) -> list[str]:
    if len(text) > _TEXT_MAX:
        return []
    text = text.casefold()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    tokens = _TOKEN.findall(text)
    while tokens and tokens[0] in _AROUND:
        tokens.pop(0)
    while tokens and tokens[-1] in _AROUND:
        tokens.pop()
    return tokens


def _parse(tokens: Sequence[str]) -> tuple[list[Fraction | None], list[str]]:
    """Numbers and the operators between them; ``None`` where there is no number."""
    numbers: list[Fraction | None] = []
    operators: list[str] = []
    words: list[str] = []
    sign = 1
    for token in tokens:
        operator = _OPERATORS.get(token)
        if operator is None:
            words.append(token)
        elif words:
            numbers.append(_signed(sign, words))
            operators.append(operator)
            words, sign = [], 1
        elif operator == "minus":
            sign = -sign
        else:
            numbers.append(None)
    numbers.append(_signed(sign, words))
    return numbers, operators


def _signed(sign: int, words: Sequence[str]) -> Fraction | None:
    number = _number(words)
    return None if number is None else sign * number


def _number(words: Sequence[str]) -> Fraction | None:
    """Read one number: "3.5", "two hundred and five", "3 million", "zero point two five"."""
    if "point" not in words:
        return _whole(words)
    point = words.index("point")
    whole = _whole(words[:point]) if point else Fraction(0)
    digits = "".join(_DIGITS.get(word, word) for word in words[point + 1 :])
    if whole is None or not digits.isdecimal():
        return None
    return whole + Fraction(int(digits), 10 ** len(digits))


def _whole(words: Sequence[str]) -> Fraction | None:
    total = Fraction(0)
    group: Fraction | None = None
    smallest_scale = LARGEST
    for position, word in enumerate(words):
        if word == "and" and position and words[position - 1] in ("hundred", *_SCALES):
            continue
        if word in _SCALES:
            if group is None or _SCALES[word] >= smallest_scale:
                return None
            smallest_scale = _SCALES[word]
            total += group * smallest_scale
            group = None
            continue
        group = _extended(group, word)
        if group is None:
            return None
    if group is not None and total and group >= smallest_scale:
        return None
    return total + (group or 0) if words else None


def _extended(group: Fraction | None, word: str) -> Fraction | None:
    """The number below a thousand that ``group`` becomes with one more word; ``None`` if it can't be said."""
    if group is None:
        if word[0].isdecimal():
            return Fraction(word.replace(",", ""))
        value = {"hundred": 100, **_SMALL, **_ROUND}.get(word)
        return None if value is None else Fraction(value)
    if word == "hundred":
        return group * 100 if 1 <= group < 100 else None  # noqa: PLR2004 - arithmetic
    value = {**_SMALL, **_ROUND}.get(word, 0)
    room = 100 if group % 100 == 0 else 10 if group % 10 == 0 and group % 100 >= 20 else 0  # noqa: PLR2004 - same
    return group + value if group and 0 < value < room else None


def _evaluate(numbers: Sequence[Fraction], operators: Sequence[str]) -> Fraction:
    """Raises ZeroDivisionError."""
    terms = [numbers[0]]
    for operator, number in zip(operators, numbers[1:], strict=True):
        match operator:
            case "plus":
                terms.append(number)
            case "minus":
                terms.append(-number)
            case "times":
                terms[-1] *= number
            case _:
                terms[-1] /= number
    return sum(terms, Fraction(0))


def _written(number: Fraction) -> str:
    """In digits, with a sign in words, at most `DECIMALS` places."""
    sign = "minus " if number < 0 else ""
    whole, rest = divmod(abs(round(number * 10**DECIMALS)), 10**DECIMALS)
    decimals = f"{rest:0{DECIMALS}d}".rstrip("0")
    return f"{sign}{whole:,}" + (f".{decimals}" if decimals else "")
