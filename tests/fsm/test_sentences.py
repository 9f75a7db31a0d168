"""Replies cut into pieces worth speaking."""
# ruff: noqa: RUF001 - marks of many scripts are what is tested

import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.fsm.orthography import width
from voice_fsm.fsm.sentences import (
    FIRST_LOOK_WIDTH,
    FIRST_WORDS_WIDTH,
    MAX_WIDTH,
    SentenceSplitter,
    _Cutter,
)
from voice_fsm.fsm.speakable import Speakable

CASES = [
    # the plain case
    ("Hi there! How are you? Fine.", ["Hi there!", "How are you?", "Fine."]),
    ("Really?! Yes! Okay.", ["Really?!", "Yes!", "Okay."]),
    ("No end", ["No end"]),
    ("Ends in space. ", ["Ends in space."]),
    ("No space.After this. Yes.", ["No space.After this.", "Yes."]),
    # numbers
    ("Pi is 3.14. Good.", ["Pi is 3.14.", "Good."]),
    ("It costs 1,000.50 dollars. Fine.", ["It costs 1,000.50 dollars.", "Fine."]),
    ("Meet at 10:30. Bring tea.", ["Meet at 10:30.", "Bring tea."]),
    ("$5 or €6.50. Cheap.", ["$5 or €6.50.", "Cheap."]),
    ("In 1999. Then more.", ["In 1999.", "Then more."]),
    ("Version 2.0.1 is out. Get it.", ["Version 2.0.1 is out.", "Get it."]),
    ("1. Wash. 2. Rinse.", ["1. Wash.", "2. Rinse."]),
    ("Is it 5' 10\"? No.", ["Is it 5' 10\"?", "No."]),
    # abbreviations and initials
    ("Mr. Smith met Dr. Jones. He left.", ["Mr. Smith met Dr. Jones.", "He left."]),
    ("J. R. R. Tolkien wrote it. Read it.", ["J. R. R. Tolkien wrote it.", "Read it."]),
    ("Fruit, e.g. Apples. Eat.", ["Fruit, e.g. Apples.", "Eat."]),
    ("That is, i.e. now. Go.", ["That is, i.e. now.", "Go."]),
    ("(E.g. this.) Yes.", ["(E.g. this.)", "Yes."]),
    ("The U.S. Army left the U.S. today. Yes.", ["The U.S. Army left the U.S. today.", "Yes."]),
    ("Come at 5 p.m. or later. Bye.", ["Come at 5 p.m. or later.", "Bye."]),
    ("Come at 5 p.m. Bring tea.", ["Come at 5 p.m.", "Bring tea."]),
    ("Tea, milk etc. are out. Buy.", ["Tea, milk etc. are out.", "Buy."]),
    ("Tea, milk etc. Buy some.", ["Tea, milk etc.", "Buy some."]),
    ("Answer No. 5 is it. No. Not that.", ["Answer No. 5 is it.", "No.", "Not that."]),
    ("Walk to St. James. Cats vs. Dogs.", ["Walk to St. James.", "Cats vs. Dogs."]),
    ("Jan. 5 is cold. See vol. 3. Yes.", ["Jan. 5 is cold.", "See vol. 3.", "Yes."]),
    ("So do I. You too.", ["So do I.", "You too."]),
    ("Acme Inc. The firm. Acme Inc. is it.", ["Acme Inc.", "The firm.", "Acme Inc. is it."]),
    # addresses and file names
    ("See example.com. It works.", ["See example.com.", "It works."]),
    ("Mail a.b@example.co.uk. Thanks.", ["Mail a.b@example.co.uk.", "Thanks."]),
    ("Open main.py. Run ./a.out now. Yes.", ["Open main.py.", "Run ./a.out now.", "Yes."]),
    ("Is it x.org/a?b=c&d? Yes.", ["Is it x.org/a?b=c&d?", "Yes."]),
    # ellipses
    ("Well... maybe. Yes.", ["Well... maybe.", "Yes."]),
    ("Well... Maybe. Wait… what? No…", ["Well...", "Maybe.", "Wait… what?", "No…"]),
    ("… and so on. Yes.", ["… and so on.", "Yes."]),
    # quotes and brackets
    ('She said "Go." Then left.', ['She said "Go."', "Then left."]),
    ('"Really?" she asked. "Yes."', ['"Really?" she asked.', '"Yes."']),
    ("‘Yes.’ ‘No.’ “Well.” Hm.", ["‘Yes.’", "‘No.’", "“Well.”", "Hm."]),
    ("(It is late.) He came (late.) and left.", ["(It is late.)", "He came (late.) and left."]),
    ("Rock 'n' roll. 'Tis true. Yes.", ["Rock 'n' roll.", "'Tis true.", "Yes."]),
    # nothing to pronounce
    ("...", []),
    ("Hm. ... ?! Well. -", ["Hm.", "... ?! Well."]),
    ("100%. ∞. Sure.", ["100%.", "∞.", "Sure."]),
    # lines
    ("A title\nNew line", ["A title", "New line"]),
    ("wrapped\nline. Para\n\npara", ["wrapped line.", "Para", "para"]),
    ("- one\n- two\n\nDone.", ["one.", "two.", "Done."]),
    ("1. **Wash**\n2. Dry", ["1. Wash.", "2. Dry."]),
    ("| a | b |\n|---|---|\n| c | d |", ["a, b.", "c, d."]),
    ("<think>Hm. No.</think>Yes 👍. `x`!", ["Yes.", "x!"]),
    # German, Dutch, Swedish
    ("Ich bin Nr. 5. Du nicht.", ["Ich bin Nr. 5.", "Du nicht."]),
    ("Am 3. Mai im 19. Jahrhundert. Gut.", ["Am 3. Mai im 19. Jahrhundert.", "Gut."]),
    ("Das ist z.B. Prof. Dr. Au. Ja.", ["Das ist z.B. Prof. Dr. Au.", "Ja."]),
    ("Äpfel usw. und mehr. „Komm!“ rief er. Ja.", ["Äpfel usw. und mehr.", "„Komm!“ rief er.", "Ja."]),
    ("Dhr. Jansen komt bijv. morgen. Goed.", ["Dhr. Jansen komt bijv. morgen.", "Goed."]),
    ("Det kostar ca. 50 kr. Ja.", ["Det kostar ca. 50 kr.", "Ja."]),
    # Romance languages
    ("Bonjour ! Ça va ? Oui.", ["Bonjour !", "Ça va ?", "Oui."]),
    ("« Oui. » Il rit. « Ça va ? » dit-il.", ["« Oui. »", "Il rit.", "« Ça va ? » dit-il."]),
    ("M. Dupont et Mme. Curie. Bien.", ["M. Dupont et Mme. Curie.", "Bien."]),
    ("¿Qué tal? ¡Muy bien! Sí.", ["¿Qué tal?", "¡Muy bien!", "Sí."]),
    ("El Sr. Paz vive en EE. UU. ahora. Sí.", ["El Sr. Paz vive en EE. UU. ahora.", "Sí."]),
    ("Ciao. L'avv. Rossi è qui. Bene.", ["Ciao.", "L'avv. Rossi è qui.", "Bene."]),
    # Russian, Armenian
    ("А. С. Пушкин жил на ул. Мира, т.е. тут. Да.", ["А. С. Пушкин жил на ул. Мира,", "т.е. тут.", "Да."]),
    ("«Привет!» — сказал он. Да.", ["«Привет!» — сказал он.", "Да."]),
    ("Բարև։ Ինչպես ես։", ["Բարև։", "Ինչպես ես։"]),
    # Chinese, Japanese, Korean
    ("你好。我很好！真的？是的。", ["你好。", "我很好！", "真的？", "是的。"]),
    ("他说：“走吧。”然后走了。", ["他说：“走吧。”", "然后走了。"]),
    ("「はい。」と言った！？次。", ["「はい。」", "と言った！？", "次。"]),
    ('这是3.14。他说。"好"她说。', ["这是3.14。", "他说。", '"好"她说。']),
    ("안녕하세요. 반갑습니다. 네.", ["안녕하세요.", "반갑습니다.", "네."]),
    # Hindi, Arabic, Urdu, Thai
    ("नमस्ते। आप कैसे हैं? ठीक।", ["नमस्ते।", "आप कैसे हैं?", "ठीक।"]),
    ("مرحبا؟ السعر 3.5 نقاط. نعم.", ["مرحبا؟", "السعر 3.5 نقاط.", "نعم."]),
    ("سلام۔ کیا حال ہے؟ ٹھیک۔", ["سلام۔", "کیا حال ہے؟", "ٹھیک۔"]),
    ("สวัสดีครับ ผมสบายดี", ["สวัสดีครับ ผมสบายดี"]),
    # the start of a reply
    ("I would love to tell you, after all, about it.", ["I would love to tell you,", "after all, about it."]),
    ("Well, yes, I would love to tell. Yes, I would.", ["Well, yes, I would love to tell.", "Yes, I would."]),
    ("Sure. I would love to tell you, after all.", ["Sure.", "I would love to tell you,", "after all."]),
    ("Some options, e.g., this one, are many.", ["Some options, e.g., this one,", "are many."]),
    ("A dash — or two — may part a sentence.", ["A dash — or two —", "may part a sentence."]),
    ("Well - or not - it is a longer sentence.", ["Well - or not - ".strip(), "it is a longer sentence."]),
    ("我很高兴能够告诉你，大海很冷，很深。", ["我很高兴能够告诉你，", "大海很冷，很深。"]),
]


