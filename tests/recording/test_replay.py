"""The same events give the same effects, for a recorded session of each kind; and what differs is found."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.recording.sessions import API_KEY, GOLDEN, SCRIPTS, MemoryRecorder, play, timeline_text
from voice_fsm.cli import main
from voice_fsm.fsm import events as ev
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import StartTurn
from voice_fsm.fsm.options import SessionOptions, TurnOptions
from voice_fsm.recording.lines import TextKept
from voice_fsm.recording.reading import read_recording
from voice_fsm.recording.replay import Proof, replay
from voice_fsm.runtime.recorder import RecordedSession

Documents = list[dict[str, Any]]


def changed(name: str, change: Callable[[Documents], object]) -> Proof:
    """Replay a golden recording after a change to its lines."""
    lines = [json.loads(line) for line in (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()]
    change(lines)
    return replay(read_recording(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))


def _event(kind: Any, at_s: float, turn_id: int, **fields: object) -> ev.AnyEvent:
    of_turn = {"turn_id": turn_id} if issubclass(kind, ev.TurnEvent) else {}
    event: ev.AnyEvent = kind(at_s=at_s, **of_turn, **fields)
    return event


def index_of(lines: Documents, effect: str) -> tuple[int, int]:
    """Line and place of the first effect of this class."""
    return next(
        (number, place)
        for number, line in enumerate(lines)
        for place, found in enumerate(line.get("effects", ()))
        if found["is"] == effect
    )


def test_there_is_a_golden_recording_of_each_kind() -> None:
    """No more and no less than the scripts."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_golden_recording_gives_the_same_effects_and_timeline(name: str) -> None:
    """If this is meant to change: ``python -m tests.recording.sessions``, and read what changed."""
    data = (GOLDEN / f"{name}.jsonl").read_bytes()
    proof = replay(read_recording(data))
    assert proof.holds, proof.summary()
    assert timeline_text(data) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_session_that_is_played_now_can_be_proved(name: str, autojump_clock: MockClock) -> None:
    """Its key is never in the file; nor are its words, if they are not asked for."""
    tape = await play(SCRIPTS[name])
    plain, redacted = tape.data("plain"), tape.data("redacted")
    proof = replay(read_recording(plain))
    assert proof.holds, proof.summary()
    assert proof.steps == len(read_recording(redacted).lines) >= 3
    assert API_KEY.encode() not in plain + redacted
    assert b"How are" not in redacted


WITHOUT_WORDS: dict[str, Any] = {"echo_filter": False, "backchannels": "interrupt", "patience_ms": None}
"""Turns off the rules that compare words or look them up, which docs/operations.md lists."""
WORDS = st.text("bcd \n\u00e9,.", max_size=30)
"""No word that a rule of conversation could know."""
MOVES: st.SearchStrategy[Callable[[float, int], ev.AnyEvent]] = st.one_of(
    st.builds(lambda text: partial(_event, ev.Partial, text=text), WORDS),
    st.builds(lambda text: partial(_event, ev.Committed, text=text), WORDS),
    st.builds(lambda text: partial(_event, ev.TextPrompt, text=text), WORDS),
    st.builds(lambda text: partial(_event, ev.ReplyComplete, text=text, metadata={"of": text}), WORDS),
    st.builds(
        lambda texts: partial(
            _event,
            ev.SpeechAligned,
            spans=tuple(ev.SpokenSpan(text, 300.0 * place) for place, text in enumerate(texts)),
        ),
        st.lists(WORDS, min_size=1, max_size=3),
    ),
    st.sampled_from(
        [
            partial(_event, ev.ReplyStarted),
            partial(_event, ev.FirstAudio),
            partial(_event, ev.AudioSent, duration_ms=700.0),
            partial(_event, ev.TurnDone),
            partial(_event, ev.Interrupt),
            partial(_event, ev.Tick),
        ]
    ),
)


HISTORIES = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.7]), MOVES), max_size=40)
"""Pauses in seconds, and what comes after them."""


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.7]), MOVES), max_size=40),
    st.integers(1, 3),
    st.booleans(),
)
def test_any_session_can_be_proved_without_its_words(
    moves: list[tuple[float, Callable[[float, int], ev.AnyEvent]]], min_words: int, knows_words: bool
) -> None:
    """Cutting, joining and counting words gives the same for placeholders: so does what was heard.

    Unless the session has rules that know words.
    """
    tape = MemoryRecorder().tape(Limits(), 0.0)
    session = RecordedSession(Limits(), at_s=0.0, tape=tape)
    by_words = SessionOptions(turn=TurnOptions(min_words=min_words))
    by_shape = attrs.evolve(by_words, turn=attrs.evolve(by_words.turn, **WITHOUT_WORDS))
    options = by_words if knows_words else by_shape
    session.receive(ev.Configure(at_s=0.0, session_id="s", options=options))
    at_s, turn_id = 0.0, 0
    for pause_s, move in moves:
        at_s += pause_s
        effects = session.receive(move(at_s, turn_id))
        turn_id = next((effect.turn_id for effect in effects if isinstance(effect, StartTurn)), turn_id)
    texts: list[TextKept] = ["plain"] if knows_words else ["plain", "redacted"]
    for text in texts:
        proof = replay(read_recording(tape.data(text)))
        assert proof.holds, proof.summary()
        assert proof.steps == len(moves) + 1


