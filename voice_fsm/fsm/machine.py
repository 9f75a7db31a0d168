"""The chart at work, for any number of sessions.

The library looks up every transition's actions anew for each chart it makes: 2 ms and 230 KB with a hundred
transitions. What a chart remembers from one event to the next is its state alone, so one serves all sessions
in turn: it is put where the session is, takes the event, and the session notes where it got to.
"""

from voice_fsm.fsm.chart import SessionChart
from voice_fsm.fsm.effects import StateChanged
from voice_fsm.fsm.facts import Facts


class Machine:
    """Takes the events of one session after another; not for use by several threads."""

    def __init__(self) -> None:
        self._chart = SessionChart()

    def send(self, facts: Facts, event: str, message: object = None) -> None:
        """Have an event's actions change the facts, and its transition their state."""
        source = facts.state
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