def pieces(text: str, size: int = 1) -> list[str]:
    splitter = SentenceSplitter()
    ready = [piece for at in range(0, len(text), size) for piece in splitter.feed(text[at : at + size])]
    return ready + splitter.finish()


def marks_of(texts: Iterable[str]) -> str:
    """All but white space."""
    return "".join("".join(texts).split())


@pytest.mark.parametrize(("reply", "expected"), CASES)
def test_replies_are_cut_where_a_speaker_would_pause(reply: str, expected: list[str]) -> None:
    """Coming character by character, each sentence is a piece of its own."""
    assert pieces(reply) == expected


@pytest.mark.parametrize(("reply", "expected"), CASES)
def test_a_reply_that_comes_whole_is_cut_at_the_same_borders(reply: str, expected: list[str]) -> None:
    """Only short sentences are left together."""
    whole = pieces(reply, max(1, len(reply)))
    assert marks_of(whole) == marks_of(expected)
    assert borders(whole) <= borders(expected)


def borders(texts: Iterable[str]) -> set[int]:
    ends = set()
    end = 0
    for text in texts:
        end += len(marks_of([text]))
        ends.add(end)
    return ends


@pytest.mark.parametrize(
    ("deltas", "ready"),
    [
        (["Hello there. "], [["Hello there."]]),
        (["Hello there."], [[]]),
        (["It is 3.", "14 or so. "], [[], ["It is 3.14 or so."]]),
        (["Hello", " there", ".", " How"], [[], [], [], ["Hello there."]]),
        (["At 5 p.m. ", "or so. "], [[], ["At 5 p.m. or so."]]),
        (["At 5 p.m. ", "Or so we are told. "], [[], ["At 5 p.m. Or so we are told."]]),
        (["At 5 in the p.m. ", "Or so. "], [[], ["At 5 in the p.m.", "Or so."]]),
        (["Yes. No. Maybe so, maybe not. Go"], [["Yes. No. Maybe so, maybe not."]]),
        (["Yes. ", "Sure. "], [["Yes."], ["Sure."]]),
        (["No. ", "5. "], [[], ["No. 5."]]),
        (["你好。", "好"], [[], ["你好。"]]),
        (["A heading\n", "B"], [[], ["A heading"]]),
        (["A title\nThen more. "], [["A title", "Then more."]]),
        (["# A heading\n"], [["A heading."]]),
        (["```\n", "x\n"], [["(code omitted)"], []]),
    ],
)
def test_pieces_are_told_as_soon_as_they_are_sure(deltas: list[str], ready: list[list[str]]) -> None:
    """A stop with white space after it decides; a stop at the end of what came so far does not."""
    splitter = SentenceSplitter()
    assert [splitter.feed(delta) for delta in deltas] == ready


