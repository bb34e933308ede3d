"""Behaviors that tests of several files use, and short words for what they do."""

from __future__ import annotations

from goatherd.actors import (
    Behavior,
    Context,
    Request,
    behavior,
    message,
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
