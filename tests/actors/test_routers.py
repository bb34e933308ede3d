"""Routers: pools of children, and who of them gets what."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter as Tally
from typing import Any

import pytest

from goatherd.actors import (
    ActorFailed,
    Behavior,
    Broadcast,
    Context,
    Deregister,
    Ref,
    Register,
    at_random,
    consistent_hashing,
    group,
    on,
    pool,
    receive,
    restart,
    round_robin,
    supervise,
)
from goatherd.actors._routers import _weight

from .clerks import (
    KEY,
    Clerk,
    Leave,
    Name,
    Parcel,
    children_of,
    clerks,
    names_of,
    owner_of,
    restarts,
    without_key,
)
from .herd import Add, Counter, Fail, Log, Total, puppet
from .manual import World

# -- pool: its routees


def test_a_pool_spawns_as_many_children_as_told() -> None:
    world = World()

    router = world.spawn(pool(4, Clerk()))

    assert len(children_of(world, router)) == 4


@pytest.mark.parametrize("size", [0, -1])
def test_a_pool_needs_a_routee(size: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        pool(size, Clerk())


def test_each_routee_has_a_state_of_its_own() -> None:
    world = World()
    router = world.spawn(pool(2, Counter()))

    world.tell(router, Add(1), Add(10), Add(100))

    assert [world.ask(child, Total()).value for child in children_of(world, router)] == [101, 10]


def test_routees_are_supervised_as_told() -> None:
    world = World()
    router = world.spawn(pool(2, supervise(Counter(), on(ValueError, restart()))))
    first, second = children_of(world, router)
    world.tell(router, Add(1), Add(10))

    world.tell(router, Fail())

    assert children_of(world, router) == [first, second]
    assert world.ask(first, Total()).value == 0
    assert world.ask(second, Total()).value == 10


def test_a_pool_keeps_routing_to_those_who_are_left() -> None:
    world = World()
    router = world.spawn(pool(3, Clerk()))
    first, second, third = children_of(world, router)

    world.tell(second, Leave())

    assert names_of(world, router, 4) == [first.name, third.name] * 2
    assert world.letters == []


def test_a_routee_that_fails_is_gone_and_is_not_replaced() -> None:
    world = World()
    router = world.spawn(pool(2, Clerk()))

    world.tell(router, Fail())

    assert len(children_of(world, router)) == 1
    assert world.is_alive(router)


def test_a_pool_stops_when_its_last_routee_has() -> None:
    world = World()
    router = world.spawn(pool(2, Clerk()))

    world.tell(router, Leave())
    assert world.is_alive(router)
    world.tell(router, Fail())

    assert not world.is_alive(router)


def test_a_pool_whose_routees_all_fail_to_start_stops() -> None:
    world = World()

    def start(ctx: Context[Any]) -> None:
        raise ValueError("never")

    router = world.spawn(pool(3, puppet(Log(), "it", start)))

    assert not world.is_alive(router)


def test_routees_stop_with_their_pool() -> None:
    world, log = World(), Log()
    router = world.spawn(pool(2, puppet(log, "routee")))
    log.clear()

    world.stop(router)
    world.settle()

    assert log == [("routee", "PostStop")] * 2
    assert not list(world.runtime.cells())


def test_messages_of_one_sender_stay_in_order_at_each_routee() -> None:
    world, log = World(), Log()
    router = world.spawn(pool(1, puppet(log, "it")))
    log.clear()

    world.tell(router, *range(100))

    assert [one for _, one in log] == list(range(100))


def test_a_pool_that_restarts_has_all_its_routees_again() -> None:
    world = World()
    router = world.spawn(pool(3, Clerk(), routing=consistent_hashing(without_key)), supervise=restarts())
    before = children_of(world, router)
    world.tell(before[0], Leave())

    world.tell(router, Name())

    after = children_of(world, router)
    assert len(after) == 3
    assert not {one.address for one in before} & {one.address for one in after}


def test_a_pool_that_restarts_without_stopping_its_children_keeps_them() -> None:
    world = World()
    router = world.spawn(
        pool(3, Clerk(), routing=consistent_hashing(without_key)),
        supervise=[on(LookupError, restart(stop_children=False))],
    )
    first, *others = children_of(world, router)
    world.tell(first, Leave())

    world.tell(router, Name())

    assert children_of(world, router)[:2] == others
    assert len(children_of(world, router)) == 3
    for child in children_of(world, router):
        world.tell(child, Leave())
    assert not world.is_alive(router)


# -- asks, broadcast


def test_the_answer_goes_to_who_asked_the_router() -> None:
    world = World()
    router = world.spawn(pool(2, Clerk()))

    outcome = world.ask(router, Name())

    assert outcome.value == children_of(world, router)[0].name


def test_an_ask_of_a_routee_that_fails_at_it_fails_at_once() -> None:
    world, log = World(), Log()

    def on_message(ctx: Context[Any], message: Any) -> Behavior[Any]:
        raise ValueError("no")

    router = world.spawn(pool(1, receive(on_message)))

    assert isinstance(world.ask(router, Name()).error, ActorFailed)
    assert log == []


def test_a_broadcast_goes_to_all_and_takes_nobodys_turn() -> None:
    world = World()
    router = world.spawn(pool(3, Counter()))
    world.tell(router, Add(1))

    world.tell(router, Broadcast(Add(10)), Add(100))

    assert [world.ask(child, Total()).value for child in children_of(world, router)] == [11, 110, 10]


def test_a_broadcast_may_be_asked_and_its_first_answer_counts() -> None:
    world = World()
    router = world.spawn(pool(3, Clerk()))

    outcome = world.ask(router, Broadcast(Name()))

    assert outcome.values == [children_of(world, router)[0].name]


def test_a_broadcast_goes_through_nested_routers_one_layer_a_broadcast() -> None:
    world, log = World(), Log()
    router = world.spawn(pool(2, pool(3, puppet(log, "it"))))
    log.clear()

    world.tell(router, Broadcast(Broadcast("all")), Broadcast("two"))

    assert [one for _, one in log].count("all") == 6
    assert [one for _, one in log].count("two") == 2


# -- strategies


def test_a_pool_routes_round_robin_if_not_told_otherwise() -> None:
    world = World()
    router = world.spawn(pool(3, Clerk()))
    names = [child.name for child in children_of(world, router)]

    assert names_of(world, router, 7) == [*names, *names, names[0]]


@pytest.mark.parametrize(("leaves", "expected"), [(0, [2, 3, 1, 2]), (1, [2, 3, 0, 2]), (2, [3, 0, 1, 3])])
def test_round_robin_skips_nobody_when_one_leaves(leaves: int, expected: list[int]) -> None:
    world = World()
    router = world.spawn(pool(4, Clerk()))
    children = children_of(world, router)
    names = [child.name for child in children]
    assert names_of(world, router, 2) == names[:2]

    world.tell(children[leaves], Leave())

    assert names_of(world, router, 4) == [names[index] for index in expected]


def test_round_robin_starts_anew_when_the_last_of_the_round_has_left() -> None:
    world = World()
    router = world.spawn(pool(3, Clerk()))
    first, second, third = children_of(world, router)
    assert names_of(world, router, 2) == [first.name, second.name]

    world.tell(third, Leave())

    assert names_of(world, router, 2) == [first.name, second.name]


def test_two_pools_with_one_strategy_have_turns_of_their_own() -> None:
    world = World()
    one = world.spawn(pool(2, Clerk(), routing=round_robin), "one")
    other = world.spawn(pool(2, Clerk(), routing=round_robin), "other")

    names_of(world, one, 1)

    assert names_of(world, other, 1) == [children_of(world, other)[0].name]


def test_random_routing_reaches_all_with_the_environments_luck() -> None:
    world, again = World(seed=7), World(seed=7)
    router, same_router = (one.spawn(pool(4, Clerk(), routing=at_random)) for one in (world, again))

    names = names_of(world, router, 400)

    assert names == names_of(again, same_router, 400)
    tally = Tally(names)
    assert len(tally) == 4
    assert min(tally.values()) > 60


@pytest.mark.parametrize("key", [owner_of, Parcel.key])
def test_consistent_hashing_gives_all_of_one_key_to_one_routee(key: Any) -> None:
    world = World()
    router = world.spawn(pool(5, Clerk(), routing=consistent_hashing(key)))

    first = [world.ask(router, Parcel(f"owner-{number}")).value for number in range(200)]
    second = [world.ask(router, Parcel(f"owner-{number}")).value for number in range(200)]

    assert first == second
    tally = Tally(first)
    assert len(tally) == 5
    assert min(tally.values()) > 20


def test_consistent_hashing_moves_only_the_keys_of_who_has_left() -> None:
    world = World()
    router = world.spawn(pool(5, Clerk(), routing=consistent_hashing(owner_of)))
    leaver = children_of(world, router)[2]
    before = {owner: world.ask(router, Parcel(owner)).value for owner in map(str, range(200))}

    world.tell(leaver, Leave())
    after = {owner: world.ask(router, Parcel(owner)).value for owner in before}

    assert {owner for owner in before if before[owner] != after[owner]} == {
        owner for owner, name in before.items() if name == leaver.name
    }


def test_consistent_hashing_does_not_depend_on_the_order_of_routees() -> None:
    world = World()
    router = world.spawn(group(KEY, routing=consistent_hashing(owner_of)))
    first, *_ = clerks(world, "a", "b", "c", "d")
    before = {owner: world.ask(router, Parcel(owner)).value for owner in map(str, range(50))}

    world.tell(world.runtime.receptionist, Deregister(KEY, first), Register(KEY, first))

    assert before == {owner: world.ask(router, Parcel(owner)).value for owner in before}


def test_hashing_is_the_same_in_every_process() -> None:
    weigh = (
        "from goatherd.actors import Ref; from goatherd.actors._routers import _weight;"
        "print(_weight('key', Ref('world/it/$1#2')).hex())"
    )
    weights = [
        subprocess.run(
            [sys.executable, "-c", weigh],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]

    assert weights == [_weight("key", Ref("world/it/$1#2")).hex()] * 2


def test_a_key_function_that_raises_is_the_routers_failure() -> None:
    world = World()
    router = world.spawn(pool(2, Clerk(), routing=consistent_hashing(without_key)))

    assert isinstance(world.ask(router, Name()).error, ActorFailed)
    assert not world.is_alive(router)
