"""The runtime: a tree of actors in one thread, and whose turn it is. Deterministic, without I/O or clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from goatherd.actors._behavior import Behavior
from goatherd.actors._cell import Cell
from goatherd.actors._environment import DeadLetter, Environment
from goatherd.actors._errors import ActorStopped, AskTimeout, NameTaken
from goatherd.actors._local_ref import Adapter, Asked, LocalRef
from goatherd.actors._message import display
from goatherd.actors._receptionist import RECEPTIONIST, Receptionist, ReceptionistMessage
from goatherd.actors._ref import Nobody, Ref, nobody
from goatherd.actors._states import UNBOUNDED
from goatherd.actors._supervision import Rule, Supervised, on, resume
from goatherd.actors._timers import Deadlines, Timer
from goatherd.errors import GoatherdError

M = TypeVar("M")

THROUGHPUT = 32
"""Messages that one actor handles before the next one's turn."""


class Absent(Protocol):
    """Who knows the actors that are not in memory, and gets them back: of sharded entities."""

    def added(self, cell: Cell) -> None:
        """An actor has its place."""
        ...

    def ref(self, address: str) -> Ref[Any] | None:
        """The ref of an address at which nobody is, if somebody may come there."""
        ...

    def enter(self, address: str) -> Cell | None:
        """Has an actor come to its address. What is sent to it waits for that."""
        ...


