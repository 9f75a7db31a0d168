"""What of a reply's text is meant for the user: streams of characters in, streams of characters out."""

import re
from typing import Final

_THOUGHT_TAGS: Final = ("<think>", "</think>", "<thinking>", "</thinking>")
_THOUGHT_TAG: Final = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)


class ReplyTextFilter:
    """Mends characters that came in halves, and takes out the model's thoughts."""

    def __init__(self) -> None:
        self._halves = SurrogateJoiner()
        self._thoughts = ThoughtFilter()

    def feed(self, text: str) -> str:
        return self._thoughts.feed(self._halves.feed(text))

    def end(self) -> str:
        return self._thoughts.feed(self._halves.end()) + self._thoughts.end()


class SurrogateJoiner:
    """Joins UTF-16 surrogates, which JSON escapes can tear apart over two pieces; a lone one is U+FFFD."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        text = self._half + text
        self._half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return self._mend(text.removesuffix(self._half))

    def end(self) -> str:
        half, self._half = self._half, ""
        return self._mend(half)

    @staticmethod
    def _mend(text: str) -> str:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class ThoughtFilter:
    """Holds back ``<think>…</think>``, which some hosts leave in a reasoning model's text.

    A thought that is never closed is never told. A closing tag alone is taken out.
    """

    def __init__(self) -> None:
        self._is_thinking = False
        self._unsure = ""
        """An end of the text that may become a tag."""

    def feed(self, text: str) -> str:
        text = self._unsure + text
        spoken = []
        start = 0
        for tag in _THOUGHT_TAG.finditer(text):
            spoken.append(self._unless_thought(text[start : tag.start()]))
            self._is_thinking = not tag[1]
            start = tag.end()
        rest = text[start:]
        self._unsure = _unfinished_tag(rest)
        return "".join([*spoken, self._unless_thought(rest.removesuffix(self._unsure))])

    def end(self) -> str:
        unsure, self._unsure = self._unsure, ""
        return self._unless_thought(unsure)

    def _unless_thought(self, text: str) -> str:
        return "" if self._is_thinking else text


def _unfinished_tag(text: str) -> str:
    tail = text[text.rfind("<") :] if "<" in text else ""
    return tail if tail and any(tag.startswith(tail.lower()) for tag in _THOUGHT_TAGS) else ""