def test_finish_gives_the_rest() -> None:
    """What was undecided is spoken when the reply is complete."""
    splitter = SentenceSplitter()
    assert splitter.feed("All is well, e.g. the 3.") == []
    assert splitter.finish() == ["All is well, e.g. the 3."]


def test_a_reply_without_marks_starts_with_a_few_words() -> None:
    """Speech need not wait for the end of a long sentence; no lonely word is left of one just over."""
    reply = "the quick brown fox jumps over the lazy dog and runs home to its den before the night falls"
    splitter = SentenceSplitter()
    assert splitter.feed(reply[: FIRST_LOOK_WIDTH - 1]) == []
    (first,) = splitter.feed(reply[FIRST_LOOK_WIDTH - 1 : FIRST_LOOK_WIDTH])
    assert first == "the quick brown fox jumps over the lazy dog"
    assert len(first) <= FIRST_WORDS_WIDTH
    assert splitter.feed(reply[FIRST_LOOK_WIDTH:]) == []


def test_a_single_short_word_is_no_start() -> None:
    """A long word after it does not make it stand alone."""
    assert pieces("So " + "x" * 100) == ["So " + "x" * 100]


LONG = "word " * 30 + "clause, " + "word " * 30


@pytest.mark.parametrize(
    ("reply", "end"),
    [
        ("Now here it goes. " + LONG, "clause,"),
        ("Now here it goes. " + "word " * 100, "word"),
        ("Now here it goes. First, " + "word " * 100, "word"),
        ("Now here it goes. " + "3 000 kg " * 100, ("kg", "000")),
        ("这是一个开始，" + "字" * 200, "字"),
        ("這是一個開始，" + "字句，" * 100, "字句，"),
        ("x" * 1000, "x"),
    ],
)
def test_sentences_without_end_are_cut(reply: str, end: str | tuple[str, ...]) -> None:
    """At the last clause, else word, else anywhere; no piece is too wide and nothing is lost."""
    cut = pieces(reply)
    assert max(map(width, cut)) <= MAX_WIDTH
    assert all(piece.endswith(end) for piece in cut[1:-1])
    assert len(cut) > 2
    assert marks_of(cut) == marks_of([reply])


