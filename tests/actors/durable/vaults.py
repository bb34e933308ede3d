"""Event-sourced durable actors: with a journal, with their history alone, and in a shard."""

from __future__ import annotations

from collections import Counter

from temporalio import activity

from goatherd.actors import Behavior, Context, Request, Signal, message
from goatherd.actors import activity as call
from goatherd.actors import persistence as p
from goatherd.actors.durable import DurableActor, ShardedEntity, actor, sharded
from goatherd.contracts.model import Contract
from goatherd.errors import Conflict


@message
class Put(Request[int]):
    """Answered with what is in it then."""

    amount: int
    parts: int = 1


@message
class Fill(Request[int]):
    """Has a state of so many characters."""

    size: int


@message
class Inside(Request[int]):
    pass


@message
class Told(Request[list[str]]):
    """Answered with the signals of the journal that came in this life of the actor."""


@message
class Lock(Request[None]):
    pass


@message
class Unlock(Request[None]):
    pass


@message
class Shut(Request[int]):
    pass


@message
class Rung:
    pass


Command = Put | Fill | Inside | Told | Lock | Unlock | Shut | Rung


@message
class Came:
    amount: int


@message
class Filled:
    size: int


@message
class Locked:
    locked: bool


Event = Came | Filled | Locked


@message
class Gold:
    inside: int = 0
    locked: bool = False
    filling: str = ""


RINGS: Counter[str] = Counter()
"""How often the world has heard of an owner's recovery, or of a sum."""


@activity.defn
async def ring(what: str) -> None:
    RINGS[what] += 1


def rung(_: object) -> Rung:
    return Rung()


@p.event_sourced("tests.vault", snapshot=p.every(4, keep=2))
class Vault(p.EventSourced[Command, Event, Gold]):
    owner: str
    told: list[str]

    def empty(self) -> Gold:
        return Gold()

    def persistence_id(self, ctx: Context[Command]) -> str:
        return self.owner

    def check(self, message: Command) -> None:
        if isinstance(message, Put) and self.state.inside + message.amount < 0:
            raise Conflict("There is not so much.")

    def on_command(self, ctx: Context[Command], state: Gold, command: Command) -> p.Effect[Event] | None:
        match command:
            case Put() if state.locked:
                return p.stash()
            case Put(amount=amount, parts=parts):
                heard = f"{self.owner} {command.amount}"
                return (
                    p.persist([Came(amount)] * parts)
                    .then_run(lambda state: ctx.pipe_to_self(call(ring, heard), rung))
                    .then_reply(command, lambda state: state.inside)
                )
            case Fill(size=size):
                return p.persist(Filled(size)).then_reply(command, lambda state: len(state.filling))
            case Inside():
                return p.reply(command, state.inside)
            case Told():
                return p.reply(command, list(self.told))
            case Lock():
                return p.persist(Locked(True)).then_reply(command, lambda state: None)
            case Unlock():
                return p.persist(Locked(False)).then_unstash_all().then_reply(command, lambda state: None)
            case Shut():
                return p.reply(command, state.inside).then_stop()
        return p.none()

    def on_event(self, state: Gold, event: Event) -> Gold:
        match event:
            case Came(amount=amount):
                return Gold(state.inside + amount, state.locked, state.filling)
            case Filled(size=size):
                return Gold(state.inside, state.locked, "x" * size)
            case Locked(locked=locked):
                return Gold(state.inside, locked, state.filling)

    def on_signal(self, ctx: Context[Command], signal: Signal) -> Behavior[Command] | None:
        self.told.append(type(signal).__name__)
        if isinstance(signal, p.RecoveryCompleted):
            ctx.pipe_to_self(call(ring, f"{self.owner} recovered"), rung)
        return None


class OpenVault(Contract):
    owner: str = "nobody"
    asks_per_run: int = 1_000


MESSAGES = (Put, Fill, Inside, Told, Lock, Unlock, Shut)


@actor("TestVault", *MESSAGES)
class VaultActor(DurableActor[OpenVault]):
    journal = True

    def behavior(self, start: OpenVault) -> Behavior[Command]:
        return Vault(start.owner, [])

    def asks_per_run(self, start: OpenVault) -> int:
        return start.asks_per_run

    def describe(self, behavior: Behavior[object]) -> str:
        assert isinstance(behavior, Vault)
        return f"{behavior.state.inside} inside after event {behavior.seq}"

    def result(self, behavior: Behavior[object]) -> int:
        assert isinstance(behavior, Vault)
        return behavior.state.inside


@actor("TestPlainVault", *MESSAGES)
class PlainVaultActor(VaultActor, DurableActor[OpenVault]):
    """Without a journal."""

    journal = False


@p.event_sourced("tests.shelf-vault")
class ShelfVault(Vault):
    def persistence_id(self, ctx: Context[Command]) -> str:
        return p.EventSourced.persistence_id(self, ctx)


@sharded("TestVaultShelf", Put, Inside, Told, shards=1, passivate_after=0.3)
class VaultShelf(ShardedEntity):
    journal = True

    def behavior(self, entity_id: str) -> Behavior[Command]:
        return ShelfVault(entity_id, [])
