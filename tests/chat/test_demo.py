"""The demo assistant."""

from datetime import UTC, datetime

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_fsm.chat.base import ChatProvider, ChatRequest, ReplyMetadata, ReplyPart, ReplyText
from voice_fsm.chat.demo import DemoChat, server_time
from voice_fsm.chat.demo_skills import HISTORY_MAX, SKILLS, STORY, TEXT_MAX, answer
from voice_fsm.fsm.history import Exchange
from voice_fsm.fsm.sentences import SentenceSplitter

NOW = datetime(2025, 11, 21, 15, 5, tzinfo=UTC)

SAID = [
    ("Hello!", "greeting"),
    ("hello there", "greeting"),
    ("Good morning, how are you?", "greeting"),
    ("Who are you?", "identity"),
    ("What's your name?", "identity"),
    ("uh, are you a robot", "identity"),
    ("Help!", "help"),
    ("Okay. So what can you do?", "help"),
    ("What can I say?", "help"),
    ("What time is it?", "time"),
    ("Um, hey, could you please tell me the time?", "time"),
    ("Hello, what time is it now", "time"),
    ("What's the date today?", "date"),
    ("what day is it", "date"),
    ("which month is it", "date"),
    ("Say hello world.", "echo"),
    ("Repeat after me: the sea, the sea!", "echo"),
    ("Say what time it is", "echo"),
    ("say that again", "again"),
    ("What did you say?", "again"),
    ("What is twelve times seven?", "sum"),
    ("2 plus 2", "sum"),
    ("Tell me a long story!", "story"),
    ("I would like a story, please.", "story"),
    ("go on", "go on"),
    ("Please continue the story.", "go on"),
    ("And what happened then?", "go on"),
    ("Count to ten.", "count"),
    ("can you count down from five to 3", "count"),
    ("Stop!", "stop"),
    ("Okay, stop it, stop talking.", "stop"),
    ("Wait, wait.", "stop"),
    ("Thank you very much.", "thanks"),
    ("Bye bye!", "goodbye"),
    ("It was the best of times, it was the worst of times.", "quotation"),
    ("It was the epoch of belief,", "quotation"),
    ("Ever tried. Ever failed. No matter.", "quotation"),
    ("What about the weather?", "unknown"),
    ("count on me", "unknown"),
    ("count to the moon", "unknown"),
    ("We had everything before us, we had nothing before us.", "quotation"),
    ("say", "unknown"),
    ("the stopwatch and the storyteller", "unknown"),
    ("", "unknown"),
    ("...", "unknown"),
]


def said(text: str, *history: Exchange) -> str:
    return answer(text, history, NOW).text


@pytest.mark.parametrize(("text", "skill"), SAID)
def test_the_right_skill_answers(text: str, skill: str) -> None:
    """Punctuation, capitals, fillers and politeness do not matter."""
    assert answer(text, (), NOW).skill == skill


def test_every_skill_is_tried_above() -> None:
    """The table leaves none out."""
    assert {skill.name for skill in SKILLS} | {"unknown"} == {skill for _, skill in SAID}


def test_the_clock_is_read_aloud() -> None:
    """Twelve hours and a half of the day; the date in full."""
    assert said("What time is it?") == "It is 3:05 PM by my server's clock."
    assert said("What's the date?") == "Today is Friday, November 21, 2025."
    midnight = datetime(2025, 1, 1, 0, 0, tzinfo=UTC)
    assert answer("What time is it?", (), midnight).text.startswith("It is 12:00 AM")


def test_the_servers_clock_has_a_time_zone() -> None:
    """The time is local, and says so."""
    assert server_time().tzinfo is not None


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("Say hello World!", "hello World!"),
        ('Could you repeat after me: "The sea, the sea!"', "The sea, the sea!"),
        ("say " + "word " * 150, "word " * 98 + "word..."),
    ],
)
def test_echo_says_what_was_said(text: str, echo: str) -> None:
    """As it was written, up to a bound."""
    assert said(text) == echo


