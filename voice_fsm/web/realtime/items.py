"""The items of one conversation, as its client knows them."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

import attrs

from voice_fsm.web.realtime.errors import RealtimeRefusal
from voice_fsm.wire.realtime import ServerEvent

MAX_ITEMS: Final = 1000
"""The newest are kept."""


def new_id(prefix: str) -> str:
    """Make an id that nobody has had."""
    return f"{prefix}_{secrets.token_hex(10)}"


@attrs.define
class Item:
    """One item; ``fields`` are those it has beside its id."""

    id: str
    fields: dict[str, Any]
    turn_id: int | None = None
    """Of the assistant's."""
    previous_id: str | None = None
    audio_ms: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The item as its events show it: without audio."""
        return {"id": self.id, "object": "realtime.item", **self.fields}


def message(role: str, content: list[Mapping[str, Any]], *, status: str = "completed") -> dict[str, Any]:
    """The fields of a message."""
    return {"type": "message", "status": status, "role": role, "content": content}


@attrs.define
class Items:
    """In order."""

    _items: dict[str, Item] = attrs.field(factory=dict)

    def add(self, item: Item, after: str | None = None) -> None:
        """Put an item at the end, or after another, ``root`` for none.

        Raises:
            RealtimeRefusal: there is no such other one, or the item's id is taken.
        """
        if item.id in self._items:
            raise RealtimeRefusal("invalid_value", "An item of this id exists already.", field="item.id")
        ids = list(self._items)
        if after is None:
            place = len(ids)
        elif after == "root":
            place = 0
        elif after in self._items:
            place = ids.index(after) + 1
        else:
            raise RealtimeRefusal("invalid_value", "There is no item of this id.", field="previous_item_id")
        if place == len(ids):
            self._items[item.id] = item
        else:
            ids.insert(place, item.id)
            self._items = {id_: item if id_ == item.id else self._items[id_] for id_ in ids}
        item.previous_id = ids[place - 1] if place else None
        while len(self._items) > MAX_ITEMS:
            del self._items[next(iter(self._items))]

    def find(self, item_id: str, deed: str) -> Item:
        """Look an item up for a message that is to do ``deed`` to it.

        Raises:
            RealtimeRefusal: there is none of this id, or no longer.
        """
        if item_id not in self._items:
            raise RealtimeRefusal(
                f"item_{deed}_invalid_item_id", "There is no item of this id.", field="item_id"
            )
        return self._items[item_id]


def item_event(name: str, item: Item) -> ServerEvent:
    """Tell of an item's place and content: ``added``, ``done``."""
    fields = {"previous_item_id": item.previous_id, "item": item.as_json()}
    return ServerEvent(f"conversation.item.{name}", fields)
