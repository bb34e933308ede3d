"""What durable actors and those who talk to them send each other: names and shapes, shared by both sides.

A message is an update (asked) or a signal (told) of its own name, with its fields as the input. What has a
dot in its name is the system's own.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainSerializer

from goatherd.contracts.model import Contract

DELIVER = "actor.deliver"
"""Update: several messages at once. Signal: one message to an actor inside of the tree."""
ANSWER = "actor.answer"
"""Signal: the answer to an ask of another durable actor."""
COLLECT = "actor.collect"
"""Update: the answers of what was taken by a delivery, as soon as there are some."""
WATCH = "actor.watch"
UNWATCH = "actor.unwatch"
TERMINATED = "actor.terminated"
SEVERAL = "actor.several"
"""Signal: several signals of one sender, in their order."""
STOP = "actor.stop"
"""Signal: its parent stops it."""
VIEW = "actor.view"
"""Query: the tree as it is, for people."""

MOVED = "actor-moved"
"""Type of the error of an ask that is still open when its run ends, or comes when it is about to: ask again
with the same id."""


class Item(Contract):
    """One message of a delivery. `id`: it counts once, however often it comes. `entity`: whose it is, if the
    workflow is a shard."""

    name: str
    value: Any
    id: str | None = None
    ask: bool = True
    entity: str | None = None


class Delivery(Contract):
    items: list[Item]


class Outcome(Contract):
    """What became of an item. `slow`: it is taken, and has no answer yet: ask for it by its id."""

    value: Any = None
    code: str | None = None
    message: str | None = None
    pointer: str | None = None
    slow: bool = False


def _said(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Without what is as usual: a delivery may have hundreds."""
    return [
        {name: value for name, value in one if value is not None and (name != "slow" or value)}
        for one in outcomes
    ]


class Outcomes(Contract):
    items: Annotated[list[Outcome], PlainSerializer(_said, return_type=list[Any])]


class Ticket(Contract):
    """A request that was taken, and had no answer then."""

    name: str
    id: str


class Collection(Contract):
    """Each of who collects has one under way: a new one ends the one before."""

    by: str
    tickets: list[Ticket]


class Meta(Contract):
    """Second input of a signal: whose message it is."""

    id: str | None = None
    reply_to: str | None = None
    entity: str | None = None


class Envelope(Contract):
    """A message to an actor inside of the tree, or an answer: with its type, as `_wire` writes it."""

    to: str
    message: Any = None
    reply_to: str | None = None
    error: Any = None


class Signal(Contract):
    name: str
    inputs: list[Any]


class Signals(Contract):
    signals: list[Signal]


class Watching(Contract):
    """`watcher` wants to know when `watched` has stopped; or it has."""

    watched: str
    watcher: str


class Carried(Contract):
    """What a run hands on to the next."""

    tree: Any
    seen: list[Any] = []
    children: list[str] = []


class View(Contract):
    """The tree, for people."""

    actors: list[dict[str, Any]]
    children: list[str] = []
    watchers: list[Watching] = []
    """Those of other systems, and whom of this one they watch."""
    asks: int
    messages: int
