"""The actor that is measured: adds up, and can have a tree inside talk to itself."""

from __future__ import annotations

from goatherd.actors import Behavior, Context, Ref, Request, behavior, message
from goatherd.actors.durable import DurableActor, ShardedEntity, actor, sharded
from goatherd.contracts.model import Contract

QUEUE = "bench-actors"


class Begin(Contract):
    pass


@message
class Add(Request[int]):
    amount: int


@message
class Chatter(Request[int]):
    """So many messages go round between two actors inside of the tree, then it is answered."""

    rounds: int


@message
class Ball:
    left: int
    back: Ref[Ball]
    done: Ref[int]


@behavior("bench.player")
class Player(Behavior[Ball]):
    hits: int = 0

    def receive(self, ctx: Context[Ball], message: Ball) -> Behavior[Ball] | None:
        self.hits += 1
        if message.left == 0:
            message.done.tell(self.hits)
        else:
            message.back.tell(Ball(message.left - 1, ctx.self, message.done))
        return None


@behavior("bench.counter")
class Counting(Behavior[Add | Chatter]):
    total: int = 0

    def receive(self, ctx: Context[Add | Chatter], message: Add | Chatter) -> Behavior[Add | Chatter] | None:
        match message:
            case Add(amount=amount):
                self.total += amount
                ctx.reply(message, self.total)
            case Chatter(rounds=rounds):
                one, two = ctx.spawn(Player()), ctx.spawn(Player())
                one.tell(Ball(rounds, two, ctx.reply_to(message)))
        return None


@actor("BenchCounter", Add, Chatter)
class Counter(DurableActor[Begin]):
    def behavior(self, start: Begin) -> Behavior[Add | Chatter]:
        return Counting()


@sharded("BenchShared", Add, shards=2)
class SharedCounter(ShardedEntity):
    def behavior(self, entity_id: str) -> Behavior[Add | Chatter]:
        return Counting()
