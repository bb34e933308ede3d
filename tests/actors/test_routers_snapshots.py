"""Routers through snapshots: they go on where they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic_core import PydanticSerializationError

from goatherd.actors import (
    Behavior,
    Broadcast,
    Context,
    NotDurable,
    Ref,
    Register,
    at_random,
    behavior,
    consistent_hashing,
    group,
    on,
    pool,
    receive,
    restart,
    round_robin,
    same,
    supervise,
)
from goatherd.actors._routers import AtRandom, ConsistentHashing, RoundRobin
from goatherd.actors._snapshot import dump

from .clerks import (
    KEY,
    Clerk,
    Leave,
    Parcel,
    children_of,
    key_unless_fail,
    names_of,
    owner_of,
    restarts,
)
from .herd import Add, Counter, Fail, Total
from .manual import World


@pytest.mark.parametrize("routing", [round_robin, at_random, consistent_hashing(owner_of)])
@pytest.mark.parametrize("every", range(1, 8))
def test_routers_keep_routing_where_they_were_through_snapshots(every: int, routing: Any) -> None:
    assert json.dumps(_story(routing, every)) == json.dumps(_story(routing, None))


def _story(routing: RoundRobin | AtRandom | ConsistentHashing, every: int | None) -> Any:
    """A pool and a group at work while routees fail, leave and come; each `every` messages in a new world."""
    world = World(seed=5)

    def settle() -> None:
        nonlocal world
        while every is not None and world.runtime.drain(every):
            world = world.reborn()
        world.settle()

    def tell(name: str, *messages: Any) -> None:
        for one in messages:
            world.runtime.top[name].ref.tell(one)
        settle()

    parcels = [Parcel(str(number)) for number in range(11)]
    world.runtime.spawn(group(KEY, routing=routing), "group")
    world.runtime.spawn(
        pool(3, supervise(Clerk(), on(ValueError, restart(limit=1))), routing=routing), "pool"
    )
    for name in ("a", "b", "c"):
        world.runtime.spawn(Clerk(), name)
        world.runtime.receptionist.tell(Register(KEY, world.runtime.top[name].ref))
    tell("group", *parcels, Broadcast(Parcel("x")))
    tell("pool", *parcels, Broadcast(Fail()), *parcels)
    tell("a", Leave())
    tell("group", *parcels)
    world.runtime.spawn(Clerk(), "d")
    world.runtime.receptionist.tell(Register(KEY, world.runtime.top["d"].ref))
    pool_cell = world.runtime.top["pool"]
    next(iter(pool_cell.children.values())).ref.tell(Leave())
    tell("group", *parcels)
    tell("pool", *parcels)
    return dump(world.runtime)


def test_a_pool_read_from_a_snapshot_can_still_restart_its_routees() -> None:
    world = World()
    behavior = pool(2, supervise(Counter(5), on(ValueError, restart(limit=3))))
    router = world.spawn(behavior, supervise=[on(ValueError, restart())])
    world.tell(router, Add(1), Add(1))

    world = world.reborn()
    router = world.runtime.resolve(router.address)
    world.tell(router, Fail())

    assert [world.ask(child, Total()).value for child in children_of(world, router)] == [5, 6]


def test_a_pool_read_from_a_snapshot_can_restart_itself() -> None:
    world = World()
    router = world.spawn(pool(2, Clerk(), routing=consistent_hashing(key_unless_fail)), supervise=restarts())

    world = world.reborn()
    router = world.runtime.resolve(router.address)
    before = children_of(world, router)
    world.tell(router, Fail())

    assert len(children_of(world, router)) == 2
    assert before != children_of(world, router)
    assert names_of(world, router, 1)[0] in [child.name for child in children_of(world, router)]


def test_a_behavior_inside_a_pool_keeps_its_refs_through_a_snapshot() -> None:
    world = World()
    target = world.spawn(Counter(), "target")
    router = world.spawn(pool(2, Teller(target)))

    world = world.reborn()
    world.tell(world.runtime.resolve(router.address), Broadcast(Leave()))

    assert world.ask(world.runtime.resolve(target.address), Total()).value == 2


@behavior("tests.routers.teller")
class Teller(Behavior[Leave]):
    """Tells its target to add one."""

    target: Ref[Add]

    def receive(self, ctx: Context[Leave], message: Leave) -> Behavior[Leave] | None:
        self.target.tell(Add(1))
        return same


@pytest.mark.parametrize(
    "router",
    [
        pool(2, Clerk(), routing=consistent_hashing(lambda message: "a")),
        pool(2, receive(lambda ctx, message: None)),
    ],
)
def test_a_router_of_parts_that_cannot_be_written_says_so(router: Behavior[Any]) -> None:
    world = World()
    world.spawn(router)

    # Pydantic wraps what a field's writer raises.
    with pytest.raises((NotDurable, PydanticSerializationError), match=r"written down|serialize"):
        dump(world.runtime)