def test_the_last_words_are_said_again() -> None:
    """Only what was heard counts as said."""
    assert said("say that again") == "I haven't said anything yet."
    history = [Exchange("hello", "Hello!"), Exchange("tell me a story", "", interrupted=True)]
    assert said("say that again", *history) == "Hello!"


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("count to three", "One. Two. Three."),
        ("count from 19 up to twenty-one", "Nineteen. Twenty. Twenty-one."),
        ("count backwards from 3", "Three. Two. One."),
        ("count down", "Ten. Nine. Eight. Seven. Six. Five. Four. Three. Two. One."),
        ("count from ninety nine to 100", "Ninety-nine. One hundred."),
        ("count to a million", "I can only count between zero and one hundred."),
        ("count to one hundred and one", "I can only count between zero and one hundred."),
    ],
)
def test_counting_goes_up_and_down(text: str, counted: str) -> None:
    """Each number is a sentence, so that it can be interrupted after each."""
    assert said(text) == counted


def test_what_is_not_understood_is_repeated_honestly() -> None:
    """With its beginning at least, and with examples that work."""
    assert said("What about the weather?").startswith(
        'I heard: "What about the weather?" But I am only a demo without a language model'
    )
    assert said("the weather").startswith('I heard: "the weather." But')
    assert len(said("weather " * 10_000)) < 400
    for example in ("what time is it?", "what is twelve times seven?", "tell me a story."):
        assert example in said("the weather")
        assert answer(example, (), NOW).skill != "unknown"


def test_the_story_is_long_and_comes_in_short_sentences() -> None:
    """There is time to interrupt it, in many places."""
    sentences = STORY.split(". ")
    assert 230 <= len(STORY.split()) <= 330
    assert max(len(sentence.split()) for sentence in sentences) <= 25
    assert said("tell me a story").endswith(STORY)


class TestGoingOn:
    """After an interruption, from what was heard."""

    def test_a_story_goes_on_with_the_sentence_that_was_broken_off(self) -> None:
        """What was heard in full is not said again."""
        heard = said("tell me a story").partition("with a cloth")[0]
        rest = said("go on", Exchange("Tell me a story.", heard, interrupted=True))
        assert rest.startswith("Where was I? Only Mara still climbed")
        assert rest.endswith("hand you a cloth.")

    def test_the_next_sentence_follows_one_heard_in_full(self) -> None:
        """A sentence border is no broken sentence."""
        heard = said("tell me a story").partition(" Only Mara")[0]
        rest = said("go on", Exchange("Tell me a story.", heard, interrupted=True))
        assert rest.startswith("Where was I? Only Mara")

    def test_each_interruption_goes_on_from_the_one_before(self) -> None:
        """Going on can be interrupted too, by a stop and by other questions."""
        history = [Exchange("tell me a story", "Interrupt me whenever", interrupted=True)]
        history.append(Exchange("Stop!", "Okay.", interrupted=True))
        rest = said("go on", *history)
        assert rest.startswith("Where was I? Interrupt me")
        history.append(Exchange("go on", rest.partition("with a cloth")[0], interrupted=True))
        history.append(Exchange("what time is it", "It is 3:05 PM by my server's clock."))
        assert said("continue", *history).startswith("Where was I? Only Mara still climbed")

    def test_counting_goes_on(self) -> None:
        """Any reply can, not the story alone."""
        assert said("go on", Exchange("count to five", "One. Two. Three.", interrupted=True)) == (
            "Where was I? Four. Five."
        )

    def test_what_nobody_heard_is_said_from_the_start(self) -> None:
        """An interruption before the first audio."""
        assert said("go on", Exchange("count to two", "", interrupted=True)) == "Where was I? One. Two."

    def test_nothing_is_left_after_the_end(self) -> None:
        """Neither of a reply heard in full, nor of one gone on with to its end."""
        assert said("go on", Exchange("count to two", "One. Two.", interrupted=True)) == "That was all of it."
        history = [Exchange("count to two", "One.", interrupted=True), Exchange("go on", "Where was I? Two.")]
        assert said("go on", *history).startswith("There is nothing to go on with.")
        assert said("go on").startswith("There is nothing to go on with.")

    def test_what_the_splitter_hands_to_speech_is_found_again(self) -> None:
        """The history holds text cleaned for speech, not the text of the reply."""
        splitter = SentenceSplitter()
        pieces = splitter.feed(said("tell me a story")) + splitter.finish()
        for heard in range(len(pieces) - 1):
            rest = said("go on", Exchange("tell me a story", " ".join(pieces[:heard]), interrupted=True))
            assert pieces[heard].split()[-1] in rest
            assert len(rest) <= len("Where was I? ") + sum(
                len(piece) + 1 for piece in pieces[max(0, heard - 1) :]
            )

    def test_only_so_much_history_is_searched(self) -> None:
        """Long sessions cost no more than short ones."""
        history = [Exchange("count to two", "One.", interrupted=True)] + [
            Exchange("hello", "Hello!")
        ] * HISTORY_MAX
        assert said("go on", *history).startswith("There is nothing to go on with.")
        assert said("go on", *history[:-1]) == "Where was I? Two."


