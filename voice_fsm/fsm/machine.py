"""The chart at work, for any number of sessions.

The library looks up every transition's actions anew for each chart it makes: 2 ms and 230 KB with a hundred
transitions. What a chart remembers from one event to the next is its state alone, so one serves all sessions
in turn: it is put where the session is, takes the event, and the session notes where it got to.

The library takes 130 us for an event, and three times as long when others have been at work in between: it
allows for much that charts may have and this one has not. So what every conversation brings (`COMMON`) is
looked up in a table, which is read from the chart once: the first transition whose guards hold is made, as
the library would make it.
"""

from collections.abc import Iterable
from inspect import signature
from typing import Any, Final

import attrs

from voice_fsm.fsm.actions import Actions
from voice_fsm.fsm.chart import SessionChart
from voice_fsm.fsm.effects import StateChanged
from voice_fsm.fsm.facts import Facts

COMMON: Final = frozenset(
    {"words", "voice", "utterance", "nothing_said", "first_audio", "turn_done", "playback_over", "close"}
)
"""The events that are worth a table; ``close``, since the library's chart is of no use after its end."""


@attrs.frozen
class Call:
    """A guard or an action, by its name in `Actions`."""

    name: str
    takes_message: bool

    def on(self, actions: Actions, message: object) -> object:
        """Call it."""
        method = getattr(actions, self.name)
        return method(message) if self.takes_message else method()


@attrs.frozen
class Move:
    """What a transition does, if its guards hold."""

    guards: tuple[Call, ...]
    actions: tuple[Call, ...]
    target: str


def _common_moves() -> dict[tuple[str, str], tuple[Move, ...]]:
    """By state and event; the first counts whose guards hold."""
    moves: dict[tuple[str, str], tuple[Move, ...]] = {}
    for state in SessionChart.states:
        for transition in state.transitions:
            target = transition.target or state
            move = Move(_calls(transition.cond), _calls(transition.on), target.id)
            for event in COMMON.intersection(map(str, transition.events)):
                moves[state.id, event] = (*moves.get((state.id, event), ()), move)
    return moves


def _calls(specs: Iterable[Any]) -> tuple[Call, ...]:
    """What the chart names; the library adds names of its own that a chart may heed."""
    names = [str(spec.func) for spec in specs if not spec.is_convention]
    return tuple(Call(name, "message" in signature(getattr(Actions, name)).parameters) for name in names)


COMMON_MOVES: Final = _common_moves()


class Machine:
    """Takes the events of one session after another; not for use by several threads."""

    def __init__(self) -> None:
        self._chart = SessionChart()
        self._actions = Actions()

    def send(self, facts: Facts, event: str, message: object = None) -> None:
        """Have an event's actions change the facts, and its transition their state.

        Raises:
            TransitionNotAllowed: the chart has none for it.
        """
        source = facts.state
        self._actions.model = facts
        for move in COMMON_MOVES.get((source, event), ()):
            if all(guard.on(self._actions, message) for guard in move.guards):
                for action in move.actions:
                    action.on(self._actions, message)
                facts.state = move.target
                break
        else:
            facts.state = self._ask_library(facts, event, message)
        if facts.state != source:
            at_ms = (facts.now_s - facts.opened_s) * 1000
            facts.emit(StateChanged(source=source, target=facts.state, input=event, at_ms=at_ms))

    def _ask_library(self, facts: Facts, event: str, message: object) -> str:
        """Have the chart take an event; where that leads."""
        chart = self._chart
        chart.model, chart.current_state_value = facts, facts.state
        chart.send(event, message=message)
        return str(chart.current_state_value)