def test_short_sentences_are_not_joined_beyond_the_widest_piece() -> None:
    """A long sentence stays alone."""
    reply = "A start that is long enough. Okay it is. " + "word " * 48 + "end. "
    assert [len(piece) for piece in SentenceSplitter().feed(reply)] == [28, 11, 244]


def test_letters_keep_their_vowel_signs_when_cut() -> None:
    """A text without any border is cut between letters, not within one."""
    cut = pieces("กี่" * 300)
    assert all(piece.startswith("ก") for piece in cut)


def test_marks_without_end_are_dropped_not_held() -> None:
    """Nothing to pronounce is not spoken, however long it goes on."""
    splitter = SentenceSplitter()
    assert splitter.feed(")]}" * 1000) == []
    assert len(splitter._cutter._text) <= MAX_WIDTH
    (piece,) = splitter.feed(" Well. ")
    assert piece.endswith("Well.")


def test_the_remark_on_code_can_be_chosen() -> None:
    """Servers that speak other languages say so in theirs."""
    splitter = SentenceSplitter(code_remark="Programmtext")
    assert splitter.feed("```\nx\n``` \n") == ["Programmtext"]


VOCABULARY = (
    "a I the it's word Mr. e.g. U.S. 3.14 1,000 10:30 No. etc. x@y.org x.org/a?b „ja“ «oui» (yes) 'n' Über ça"
    " 你好 です 안녕 नमस्ते مرحبا да т.е. … — 5kg % $6 C++ https:"
)
WORDS = st.sampled_from([*VOCABULARY.split(), "Hm... "])
STOPS = st.sampled_from([*" 。，！\n", " ", " ", ", ", "; ", ". ", "! ", "? ", " ! ", ".\n\n", '." ', " \n"])
PLAIN = st.lists(st.tuples(WORDS, STOPS).map("".join), max_size=60).map("".join)


@settings(deadline=None)  # machines differ
@given(PLAIN)
def test_no_character_of_plain_text_is_lost_or_doubled(reply: str) -> None:
    """Pieces put together give the reply, but for white space, and marks at its very end."""
    spoken, written = marks_of(pieces(reply)), marks_of([reply])
    assert written.startswith(spoken)
    assert not any(char.isalnum() for char in written[len(spoken) :])


@settings(deadline=None)  # machines differ
@given(PLAIN)
def test_pieces_are_never_too_wide_nor_empty_of_words(reply: str) -> None:
    """Each piece is fit to be handed to a synthesiser."""
    for piece in pieces(reply, max(1, len(reply))):
        assert width(piece) <= MAX_WIDTH
        assert piece == piece.strip()
        assert "\n" not in piece
        assert any(char.isalnum() or char in "+$%" for char in piece)


def all_sentences(reply: str) -> list[str]:
    """The reply cut at every border, short sentences too."""
    speech, cutter = Speakable(), _Cutter()
    return cutter.feed(speech.feed(reply) + speech.finish()) + cutter.finish()


MARKUP = st.sampled_from(
    [*"_`\n[|<)«»", "**", "```", "# ", "- ", "1. ", "[a](b)", "](", "<think>", "</think>", "<b>", "👍", "!!"]
)


@settings(deadline=None)  # machines differ
@given(st.lists(st.one_of(PLAIN, MARKUP), max_size=12).map("".join), st.data())
def test_deltas_do_not_matter(reply: str, data: st.DataObject) -> None:
    """However a reply is cut into deltas, the same is spoken, and cut at the same borders or fewer."""
    cuts = data.draw(st.lists(st.integers(0, len(reply)), max_size=8).map(sorted))
    splitter = SentenceSplitter()
    ready: list[str] = []
    for start, end in zip([0, *cuts], [*cuts, len(reply)], strict=True):
        ready += splitter.feed(reply[start:end])
    ready += splitter.finish()
    finest = all_sentences(reply)
    assert marks_of(ready) == marks_of(finest)
    assert borders(ready) <= borders(finest)


@settings(deadline=None)  # machines differ
@given(st.text(max_size=200))
def test_any_text_at_all_is_taken(reply: str) -> None:
    """No input raises."""
    pieces(reply)


def test_ten_thousand_deltas_are_quick() -> None:
    """A token's worth of text costs microseconds: here the bound is 100 for each, 3 were measured."""
    reply = ("The quick brown fox jumps over the **lazy** dog, and then it runs. " * 150)[:10_000]
    begun = time.process_time()
    pieces(reply)
    assert time.process_time() - begun < 1.0
