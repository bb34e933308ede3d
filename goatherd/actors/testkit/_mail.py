"""What has come to somebody inert, and how a test that expected something else is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from goatherd.actors._behavior import Behavior
from goatherd.actors._context import Context
from goatherd.actors._message import Request
from goatherd.actors._ref import Ref, nobody
from goatherd.actors._signals import Signal, Terminated
from goatherd.errors import GoatherdError

M = TypeVar("M")
Kind = TypeVar("Kind")


class Mail(Generic[M]):
    """Messages in their order, with their askers. What does not fit an expectation stays."""

    def __init__(self, owner: str, on_change: Callable[[], None] = lambda: None) -> None:
        self.owner = owner
        self.terminated: list[Ref[Any]] = []
        self._on_change = on_change
        self._waiting: deque[tuple[Any, Ref[Any] | None]] = deque()
        self._asker: Ref[Any] | None = None

    def put(self, message: Any, reply_to: Ref[Any] | None) -> None:
        self._waiting.append((message, reply_to))
        self._on_change()

    def put_terminated(self, ref: Ref[Any]) -> None:
        self.terminated.append(ref)
        self._on_change()

    @property
    def has_messages(self) -> bool:
        return bool(self._waiting)

    def take(self) -> M:
        """The next one, whatever it is."""
        if not self._waiting:
            raise AssertionError(f"{self.owner} expected a message, but nothing has come.")
        message: M
        message, self._asker = self._waiting.popleft()
        return message

    def take_all(self) -> list[M]:
        taken = []
        while self._waiting:
            taken.append(self.take())
        return taken

    def take_equal(self, expected: M) -> M:
        self._must(lambda message: bool(message == expected), repr(expected))
        return self.take()

    def take_kind(self, kind: type[Kind]) -> Kind:
        self._must(lambda message: isinstance(message, kind), f"a {kind.__name__}")
        taken: Any = self.take()
        found: Kind = taken
        return found

    def take_none(self) -> None:
        if self._waiting:
            raise AssertionError(f"{self.owner} expected nothing, but there is {shown(self._messages())}.")

    def asker(self) -> Ref[Any]:
        """Whoever asked what was taken last."""
        asker, self._asker = self._asker, None
        if asker is None or asker == nobody:
            raise AssertionError(f"{self.owner} has nobody to answer: what it took last was told, not asked.")
        return asker

    def _must(self, fits: Callable[[Any], bool], expected: str) -> None:
        if not self._waiting:
            raise AssertionError(f"{self.owner} expected {expected}, but nothing has come.")
        first, *others = self._messages()
        if not fits(first):
            behind = f" Behind it: {shown(others)}." if others else ""
            raise AssertionError(f"{self.owner} expected {expected}, but {first!r} has come.{behind}")

    def _messages(self) -> list[Any]:
        return [message for message, _ in self._waiting]


class Recorder(Behavior[Any]):
    """The behavior of who only keeps what comes."""

    __slots__ = ("_mail",)

    def __init__(self, mail: Mail[Any]) -> None:
        self._mail = mail

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        self._mail.put(message, ctx.reply_to(message) if isinstance(message, Request) else None)
        return None

    def on_signal(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        if isinstance(signal, Terminated):
            self._mail.put_terminated(signal.ref)
        return None


class MailRef(Ref[Any]):
    """An address without an actor: what is sent there is kept."""

    __slots__ = ("_mail",)

    def __init__(self, address: str, mail: Mail[Any]) -> None:
        super().__init__(address)
        self._mail = mail

    def tell(self, message: Any) -> None:
        self._mail.put(message, None)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        self._mail.put(message, reply_to)

    def fail(self, error: GoatherdError) -> None:
        self._mail.put(error, None)


def shown(things: Iterable[object]) -> str:
    """As a failed expectation shows them."""
    return ", ".join(repr(thing) for thing in things) or "nothing"