@settings(deadline=None)  # machines differ
@given(st.text(max_size=200), st.lists(st.builds(Exchange, st.text(), st.text(), st.booleans()), max_size=3))
def test_any_text_at_all_is_answered(text: str, history: list[Exchange]) -> None:
    """No input raises, and there is always something to say."""
    assert answer(text, history, NOW).text


def test_no_text_is_too_long() -> None:
    """A flood of words is looked at up to a bound; some patterns would take minutes otherwise."""
    assert answer("tell me " * 100_000 + "a story", (), NOW).skill == "unknown"
    assert answer("a story " * TEXT_MAX, (), NOW).skill == "story"


def request(text: str, *history: Exchange) -> ChatRequest:
    return ChatRequest(session_id="s", turn_id=1, text=text, history=history)


async def test_replies_stream_at_the_pace_of_speech(autojump_clock: trio.testing.MockClock) -> None:
    """First a pause for thought, then a few words at a time; the pieces are the whole."""
    chat: ChatProvider = DemoChat(think_s=0.5, words_per_s=10.0, clock=lambda: NOW)
    began = trio.current_time()
    parts: list[ReplyPart] = []
    came_s: list[float] = []
    async with chat.reply(request("count to seven")) as reply:
        async for part in reply:
            parts.append(part)
            came_s.append(trio.current_time() - began)
    assert parts == [
        ReplyMetadata({"engine": "demo", "skill": "count"}),
        ReplyText("One. Two. Three. "),
        ReplyText("Four. Five. Six. "),
        ReplyText("Seven."),
    ]
    assert came_s == pytest.approx([0.5, 0.5, 0.8, 1.1])


async def test_a_silence_is_broken(autojump_clock: trio.testing.MockClock) -> None:
    """Asked because the user says nothing, the assistant asks whether they are there."""
    silence = attrs.evolve(request("[The user has said nothing.]"), cause="silence")
    async with DemoChat().reply(silence) as reply:
        texts = [part.text async for part in reply if isinstance(part, ReplyText)]
    assert "".join(texts) == "Are you still there?"


@pytest.mark.parametrize(
    ("history", "text"),
    [
        ((), "What can I do for you?"),
        ((Exchange("What is two times two?", "2 times 2 is 4."),), "What can I do for you?"),
        ((Exchange("What is two times two?", "", interrupted=True),), "2 times 2 is 4."),
    ],
)
async def test_a_reply_to_nothing_new_answers_what_is_owed(
    autojump_clock: trio.testing.MockClock, history: tuple[Exchange, ...], text: str
) -> None:
    """A question that was stopped unheard is answered now; without one the assistant offers its help."""
    asked = attrs.evolve(request("[The user has said nothing new.]"), cause="asked", history=history)
    async with DemoChat(clock=lambda: NOW).reply(asked) as reply:
        texts = [part.text async for part in reply if isinstance(part, ReplyText)]
    assert "".join(texts) == text


async def test_a_reply_can_be_left_at_any_time(autojump_clock: trio.testing.MockClock) -> None:
    """Leaving ends it, and the next one starts afresh."""
    chat = DemoChat(clock=lambda: NOW)
    for _ in range(3):
        async with chat.reply(request("tell me a story")) as reply:
            async for part in reply:
                if isinstance(part, ReplyText):
                    assert part.text == "Interrupt me whenever "
                    break
    assert trio.lowlevel.current_statistics().tasks_living < 5


async def test_thinking_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing comes of a reply cancelled before its first word."""
    chat = DemoChat(think_s=60.0, clock=lambda: NOW)
    with trio.move_on_after(1.0) as scope:
        async with chat.reply(request("hello")) as reply:
            async for part in reply:
                pytest.fail(f"unexpected {part}")
    assert scope.cancelled_caught


async def test_history_reaches_the_skills(autojump_clock: trio.testing.MockClock) -> None:
    """Interrupted exchanges of the request are gone on with."""
    chat = DemoChat()
    interrupted = Exchange("count to three", "One. Two.", interrupted=True)
    async with chat.reply(request("go on", interrupted)) as reply:
        texts = [part.text async for part in reply if isinstance(part, ReplyText)]
    assert "".join(texts) == "Where was I? Three."
