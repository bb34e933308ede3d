"""An actor type for tests of what must fail alone: messages, answers and users' code that go wrong in every
place where they can."""

from __future__ import annotations

from pydantic.dataclasses import dataclass as checked

from goatherd.actors import Behavior, Context, Request, Signal, Terminated, behavior, message
from goatherd.actors.durable import DurableActor, actor
from goatherd.contracts.model import Contract
from tests.actors.durable.accounts import Account, OpenAccount


class OpenChemist(Contract):
    asks_per_run: int = 1_000


@message
class Mix(Request[int]):
    """Answered with how many were mixed, which is what it should be."""

    name: str


@message
class Spill(Request[int]):
    """`how`: what goes wrong with it."""

    how: str


@checked(frozen=True)
class Brew(Request[int]):
    """Can't be read if it is nameless, by an error that pydantic does not expect."""

    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise KeyError("nameless")


@message
class Pour:
    """Told."""

    name: str


@message
class Apprentice(Request[list[str]]):
    """Starts an account as a durable child, once more each time; answered with who is gone."""

    account: str


class Sludge:
    """Nothing that JSON has."""


Messages = Mix | Spill | Brew | Pour | Apprentice


@behavior("tests.chemist")
class Chemist(Behavior[Messages]):
    mixed: int = 0
    explodes: bool = False
    gone: tuple[str, ...] = ()

    def check(self, message: Messages) -> None:
        if isinstance(message, Spill) and message.how == "check":
            raise KeyError("check")

    def receive(self, ctx: Context[Messages], message: Messages) -> Behavior[Messages] | None:
        match message:
            case Mix() | Brew():
                self.mixed += 1
                ctx.reply(message, self.mixed)
            case Pour():
                self.mixed += 1
            case Spill(how="answer"):
                ctx.reply(message, Sludge())  # type: ignore[misc]
            case Spill(how="text"):
                ctx.reply(message, "no number")  # type: ignore[misc]
            case Spill(how="show"):
                self.explodes = True
                ctx.reply(message, 0)
            case Apprentice(account=account):
                ctx.watch(ctx.start(Account, account, OpenAccount(total=1)))
                ctx.reply(message, list(self.gone))
        return None

    def on_signal(self, ctx: Context[Messages], signal: Signal) -> Behavior[Messages] | None:
        if isinstance(signal, Terminated):
            self.gone = (*self.gone, signal.ref.name)
            return None
        return super().on_signal(ctx, signal)


@actor("TestChemist", Mix, Spill, Brew, Pour, Apprentice)
class ChemistActor(DurableActor[OpenChemist]):
    def asks_per_run(self, start: OpenChemist) -> int:
        return start.asks_per_run

    def behavior(self, start: OpenChemist) -> Behavior[Messages]:
        return Chemist()

    def describe(self, behavior: Behavior[Messages]) -> str | None:
        if isinstance(behavior, Chemist) and behavior.explodes:
            raise KeyError("describe")
        return None
