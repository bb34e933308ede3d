"""A tree of registered actors and a random script that makes it do all that actors can. For property tests.

As a program, it prints the digest of a run: `python -m tests.actors.tree SEED MESSAGES`.
"""

from __future__ import annotations

import hashlib
import sys
from random import Random
from typing import Any

from goatherd.actors import (
    Behavior,
    Context,
    Ref,
    Request,
    Signal,
    Terminated,
    behavior,
    message,
    on,
    restart,
    restart_with_backoff,
    resume,
    stop,
    stopped,
    unhandled,
)
from goatherd.actors._cell import Cell
from goatherd.actors._supervision import Rule
from goatherd.errors import GoatherdError

from .manual import Outcome, World


@message
class Note:
    number: int


@message
class Spawn:
    rule: int
    watched: int


@message
class End:
    pass


@message
class EndChild:
    index: int


@message
class Break:
    kind: int


@message
class Meet:
    other: Ref[Any]
    how: int


@message
class Leave:
    other: Ref[Any]


@message
class Start:
    key: str
    delay_s: float
    how: int


@message
class Cancel:
    key: str


@message
class Rang:
    key: str
    number: int


@message
class Shut:
    pass


@message
class Open:
    pass


@message
class Question(Request[int]):
    number: int


@message
class Keep(Request[int]):
    pass


@message
class Ask:
    other: Ref[Any]
    number: int
    timeout_s: float


@message
class Answered:
    value: int


@message
class Failed:
    code: str
    text: str


@message
class Translated:
    text: str


@message
class Lend:
    to: Ref[Any]


@message
class Lent:
    adapter: Ref[Any]


@message
class Gone:
    number: int


def failed(error: Exception) -> Failed:
    assert isinstance(error, GoatherdError)
    return Failed(error.code, error.message)


def answered(value: int) -> Answered:
    if value % 11 == 0:
        raise ValueError("a mapper that fails")
    return Answered(value)


def translated(value: object) -> Translated:
    return Translated(type(value).__name__)


RULES: list[list[Rule]] = [
    [],
    [on(ValueError, resume)],
    [on(ValueError, restart())],
    [on(KeyError, stop), on(Exception, restart(limit=2, within="5s"))],
    [on(ValueError, restart_with_backoff("1s", "4s", 0.5, keep=3)), on(KeyError, resume)],
    [on(Exception, restart_with_backoff("500ms", "2s", limit=3, stop_children=False))],
]


def trace(ctx: Context[Any], *what: object) -> None:
    """What an actor saw, and where and when."""
    manual: Any = ctx._cell.runtime.environment
    manual.trace.append((ctx.self.address, round(ctx.now(), 9), *map(repr, what)))


