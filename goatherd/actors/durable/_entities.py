"""The entities of a shard: their addresses, whether they are in memory or not, and how they get there.

An entity that is not in memory has an address all the same. What is sent there makes it a place, where its
messages wait, and tells the shard's root, which has it begin or come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

from goatherd.actors import _subtree
from goatherd.actors._behavior import Behavior
from goatherd.actors._cell import Cell
from goatherd.actors._errors import ActorStopped
from goatherd.actors._local_ref import LocalRef
from goatherd.actors._mail import INTERNAL
from goatherd.actors._message import message
from goatherd.actors._ref import Ref
from goatherd.actors._runtime import Promise, Runtime
from goatherd.actors._states import RUNNING
from goatherd.actors._supervision import Supervised
from goatherd.actors._wire import Json, Written
from goatherd.errors import GoatherdError, Invalid

Make = Callable[[str], Behavior[Any] | Supervised[Any]]
LONGEST_ID = 500


@message
class Enter:
    """To the root: an entity is wanted, and has its place."""

    entity: str


@message
class Forwarded:
    """To the root: a message for an actor below an entity that is not in memory."""

    entity: str
    to: str
    message: Written


def escaped(entity_id: str) -> str:
    """An entity's id as a part of an address.

    Raises:
        Invalid: it is empty, or too long.
    """
    if not 0 < len(entity_id) <= LONGEST_ID:
        raise Invalid(f"An entity's id has from 1 to {LONGEST_ID} characters, not {len(entity_id)}.")
    return quote(entity_id, safe="").replace("~", "%7E")


class Entities:
    """One a run of a shard's workflow. It keeps nothing: the root's behavior does."""

    def __init__(self, runtime: Runtime, kind: str, make: Make) -> None:
        self.runtime = runtime
        self.kind = kind
        self._make = make
        self._prefix = f"{runtime.host}/"

    @property
    def root(self) -> Cell:
        return self.runtime.cell_at(self.runtime.host)

    # -- for those outside

    def ref_of(self, entity_id: str | None) -> Ref[Any]:
        """Raises `Invalid` if there is no id."""
        if entity_id is None:
            raise Invalid(
                f"{self.runtime.host} is a shard: say which {self.kind} by its id as the second input, as in "
                f"""--input '{{…}}' --input '"my-id"'."""
            )
        name = escaped(entity_id)
        return EntityRef(self, name, self._prefix + name)

    def check(self, entity_id: str | None, asked: Any) -> None:
        """Raises what an entity has against a message. One that is not in memory is asked when it is."""
        cell = self.find(self.ref_of(entity_id).name)
        if cell is not None and cell.state is RUNNING:
            cell.behavior.check(asked)

    # -- addresses: `Absent`

    def added(self, cell: Cell) -> None:
        if cell.parent is not None and cell.parent.address == self.runtime.host:
            cell.ref = EntityRef(self, cell.name, cell.address)

    def ref(self, address: str) -> Ref[Any] | None:
        name = self._name(address)
        if not name:
            return None
        if address == self._prefix + name:
            return EntityRef(self, name, address)
        # Below one that is in memory, and has come there, there is nobody else.
        return None if self._is_here(name) else InnerRef(self, name, address)

    def enter(self, address: str) -> Cell | None:
        name = self._name(address)
        return self.place(name) if name and address == self._prefix + name else None

    def _name(self, address: str) -> str:
        """Of the entity that an address belongs to; empty: of none."""
        if not address.startswith(self._prefix):
            return ""
        name = address.removeprefix(self._prefix).partition("/")[0].partition("~")[0]
        return "" if "#" in name or "$" in name else name

    def _is_here(self, name: str) -> bool:
        cell = self.find(name)
        return cell is not None and self.root.behavior.knows(name)  # type: ignore[attr-defined]

    # -- places

    def find(self, name: str) -> Cell | None:
        """An entity in memory, or the place of one that is on its way."""
        return self.root.children.get(name)

    def place(self, name: str) -> Cell | None:
        """Of an entity, made if it has none; None: the shard itself has stopped."""
        root = self.root
        cell = root.children.get(name)
        if cell is None and not root.has_stopped:
            address = self._prefix + name
            cell = Cell(
                self.runtime, root, name=name, path=address, address=address, behavior=None, rules=(),
                mailbox=None, stash=None,
            )  # fmt: skip
            self.runtime.add(cell)
            root.ref.tell(Enter(name))
        return cell

    # -- what the root has done with a place

    def begin(self, cell: Cell) -> None:
        """It starts as a new one, right now, so that those who wait can be checked.

        Raises what the type's `behavior` raises.
        """
        made = self._make(unquote(cell.name))
        if isinstance(made, Supervised):
            cell.rules, made = made.rules, made.behavior
        cell.initial = cell.behavior = made
        self.root.context.watch(cell.ref)
        cell.begin()
        cell.run(0)
        self._screen(cell)

    def restore(self, cell: Cell, state: Json) -> None:
        """It goes on as it was.

        Raises:
            Exception: its state can't be read. Its place is to be given up then.
        """
        _subtree.restore(self.runtime, cell, state)
        self.root.context.watch(cell.ref)
        self._screen(cell)

    def _screen(self, cell: Cell) -> None:
        """Refuses of the requests from outside that wait those that would have been refused at once."""
        waiting = list(cell.mailbox)
        cell.mailbox.clear()
        for waits, reply_to in waiting:
            if type(waits) not in INTERNAL and isinstance(reply_to, Promise) and reply_to.owner is None:
                try:
                    cell.behavior.check(waits)
                except GoatherdError as error:
                    reply_to.fail(error)
                    continue
            cell.mailbox.append((waits, reply_to))

    def give_up(self, cell: Cell, error: GoatherdError) -> None:
        """Nobody comes to a place: who asked is told why, who watches that nobody is there."""
        waiting = list(cell.mailbox)
        watchers = [address for address in cell.watchers if address != self.runtime.host]
        self.root.context.unwatch(cell.ref)
        _subtree.evict(self.runtime, _subtree.below(cell))
        for waits, reply_to in waiting:
            if reply_to is None:
                self.runtime.dead(waits, cell.address, error.code, None)
            else:
                reply_to.fail(error)
        for watcher in watchers:
            watching = self.runtime.cell(self.runtime.resolve(watcher))
            if watching is None:
                self.runtime.environment.tell_terminated(cell.address, watcher)
            else:
                watching.watched_stopped(cell.ref, None)

    def evict(self, cell: Cell) -> None:
        """It leaves the memory, without having stopped."""
        self.root.context.unwatch(cell.ref)
        _subtree.evict(self.runtime, _subtree.below(cell))

    def is_inner(self, ref: Ref[Any]) -> bool:
        """Whether a ref is of one below an entity that is not there."""
        return isinstance(ref, InnerRef)

    @property
    def is_sending(self) -> bool:
        """Whether Temporal has not yet taken all that they have sent."""
        is_sending: bool = getattr(self.runtime.environment, "is_sending", False)
        return is_sending

    def touch(self, name: str) -> None:
        self.root.behavior.touched(name, self.runtime.environment.now())  # type: ignore[attr-defined]


class EntityRef(LocalRef):
    """The address of an entity of this shard, in memory or not: good for ever."""

    __slots__ = ("_entities", "_entity")

    def __init__(self, entities: Entities, entity: str, address: str) -> None:
        Ref.__init__(self, address)
        self._entities = entities
        self._entity = entity

    def tell(self, message: Any) -> None:
        self.send(message, None)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        cell = self._entities.place(self._entity)
        if cell is None:
            self._entities.runtime.dead(message, self.address, "stopped", reply_to)
            return
        self._entities.touch(self._entity)
        if len(cell.mailbox) >= cell.limit:
            cell.overflow(message, reply_to)
            return
        cell.mailbox.append((message, reply_to))
        if not cell.scheduled and cell.state is RUNNING:
            cell.runtime.schedule(cell)

    def fail(self, error: GoatherdError) -> None:
        self._entities.runtime.dead(error, self.address, "not-an-ask", None)


class InnerRef(LocalRef):
    """The address of an actor below an entity that is not in memory: what is sent there gets it back."""

    __slots__ = ("_entities", "_entity")

    def __init__(self, entities: Entities, entity: str, address: str) -> None:
        Ref.__init__(self, address)
        self._entities = entities
        self._entity = entity

    def tell(self, message: Any) -> None:
        self.send(message, None)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        if self._entities.place(self._entity) is None:
            self._entities.runtime.dead(message, self.address, "stopped", reply_to)
            return
        self._entities.root.ref.send(Forwarded(self._entity, self.address, message), reply_to)

    def fail(self, error: GoatherdError) -> None:
        self._entities.runtime.dead(error, self.address, "not-an-ask", None)


def gone(address: str) -> ActorStopped:
    return ActorStopped(f"{address} has stopped, or never began.")
