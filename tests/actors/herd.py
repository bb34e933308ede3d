"""Behaviors that tests of several files use, and short words for what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from goatherd.actors import (
    Behavior,
    Context,
    Request,
    Signal,
    Terminated,
    behavior,
    message,
    receive,
    same,
    setup,
    stopped,
    unhandled,
)


@message
class Add:
    amount: int


@message
class Total(Request[int]):
    pass


@message
class Fail:
    pass


@behavior("tests.counter")
class Counter(Behavior[Add | Total | Fail]):
    """Adds up; fails if told to."""

    total: int = 0

    def receive(
        self, ctx: Context[Add | Total | Fail], message: Add | Total | Fail
    ) -> Behavior[Add | Total | Fail] | None:
        match message:
            case Add(amount=amount):
                self.total += amount
            case Total():
                ctx.reply(message, self.total)
            case Fail():
                raise ValueError("told to fail")
        return None


@dataclass(frozen=True)
class Do:
    """Has a puppet do something, in its own turn; what that returns is its next behavior."""

    act: Callable[[Context[Any]], Behavior[Any] | None]


@dataclass(frozen=True)
class Query(Request[Any]):
    """Has a puppet do something with the request that it was asked."""

    act: Callable[[Context[Any], Query], Behavior[Any] | None]


Log = list[tuple[str, Any]]


def puppet(
    log: Log,
    name: str,
    start: Callable[[Context[Any]], object] | None = None,
    *,
    takes_terminated: bool = True,
) -> Behavior[Any]:
    """Does what `Do` and `Query` say, and logs all else: messages as they are, signals by kind."""

    def on_message(ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        if isinstance(message, Do):
            return message.act(ctx)
        if isinstance(message, Query):
            return message.act(ctx, message)
        log.append((name, message))
        return None

    def on_signal(ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        if isinstance(signal, Terminated):
            log.append((name, f"{type(signal).__name__} {signal.ref.name}"))
            return same if takes_terminated else unhandled
        log.append((name, type(signal).__name__))
        return same

    def make(ctx: Context[Any]) -> Behavior[Any]:
        log.append((name, "start"))
        if start is not None:
            start(ctx)
        return receive(on_message, on_signal)

    return setup(make)


def raises(error: BaseException) -> Do:
    """Has a puppet fail."""

    def act(ctx: Context[Any]) -> Behavior[Any] | None:
        raise error

    return Do(act)


def stops() -> Do:
    """Has a puppet stop itself."""
    return Do(lambda ctx: stopped)


def does(act: Callable[[Context[Any]], object]) -> Do:
    """`Do` of something whose result is not a behavior."""

    def quiet(ctx: Context[Any]) -> Behavior[Any] | None:
        act(ctx)
        return None

    return Do(quiet)


def asks(act: Callable[[Context[Any], Query], object]) -> Query:
    """`Query` of something whose result is not a behavior."""

    def quiet(ctx: Context[Any], request: Query) -> Behavior[Any] | None:
        act(ctx, request)
        return None

    return Query(quiet)