class Runtime:
    """Spawns top-level actors, dispatches messages, and keeps their timers.

    `host` is the first part of every address. The environment calls `drain` when it was woken, and `ring`
    when the alarm is due; both only from the thread that everything else is called from.
    """

    def __init__(self, host: str, environment: Environment) -> None:
        self.host = host
        self.environment = environment
        self.deadlines = Deadlines(environment)
        self.top: dict[str, Cell] = {}
        self.promises: dict[str, Promise] = {}
        self.processed = 0
        self.on_top_stopped: Callable[[Cell], None] | None = None
        self.absent: Absent | None = None
        self._cells: dict[str, Cell] = {}
        self._ready: deque[Cell] = deque()
        self._draining = False
        # What is left of the first one's turn, if a limit has cut it short; else 0.
        self.turn_left = 0
        self._uid = 0
        self._promised = 0
        self._receptionist: Ref[ReceptionistMessage] | None = None

    # -- making actors

    def spawn(
        self,
        behavior: Behavior[M] | Supervised[M],
        name: str,
        *,
        rules: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
        address: str | None = None,
    ) -> Ref[M]:
        """A top-level actor. `address`: that it has instead of host, name and number.

        Raises:
            NameTaken: a live one has the name.
        """
        return self.make(None, behavior, name, rules=rules, mailbox=mailbox, stash=stash, address=address).ref

    def make(
        self,
        parent: Cell | None,
        behavior: Behavior[Any] | Supervised[Any],
        name: str,
        *,
        rules: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
        address: str | None = None,
    ) -> Cell:
        if parent is not None and parent.has_stopped:
            raise ActorStopped(f"{parent.address} is stopping: it can't have new children.")
        siblings = self.top if parent is None else parent.children
        if name in siblings:
            raise NameTaken(
                f"There is an actor named {name!r} already. Stop it first, or choose another name."
            )
        if isinstance(behavior, Supervised):
            rules = (*behavior.rules, *rules)
            behavior = behavior.behavior
        self._uid += 1
        path = f"{self.host if parent is None else parent.path}/{name}" if address is None else address
        cell = Cell(
            self,
            parent,
            name=name,
            path=path,
            address=f"{path}#{self._uid}" if address is None else address,
            behavior=behavior,
            rules=tuple(rules),
            mailbox=mailbox,
            stash=stash,
        )
        self.add(cell)
        cell.begin()
        return cell

    def add(self, cell: Cell) -> None:
        siblings = self.top if cell.parent is None else cell.parent.children
        siblings[cell.name] = cell
        self._cells[cell.address] = cell
        if self.absent is not None:
            self.absent.added(cell)

    def forget(self, cell: Cell) -> None:
        """A cell is dead."""
        del self._cells[cell.address]
        siblings = self.top if cell.parent is None else cell.parent.children
        del siblings[cell.name]

    def top_stopped(self, cell: Cell) -> None:
        """A top-level actor has stopped."""
        if self.on_top_stopped is not None:
            self.on_top_stopped(cell)

    # -- finding them

    @property
    def receptionist(self) -> Ref[ReceptionistMessage]:
        """Starts with its first use. Once it has stopped, with all others, it stays so."""
        if self._receptionist is None:
            cell = self.top.get(RECEPTIONIST)
            if cell is None:
                # What it can't handle must not cost it what it knows.
                rules = [on(Exception, resume)]
                self._receptionist = self.spawn(Receptionist(), RECEPTIONIST, rules=rules)
            else:
                self._receptionist = cell.ref
        return self._receptionist

    def resolve(self, address: str) -> Ref[Any]:
        """The ref of an address. If its actor is gone, what is sent there is a dead letter."""
        cell = self._cells.get(address)
        if cell is not None:
            return cell.ref
        base, tilde, number = address.rpartition("~")
        if tilde and number.isdecimal() and (cell := self._cells.get(base)) is not None:
            # By number, which may come from anywhere: also from a life in which it had more of them.
            known = int(number) < len(cell.adapters)
            return cell.adapter_at(int(number)) if known else Gone(address, self)
        promise = self.promises.get(address)
        if promise is not None:
            return promise
        if address == nobody.address:
            return nobody
        if base == f"{self.host}/":
            return Nobody(address)  # Of an ask that is over: later answers are dropped.
        if self.absent is not None and (stand_in := self.absent.ref(address)) is not None:
            return stand_in
        if address != self.host and not address.startswith(f"{self.host}/"):
            remote = self.environment.remote(address)
            if remote is not None:
                return remote
        return Gone(address, self)

    def cell(self, ref: Ref[Any]) -> Cell | None:
        """The live cell of a ref, if it is of this runtime."""
        return self._cells.get(ref.address)

    def owner(self, ref: Ref[Any]) -> Cell | None:
        """The live cell that gets what is sent to a ref, also if that is one of its adapters."""
        return self._cells.get(ref.cell.address if isinstance(ref, Adapter) else ref.address)

    def enter(self, address: str) -> Cell | None:
        """The actor of an address, if it is not in memory but may come back."""
        return None if self.absent is None else self.absent.enter(address)

    def cell_at(self, address: str) -> Cell:
        return self._cells[address]

    def cells(self) -> Iterable[Cell]:
        """All that have not stopped, parents before their children."""
        return self._cells.values()

    @property
    def ready(self) -> Iterable[Cell]:
        """Those with something to do, in the order of their turns."""
        return self._ready

    @property
    def counters(self) -> list[int]:
        """What new addresses are made of."""
        return [self._uid, self._promised, self.deadlines.count]

    @counters.setter
    def counters(self, counters: Sequence[int]) -> None:
        self._uid, self._promised, self.deadlines.count = counters

    def has_been(self, address: str) -> bool:
        """Whether an address is one that this runtime has given."""
        path, _, number = address.partition("~")[0].rpartition("#")
        return path.startswith(f"{self.host}/") and number.isdecimal() and 0 < int(number) <= self._uid

    def is_local(self, ref: Ref[Any]) -> bool:
        return isinstance(ref, LocalRef | Promise | Gone | Adapter | Nobody)

    # -- whose turn it is

    def schedule(self, cell: Cell) -> None:
        cell.scheduled = True
        self._ready.append(cell)
        if not self._draining:
            self.environment.wake()

    @property
    def is_idle(self) -> bool:
        return not self._ready

    def drain(self, limit: int | None = None) -> int:
        """Has actors handle messages until nobody has any, or `limit` are handled. Returns how many."""
        if self._draining:
            return 0
        self._draining = True
        ready, left = self._ready, UNBOUNDED if limit is None else limit
        handled = 0
        turn, self.turn_left = self.turn_left or THROUGHPUT, 0
        try:
            while ready and handled < left:
                cell = ready.popleft()
                budget = turn if turn <= left - handled else left - handled
                done = cell.run(budget)
                handled += done
                if done < budget or not cell.has_work:
                    cell.scheduled = False
                elif budget == turn:
                    ready.append(cell)
                else:
                    # It goes on where it was, so that nobody's order depends on the limit.
                    ready.appendleft(cell)
                    self.turn_left = turn - budget
                turn = THROUGHPUT
        finally:
            self._draining = False
            self.processed += handled
        return handled

    def ring(self) -> None:
        """The alarm is due."""
        self.deadlines.ring()

    def after(self, delay_s: float, ring: Callable[[], None]) -> Timer:
        """A timer of the runtime's own."""
        timer = Timer("", None, self.environment.now() + delay_s, lambda _: ring())
        self.deadlines.add(timer)
        return timer

    # -- what has no actor to go to

    def dead(self, message: Any, recipient: str, reason: str, reply_to: Ref[Any] | None) -> None:
        self.environment.dead_letter(DeadLetter(message, recipient, reason))
        if reply_to is not None:
            reply_to.fail(ActorStopped(f"{recipient} can't take {display(message)}: {reason}."))

    def terminated(self, watched: str, watcher: str) -> None:
        """An actor of another runtime has stopped, which one of ours has watched."""
        cell = self._cells.get(watcher)
        if cell is not None:
            cell.watched_stopped(self.resolve(watched), None)

    def promise_address(self) -> str:
        self._promised += 1
        return f"{self.host}/~{self._promised}"

    def promise(
        self,
        done: Callable[[Any, GoatherdError | None], None],
        deadline: float | None = None,
        *,
        address: str | None = None,
        owner: Asked | None = None,
        number: int = 0,
    ) -> Promise:
        """An address for one answer. `done` gets it, or an error, once; `AskTimeout` at `deadline`."""
        return Promise(self, address or self.promise_address(), done, deadline, owner, number)


