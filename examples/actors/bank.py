"""A bank account that keeps what happened, not what is: event-sourced. In plain asyncio, and durably.

python -m examples.actors.bank                    in this process
python -m examples.actors.bank 127.0.0.1:7233     on Temporal (`goatherd up` says where it runs)

A worker of yours serves it, with its events in MongoDB: `GOATHERD_ACTORS=examples.actors.bank goatherd up`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Any

from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from examples.running import run_example
from goatherd.actors import Behavior, Context, LocalSystem, Request, Signal, message
from goatherd.actors.durable import ActorSystem, DurableActor, JournalActivities, actor
from goatherd.actors.persistence import (
    Effect,
    EventSourced,
    Journal,
    MemoryJournal,
    SnapshotFailed,
    event_sourced,
    every,
    persist,
    refuse,
    reply,
)
from goatherd.contracts.model import Contract
from goatherd.errors import Conflict, Invalid

# -- commands: what one may ask of an account


@message
class Open(Request[int]):
    owner: str


@message
class Deposit(Request[int]):
    amount: int


@message
class Withdraw(Request[int]):
    amount: int


@message
class Close(Request[int]):
    """Answered with what was left, which is paid out."""


@message
class Balance(Request[int]):
    pass


Command = Open | Deposit | Withdraw | Close | Balance


# -- events: what has happened to it


@message
class Opened:
    owner: str


@message
class Deposited:
    amount: int


@message
class Withdrawn:
    amount: int


@message
class Closed:
    pass


Event = Opened | Deposited | Withdrawn | Closed


@message
class Account:
    """The state: what all the events come to."""

    owner: str | None = None
    balance: int = 0
    closed: bool = False


@event_sourced("examples.account", snapshot=every(100, keep=2))
class AccountBehavior(EventSourced[Command, Event, Account]):
    """Its number says whose events these are, in whatever system it lives."""

    number: str

    def persistence_id(self, ctx: Context[Command]) -> str:
        return f"account-{self.number}"

    def empty(self) -> Account:
        return Account()

    def on_command(self, ctx: Context[Command], state: Account, command: Command) -> Effect[Event]:
        if state.closed:
            return refuse(command, Conflict("The account is closed."))
        if isinstance(command, Open):
            if state.owner is not None:
                return refuse(command, Conflict(f"The account is {state.owner}'s."))
            return persist(Opened(command.owner)).then_reply(command, lambda state: state.balance)
        if state.owner is None:
            return refuse(command, Conflict("The account is not open yet."))
        match command:
            case Deposit(amount=amount) | Withdraw(amount=amount) if amount <= 0:
                return refuse(command, Invalid(f"{amount} is no amount."))
            case Deposit(amount=amount):
                return persist(Deposited(amount)).then_reply(command, lambda state: state.balance)
            case Withdraw(amount=amount) if amount > state.balance:
                return refuse(command, Conflict(f"There are {state.balance}, not {amount}."))
            case Withdraw(amount=amount):
                return persist(Withdrawn(amount)).then_reply(command, lambda state: state.balance)
            case Close():
                left = state.balance
                last: list[Event] = [Withdrawn(left), Closed()] if left else [Closed()]
                return persist(last).then_reply(command, lambda _: left)
            case Balance():
                return reply(command, state.balance)

    def on_event(self, state: Account, event: Event) -> Account:
        match event:
            case Opened(owner=owner):
                return Account(owner)
            case Deposited(amount=amount):
                return Account(state.owner, state.balance + amount)
            case Withdrawn(amount=amount):
                return Account(state.owner, state.balance - amount)
            case Closed():
                return Account(state.owner, state.balance, closed=True)

    def on_signal(self, ctx: Context[Command], signal: Signal) -> Behavior[Command] | None:
        if isinstance(signal, SnapshotFailed):
            ctx.log.warning("account %s has no new snapshot: %s", self.number, signal.cause)
        return None


class OpenAccount(Contract):
    number: str = "1"


@actor("ExampleAccount", Open, Deposit, Withdraw, Close, Balance)
class AccountActor(DurableActor[OpenAccount]):
    """The durable one. Without `journal` its events would be in the workflow's history alone."""

    journal = True

    def behavior(self, start: OpenAccount) -> Behavior[Command]:
        return AccountBehavior(start.number)

    def describe(self, behavior: Behavior[object]) -> str:
        assert isinstance(behavior, AccountBehavior)
        return f"**{behavior.state.balance}** after {behavior.seq} events"


Ask = Callable[[Request[int]], Awaitable[int]]


async def live(ask: Ask) -> list[str]:
    """A first life: money comes and goes."""
    said = [f"Opened with {await ask(Open('Ada'))}."]
    said.append(f"After a deposit: {await ask(Deposit(100))}.")
    said.append(f"After a withdrawal: {await ask(Withdraw(30))}.")
    try:
        await ask(Withdraw(100))
    except Conflict as refusal:
        said.append(refusal.message)
    return said


async def live_on(ask: Ask) -> list[str]:
    """Another, that knows nothing but the events."""
    said = [f"Recovered: {await ask(Balance())}.", f"Closed, and paid out {await ask(Close())}."]
    try:
        await ask(Deposit(1))
    except Conflict as refusal:
        said.append(refusal.message)
    return said


async def in_this_process(journal: Journal | None = None) -> list[str]:
    """Two systems, one after the other: what the second one knows is in the journal."""
    journal = journal or MemoryJournal()
    said = []
    for life in (live, live_on):
        async with LocalSystem(journal=journal) as system:
            account = system.spawn(AccountBehavior("7"), "account")

            async def ask(command: Request[int], account: Any = account, system: Any = system) -> int:
                answer: int = await system.ask(account, command)
                return answer

            said += await life(ask)
    return said


async def on_temporal(address: str, journal: Journal | None = None) -> list[str]:
    """Two workflows, one after the other, of which the first is terminated."""
    system = await ActorSystem.connect(address, task_queue=f"bank-{token_hex(4)}")
    worker = Worker(
        system.client,
        task_queue=system.task_queue,
        workflows=[AccountActor],
        activities=JournalActivities(journal or MemoryJournal()).all,
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    said = []
    async with worker:
        for life in (live, live_on):
            account = system.entity(AccountActor, f"account-{token_hex(4)}")
            await account.start(OpenAccount(number="7"))
            said += await life(account.ask)
            await system.client.get_workflow_handle(account.id).terminate("the example is over")
    return said


if __name__ == "__main__":
    run_example(in_this_process, on_temporal)