def test_another_value_is_found_and_told_with_its_path() -> None:
    """Both values, the event, its time and its line."""

    def change(lines: Documents) -> None:
        line, place = index_of(lines, "TurnInterrupted")
        lines[line]["effects"][place]["heard_text"] = "Fine, thank"

    found = changed("stop_button", change).difference
    assert found is not None
    assert (found.line, found.event, found.at_s) == (18, "Interrupt", 0.6)
    assert found.what == "effect 2, TurnInterrupted: heard_text was 'Fine, thank' and is 'Fine,'"


def test_a_value_deep_inside_is_found() -> None:
    """The path leads through fields and places in lists."""

    def change(lines: Documents) -> None:
        line, place = [
            (number, at)
            for number, step in enumerate(lines)
            for at, effect in enumerate(step.get("effects", ()))
            if effect["is"] == "StartTurn"
        ][1]
        lines[line]["effects"][place]["history"][0]["user"] = "Who?"

    found = changed("plain_conversation", change).difference
    assert found is not None
    assert "StartTurn: history.0.user was 'Who?' and is 'How are you?'" in found.what


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda effects: effects.pop(), "effect 5, StateChanged, is new"),
        (lambda effects: effects.append(effects[0]), "effect 6, CancelTurn, does not come any more"),
        (lambda effects: effects.reverse(), "effect 1, was StateChanged and is CancelTurn"),
    ],
)  # fmt: skip
def test_missing_new_and_other_effects_are_told_apart(
    change: Callable[[Documents], object], what: str
) -> None:
    """The first that differs counts."""

    def in_line(lines: Documents) -> None:
        change(lines[index_of(lines, "TurnInterrupted")[0]]["effects"])

    found = changed("stop_button", in_line).difference
    assert found is not None
    assert found.what == what


def test_a_field_that_an_older_version_did_not_have_is_found() -> None:
    """What could not even be read is compared, and told in the timeline."""

    def change(lines: Documents) -> None:
        line, place = index_of(lines, "CancelTurn")
        del lines[line]["effects"][place]["turn_id"]

    found = changed("stop_button", change).difference
    assert found is not None
    assert found.what == "effect 1, CancelTurn: turn_id was missing and is 1"


def test_a_difference_without_words_may_come_from_the_words() -> None:
    """The verdict says so, for one that knows no words would look for a fault."""

    def change(lines: Documents) -> None:
        lines[0]["text"] = "redacted"
        lines[3]["effects"].pop()

    assert changed("stop_button", change).summary().endswith("may be why.")


def test_a_failure_of_the_machine_is_compared_too() -> None:
    """One that does not come back is a difference."""

    def change(lines: Documents) -> None:
        lines[3] |= {"effects": [], "raised": "ZeroDivisionError"}

    found = changed("stop_button", change).difference
    assert found is not None
    assert found.what == "the machine failed with ZeroDivisionError then, and did not fail now"


def test_what_follows_a_missing_step_is_not_proved() -> None:
    """Nobody knows what state it met; so the proof does not hold."""

    def change(lines: Documents) -> None:
        lines[6] = {"is": "Lost", "steps": 1}

    proof = changed("stop_button", change)
    assert (proof.holds, proof.steps, proof.difference) == (False, 5, None)
    assert proof.unproved == 12


def run(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["replay", *map(str, args)])
    return result.exit_code, result.output


def test_the_command_proves_tells_and_draws(tmp_path: Any) -> None:
    """The timeline, the verdict, and a page; 0 for a proof that holds."""
    page = tmp_path / "page.html"
    code, output = run(GOLDEN / "barge_in.jsonl", "--html", page)
    assert code == 0
    assert (GOLDEN / "barge_in.txt").read_text(encoding="utf-8") in output
    assert output.endswith("48 steps, 32 effects: the same came out again.\n")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_command_tells_what_differs(tmp_path: Any) -> None:
    """1, and a sentence with the place; as JSON for machines."""
    file = tmp_path / "changed.jsonl"
    data = (GOLDEN / "stop_button.jsonl").read_bytes()
    file.write_bytes(data.replace(b'"reason":"client"', b'"reason":"speech"'))
    code, output = run(file, "--timeline", "none")
    assert code == 1
    assert "on Interrupt at 0.600 s (line 18), effect 2, TurnInterrupted: reason was 'speech'" in output
    code, output = run(file, "--json")
    verdict = json.loads(output)
    assert (code, verdict["holds"], verdict["difference"]["line"]) == (1, False, 18)


def test_the_command_says_what_is_no_recording(tmp_path: Any) -> None:
    """2, the file and the line."""
    file = tmp_path / "notes.txt"
    file.write_text("hello\n")
    code, output = run(file)
    assert code == 2
    assert output.endswith("notes.txt: line 1 is not JSON.\n")
    assert run(tmp_path / "missing.jsonl")[0] == 2
