"""Markup on its way to speech."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.fsm import speakable
from voice_fsm.fsm.speakable import Speakable

CASES = [
    # headings, rules, quotes
    ("# Title\nText", "Title.\nText"),
    ("### Why?\nText", "Why?\nText"),
    ("#hashtag", "#hashtag"),
    ("C# and F#", "C# and F#"),
    ("Title\n=====\nText", "Title\nText"),
    ("---\nText", "Text"),
    ("One\n* * *\nTwo", "One\nTwo"),
    ("--- not a rule", "--- not a rule"),
    ("> quoted\n> on and on", "quoted on and on"),
    # lists
    ("- apples\n- pears", "apples.\npears."),
    ("* apples!\n+ pears.", "apples!\npears."),
    ("• un\n◦ deux", "un.\ndeux."),
    ("- [ ] wash\n- [x] dry", "wash.\ndry."),
    ("- [docs](http://x.y)", "docs."),
    ("1. one\n2) two", "1. one.\n2) two."),
    ("- one\n  goes on\n  - two", "one goes on.\ntwo."),
    ("- one\n\nThen this", "one.\nThen this"),
    ('- "yes."\n- (no)', '"yes."\n(no).'),
    ("> - quoted item", "quoted item."),
    ("- 你好\n- 再见", "你好。\n再见。"),
    ("- **Term**: meaning", "Term: meaning."),
    ("-5 degrees", "-5 degrees"),
    ("2024. was", "2024. was."),
    # emphasis
    ("**bold** __bold__ *it* _it_ ***both***", "bold bold it it both"),
    ("~~gone~~ but ~5", "gone but ~5"),
    ("un*frigging*believable", "unfriggingbelievable"),
    ("(**x**) “*y*”", "(x) “y”"),
    ("snake_case, _private, __init__.py", "snake_case, private, init.py"),
    ("2 * 3, 2*3, 2**3, x * y, (a) * b", "2 * 3, 2*3, 2**3, x * y, (a) * b"),
    ("Größe x * y, Maß * z*", "Größe x * y, Maß z"),
    ("note * this, 3 *** 4", "note this, 3 4"),
    ("x\n** y", "x\ny"),
    (r"\*literal\* c:\path", r"*literal* c:\path"),
    # code
    ("`a*b*c` and ``d`e``", "a*b*c and de"),
    ("a `tick and *more*\n*next*", "a tick and *more*\nnext"),
    ("Look:\n```python\nx = '`'\n```\nDone", "Look:\n(code omitted)\nDone"),
    ("~~~\nx\n~~~\nDone", "(code omitted)\nDone"),
    ("````md\n```\nx\n```\n````\nDone", "(code omitted)\nDone"),
    ("Run ```ls -l``` now", "Run ls -l now"),
    # links
    ("[the docs](https://x.y/z)!", "the docs!"),
    ('[a *b*](u(v)w "title") c', "a b c"),
    ("[text][ref] c", "text c"),
    ("![a cat](cat.png) c", "a cat c"),
    ("see [a [b](http://x.y) c", "see [a b c"),
    ("wow! [x](y)", "wow! x"),
    ("a note[^1].", "a note."),
    ("[laughs] a[0] m[i][j] [a] (b)", "[laughs] a[0] m[i][j] [a] (b)"),
    ("![not] this", "![not] this"),
    ("https://www.example.com/a?b=c. Then", "example.com. Then"),
    ("(HTTP://x.org:80/y)", "(x.org)"),
    ("see https://user:secret@x.org/y, ok", "see x.org, ok"),
    ("**www.x.org/path**!", "x.org!"),
    ("<https://x.org/y> <mailto:a@b.org> <a@b.org>", "x.org a@b.org a@b.org"),
    ("请看https://x.org/y。好", "请看https://x.org/y。好"),
    ("请看 https://x.org/y。好", "请看 x.org。好"),
    ("https://x.org/" + "!" * 27 + " y", "x.org y"),
    ("https://" + "a" * 1000 + " y", "a" * 300 + " y"),
    ("请看 https://x.org好", "请看 x.org好"),
    ("http:// is a scheme, https too", "http:// is a scheme, https too"),
    ("a@b.org and x.org/y stay", "a@b.org and x.org/y stay"),
    # tables
    ("| a | b |\n|---|:-:|\n| 1 | -2 |\n\nDone", "a, b.\n1, -2.\nDone"),
    ("| - | x ||\n", "x.\n"),
    ("| `p|q` | **z**! |", "p|q, z!\n"),
    ("| a |\r\n| b |\r\n", "a.\nb.\n"),
    ("a | b", "a | b"),
    # HTML
    ('<b>bold</b> <a href="x" id=y>link</a>', "bold link"),
    ("a<br/>b<p>c", "a\nb\nc"),
    ("yes<!-- no > no\nno -->, yes", "yes, yes"),
    ("a < b, x<5, <3, a <b and c> d", "a < b, x<5, <3, a <b and c> d"),
    ("<think>secret\n\n- </thin more</think>\nHi", "Hi"),
    ("<think/>yes", "yes"),
    ("<THINK>no</Think>yes", "yes"),
    ("<thinking>no <b>no</b></thinking>yes", "yes"),
    ("yes <think>never closed. No. No.", "yes"),
    ("no start</think>, so it is said", "no start, so it is said"),
    ("<script>if (a<b) no()</script>yes", "yes"),
    # emoji and other signs
    ("Hi 👋 there", "Hi there"),
    ("Hi👋🏽there", "Hi there"),
    ("Great 👍!", "Great!"),
    ("Great 👍 . Bye", "Great. Bye"),
    ("Great! 🎉🎉 Bye", "Great! Bye"),
    ("👨‍👩‍👧 1️⃣ 🇩🇪 ✅ ☀️ ok", "1 ok"),
    ("┌─┐ box", "box"),
    ("می‌خواهم क्‍ष", "می‌خواهم क्‍ष"),
    ("Settings → Privacy", "Settings, Privacy"),
    ("© 20 °C, 5 €, π ≈ 3", "© 20 °C, 5 €, π ≈ 3"),
    ("$5 and $x^2$", "$5 and $x^2$"),
    # white space, control characters, repeated punctuation
    ("a \t  b\u3000c", "a b c"),
    ("10\u00a0000", "10\u00a0000"),
    ("a\r\n\r\nb\r\n---\r\nwrapped\r\nline", "a\nb\nwrapped line"),
    ("wrapped\nline\nNew line", "wrapped line\nNew line"),
    ("a\u200bb\x07\x00c\ud83dd\ufeff", "abcd"),
    ("!!! ??? ?!?! ,,", "! ? ?! ,"),
    ("a..... b------ c::", "a... b--- c::"),
]


def spoken(text: str, size: int = 1) -> str:
    speech = Speakable()
    deltas = [text[at : at + size] for at in range(0, len(text), size)]
    return "".join(map(speech.feed, deltas)) + speech.finish()


def trimmed(text: str) -> str:
    """Without the white space that has come out when a line or the reply turns out to end."""
    return text.replace(" \n", "\n").rstrip(" ")


@pytest.mark.parametrize(("written", "plain"), CASES)
def test_markup_is_spoken_as_a_reader_would(written: str, plain: str) -> None:
    """Each construct comes out as its words alone."""
    assert trimmed(spoken(written, len(written))) == plain


@pytest.mark.parametrize(("written", "plain"), CASES)
def test_constructs_may_be_broken_anywhere(written: str, plain: str) -> None:
    """One character at a time gives the same text."""
    assert trimmed(spoken(written)) == plain


FRAGMENTS = [*(written for written, _ in CASES), *"*_~`![]<>\\hw#-|.() \n\0", "```", "](", "<think>"]


@settings(deadline=None)  # machines differ
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8), st.data())
def test_deltas_do_not_matter(parts: list[str], data: st.DataObject) -> None:
    """However a text is cut into deltas, the same is spoken."""
    text = "".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=10).map(sorted))
    speech = Speakable()
    deltas = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(map(speech.feed, deltas)) + speech.finish() == spoken(text, max(1, len(text)))


@settings(deadline=None)  # machines differ
@given(st.text(max_size=300))
def test_any_text_at_all_is_taken(text: str) -> None:
    """No input raises; what comes out can be encoded, and newline is its only control character."""
    plain = spoken(text)
    plain.encode()
    assert "Cc" not in {unicodedata.category(char) for char in plain.replace("\n", "")}


@pytest.mark.parametrize(
    ("opening", "held"),
    [
        ("**", 1),
        ("_", 1),
        ("`", 1),
        ("~~", 1),
        ("# ", 1),
        ("| ", 1),
        ("[", speakable.LINK_TEXT_MAX),
        ("![", speakable.LINK_TEXT_MAX),
        ("[a](b) [c", speakable.LINK_TEXT_MAX),
        ("<b ", speakable.TAG_MAX),
        ("</", speakable.TAG_MAX),
    ],
)
def test_what_is_never_closed_delays_speech_a_little(opening: str, held: int) -> None:
    """An open construct holds no more than its documented bound, and loses no word."""
    speech = Speakable()
    said = speech.feed(opening)
    for count in range(1, 1001):
        said += speech.feed("a word ")
        assert said.count("word") >= count - 1 - held // len("word ")
    assert (said + speech.finish()).count("word") == 1000


@pytest.mark.parametrize(
    ("opening", "lost"),
    [
        ("```\n", speakable.CODE_BLOCK_MAX),
        ("~~~\n", speakable.CODE_BLOCK_MAX),
        ("``` info without end ", speakable.CODE_BLOCK_MAX + speakable.FENCE_INFO_MAX),
        ("<!-- ", speakable.CODE_BLOCK_MAX),
        ("[a](", speakable.LINK_TARGET_MAX),
    ],
)
def test_what_swallows_text_ends_after_its_bound(opening: str, lost: int) -> None:
    """Speech goes on after so many characters even if the end never comes."""
    text = opening + "word " * 4000
    assert 4000 - spoken(text, 100).count("word") == pytest.approx(lost / len("word "), abs=5)


def test_a_link_target_ends_with_its_line() -> None:
    """A bracket that is never closed costs the rest of the line at most."""
    assert spoken("see [a](http://x\nThen more") == "see a\nThen more"


def test_code_is_announced_as_it_opens() -> None:
    """The remark does not wait for the end of the block, and can be in another language."""
    speech = Speakable(code_remark="Programmtext")
    assert speech.feed("```python\n") == "Programmtext\n"
    assert speech.feed("x = 1\n") == ""


def test_white_space_after_a_stop_comes_at_once() -> None:
    """The splitter must see that a sentence is over before the next word comes."""
    speech = Speakable()
    assert speech.feed("Hello. ") == "Hello. "
    assert speech.feed("You ") == "You"


def _calls(text: str) -> int:
    """How many Python and C functions run for a text fed one character at a time."""
    count = 0

    def profile(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        spoken(text)
    finally:
        sys.setprofile(None)
    return count


OPENINGS = [
    "![",
    "[a](",
    "[a][",
    "<a ",
    "</",
    "<!-",
    "<think>",
    "```",
    "``` ",
    "_a",
    "hthttp",
    "www.",
    "https://",
]


@pytest.mark.parametrize(
    "unit", [*"[<`*~h-1|#\n \\👍", *OPENINGS, "word ", "x.", "- ", "> ", "| -", "?!", ")]"]
)
def test_work_grows_with_the_text_alone(unit: str) -> None:
    """Each character costs a few steps, however long the text is and whatever it leaves open."""
    text = unit * (1000 // len(unit) + 1)
    assert _calls(text) < 60 * len(text)
    assert _calls(text * 4) < 5 * _calls(text)
