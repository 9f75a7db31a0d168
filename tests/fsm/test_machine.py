"""One machine that steps many sessions."""

import inspect
from collections.abc import Callable
from itertools import product

import attrs
import pytest
from statemachine.exceptions import TransitionNotAllowed

from voice_fsm.fsm.actions import Actions
from voice_fsm.fsm.chart import SessionChart
from voice_fsm.fsm.deadlines import Limits
from voice_fsm.fsm.effects import StateChanged
from voice_fsm.fsm.events import (
    AnyEvent,
    Committed,
    Configure,
    Disconnect,
    Drain,
    FirstAudio,
    Interrupt,
    Respond,
)
from voice_fsm.fsm.facts import Facts
from voice_fsm.fsm.machine import COMMON, COMMON_MOVES, Machine
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


@pytest.mark.parametrize("event", [Committed(at_s=1.0, text="Hello."), Respond(at_s=1.0)])
def test_fault_in_an_action_leaves_the_machine_to_the_others(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, event: AnyEvent
) -> None:
    """What goes wrong in one session's step goes wrong in that session alone."""
    faulty, sound = open_session(machine, "faulty"), open_session(machine, "sound")
    with monkeypatch.context() as patch:
        patch.setattr("voice_fsm.fsm.facts.Facts.emit", _break)
        with pytest.raises(AssertionError, match="broken"):
            faulty.receive(event)
    sound.receive(attrs.evolve(event, at_s=2.0))
    assert sound.state == "thinking"


def test_common_events_do_what_the_library_would_have_them_do(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every state, and whatever the guards say: the same actions, in order, and the same end."""
    answers: dict[str, bool] = {}
    done: list[tuple[str, object]] = []
    for name, method in inspect.getmembers(Actions, inspect.isfunction):
        monkeypatch.setattr(Actions, name, _stand_in(name, method, answers, done))
    compared = set()
    for state, event in product(SessionChart.states_map, COMMON):
        guards = {guard.name for move in COMMON_MOVES.get((state, event), ()) for guard in move.guards}
        for values in product([False, True], repeat=len(guards)):
            answers.clear()
            answers.update(zip(guards, values, strict=True))
            ends = []
            for send in (_ask_library, machine.send):
                facts = Facts(opened_s=0.0, now_s=1.0, history_turns=20, state=state)
                done.clear()
                try:
                    send(facts, event, "the message")
                except TransitionNotAllowed:
                    done.append(("refused", None))
                ends.append((facts.state, list(done)))
            assert ends[0] == ends[1], (state, event, answers)
            compared.add(ends[0][0])
    assert compared == set(SessionChart.states_map)


def test_common_events_are_the_chart_s() -> None:
    """None is in vain."""
    assert {event for _, event in COMMON_MOVES} == COMMON


def test_the_library_s_chart_is_never_brought_to_its_end() -> None:
    """It serves all sessions, and takes nothing more in a final state."""
    ending = {
        str(event)
        for state in SessionChart.states
        for transition in state.transitions
        for event in transition.events
        if transition.target is not None and transition.target.final
    }
    assert ending
    assert ending <= COMMON


def _ask_library(facts: Facts, event: str, message: object) -> None:
    chart = SessionChart()
    chart.current_state_value = facts.state
    try:
        chart.send(event, message=message)
    finally:
        facts.state = str(chart.current_state_value)


def _stand_in(
    name: str,
    method: Callable[..., object],
    answers: dict[str, bool],
    done: list[tuple[str, object]],
) -> Callable[..., object]:
    """A guard that answers, or an action that is noted, with the parameters of the one it stands for."""

    def bare(_: Actions) -> bool | None:
        return told(_, None)

    def told(_: Actions, message: object) -> bool | None:
        if name not in answers:
            done.append((name, message))
        return answers.get(name)

    return told if "message" in inspect.signature(method).parameters else bare


def _break(*_: object) -> None:
    raise AssertionError("broken")
