"""Routers: one address for many actors that do the same. To be spawned, as any behavior.

A router's routees, and whose turn it is, are its state: it goes on where it was after continue-as-new.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, is_dataclass
from hashlib import blake2b
from typing import Annotated, Any, Generic, Literal, TypeVar, assert_never

from pydantic import Field

from goatherd.actors._behavior import Behavior, behavior, stopped, unhandled
from goatherd.actors._context import Context
from goatherd.actors._errors import StashFull
from goatherd.actors._fields import AnyFunction, AnySupervised, as_message
from goatherd.actors._message import Request, display, message
from goatherd.actors._receptionist import Listing, ServiceKey, Subscribe
from goatherd.actors._ref import Ref
from goatherd.actors._signals import Signal, Terminated
from goatherd.actors._supervision import Supervised, supervise

M = TypeVar("M")


@message
class Broadcast(Request[Any], Generic[M]):
    """To a router: `message` goes to all of its routees. Asked, the first answer counts."""

    message: Annotated[M, as_message]


# -- routing


@dataclass(frozen=True, slots=True)
class RoundRobin:
    """One after the other. When the routees change, those still to come in this round keep their turns."""

    kind: Literal["round-robin"] = "round-robin"


@dataclass(frozen=True, slots=True)
class AtRandom:
    """Any of them, with the environment's luck."""

    kind: Literal["at-random"] = "at-random"


@dataclass(frozen=True, slots=True)
class ConsistentHashing:
    """Messages of one key to one routee. When it goes, its keys move to others; no other key moves.

    Rendezvous hashing: the routee whose address hashes highest together with the key. It takes one hash a
    routee, and depends on nothing else, neither on their order nor on the process.
    """

    key: AnyFunction
    kind: Literal["consistent-hashing"] = "consistent-hashing"


Routing = Annotated[RoundRobin | AtRandom | ConsistentHashing, Field(discriminator="kind")]

round_robin = RoundRobin()
at_random = AtRandom()


def consistent_hashing(key: Callable[[Any], str]) -> ConsistentHashing:
    """Routing by `key(message)`. To go through continue-as-new, `key` has to be a function of a module, or
    a method of a class of messages, such as `Job.owner`. What it raises counts as raised by the router.
    """
    return ConsistentHashing(key)


def _weight(key: str, routee: Ref[Any]) -> bytes:
    # The message's key is the hash's key: joined to one text, two pairs could be the same.
    return blake2b(routee.address.encode(), key=blake2b(key.encode()).digest(), digest_size=8).digest()


def _route(ctx: Context[Any], routing: Routing, routees: Sequence[Ref[Any]], turn: int, message: Any) -> int:
    """Sends a message on, with its asker. Returns whose turn is next."""
    if not routees:
        _drop(ctx, message, "no-routees")
        return turn
    if isinstance(message, Broadcast):
        reply_to = ctx._cell.reply_to
        for routee in routees:
            routee.send(message.message, reply_to)
        return turn
    match routing:
        case RoundRobin():
            turn %= len(routees)
            ctx.forward(routees[turn], message)
            return turn + 1
        case AtRandom():
            ctx.forward(routees[ctx.random.randrange(len(routees))], message)
        case ConsistentHashing(key=key_of):
            key = key_of(message)
            ctx.forward(max(routees, key=lambda routee: _weight(key, routee)), message)
        case _:
            assert_never(routing)
    return turn


def _drop(ctx: Context[Any], message: Any, reason: str) -> None:
    """To nobody; who asked is told at once."""
    cell = ctx._cell
    cell.runtime.dead(message, cell.address, reason, cell.reply_to)


def _next_turn(turn: int, before: Sequence[Ref[Any]], after: Sequence[Ref[Any]]) -> int:
    """Whose turn it is among other routees: his whose it was, or his who comes next."""
    left = {routee.address for routee in after}
    return sum(routee.address in left for routee in before[:turn])


# -- pool


@behavior("goatherd.pool")
class Pool(Behavior[Any]):
    """See `pool`."""

    size: int
    routee: AnySupervised
    routing: Routing
    routees: list[Ref[Any]] = field(default_factory=list)
    turn: int = 0

    def on_start(self, ctx: Context[Any]) -> Behavior[Any] | None:
        # A restart that leaves the children alone finds them here.
        for _ in range(self.size - len(ctx.children)):
            ctx.spawn(Supervised(_own(self.routee.behavior), self.routee.rules))
        self.routees = ctx.children
        for routee in self.routees:
            ctx.watch(routee)
        return None

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        self.turn = _route(ctx, self.routing, self.routees, self.turn, message)
        return None

    def on_signal(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        if not isinstance(signal, Terminated):
            return unhandled
        left = [routee for routee in self.routees if routee != signal.ref]
        self.turn, self.routees = _next_turn(self.turn, self.routees, left), left
        return None if left else stopped


def pool(
    size: int,
    behavior: Behavior[M] | Supervised[M],
    *,
    routing: RoundRobin | AtRandom | ConsistentHashing = round_robin,
) -> Behavior[M | Broadcast[M]]:
    """A router that spawns `size` children, each with its own copy of `behavior`, and `supervise`d as that.

    A routee that stops is not replaced: let it restart. When none is left, the pool stops.

    Raises:
        ValueError: the size is less than 1.
    """
    if size < 1:
        raise ValueError(f"A pool of {size} makes no sense: 1 or more.")
    return Pool(size, supervise(behavior), routing)


def _own(behavior: Behavior[Any]) -> Behavior[Any]:
    """Registered behaviors may change themselves, so that each routee needs one; functions are shared."""
    return copy.deepcopy(behavior) if is_dataclass(behavior) else behavior


# -- group


@behavior("goatherd.group")
class Group(Behavior[Any]):
    """See `group`."""

    key: ServiceKey[Any]
    routing: Routing
    listed: bool = False
    routees: list[Ref[Any]] = field(default_factory=list)
    turn: int = 0

    def on_start(self, ctx: Context[Any]) -> Behavior[Any] | None:
        ctx.receptionist.tell(Subscribe(self.key, ctx.self))
        return None

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        if isinstance(message, Listing) and message.key == self.key:
            self._list(ctx, message)
        elif self.listed:
            self.turn = _route(ctx, self.routing, self.routees, self.turn, message)
        else:
            self._wait(ctx, message)
        return None

    def _list(self, ctx: Context[Any], listing: Listing[Any]) -> None:
        routees = list(listing.refs)
        self.turn, self.routees = _next_turn(self.turn, self.routees, routees), routees
        if not self.listed:
            self.listed = True
            ctx.unstash_all()

    def _wait(self, ctx: Context[Any], message: Any) -> None:
        reply_to = ctx._cell.reply_to
        try:
            ctx.stash()
        except StashFull as full:
            if reply_to is not None:
                reply_to.fail(full)
            ctx.log.warning("%s has no listing yet, and drops %s: %s", ctx.self, display(message), full)
            ctx._cell.runtime.dead(message, ctx.self.address, "stash-full", None)


def group(
    key: ServiceKey[M], *, routing: RoundRobin | AtRandom | ConsistentHashing = at_random
) -> Behavior[M | Broadcast[M]]:
    """A router to all that are registered with the receptionist under `key`, as they come and go.

    What comes before the first listing waits, as much as its stash holds. When there is nobody, messages are
    dead letters, and asks fail at once with `ActorStopped`.
    """
    return Group(key, routing)
