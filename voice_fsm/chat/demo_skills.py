"""What the demo assistant can do: a table of skills, each some patterns and a pure function.

The first skill whose pattern is found, and whose function has something to say, replies. To add one: a
function, and an entry in `SKILLS`. Nothing here understands language, and the replies say so.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import attrs

from voice_fsm.chat.demo_sums import parse_number, solve, spell
from voice_fsm.fsm.history import Exchange

TEXT_MAX: Final = 1000
"""Characters of what the user said that are looked at."""
COUNT_MAX: Final = 100
ECHO_MAX: Final = 500
"""Characters said after the user."""
QUOTE_MAX: Final = 120
"""Characters quoted of what was not understood."""
HISTORY_MAX: Final = 30
"""Exchanges searched for what was interrupted."""


@attrs.frozen(kw_only=True)
class Heard:
    """What the user said, and what a skill may know."""

    text: str
    """As the recogniser wrote it."""
    words: str
    """Its words alone: lower case, without punctuation, fillers and polite beginnings."""
    history: Sequence[Exchange]
    now: datetime


@attrs.frozen
class Answer:
    skill: str
    text: str


Reply = Callable[[Heard, re.Match[str]], str | None]


@attrs.frozen
class Skill:
    """Answers where ``pattern`` is found in `Heard.words`, and ``reply`` has something to say."""

    name: str
    pattern: re.Pattern[str]
    reply: Reply


def answer(text: str, history: Sequence[Exchange], now: datetime) -> Answer:
    """Answer ``text``; the same arguments give the same answer."""
    text = text[:TEXT_MAX].strip()
    heard = Heard(text=text, words=_words(text), history=history[-HISTORY_MAX:], now=now)
    for skill in SKILLS:
        match = skill.pattern.search(heard.words)
        said = skill.reply(heard, match) if match else None
        if said is not None:
            return Answer(skill.name, said)
    return Answer("unknown", _unknown(heard))


# --- words ------------------------------------------------------------------------------------------

_FILLERS: Final = re.compile(r"\b(?:um+|uh+|er+|erm|hm+|mm+|ah+|oh+|please)\b")
_BEGINNINGS: Final = re.compile(
    r"^(?:(?:okay|ok|so|well|now|alright|and|but|then|yes|yeah|just|assistant|computer"
    r"|(?:hey|hi|hello)(?! there)|(?:can|could|will|would) you|i want you to|id like you to)\s+)+"
)


def _words(text: str) -> str:
    plain = re.sub(r"[^\w\s]|_", " ", re.sub(r"['\u2019]", "", text.casefold()))
    plain = " ".join(_FILLERS.sub(" ", plain).split())
    return _BEGINNINGS.sub("", plain)


def _begun(text: str, limit: int) -> str:
    """At most so many characters of ``text``, cut between words."""
    if len(text) <= limit:
        return text
    return text[:limit].rsplit(maxsplit=1)[0] + "..."


# --- skills -----------------------------------------------------------------------------------------


def _says(text: str) -> Reply:
    """A skill that always says the same."""
    return lambda _heard, _match: text


def _unknown(heard: Heard) -> str:
    if not heard.text:
        return "I didn't catch a word of that. Ask me for help, and I will tell you what I can do."
    quoted = _begun(heard.text, QUOTE_MAX)
    stop = "" if quoted[-1] in ".!?" else "."
    return (
        f'I heard: "{quoted}{stop}" But I am only a demo without a language model, so I have no answer to '
        "that. Try: what time is it? Or: what is twelve times seven? Or: tell me a story."
    )


_ECHOED: Final = re.compile(
    r"\b(?:say|echo|repeat after me)\b[\s,:;.\"\u201c-]*(\w.*)", re.IGNORECASE | re.DOTALL
)


def _echo(heard: Heard, _match: re.Match[str]) -> str | None:
    """The rest of the sentence, as it was written."""
    echoed = _ECHOED.search(heard.text)
    return _begun(echoed[1].rstrip('"\u201d'), ECHO_MAX) if echoed else None


def _again(heard: Heard, _match: re.Match[str]) -> str:
    said = [exchange.assistant for exchange in heard.history if exchange.assistant]
    return said[-1] if said else "I haven't said anything yet."


def _sum(heard: Heard, _match: re.Match[str]) -> str | None:
    return solve(heard.text)


def _count(_heard: Heard, match: re.Match[str]) -> str | None:
    first, last = ("ten", "one") if match["down"] else ("one", "ten")
    start = parse_number(match["start"] or first)
    end = parse_number(match["end"] or last)
    if start is None or end is None:
        return None
    if max(start, end) > COUNT_MAX:
        return f"I can only count between zero and {spell(COUNT_MAX)}."
    step = 1 if start <= end else -1
    return " ".join(f"{spell(number).capitalize()}." for number in range(start, end + step, step))


def _time(heard: Heard, _match: re.Match[str]) -> str:
    hour = heard.now.hour % 12 or 12
    half = "AM" if heard.now.hour < 12 else "PM"  # noqa: PLR2004 - noon
    return f"It is {hour}:{heard.now.minute:02d} {half} by my server's clock."


def _date(heard: Heard, _match: re.Match[str]) -> str:
    return f"Today is {heard.now:%A}, {heard.now:%B} {heard.now.day}, {heard.now.year}."


def _story(_heard: Heard, _match: re.Match[str]) -> str:
    return f"Interrupt me whenever you like, and then say: go on. {STORY}"


def _go_on(heard: Heard, _match: re.Match[str]) -> str:
    """Take up the last reply that was interrupted, where the user stopped hearing it.

    Answers follow from what they answer, so the interrupted one is made once more, and what the history
    says was heard of it is left out.
    """
    for position, exchange in reversed(list(enumerate(heard.history))):
        said = answer(exchange.user, heard.history[:position], heard.now)
        if exchange.interrupted and said.skill != "stop":
            rest = _unheard(said.text, exchange.assistant)
            return f"Where was I? {rest}" if rest else "That was all of it."
        if said.skill == "go on":
            break
    return "There is nothing to go on with. Ask me for a story, and interrupt me."


_WORD: Final = re.compile(r"\w+")
_SENTENCE_START: Final = re.compile(r"^|(?<=[.!?]) ")


def _unheard(text: str, heard: str) -> str:
    """The rest of a text, from the start of the sentence that was broken off."""
    words = list(_WORD.finditer(text))
    known = [word.casefold() for word in _WORD.findall(heard)]
    same = 0
    while same < min(len(words), len(known)) and words[same][0].casefold() == known[same]:
        same += 1
    if same == len(words):
        return ""
    starts = [start.end() for start in _SENTENCE_START.finditer(text)]
    return text[max(start for start in starts if start <= words[same].start()) :]


# --- what is said -----------------------------------------------------------------------------------

STORY: Final = (
    "At the edge of a grey town stood a lighthouse that had lost its light. Nobody had noticed when it "
    "went out. Ships had maps that talked now, and the maps were never wrong. Only Mara still climbed the "
    "stairs, every evening, with a cloth and a can of oil. She was eleven, and she liked to see things "
    "shine. One night in March she found a stranger at the top. He was a small man in wet shoes, and he "
    "held a clock under his arm. The clock had no hands. It does not tell the time, he said. It tells how "
    "long you have until you must decide. Mara asked what she should decide. That is the trouble, said the "
    "man. It never says. They sat down and listened to it tick. The tide came in. Fog came in behind it. "
    "Far below, a fishing boat turned in slow circles, like a dog that has lost its ball. Its maps had gone "
    "quiet. Mara heard the engine cough, and stop. Then the clock stopped too. She looked at the lamp. She "
    "looked at the oil. It took nine matches. The tenth one caught. A long white arm of light swung out "
    "across the water. It touched the boat, and showed it the way between the rocks. Somebody on board "
    "began to sing. When Mara turned around, the stranger was gone. The clock was still there, and now it "
    "had hands. They pointed to a quarter past five, and that was the time. She wound it up, and went home "
    "to breakfast. The lighthouse has been lit every night since then. Ask the ships, and they will say "
    "that the maps were at fault. Ask Mara, and she will only smile, and hand you a cloth."
)

_IDENTITY: Final = (
    "I am the demo assistant that is built into Voice FSM. There is no language model behind me, only a few "
    "simple rules, so that you can try how it is to talk to this server, and to interrupt it."
)
_HELP: Final = (
    "You can ask me for the time or the date, or for a sum, such as twelve times seven. I can tell you a "
    "story, or count to twenty. Say: repeat after me, and anything you like. Interrupt me whenever you want, "
    "and then say: go on."
)
_TWO_CITIES: Final = (
    "That sounds like the opening of A Tale of Two Cities, by Charles Dickens. I only compare words, but "
    "those I know."
)
_WORSTWARD_HO: Final = (
    "That sounds like Worstward Ho, by Samuel Beckett. I only compare words, but those I know."
)
_GREETING: Final = "Hello! I am a small demo assistant. Ask me what I can do, or say: tell me a story."


def _skill(name: str, reply: Reply, *patterns: str) -> Skill:
    return Skill(name, re.compile("|".join(patterns)), reply)


SKILLS: Final = (
    _skill(
        "stop",
        _says("Okay. Say: go on, and I will pick up where I stopped."),
        r"^(?:stop|wait|pause|(?:be )?quiet|silence|shut up|hold on|(?:thats )?enough|never mind)"
        r"(?: (?:stop|wait|it|that|there|now|talking|a moment|a second))*$",
    ),
    _skill(
        "again",
        _again,
        r"^(?:say|repeat) (?:that|it|this)(?: again)?$",
        r"^(?:again|pardon|pardon me|come again|what did you (?:just )?say)$",
    ),
    _skill("echo", _echo, r"^(?:say|echo|repeat after me)\b"),
    _skill(
        "go on",
        _go_on,
        r"^(?:go on|go ahead|continue|carry on|keep going|proceed|resume)\b(?: \w+){0,4}$",
        r"^what happen(?:s|ed) (?:then|next)$",
    ),
    _skill(
        "count",
        _count,
        r"\bcount(?P<down> down| backwards?)?(?: up)?"
        r"(?: from (?P<start>.+?))?(?: (?:down |up )?to (?P<end>.+))?$",
    ),
    _skill("sum", _sum, r""),
    _skill(
        "quotation",
        _says(_TWO_CITIES),
        r"(?:best|worst) of times|age of (?:wisdom|foolishness)|epoch of (?:belief|incredulity)",
        r"season of (?:light|darkness)|spring of hope|winter of despair|superlative degree",
        r"(?:everything|nothing) before us",
    ),
    _skill("quotation", _says(_WORSTWARD_HO), r"\bever (?:tried|failed)\b|\bfail (?:again|better)\b"),
    _skill("story", _story, r"\b(?:story|stories|tale)\b"),
    _skill("time", _time, r"\bwhat time\b|\bthe time(?: is it| now)?$|^time$"),
    _skill("date", _date, r"\b(?:what|which|whats|the|todays|tell me)\b.*\b(?:date|day|month|year)\b"),
    _skill(
        "identity",
        _says(_IDENTITY),
        r"\b(?:who|what) are you\b|\byour name\b|\bintroduce yourself\b|\bare you (?:an?|real|human|alive)\b",
    ),
    _skill("help", _says(_HELP), r"\bhelp\b|\bwhat (?:can|else|do)\b.*\b(?:do|say|ask)\b"),
    _skill("thanks", _says("You're welcome."), r"\b(?:thanks|thank you|cheers)\b"),
    _skill(
        "goodbye",
        _says("Goodbye! It was nice to hear you."),
        r"\b(?:goodbye|good bye|bye|see you|good night)\b",
    ),
    _skill(
        "greeting",
        _says(_GREETING),
        r"^(?:hello|hi|hey|greetings|good (?:morning|afternoon|evening|day)|how are you)\b",
    ),
)
"""In the order in which they are tried."""
