"""Event-sourced actors: commands come to events, and events to the state."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, Generic, TypeVar, final

from typing_extensions import dataclass_transform

from goatherd.actors._behavior import Behavior, behavior, name_of
from goatherd.actors._context import Context
from goatherd.actors._wire import Json
from goatherd.actors.persistence._effect import Effect
from goatherd.actors.persistence._retention import Retention
from goatherd.actors.persistence._running import Running

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")
Class = TypeVar("Class", bound="type[EventSourced[Any, Any, Any]]")


class EventSourced(Behavior[C], Generic[C, E, S]):
    """Base of event-sourced behaviors. A subclass needs `@event_sourced("name")`.

    Its fields are what it is spawned with, and never change: what changes is the state, which follows from
    the events alone. States and events are messages: dataclasses or pydantic models, of a module.
    """

    retention: ClassVar[Retention] = Retention()
    _state: Any = None
    _seq: int = 0
    _recovered: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Its `check` is asked only when it has recovered: before that nobody knows its state."""
        super().__init_subclass__(**options)
        if "check" in cls.__dict__:
            cls.check = _once_recovered(cls.check)  # type: ignore[assignment, method-assign]

    @property
    @final
    def state(self) -> S:
        """The state as the journal has confirmed it."""
        state: S = self._state
        return state

    @property
    @final
    def seq(self) -> int:
        """The number of the last event in `state`."""
        return self._seq

    def empty(self) -> S:
        """The state before the first event."""
        raise NotImplementedError

    def on_command(self, ctx: Context[C], state: S, command: C) -> Effect[E] | None:
        """A command has come: what it comes to. It must not change `state`. None is `none()`."""
        raise NotImplementedError

    def on_event(self, state: S, event: E) -> S:
        """The state after an event. Pure: it is called again at each recovery, and does nothing else.

        It is asked before an event is written, so that what it raises keeps the event from being written.
        """
        raise NotImplementedError

    def persistence_id(self, ctx: Context[C]) -> str:
        """Whose events these are. Two actors that live at the same time must not have the same.

        If not said otherwise, the registered name, and the actor's with those above it: of a durable actor
        its id, of a sharded entity its id too, whatever shard it is in.
        """
        return f"{name_of(self)}|{_place(ctx)}"

    def upgrade_event(self, written: Json) -> list[Json]:
        """An event as it was written once, `{"type": "module:Class", "value": ...}`, as it would be now: one,
        several, or none."""
        return [written]

    def upgrade_state(self, written: Json) -> Json:
        """The state of a snapshot as it was written once, as it would be now."""
        return written

    @final
    def on_start(self, ctx: Context[C]) -> Behavior[C] | None:
        running = Running(self)
        return running.on_start(ctx) or running

    @final
    def receive(self, ctx: Context[C], message: C) -> Behavior[C] | None:
        raise NotImplementedError("An event-sourced behavior runs in another one, from its start on.")


@dataclass_transform(field_specifiers=())
def event_sourced(name: str, *, snapshot: Retention | None = None) -> Callable[[Class], Class]:
    """Registers an `EventSourced`, as `behavior` does. `snapshot`: `every(...)` or `when(...)`.

    Raises:
        ValueError: another class has the name.
    """

    def register(cls: Class) -> Class:
        if snapshot is not None:
            cls.retention = snapshot
        return behavior(name)(cls)

    return register


def _once_recovered(check: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    @wraps(check)
    def checked(self: EventSourced[Any, Any, Any], message: Any) -> None:
        if self._recovered:
            check(self, message)

    return checked


def _place(ctx: Context[Any]) -> str:
    names, cell = [ctx.name], ctx._cell.parent
    while cell is not None:
        names.append(cell.name)
        cell = cell.parent
    runtime = ctx._cell.runtime
    if not names[-1]:  # The root of a workflow.
        names[-1] = runtime.host
        if runtime.absent is not None:
            names.pop()
    return "/".join(reversed(names))
