"""What was said in a conversation, as it was heard: collected while it runs, for whoever keeps it."""

from typing import Any, Final, Literal

import attrs

from voice_fsm.fsm import effects as fx
from voice_fsm.runtime.outgoing import Item, TextDelta

MAX_ENTRIES: Final = 5000
"""Of one conversation; later ones are not kept."""

Status = Literal["in-progress", "done"]
Score = Literal["like", "dislike"]


@attrs.define(kw_only=True)
class Entry:
    """One utterance, or one reply."""

    role: Literal["user", "agent"]
    turn_id: int
    at_s: float
    """Since the conversation began."""
    message: str
    """Of an interrupted reply what was heard."""
    medium: Literal["audio", "text"] | None = None
    """How the user said it."""
    original: str | None = None
    """All of an interrupted reply."""
    metrics: fx.TurnTimed | None = None
    feedback: Score | None = None

    @property
    def interrupted(self) -> bool:
        return self.original is not None


@attrs.define
class _Reply:
    """The turn in hand."""

    turn_id: int = 0
    at_s: float = 0.0
    text: str = ""
    heard: str | None = None
    metrics: fx.TurnTimed | None = None
    feedback: Score | None = None


@attrs.frozen(kw_only=True)
class ConversationRecord:
    """One conversation, to be kept."""

    conversation_id: str
    agent_id: str
    started_unix_s: int
    status: Status = "in-progress"
    duration_s: float = 0.0
    user_id: str | None = None
    source: str | None = None
    """Which client it was."""
    text_only: bool = False
    ended_by: str = ""
    """`ClosingReason`, or ``client``."""
    entries: tuple[dict[str, Any], ...] = ()
    """Fields of `Entry` that are set, as JSON."""


class Transcript:
    """Takes notes of one conversation; ``begun_s`` is Trio's clock at its beginning."""

    def __init__(self, begun: ConversationRecord, begun_s: float) -> None:
        self.begun = begun
        self._begun_s = begun_s
        self._entries: list[Entry] = []
        self._reply = _Reply()
        self._ended_by = "client"

    def note(self, item: Item, now_s: float) -> None:
        """Take down what the client is told, where it belongs in a transcript."""
        reply = self._reply
        match item:
            case fx.UtteranceCommitted(text):
                self._user_said(text, "audio", now_s)
            case fx.TurnStarted(turn_id):
                self._reply = _Reply(turn_id, now_s - self._begun_s)
            case TextDelta():
                reply.text += item.text
            case fx.ReplyTold(_, text):
                reply.text = text
            case fx.TurnInterrupted(_, _, heard_text):
                reply.heard = heard_text
            case fx.TurnTimed():
                reply.metrics = item
            case fx.TurnEnded(_, outcome) if outcome != "cancelled":
                self._agent_said()
            case fx.Closing(reason):
                self._ended_by = reason
            case _:
                pass

    def typed(self, text: str, now_s: float) -> None:
        """The user typed instead of speaking."""
        self._user_said(text, "text", now_s)

    def judged(self, turn_id: int | None, score: Score | None) -> None:
        """The user likes a reply, or does not, or takes that back; it may still be sounding."""
        if turn_id == self._reply.turn_id:
            self._reply.feedback = score
        for entry in self._entries:
            if entry.role == "agent" and entry.turn_id == turn_id:
                entry.feedback = score

    def record(self, now_s: float) -> ConversationRecord:
        """The whole conversation, now that it is over, in the order in which things began.

        A reply is noted when it ends, which may be after the user has said what ended it.
        """
        entries = sorted(self._entries, key=lambda entry: entry.at_s)
        return attrs.evolve(
            self.begun,
            status="done",
            duration_s=now_s - self._begun_s,
            ended_by=self._ended_by,
            entries=tuple(
                attrs.asdict(entry, filter=lambda _, value: value is not None) for entry in entries
            ),
        )

    def _user_said(self, text: str, medium: Literal["audio", "text"], now_s: float) -> None:
        if text.strip():
            self._add(
                Entry(
                    role="user",
                    turn_id=self._reply.turn_id + 1,
                    at_s=now_s - self._begun_s,
                    message=text,
                    medium=medium,
                )
            )

    def _agent_said(self) -> None:
        reply = self._reply
        if reply.text.strip():
            self._add(
                Entry(
                    role="agent",
                    turn_id=reply.turn_id,
                    at_s=reply.at_s,
                    message=reply.text if reply.heard is None else reply.heard,
                    original=None if reply.heard is None else reply.text,
                    metrics=reply.metrics,
                    feedback=reply.feedback,
                )
            )

    def _add(self, entry: Entry) -> None:
        if len(self._entries) < MAX_ENTRIES:
            self._entries.append(entry)