@behavior("tests.tree.node")
class Node(Behavior[Any]):
    """Does as it is told, and traces all that it sees."""

    seen: int = 0
    shut: bool = False
    kept: tuple[Ref[int], ...] = ()
    lent: Ref[Any] | None = None

    def on_start(self, ctx: Context[Any]) -> Behavior[Any] | None:
        trace(ctx, "start", self.seen)
        ctx.timers.every("beat", Rang("beat", 0), 7.0)
        if ctx.random.random() < 0.1:
            raise ValueError("at the start")
        return None

    def on_signal(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        about = signal.ref.address if isinstance(signal, Terminated) else ""
        trace(ctx, type(signal).__name__, about, self.seen)
        if isinstance(signal, Terminated) and self.seen % 5 == 0:
            return unhandled
        return None

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        self.seen += 1
        if self.shut and not isinstance(message, Open):
            trace(ctx, "stash", message)
            ctx.stash()
            return None
        trace(ctx, message, self.seen)
        match message:
            case Spawn():
                self._spawn(ctx, message)
            case End():
                return stopped
            case EndChild(index=index):
                if children := ctx.children:
                    ctx.stop(children[index % len(children)])
            case Break(kind=kind):
                raise (ValueError, KeyError)[kind]("told to fail")
            case Meet(other=other, how=how):
                ctx.unwatch(other)
                if how:
                    ctx.watch_with(other, Gone(how))
                else:
                    ctx.watch(other)
            case Leave(other=other):
                ctx.unwatch(other)
            case Shut():
                return Node(self.seen, True, self.kept, self.lent)
            case Open():
                self.shut = False
                ctx.unstash_all()
            case _:
                self._more(ctx, message)
        return None

    def _spawn(self, ctx: Context[Any], message: Spawn) -> None:
        if len(ctx.children) >= 3:
            return
        child = ctx.spawn(Node(), supervise=RULES[message.rule], mailbox=6, stash=3)
        if message.watched:
            ctx.watch(child)
        child.tell(Note(0))

    def _more(self, ctx: Context[Any], message: Any) -> None:
        match message:
            case Start(key=key, delay_s=delay_s, how=0):
                ctx.timers.once(key, Rang(key, self.seen), delay_s)
            case Start(key=key, delay_s=delay_s, how=how):
                ctx.timers.every(key, Rang(key, self.seen), delay_s + 0.5, fixed_rate=how == 2)
            case Cancel(key=key):
                ctx.timers.cancel(key)
            case Question(number=number):
                if number % 13 == 5:
                    raise KeyError("a question too much")
                if number % 7 == 3 and self.lent is not None:
                    ctx.forward(self.lent, message)
                else:
                    ctx.reply(message, number * 2)
            case Keep():
                self.kept = (*self.kept, ctx.reply_to(message))
            case Note(number=number):
                for asker in self.kept:
                    asker.tell(number)
                if number % 2:
                    self.kept = ()  # Else they are answered again: dropped.
            case Ask(other=other, number=number, timeout_s=timeout_s):
                request: Request[int] = Keep() if number % 3 == 0 else Question(number)
                ctx.ask(other, request, answered, failed, timeout=timeout_s)
            case Lend(to=to):
                to.tell(Lent(ctx.adapter(translated)))
            case Lent(adapter=adapter):
                self.lent = adapter
            case Rang() | Gone():
                if self.lent is not None:
                    self.lent.tell(message)


class Drive:
    """A world and the script that happens to it. With `k`, it goes through a snapshot every k messages."""

    def __init__(self, seed: int, k: int | None) -> None:
        self.world = World(seed, host="tree")
        self.luck = Random(seed + 1)
        self.k = k
        self.asks: list[Outcome] = []
        self.snapshots = 0

    def run(self, messages: int) -> list[Any]:
        """Sends so many messages from outside; returns all that was seen anywhere."""
        sent = 0
        while sent < messages:
            cells = self._cells()
            for _ in range(self.luck.randint(1, 10)):
                self._send(self.luck.choice(cells))
                sent += 1
            self._settle()
            if self.luck.random() < 0.4:
                self._pass(self.luck.choice([0.25, 0.5, 1.0, 3.0]))
        self._pass(30.0)
        environment = self.world.environment
        letters = [(repr(letter.message), letter.recipient, letter.reason) for letter in environment.letters]
        replies = [(one.values, [(error.code, error.message) for error in one.errors]) for one in self.asks]
        left = [
            (cell.address, cell.state.name, len(cell.mailbox), len(cell.stash), sorted(cell.timers))
            for cell in self.world.runtime.cells()
        ]
        return [environment.trace, letters, replies, left, self.world.runtime.counters]

    def _cells(self) -> list[Cell]:
        if "top" not in self.world.runtime.top:
            self.world.runtime.spawn(Node(), "top", rules=RULES[2])
            self._settle()
        return list(self.world.runtime.cells())

    def _send(self, cell: Cell) -> None:
        luck = self.luck
        ref, other = cell.ref, luck.choice(list(self.world.runtime.cells())).ref
        match luck.randrange(22):
            case 0 | 1 | 2:
                ref.tell(Spawn(luck.randrange(len(RULES)), luck.randrange(2)))
            case 3:
                ref.tell(End() if luck.random() < 0.3 else EndChild(luck.randrange(3)))
            case 4 | 5:
                ref.tell(Break(luck.randrange(2)))
            case 6 | 7:
                ref.tell(Meet(other, luck.randrange(3)))
            case 8:
                ref.tell(Leave(other))
            case 9 | 10 | 11:
                ref.tell(Start(luck.choice("abc"), luck.choice([0.25, 0.5, 1.0]), luck.randrange(3)))
            case 12:
                ref.tell(Cancel(luck.choice("abc")))
            case 13:
                ref.tell(Shut())
            case 14 | 15:
                ref.tell(Open())
            case 16 | 17:
                ref.tell(Ask(other, luck.randrange(40), luck.choice([0.5, 1.0, 2.0])))
            case 18:
                self.asks.append(
                    self.world.ask(ref, luck.choice([Keep(), Question(luck.randrange(40))]), settle=False)
                )
            case 19:
                ref.tell(Lend(other))
            case 20:
                ref.tell(Gone(luck.randrange(100)))
            case _:
                ref.tell(Note(luck.randrange(100)))

    def _settle(self) -> None:
        if self.k is None:
            self.world.settle()
            return
        while not self.world.runtime.is_idle:
            self.world.runtime.drain(self.k)
            self._snapshot()

    def _snapshot(self) -> None:
        self.snapshots += 1
        self.world = self.world.reborn()

    def _pass(self, duration_s: float) -> None:
        end = self.world.now + duration_s
        while (due := self.world.environment.due) is not None and due <= end:
            self.world.environment.clock = max(self.world.now, due)
            self.world.ring()
            self._settle()
        self.world.environment.clock = end


def digest(seed: int, messages: int) -> str:
    """Of all that is seen in a run."""
    return hashlib.sha256(repr(Drive(seed, None).run(messages)).encode()).hexdigest()


if __name__ == "__main__":
    print(digest(int(sys.argv[1]), int(sys.argv[2])))
