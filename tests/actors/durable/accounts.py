"""Actor types for tests: accounts, which keep a total, and have helpers inside."""

from __future__ import annotations

import asyncio

from temporalio import activity as temporal_activity

from goatherd.actors import Behavior, Context, Ref, Request, Signal, Terminated, behavior, message, stopped
from goatherd.actors._activity import activity
from goatherd.actors.durable import DurableActor, actor
from goatherd.contracts.model import Contract
from goatherd.errors import Conflict, Invalid


class OpenAccount(Contract):
    owner: str = "nobody"
    total: int = 0


@message
class Deposit(Request[int]):
    amount: int


@message
class Total(Request[int]):
    pass


@message
class Withdraw(Request[int]):
    amount: int


@message
class Credit:
    """Told, not asked."""

    amount: int


@message
class Close(Request[str]):
    pass


@message
class Break(Request[None]):
    """Raises in the actor."""


@message
class Later(Request[int]):
    """Answered with the total after so many seconds."""

    after_s: float


@message
class Convert(Request[int]):
    """Answered with what an activity makes of an amount."""

    amount: int


@message
class AskHelper(Request[int]):
    """Answered with what an actor inside of the tree says."""

    amount: int


@message
class Transfer(Request[int]):
    """Withdraws here, and asks another account to take it; answered with the other's total."""

    to: str
    amount: int


@message
class WatchOther(Request[None]):
    other: str


@message
class WhoStopped(Request[list[str]]):
    pass


@message
class _Due:
    to: Ref[int]


@message
class _Converted:
    amount: int


@message
class _Failed:
    code: str


@message
class _Answered:
    total: int


Messages = (
    Deposit
    | Total
    | Withdraw
    | Credit
    | Close
    | Break
    | Later
    | Convert
    | AskHelper
    | Transfer
    | WatchOther
    | WhoStopped
    | _Due
    | _Converted
    | _Failed
    | _Answered
)


def failed(error: BaseException) -> _Failed:
    return _Failed(getattr(error, "code", "unknown"))


@temporal_activity.defn
async def double(amount: int) -> int:
    return amount * 2


@temporal_activity.defn
async def wait_for_release(name: str) -> int:
    """Ends when the test says so."""
    event = RELEASES.setdefault(name, asyncio.Event())
    while not event.is_set():
        temporal_activity.heartbeat()
        await asyncio.wait({asyncio.ensure_future(event.wait())}, timeout=0.1)
    return 1


RELEASES: dict[str, asyncio.Event] = {}


@behavior("tests.bank.helper")
class Helper(Behavior[Deposit]):
    total: int = 0

    def receive(self, ctx: Context[Deposit], message: Deposit) -> Behavior[Deposit] | None:
        self.total += message.amount
        ctx.reply(message, self.total)
        return None


@behavior("tests.bank.account")
class OpenedAccount(Behavior[Messages]):
    owner: str
    total: int = 0
    helper: Ref[Deposit] | None = None
    asker: Ref[int] | None = None
    gone: tuple[str, ...] = ()

    def on_start(self, ctx: Context[Messages]) -> Behavior[Messages] | None:
        self.helper = ctx.spawn(Helper(), "helper")
        return None

    def check(self, message: Messages) -> None:
        if isinstance(message, Deposit) and message.amount <= 0:
            raise Invalid("Deposit something.")

    def receive(self, ctx: Context[Messages], message: Messages) -> Behavior[Messages] | None:
        match message:
            case Deposit(amount=amount):
                self.total += amount
                ctx.reply(message, self.total)
            case Credit(amount=amount):
                self.total += amount
            case Total():
                ctx.reply(message, self.total)
            case Withdraw(amount=amount):
                if amount > self.total:
                    ctx.refuse(message, Conflict("There is not enough."))
                else:
                    self.total -= amount
                    ctx.reply(message, self.total)
            case Close():
                ctx.reply(message, self.owner)
                return stopped
            case Break():
                raise KeyError("broken")
            case Later(after_s=after_s):
                ctx.timers.once(f"later {self.total} {after_s}", _Due(ctx.reply_to(message)), after_s)
            case _Due(to=to):
                to.tell(self.total)
            case Convert(amount=amount):
                self.asker = ctx.reply_to(message)
                ctx.pipe_to_self(activity(double, amount), _Converted, failed)
            case _Converted(amount=amount):
                assert self.asker is not None
                self.asker.tell(amount)
            case AskHelper(amount=amount):
                assert self.helper is not None
                ctx.forward(self.helper, Deposit(amount))
            case Transfer(to=to, amount=amount):
                self.total -= amount
                self.asker = ctx.reply_to(message)
                ctx.ask(ctx.ref(to), Deposit(amount), _Answered, failed, timeout="5s")
            case _Answered(total=total):
                assert self.asker is not None
                self.asker.tell(total)
            case _Failed(code=code):
                assert self.asker is not None
                self.asker.fail(Conflict("It failed.", code=code))
            case WatchOther(other=other):
                ctx.watch(ctx.ref(other))
                ctx.reply(message, None)
            case WhoStopped():
                ctx.reply(message, list(self.gone))
        return None

    def on_signal(self, ctx: Context[Messages], signal: Signal) -> Behavior[Messages] | None:
        if isinstance(signal, Terminated):
            self.gone = (*self.gone, signal.ref.address)
            return None
        return super().on_signal(ctx, signal)


@actor(
    "TestAccount", Deposit, Total, Withdraw, Credit, Close, Break, Later, Convert, AskHelper, Transfer,
    WatchOther, WhoStopped,
)  # fmt: skip
class Account(DurableActor[OpenAccount]):
    def asks_per_run(self, start: OpenAccount) -> int:
        return 40

    def behavior(self, start: OpenAccount) -> Behavior[Messages]:
        return OpenedAccount(owner=start.owner, total=start.total)

    def describe(self, behavior: Behavior[Messages]) -> str | None:
        return f"total **{behavior.total}**" if isinstance(behavior, OpenedAccount) else None

    def result(self, behavior: Behavior[Messages]) -> int:
        return behavior.total if isinstance(behavior, OpenedAccount) else 0
