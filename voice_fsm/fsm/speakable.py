"""Text as a chat backend writes it -> text as a voice says it, while it streams.

A recursive descent over Markdown and HTML that waits for its next character: each grammar rule is a
generator which is sent one character at a time. So the result depends on the text alone, never on how it was
cut into deltas, and a construct that is still open needs no second look at what came before it.

| written | spoken |
|---|---|
| headings, list items, table rows | a sentence of their own; a full stop is added where none stands |
| table cells | joined by commas; ruler rows fall away |
| bold, italic, struck out, inline code | their text; ``2 * 3`` and ``snake_case`` keep their marks |
| code blocks | a remark, as soon as they open |
| links, images | their text; bare and angled addresses: the domain |
| emoji, box drawing, HTML tags, comments, footnote marks, control characters | nothing |
| ``<think>``, ``<thinking>``, ``<reasoning>``, ``<script>``, ``<style>`` | nothing, up to the closing tag |
| ``!!!``, ``?!?!``, ``-----`` | ``!``, ``?!``, ``---`` |

Formulas and currency are left to the synthesiser. A newline before a lower-case letter is a space, any other
ends a sentence, for chat models don't wrap lines.

What is never closed delays speech by no more than the ``*_MAX`` below; then it stands for itself, and what
was held is spoken. Only code blocks, comments, link targets and the silent elements swallow text, and hold
none of it.
"""

import re
import string
from collections import deque
from collections.abc import Callable, Generator, Mapping
from enum import Enum, auto
from typing import ClassVar, Final, TypeVar

from voice_fsm.fsm.plaintext import PlainText

CODE_REMARK: Final = "(code omitted)"

LINK_TEXT_MAX: Final = 200
"""Characters held between ``[`` and ``]``."""
TAG_MAX: Final = 200
"""Characters held between ``<`` and ``>``."""
FENCE_INFO_MAX: Final = 100
"""Characters held after an opening fence."""
CODE_SPAN_MAX: Final = 200
"""How far one backtick keeps marks from being read as marks; nothing is held."""
LINK_TARGET_MAX: Final = 2000
"""Characters dropped after ``](``, to the end of the line at most."""
CODE_BLOCK_MAX: Final = 10_000
"""Characters dropped of a code block or comment before it counts as never closed."""

_T = TypeVar("_T")
_Steps = Generator[None, str, _T]
"""A grammar rule: sent one character at a time, it gives what it made of them."""

