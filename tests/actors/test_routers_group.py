"""Group routers: to whom the receptionist lists, as they come and go."""

from __future__ import annotations

from collections import Counter as Tally

import pytest

from goatherd.actors import (
    ActorStopped,
    Broadcast,
    Deregister,
    LocalSystem,
    Register,
    StashFull,
    consistent_hashing,
    group,
    pool,
    round_robin,
)

from .clerks import (
    KEY,
    Clerk,
    Leave,
    Name,
    clerks,
    key_unless_fail,
    names_of,
    restarts,
)
from .herd import Fail, Log, puppet, raises, stops
from .manual import World


def test_a_group_routes_to_whom_the_receptionist_lists() -> None:
    world = World()
    clerks(world, "a", "b")
    router = world.spawn(group(KEY, routing=round_robin))

    assert names_of(world, router, 4) == ["a", "b", "a", "b"]


def test_a_group_routes_at_random_if_not_told_otherwise() -> None:
    world = World(seed=3)
    clerks(world, "a", "b", "c")
    router = world.spawn(group(KEY))

    tally = Tally(names_of(world, router, 300))

    assert sorted(tally) == ["a", "b", "c"]
    assert min(tally.values()) > 60
    assert max(tally.values()) < 140


def test_a_group_follows_those_who_come_and_go() -> None:
    world = World()
    router = world.spawn(group(KEY, routing=round_robin))
    a, b = clerks(world, "a", "b")
    assert names_of(world, router, 3) == ["a", "b", "a"]

    clerks(world, "c")
    assert names_of(world, router, 3) == ["b", "c", "a"]
    world.tell(b, Leave())
    assert names_of(world, router, 3) == ["c", "a", "c"]
    world.tell(world.runtime.receptionist, Deregister(KEY, a))

    assert names_of(world, router, 2) == ["c", "c"]
    assert world.letters == []


def test_two_groups_share_their_routees() -> None:
    world = World()
    (clerk,) = clerks(world, "a")
    one, other = (world.spawn(group(KEY), name) for name in ("one", "other"))

    assert names_of(world, one, 1) == names_of(world, other, 1) == ["a"]
    world.stop(one)
    world.settle()

    assert world.is_alive(clerk)


def test_what_comes_before_the_first_listing_waits_in_its_order() -> None:
    world, log = World(), Log()
    world.tell(world.runtime.receptionist, Register(KEY, world.spawn(puppet(log, "worker"), "worker")))
    log.clear()
    # The group's first turn takes the messages; the receptionist's comes after it.
    router = world.runtime.spawn(group(KEY), "router")

    world.tell(router, 1, 2, 3)

    assert log == [("worker", 1), ("worker", 2), ("worker", 3)]


def test_an_ask_before_the_first_listing_is_answered_after_it() -> None:
    world = World()
    clerks(world, "a")
    router = world.runtime.spawn(group(KEY), "router")

    assert world.ask(router, Name()).value == "a"


def test_what_does_not_fit_before_the_first_listing_is_a_dead_letter() -> None:
    world = World()
    clerks(world, "a")
    router = world.runtime.spawn(group(KEY), "router", stash=2)
    kept = [world.ask(router, Name(), settle=False) for _ in range(2)]
    late = world.ask(router, Name(), settle=False)

    world.settle()

    assert [one.value for one in kept] == ["a", "a"]
    assert isinstance(late.error, StashFull)
    assert world.letters == [(Name(), "stash-full")]
    assert world.is_alive(router)


def test_with_no_routees_messages_are_dead_letters_and_asks_fail_at_once() -> None:
    world = World()
    router = world.spawn(group(KEY))

    world.tell(router, Leave())
    asked = world.ask(router, Name())
    broadcast = world.ask(router, Broadcast(Name()))

    assert world.letters == [
        (Leave(), "no-routees"),
        (Name(), "no-routees"),
        (Broadcast(Name()), "no-routees"),
    ]
    assert isinstance(asked.error, ActorStopped)
    assert isinstance(broadcast.error, ActorStopped)


def test_a_stopped_member_is_never_routed_to_after_the_listing_without_it() -> None:
    world, log = World(), Log()
    workers = [world.spawn(puppet(log, name), name) for name in ("a", "b")]
    world.tell(world.runtime.receptionist, *(Register(KEY, worker) for worker in workers))
    router = world.spawn(group(KEY, routing=round_robin))
    world.tell(workers[0], raises(ValueError("no")))
    world.tell(workers[1], stops())

    world.tell(router, "nobody")

    assert world.letters == [("nobody", "no-routees")]


def test_a_group_outlives_its_last_routee() -> None:
    world = World()
    router = world.spawn(group(KEY))
    (a,) = clerks(world, "a")
    world.tell(a, Leave())
    assert isinstance(world.ask(router, Name()).error, ActorStopped)

    clerks(world, "b")

    assert names_of(world, router, 1) == ["b"]


def test_a_group_that_restarts_has_its_routees_again() -> None:
    world = World()
    clerks(world, "a", "b")
    router = world.spawn(group(KEY, routing=consistent_hashing(key_unless_fail)), supervise=restarts())

    world.tell(router, Fail())

    assert set(names_of(world, router, 20)) <= {"a", "b"}
    assert world.letters == []


def test_a_group_broadcasts_to_all() -> None:
    world, log = World(), Log()
    workers = [world.spawn(puppet(log, name), name) for name in ("a", "b")]
    world.tell(world.runtime.receptionist, *(Register(KEY, worker) for worker in workers))
    router = world.spawn(group(KEY))
    log.clear()

    world.tell(router, Broadcast("all"))

    assert log == [("a", "all"), ("b", "all")]


# -- in plain asyncio


async def test_routers_work_in_a_local_system() -> None:
    async with LocalSystem() as system:
        workers = system.spawn(pool(3, Clerk()), "pool")
        everybody = system.spawn(group(KEY, routing=round_robin), "group")
        with pytest.raises(ActorStopped):
            await system.ask(everybody, Name())
        await system.ask(system.receptionist, Register(KEY, workers))

        names = [await system.ask(everybody, Name()) for _ in range(3)]

        assert len(set(names)) == 3
