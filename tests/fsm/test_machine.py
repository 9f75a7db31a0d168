"""One machine that steps many sessions."""

import pytest

from voice_fsm.fsm.chart import SessionChart
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import StateChanged
from voice_fsm.fsm.events import AnyEvent, Committed, Configure, Disconnect, Drain, FirstAudio, Interrupt
from voice_fsm.fsm.facts import Facts
from voice_fsm.fsm.machine import IDLE_MOVES, Machine
from voice_fsm.fsm.options import SessionOptions
from voice_fsm.fsm.session import Session


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine()


def open_session(machine: Machine, name: str) -> Session:
    session = Session(Limits(), at_s=0.0, machine=machine)
    session.receive(Configure(at_s=0.0, session_id=name, options=SessionOptions()))
    return session


def test_sessions_of_one_machine_do_not_see_each_other(machine: Machine) -> None:
    """Events of two conversations that come by turns lead to what they lead to in two machines."""
    events: list[AnyEvent] = [
        Committed(at_s=1.0, text="What time is it?"),
        FirstAudio(at_s=2.0, turn_id=1),
        Interrupt(at_s=3.0),
        Drain(at_s=4.0),
    ]
    left, right = open_session(machine, "left"), open_session(machine, "right")
    alone = open_session(Machine(), "left")
    for event in events:
        assert left.receive(event) == alone.receive(event)
        assert left.state == alone.state
        assert right.state == "listening"
    assert left.state == "closed"
    moved = StateChanged(source="listening", target="thinking", input="utterance", at_ms=5000.0)
    assert moved in right.receive(Committed(at_s=5.0, text="And here?"))


def test_session_opens_after_another_has_closed(machine: Machine) -> None:
    """The final state of one session is no end for those after it."""
    for name in ("first", "second"):
        session = open_session(machine, name)
        assert session.state == "listening"
        session.receive(Disconnect(at_s=1.0))
        assert session.state == "closed"


def test_fault_in_an_action_leaves_the_machine_to_the_others(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in one session's step goes wrong in that session alone."""
    faulty, sound = open_session(machine, "faulty"), open_session(machine, "sound")
    with monkeypatch.context() as patch:
        patch.setattr("voice_fsm.fsm.facts.Facts.emit", _break)
        with pytest.raises(AssertionError, match="broken"):
            faulty.receive(Committed(at_s=1.0, text="Hello."))
    sound.receive(Committed(at_s=2.0, text="Hello."))
    assert sound.state == "thinking"


def test_events_that_spare_the_chart_would_not_have_moved_it() -> None:
    """The chart itself takes each of them, and neither state nor facts are other than before."""
    assert ("listening", "words") in IDLE_MOVES
    for state, event in IDLE_MOVES:
        facts = Facts(opened_s=0.0, now_s=1.0, history_turns=20, state=state)
        chart = SessionChart()
        chart.model, chart.current_state_value = facts, state
        chart.send(event, message=None)
        assert chart.current_state_value == state
        assert facts == Facts(opened_s=0.0, now_s=1.0, history_turns=20, state=state)


def test_events_whose_outcome_depends_on_the_facts_reach_the_chart() -> None:
    """A guard or an action is a reason to ask it."""
    assert not IDLE_MOVES & {("speaking", "words"), ("holding", "words"), ("thinking", "utterance")}


def _break(*_: object) -> None:
    raise AssertionError("broken")
