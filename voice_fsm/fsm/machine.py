"""The chart at work, for any number of sessions.

The library looks up every transition's actions anew for each chart it makes: 2 ms and 230 KB with a hundred
transitions. What a chart remembers from one event to the next is its state alone, so one serves all sessions
in turn: it is put where the session is, takes the event, and the session notes where it got to. Events that
the chart takes without doing anything, as most partials are, spare its 100 us.
"""

from typing import Final

from voice_fsm.fsm.chart import SessionChart
from voice_fsm.fsm.effects import StateChanged
from voice_fsm.fsm.facts import Facts


def _idle_moves() -> frozenset[tuple[str, str]]:
    """States and events that lead nowhere and do nothing, whatever the facts."""
    moves: dict[tuple[str, str], bool] = {}
    for state in SessionChart.states:
        for transition in state.transitions:
            named = [spec for spec in (*transition.cond, *transition.on) if not spec.is_convention]
            is_idle = transition.internal and not named
            for event in transition.events:
                moves.setdefault((state.id, str(event)), is_idle)  # the first counts
    return frozenset(move for move, is_idle in moves.items() if is_idle)


IDLE_MOVES: Final = _idle_moves()


class Machine:
    """Takes the events of one session after another; not for use by several threads."""

    def __init__(self) -> None:
        self._chart = SessionChart()

    def send(self, facts: Facts, event: str, message: object = None) -> None:
        """Have an event's actions change the facts, and its transition their state."""
        source = facts.state
        if (source, event) in IDLE_MOVES:
            return
        chart = self._chart_at(source)
        chart.model = facts
        try:
            chart.send(event, message=message)
        finally:
            facts.state = str(chart.current_state_value)
        if facts.state != source:
            at_ms = (facts.now_s - facts.opened_s) * 1000
            facts.emit(StateChanged(source=source, target=facts.state, input=event, at_ms=at_ms))

    def _chart_at(self, state: str) -> SessionChart:
        if self._chart.is_terminated:
            self._chart = SessionChart()
        self._chart.current_state_value = state
        return self._chart
