"""An actor type for tests that has all that a run must hand on to the next: stash, timers, watches, a child
in backoff, work under way, open asks, durable children."""

from __future__ import annotations

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
    stopped,
)
from goatherd.actors._activity import activity
from goatherd.actors.durable import DurableActor, actor
from goatherd.contracts.model import Contract
from tests.actors.durable.accounts import Account, Deposit, OpenAccount, Total, wait_for_release


class OpenOffice(Contract):
    asks_per_run: int = 1_000


@message
class Note(Request[int]):
    """Written in the log; answered with how long that is."""

    text: str


@message
class Whisper:
    """A note that is told."""

    text: str


@message
class Hold(Request[int]):
    """A note that waits for `Release`; answered with how many of its kind are written."""

    text: str


@message
class Release(Request[int]):
    """Answered with how many notes have waited."""


@message
class Work(Request[int]):
    """Done by the clerk: answered with how much it has done since its last restart."""

    fail: bool = False


@message
class Try(Request[int]):
    """As `Work`, by a trainee, who takes a while to recover."""

    fail: bool = False


@message
class Remind(Request[None]):
    key: str
    after_s: float


@message
class Repeat(Request[None]):
    """A tick every so often; the third is the last."""

    every_s: float


@message
class Forget(Request[None]):
    key: str


@message
class Fetch(Request[int]):
    """Answered with what an activity gives, which ends when the test says so."""

    name: str


@message
class Hire(Request[None]):
    """Starts an account as a durable child, and watches it."""

    account: str
    total: int = 0


@message
class Pay(Request[int]):
    """Asks an account to take it; answered with its total."""

    account: str
    amount: int


@message
class Observe(Request[None]):
    account: str


@message
class Ignore(Request[None]):
    account: str


@message
class Log(Request[list[str]]):
    """What was noted, rang and stopped so far."""


@message
class Leave(Request[None]):
    pass


@message
class Rang:
    key: str


@message
class Tick:
    pass


@message
class Fetched:
    value: int


@message
class Paid:
    total: int


@message
class Failed:
    code: str


def failed(error: BaseException) -> Failed:
    return Failed(getattr(error, "code", type(error).__name__))


@behavior("tests.office.clerk")
class Clerk(Behavior[Work | Try]):
    done: int = 0

    def receive(self, ctx: Context[Work | Try], message: Work | Try) -> Behavior[Work | Try] | None:
        if message.fail:
            raise ValueError("told to")
        self.done += 1
        ctx.reply(message, self.done)
        return None


Messages = (
    Note | Whisper | Hold | Release | Work | Try | Remind | Repeat | Forget | Fetch | Hire | Pay | Observe
    | Ignore | Log | Leave | Rang | Tick | Fetched | Paid | Failed
)  # fmt: skip


@behavior("tests.office")
class Office(Behavior[Messages]):
    log: list[str]
    is_open: bool = False
    ticks: int = 0
    released: int = 0
    clerk: Ref[Work] | None = None
    trainee: Ref[Try] | None = None
    fetchers: tuple[Ref[int], ...] = ()
    payer: Ref[int] | None = None

    def on_start(self, ctx: Context[Messages]) -> Behavior[Messages] | None:
        self.clerk = ctx.spawn(Clerk(), "clerk", supervise=[on(ValueError, restart(limit=2, within="1h"))])
        self.trainee = ctx.spawn(
            Clerk(), "trainee", supervise=[on(ValueError, restart_with_backoff("600ms", "600ms"))]
        )
        ctx.watch(self.clerk)
        return None

    def receive(self, ctx: Context[Messages], message: Messages) -> Behavior[Messages] | None:
        match message:
            case Note(text=text):
                self.log.append(text)
                ctx.reply(message, len(self.log))
            case Whisper(text=text):
                self.log.append(text)
            case Hold(text=text) if self.is_open:
                self.log.append(text)
                self.released += 1
                ctx.reply(message, self.released)
            case Hold():
                ctx.stash()
            case Release():
                self.is_open = True
                ctx.reply(message, ctx.stashed)
                ctx.unstash_all()
            case Work():
                assert self.clerk is not None
                ctx.forward(self.clerk, message)
            case Try():
                assert self.trainee is not None
                ctx.forward(self.trainee, message)
            case Remind(key=key, after_s=after_s):
                ctx.timers.once(key, Rang(key), after_s)
                ctx.reply(message, None)
            case Rang(key=key):
                self.log.append(f"rang {key}")
            case Repeat(every_s=every_s):
                ctx.timers.every("tick", Tick(), every_s)
                ctx.reply(message, None)
            case Tick():
                self.ticks += 1
                if self.ticks == 3:
                    ctx.timers.cancel("tick")
                    self.log.append("ticked 3 times")
            case Forget(key=key):
                ctx.timers.cancel(key)
                ctx.reply(message, None)
            case Leave():
                ctx.reply(message, None)
                return stopped
            case Log():
                ctx.reply(message, list(self.log))
            case _:
                self._deal(ctx, message)
        return None

    def _deal(self, ctx: Context[Messages], message: Messages) -> None:
        """With accounts and activities."""
        match message:
            case Fetch(name=name):
                self.fetchers = (*self.fetchers, ctx.reply_to(message))
                call = activity(wait_for_release, name, timeout="60s", heartbeat="10s")
                ctx.pipe_to_self(call, Fetched, failed)
            case Fetched(value=value):
                self.log.append("fetched")
                self.fetchers[0].tell(value)
                self.fetchers = self.fetchers[1:]
            case Hire(account=account, total=total):
                ref = ctx.start(Account, account, OpenAccount(owner="office", total=total))
                ctx.watch(ref)
                ref.tell(Deposit(1))  # It has not started yet.
                ctx.reply(message, None)
            case Pay(account=account, amount=amount):
                self.payer = ctx.reply_to(message)
                request = Deposit(amount) if amount else Total()
                ctx.ask(ctx.ref(account), request, Paid, failed, timeout="5s")
            case Paid(total=total):
                assert self.payer is not None
                self.payer.tell(total)
            case Observe(account=account):
                ctx.watch(ctx.ref(account))
                ctx.reply(message, None)
            case Ignore(account=account):
                ctx.unwatch(ctx.ref(account))
                ctx.reply(message, None)
            case Failed(code=code):
                self.log.append(f"failed {code}")

    def on_signal(self, ctx: Context[Messages], signal: Signal) -> Behavior[Messages] | None:
        if isinstance(signal, Terminated):
            self.log.append(f"gone {signal.ref.name}")
            return None
        return super().on_signal(ctx, signal)


@actor(
    "TestOffice", Note, Whisper, Hold, Release, Work, Try, Remind, Repeat, Forget, Fetch, Hire, Pay, Observe,
    Ignore, Log, Leave,
)  # fmt: skip
class OfficeActor(DurableActor[OpenOffice]):
    def asks_per_run(self, start: OpenOffice) -> int:
        return start.asks_per_run

    def behavior(self, start: OpenOffice) -> Behavior[Messages]:
        return Office(log=[])

    def result(self, behavior: Behavior[Messages]) -> list[str] | None:
        return behavior.log if isinstance(behavior, Office) else None