class Promise(Ref[Any]):
    """The address that the answer of one ask goes to. Later answers are dropped."""

    __slots__ = ("_done", "_runtime", "_timer", "deadline", "owner")

    def __init__(
        self,
        runtime: Runtime,
        address: str,
        done: Callable[[Any, GoatherdError | None], None],
        deadline: float | None,
        owner: Asked | None,
        number: int,
    ) -> None:
        super().__init__(address)
        self._runtime = runtime
        self._done: Callable[[Any, GoatherdError | None], None] | None = done
        self._timer: Timer | None = None
        self.deadline = deadline
        self.owner = owner
        runtime.promises[address] = self
        if deadline is not None:
            self._timer = Timer("", None, deadline, self._late, number=number)
            runtime.deadlines.add(self._timer)

    @property
    def is_open(self) -> bool:
        return self._done is not None

    @property
    def number(self) -> int:
        """Its timer's place among those of the same time; 0 without one."""
        return 0 if self._timer is None else self._timer.number

    def tell(self, message: Any) -> None:
        self._settle(message, None)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        self._settle(message, None)

    def fail(self, error: GoatherdError) -> None:
        self._settle(None, error)

    def drop(self) -> None:
        """Nobody waits any more."""
        self._done = None
        self._forget()

    def _late(self, _: Timer) -> None:
        self.fail(AskTimeout("No answer in time. The request may have been applied all the same."))

    def _settle(self, answer: Any, error: GoatherdError | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._forget()
            done(answer, error)

    def _forget(self) -> None:
        self._runtime.promises.pop(self.address, None)
        if self._timer is not None:
            self._runtime.deadlines.cancel(self._timer)


class Gone(Ref[Any]):
    """The address of an actor that is no more."""

    __slots__ = ("_runtime",)

    def __init__(self, address: str, runtime: Runtime) -> None:
        super().__init__(address)
        self._runtime = runtime

    def tell(self, message: Any) -> None:
        self.send(message, None)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        # As the ref of one that stopped while this runtime has known it would say.
        if self._runtime.has_been(self.address):
            self._runtime.dead(message, self.address.partition("~")[0], "stopped", reply_to)
        else:
            self._runtime.dead(message, self.address, "no-such-actor", reply_to)

    def fail(self, error: GoatherdError) -> None:
        self._runtime.dead(error, self.address, "not-an-ask", None)