_END: Final = "\0"
_LINE_ENDS: Final = ("\n", _END)
_BLANKS: Final = " \t"
_WORD: Final = r"(?!h(?:tt|t?\Z)|w(?:w|\Z))[a-z0-9]+"
"""One with which no address begins, nor may do so once more has come."""
_WORDS: Final = re.compile(rf"{_WORD}(?:(?:[,;:.?!]? |['\u2019]){_WORD})*", re.IGNORECASE | re.ASCII)
"""Most of a text: what no rule but that of plain text would look at."""
_INAUDIBLE: Final = re.compile(
    "[\x00-\x08\r-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u20e3\ufe00-\ufe0f\ufeff"
    "\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_UNDECIDED_HEAD: Final = re.compile(
    r"\#{1,6} | ([-*_=])\1{0,99}[ \t]{0,4} | ([-*_])(?:[ \t]{1,4}\2){0,7}[ \t]{0,4} | [+•◦▪‣][ \t]{0,4}"
    r"| [-+*•◦▪‣][ \t]{1,4}\[[ xX]?\]? | \d{1,4}[.)]? | ~~?",
    re.VERBOSE,
)
_BLOCK_OPENER: Final = re.compile(
    r"(?P<rule>([-*_=])(?:[ \t]*\2){2,}[ \t]*(?=[\n\0]))"
    r"|(?P<heading>\#{1,6}(?=[ \t\n\0]))"
    r"|(?P<quote>>)"
    r"|(?P<item>[-+*•◦▪‣](?:[ \t]+|(?=[\n\0]))(?:\[[ xX]\](?=[ \t]))?)"
    r"|(?P<number>(?=\d{1,4}[.)][ \t]))"
    r"|(?P<row>(?=\|))"
    r"|(?P<fence>~~~)"
)
_TAG: Final = re.compile(
    r"""(?P<closing>/?)(?P<name>[a-z][\w:-]*)
        (?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'=]+))*\s*(?P<empty>/?)""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_SILENT_ELEMENTS: Final = frozenset({"think", "thinking", "reasoning", "script", "style"})
_BLOCK_ELEMENTS: Final = frozenset(
    {"br", "p", "div", "li", "ul", "ol", "tr", "table", "hr", "blockquote", "pre", "details", "summary"}
    | {f"h{level}" for level in range(1, 7)}
)
_MAIL_LINK: Final = re.compile(r"(?:mailto:)?([^\s@:/]+@[^\s@:/]+)", re.IGNORECASE)
_WEB_LINK: Final = re.compile(r"https?://(\S+)", re.IGNORECASE)

_URL_OPENERS: Final = {"h": ("ttps://", "ttp://"), "w": ("ww.",)}
_URL_LETTERS: Final = "hHwW"
_URL_NEVER: Final = frozenset('<>"`{}|\\^')
_URL_TRAILING: Final = frozenset(".,;:!?)]'*_~")
_URL_TRAILING_MAX: Final = 8
_URL_KEPT: Final = 300


class _Block(Enum):
    """What a line is."""

    TEXT = auto()
    ITEM = auto()
    HEADING = auto()
    ROW = auto()


class Speakable:
    """The filter for one reply: raw text in, plain text out.

    Out come words, single spaces, and newlines where a sentence ends whatever its punctuation says.
    """

    def __init__(self, *, code_remark: str = CODE_REMARK) -> None:
        self._code_remark = code_remark
        self._plain = PlainText()
        self._returned: deque[str] = deque()
        self._item_open = False
        self._is_plain = False
        """Whether the grammar waits for the next character within a line, so that words are but words."""
        self._parser = self._document()
        next(self._parser)

    def feed(self, delta: str) -> str:
        """Take the next text, of any length; give what can be spoken of the whole by now."""
        text = _INAUDIBLE.sub("", delta)
        at = 0
        while at < len(text):
            words = _WORDS.match(text, at) if self._is_plain else None
            if words is None:
                self._parser.send(text[at])
                at += 1
            else:
                self._plain.add_words(words[0])
                at = words.end()
        return self._plain.take()

    def finish(self) -> str:
        """The reply is complete: give the rest. Nothing may be fed afterwards."""
        try:
            self._parser.send(_END)
        except StopIteration:
            return self._plain.take()
        raise AssertionError("a grammar rule swallowed the end")  # pragma: no cover - a fault of ours

    # --- characters -------------------------------------------------------------------------------------

    def _next(self) -> _Steps[str]:
        return self._returned.popleft() if self._returned else (yield)

    def _give_back(self, text: str) -> None:
        self._returned.extendleft(reversed(text))

    def _peek(self) -> _Steps[str]:
        char = yield from self._next()
        self._returned.appendleft(char)
        return char

    def _accept(self, text: str) -> _Steps[bool]:
        """Take ``text``, in any case, if it comes next."""
        taken = ""
        for expected in text:
            taken += yield from self._next()
            if taken[-1].lower() != expected:
                self._give_back(taken)
                return False
        return True

    def _count(self, mark: str) -> _Steps[int]:
        """Take all of ``mark`` that comes next."""
        count = 0
        while (char := (yield from self._next())) == mark:
            count += 1
        self._returned.appendleft(char)
        return count

    def _held(self, closing: str, limit: int) -> _Steps[str | None]:
        """Take what stands before ``closing``, on this line, without a further opening mark; or nothing."""
        held = ""
        while len(held) < limit:
            char = yield from self._next()
            if char == closing:
                return held
            held += char
            if char in "[<\n\0":
                break
        self._give_back(held)
        return None

    def _skip_past(self, closing: str, limit: int | None = None) -> _Steps[None]:
        """Drop everything up to and with ``closing``, or ``limit`` characters."""
        window, dropped = "", 0
        while window != closing and dropped != limit:
            char = yield from self._next()
            if char == _END:
                self._returned.appendleft(char)
                return
            window = (window + char.lower())[-len(closing) :]
            dropped += 1

    # --- lines ------------------------------------------------------------------------------------------

    def _document(self) -> _Steps[None]:
        while (yield from self._line()) != _END:
            pass
        if self._item_open:
            self._plain.end_sentence()

    def _line(self) -> _Steps[str]:
        block = yield from self._block()
        yield from self._begin_line(block)
        marks = self._MARKS_OF_ROW if block is _Block.ROW else self._MARKS
        self._is_plain = True
        while (char := self._returned.popleft() if self._returned else (yield)) not in _LINE_ENDS:
            mark = marks.get(char)
            if mark is None:
                self._plain.add(char)
            else:
                self._is_plain = False
                yield from mark(self, char)
                self._is_plain = True
        self._is_plain = False
        self._end_line(block)
        return char

    def _block(self) -> _Steps[_Block]:
        """Take the marks at the start of a line."""
        block = _Block.TEXT
        while True:
            head = yield from self._line_head()
            opener = _BLOCK_OPENER.match(head)
            self._give_back(head[opener.end() :] if opener else head)
            match opener and opener.lastgroup:
                case "quote":
                    continue
                case "item":
                    block = _Block.ITEM
                    continue
                case "number":
                    return _Block.ITEM
                case "heading":
                    return _Block.HEADING
                case "row":
                    return _Block.ROW
                case "fence":
                    yield from self._fence("~", len("~~~"))
            return block

    def _line_head(self) -> _Steps[str]:
        """As many characters, after the indent, as it takes to know what they open."""
        head = yield from self._next()
        while head in _BLANKS:
            head = yield from self._next()
        while _UNDECIDED_HEAD.fullmatch(head):
            head += yield from self._next()
        return head

    def _begin_line(self, block: _Block) -> _Steps[None]:
        first = yield from self._peek()
        goes_on = block is _Block.TEXT and first.islower()
        if not goes_on:
            if self._item_open:
                self._plain.end_sentence()
            self._plain.break_()
        self._item_open = block is _Block.ITEM or (goes_on and self._item_open)

    def _end_line(self, block: _Block) -> None:
        if block in (_Block.HEADING, _Block.ROW):
            self._plain.end_sentence()
            self._plain.break_()
        else:
            self._plain.add(" ")

    def _cell(self, _bar: str) -> _Steps[None]:
        """A bar of a table: a comma, unless the cell turns out to be empty or part of a ruler."""
        ruler = ""
        while len(ruler) < TAG_MAX and (char := (yield from self._peek())) in "-: \t":
            ruler += yield from self._next()
        if char not in ("|", *_LINE_ENDS):
            self._give_back(ruler)
            self._plain.comma()

    # --- within a line ----------------------------------------------------------------------------------

    def _asterisks(self, mark: str) -> _Steps[None]:
        count = 1 + (yield from self._count(mark))
        before, after = self._plain.last, (yield from self._peek())
        between_digits = before.isdigit() and after.isdigit()
        spaced = before.isspace() and after.isspace() and self._plain.ends_in_operand
        if count <= len("**") and (between_digits or spaced):
            self._plain.add_all(mark * count)

    def _underscores(self, mark: str) -> _Steps[None]:
        count = 1 + (yield from self._count(mark))
        if self._plain.last.isalnum() and (yield from self._peek()).isalnum():
            self._plain.add_all(mark * min(count, 3))

    def _tildes(self, mark: str) -> _Steps[None]:
        if (yield from self._count(mark)) == 0:
            self._plain.add(mark)

    def _backticks(self, mark: str) -> _Steps[None]:
        count = 1 + (yield from self._count(mark))
        if count >= len("```"):
            yield from self._fence(mark, count)
        else:
            yield from self._code_span(count)

    def _code_span(self, ticks: int) -> _Steps[None]:
        for _ in range(CODE_SPAN_MAX):
            char = yield from self._next()
            if char in _LINE_ENDS:
                self._returned.appendleft(char)
                return
            if char != "`":
                self._plain.add(char)
            elif 1 + (yield from self._count("`")) == ticks:
                return

    def _fence(self, mark: str, count: int) -> _Steps[None]:
        """After a fence: a span, if the line has another such fence, else a block of code."""
        fence = mark * count
        info = ""
        while len(info) < FENCE_INFO_MAX and (yield from self._peek()) not in _LINE_ENDS:
            info += yield from self._next()
            if info.endswith(fence):
                self._plain.add_all(info.removesuffix(fence).strip())
                return
        self._plain.break_()
        self._plain.add_all(self._code_remark)
        self._plain.break_()
        yield from self._skip_past(fence, CODE_BLOCK_MAX)
        yield from self._count(mark)

    def _exclamation(self, mark: str) -> _Steps[None]:
        if (yield from self._peek()) == "[":
            yield from self._bracket((yield from self._next()), image=True)
        else:
            self._plain.add(mark)

    def _bracket(self, mark: str, *, image: bool = False) -> _Steps[None]:
        attached = self._plain.last.isalnum()
        text = yield from self._held("]", LINK_TEXT_MAX)
        if text is None:
            self._plain.add_all("!" + mark if image else mark)
            return
        after = yield from self._peek()
        if after == "(":
            yield from self._link_target()
            self._give_back(text)
        elif after == "[" and not attached:
            yield from self._next()
            yield from self._held("]", LINK_TEXT_MAX)
            self._give_back(text)
        elif not text.startswith("^"):
            self._plain.add_all("!" + mark if image else mark)
            self._give_back(text + "]")

    def _link_target(self) -> _Steps[None]:
        depth = 0
        for _ in range(LINK_TARGET_MAX):
            char = yield from self._next()
            if char in _LINE_ENDS:
                self._returned.appendleft(char)
                return
            depth += (char == "(") - (char == ")")
            if depth == 0:
                return

    def _angle(self, mark: str) -> _Steps[None]:
        if (yield from self._accept("!--")):
            yield from self._skip_past("-->", CODE_BLOCK_MAX)
            return
        first = yield from self._peek()
        held = None
        if first == "/" or (first.isascii() and first.isalpha()):
            held = yield from self._held(">", TAG_MAX)
        if held is None:
            self._plain.add(mark)
        elif tag := _TAG.fullmatch(held):
            yield from self._tag(tag)
        elif link := _WEB_LINK.fullmatch(held):
            self._plain.add_all(_domain(link[1]))
        elif link := _MAIL_LINK.fullmatch(held):
            self._plain.add_all(link[1])
        else:
            self._plain.add(mark)
            self._give_back(held + ">")

    def _tag(self, tag: re.Match[str]) -> _Steps[None]:
        name = tag["name"].lower()
        if name in _SILENT_ELEMENTS and not tag["closing"] and not tag["empty"]:
            yield from self._skip_past(f"</{name}>")
        elif name in _BLOCK_ELEMENTS:
            self._plain.break_()

    def _backslash(self, mark: str) -> _Steps[None]:
        char = yield from self._peek()
        if char in string.punctuation:
            self._plain.add((yield from self._next()))
        elif char not in _LINE_ENDS:
            self._plain.add(mark)

    def _maybe_url(self, first: str) -> _Steps[None]:
        if not self._plain.last.isalnum():
            for opener in _URL_OPENERS[first.lower()]:
                if (yield from self._accept(opener)):
                    self._plain.add_all(_domain((yield from self._url())) or first + opener)
                    return
        self._plain.add(first)

    def _url(self) -> _Steps[str]:
        """Take an address; the punctuation after it belongs to the sentence. Give how it begins."""
        url, trailing = "", ""
        while _in_url(char := (yield from self._next())):
            trailing += char
            if char not in _URL_TRAILING or len(trailing) > _URL_TRAILING_MAX:
                url, trailing = (url + trailing)[:_URL_KEPT], ""
        self._give_back(trailing + char)
        return url

    _MARKS: ClassVar[Mapping[str, Callable[["Speakable", str], _Steps[None]]]] = {
        "*": _asterisks,
        "_": _underscores,
        "~": _tildes,
        "`": _backticks,
        "!": _exclamation,
        "[": _bracket,
        "<": _angle,
        "\\": _backslash,
        **dict.fromkeys(_URL_LETTERS, _maybe_url),
    }
    _MARKS_OF_ROW: ClassVar = {**_MARKS, "|": _cell}


def _in_url(char: str) -> bool:
    if char.isascii():
        return "!" <= char <= "~" and char not in _URL_NEVER
    return char < "\u2e80" and char.isalpha()


def _domain(url: str) -> str:
    """Who an address without its scheme belongs to; never its user name and password."""
    authority = re.split(r"[/?#]", url, maxsplit=1)[0]
    return authority.rpartition("@")[2].partition(":")[0].removeprefix("www.")
