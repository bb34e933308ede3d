"""The receptionist: registration, listings as they change, and forgetting who has stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from goatherd.actors import (
    Behavior,
    Context,
    Deregister,
    Deregistered,
    Find,
    Listing,
    LocalSystem,
    Ref,
    Register,
    Registered,
    ServiceKey,
    Subscribe,
    Unhandled,
    behavior,
    message,
)
from goatherd.actors._snapshot import dump, restore

from .herd import Add, Counter, Fail, Log, Total, does, puppet, stops
from .manual import World

KEY = ServiceKey[Any]("workers", "Work")
OTHER = ServiceKey[Any]("drivers", "Drive")


def _puppets(world: World, *names: str) -> list[Ref[Any]]:
    return [world.spawn(puppet(Log(), name), name) for name in names]


def _registered(world: World, *names: str) -> list[Ref[Any]]:
    refs = _puppets(world, *names)
    world.tell(world.runtime.receptionist, *(Register(KEY, ref) for ref in refs))
    return refs


def _subscriber(world: World, log: Log, name: str = "subscriber") -> Ref[Any]:
    ref = world.spawn(puppet(log, name), name)
    log.clear()
    world.tell(world.runtime.receptionist, Subscribe(KEY, ref))
    return ref


def _found(world: World, key: ServiceKey[Any] = KEY) -> list[Ref[Any]]:
    return list(world.ask(world.runtime.receptionist, Find(key)).value.refs)


def _listings(log: Log) -> list[list[str]]:
    return [[ref.name for ref in listing.refs] for _, listing in log if isinstance(listing, Listing)]


# -- registering and finding


def test_nobody_is_listed_at_first() -> None:
    world = World()

    assert world.ask(world.runtime.receptionist, Find(KEY)).value == Listing(KEY, ())


def test_a_listing_keeps_the_order_of_registration() -> None:
    world = World()
    third, first, second = _puppets(world, "third", "first", "second")
    world.tell(world.runtime.receptionist, Register(KEY, first), Register(KEY, second), Register(KEY, third))

    assert _found(world) == [first, second, third]


def test_keys_of_the_same_id_and_another_protocol_are_different_services() -> None:
    world = World()
    _registered(world, "it")

    assert _found(world, ServiceKey("workers", "Rest")) == []


def test_registering_twice_is_once_and_keeps_the_place() -> None:
    world, log = World(), Log()
    first, second = _registered(world, "first", "second")
    _subscriber(world, log)

    world.tell(world.runtime.receptionist, Register(KEY, first))

    assert _found(world) == [first, second]
    assert _listings(log) == [["first", "second"]]


def test_one_actor_may_offer_several_services() -> None:
    world = World()
    (it,) = _registered(world, "it")
    world.tell(world.runtime.receptionist, Register(OTHER, it))

    assert _found(world) == _found(world, OTHER) == [it]


def test_an_actor_registers_itself_through_its_context() -> None:
    world = World()
    (it,) = _puppets(world, "it")

    world.tell(it, does(lambda ctx: ctx.receptionist.tell(Register(KEY, ctx.self))))

    assert _found(world) == [it]


def test_registering_and_deregistering_are_acknowledged_if_asked() -> None:
    world = World()
    (it,) = _puppets(world, "it")

    assert world.ask(world.runtime.receptionist, Register(KEY, it)).value == Registered(KEY, it)
    assert world.ask(world.runtime.receptionist, Deregister(KEY, it)).value == Deregistered(KEY, it)


def test_deregistering_takes_one_off_one_listing_only() -> None:
    world = World()
    first, second = _registered(world, "first", "second")
    world.tell(world.runtime.receptionist, Register(OTHER, first))

    world.tell(world.runtime.receptionist, Deregister(KEY, first))

    assert _found(world) == [second]
    assert _found(world, OTHER) == [first]


def test_deregistering_what_is_not_registered_changes_nothing() -> None:
    world, log = World(), Log()
    _subscriber(world, log)
    (it,) = _puppets(world, "it")

    world.tell(world.runtime.receptionist, Deregister(KEY, it), Deregister(OTHER, it))

    assert _listings(log) == [[]]


def test_what_was_deregistered_may_come_back_at_the_end() -> None:
    world = World()
    first, second = _registered(world, "first", "second")

    world.tell(world.runtime.receptionist, Deregister(KEY, first), Register(KEY, first))

    assert _found(world) == [second, first]


@pytest.mark.parametrize(("id", "protocol"), [("", "Work"), ("workers", ""), ("workers", "a@b")])
def test_a_key_needs_two_names(id: str, protocol: str) -> None:
    with pytest.raises(ValueError, match="service key"):
        ServiceKey(id, protocol)


def test_what_the_receptionist_does_not_know_is_unhandled() -> None:
    world = World()

    assert isinstance(world.ask(world.runtime.receptionist, Total()).error, Unhandled)


# -- subscribing


def test_a_subscriber_gets_the_listing_at_once_and_at_each_change() -> None:
    world, log = World(), Log()
    (first,) = _registered(world, "first")
    _subscriber(world, log)

    (second,) = _registered(world, "second")
    world.tell(world.runtime.receptionist, Deregister(KEY, first))

    assert _listings(log) == [["first"], ["first", "second"], ["second"]]
    assert second in log[-1][1].refs


def test_a_subscriber_is_not_told_of_other_services() -> None:
    world, log = World(), Log()
    _subscriber(world, log)
    (it,) = _puppets(world, "it")

    world.tell(world.runtime.receptionist, Register(OTHER, it))

    assert _listings(log) == [[]]


def test_subscribing_again_gives_the_listing_again_and_each_change_once() -> None:
    world, log = World(), Log()
    subscriber = _subscriber(world, log)
    world.tell(world.runtime.receptionist, Subscribe(KEY, subscriber))

    _registered(world, "it")

    assert _listings(log) == [[], [], ["it"]]


@dataclass(frozen=True)
class Changed:
    listing: Listing[Any]


def test_a_subscriber_may_be_an_adapter_and_is_forgotten_with_its_actor() -> None:
    world, log = World(), Log()
    subscriber = world.spawn(puppet(log, "it"))
    log.clear()
    world.tell(
        subscriber,
        does(lambda ctx: ctx.receptionist.tell(Subscribe(KEY, ctx.adapter(Changed)))),
    )
    _registered(world, "worker")
    world.tell(subscriber, stops())

    _registered(world, "late")

    assert [len(one.listing.refs) for _, one in log if isinstance(one, Changed)] == [0, 1]
    assert world.letters == []


# -- those who stop


def test_who_stops_is_dropped_from_all_listings_and_subscribers_are_told() -> None:
    world, log = World(), Log()
    first, second = _registered(world, "first", "second")
    world.tell(world.runtime.receptionist, Register(OTHER, first))
    _subscriber(world, log)

    world.tell(first, stops())

    assert _listings(log) == [["first", "second"], ["second"]]
    assert _found(world) == [second]
    assert _found(world, OTHER) == []


def test_who_is_dead_already_is_dropped_at_once() -> None:
    world = World()
    (it,) = _puppets(world, "it")
    world.tell(it, stops())

    world.tell(world.runtime.receptionist, Register(KEY, it))

    assert _found(world) == []


def test_a_dead_subscriber_is_told_nothing_any_more() -> None:
    world, log = World(), Log()
    subscriber = _subscriber(world, log)
    world.tell(subscriber, stops())

    _registered(world, "it")

    assert world.letters == []


def test_a_subscriber_that_is_registered_too_is_not_told_of_its_own_end() -> None:
    world, log = World(), Log()
    subscriber = _subscriber(world, log)
    world.tell(world.runtime.receptionist, Register(KEY, subscriber))

    world.tell(subscriber, stops())

    assert world.letters == []
    assert _found(world) == []


def test_who_has_deregistered_everywhere_is_not_watched_any_more() -> None:
    world = World()
    (it,) = _registered(world, "it")
    world.tell(world.runtime.receptionist, Register(OTHER, it), Deregister(KEY, it))
    receptionist = world.cell(world.runtime.receptionist)
    assert list(receptionist.watching) == [it.address]

    world.tell(world.runtime.receptionist, Deregister(OTHER, it))

    assert not receptionist.watching


def test_a_subscriber_that_deregisters_is_still_watched() -> None:
    world, log = World(), Log()
    subscriber = _subscriber(world, log)
    world.tell(
        world.runtime.receptionist,
        Register(KEY, subscriber),
        Deregister(KEY, subscriber),
    )

    world.tell(subscriber, stops())
    _registered(world, "it")

    assert world.letters == []


def test_services_that_nobody_offers_or_wants_leave_nothing_behind() -> None:
    world, log = World(), Log()
    first, second = _registered(world, "first", "second")
    subscriber = _subscriber(world, log)

    world.tell(world.runtime.receptionist, Deregister(KEY, first))
    world.tell(second, stops())
    world.tell(subscriber, stops())

    assert world.cell(world.runtime.receptionist).behavior.services == {}  # type: ignore[attr-defined]


# -- itself


def test_it_starts_with_its_first_use_and_is_one() -> None:
    world = World()
    assert not world.runtime.top

    assert world.runtime.receptionist is world.runtime.receptionist
    assert list(world.runtime.top) == ["$receptionist"]


def test_a_message_it_fails_at_does_not_cost_it_what_it_knows() -> None:
    world = World()
    (it,) = _registered(world, "it")

    world.tell(world.runtime.receptionist, Subscribe(KEY, None))  # type: ignore[arg-type]

    assert _found(world) == [it]


@message
class Seen:
    listing: Listing[Add | Total | Fail]


COUNTERS = ServiceKey[Add | Total | Fail]("counters", "Counter")


@behavior("tests.receptionist.looker")
class Looker(Behavior[Seen | Total]):
    """Counts the listings that it has seen, and who was on the last one."""

    sizes: list[int]

    def on_start(self, ctx: Context[Seen | Total]) -> Behavior[Seen | Total] | None:
        ctx.receptionist.tell(Subscribe(COUNTERS, ctx.adapter(Seen)))
        return None

    def receive(self, ctx: Context[Seen | Total], message: Seen | Total) -> Behavior[Seen | Total] | None:
        match message:
            case Seen(listing=listing):
                self.sizes.append(len(listing.refs))
            case Total():
                ctx.reply(message, len(self.sizes))
        return None


def _run(every: int | None) -> Any:
    """One story, told in one world, or in a new one after each `every` messages."""
    world = World()

    def settle() -> None:
        nonlocal world
        while every is not None and world.runtime.drain(every):
            world = world.reborn()
        world.settle()

    for name in ("a", "b", "c"):
        world.runtime.spawn(Counter(), name)
    world.runtime.spawn(Looker([]), "looker")
    a, b, c = (world.runtime.top[name].ref.address for name in "abc")
    for address in (a, b, a, c):
        world.runtime.receptionist.tell(Register(COUNTERS, world.runtime.resolve(address)))
    settle()
    world.runtime.resolve(b).tell(Fail())
    world.runtime.resolve(c).tell(Add(3))
    settle()
    world.runtime.receptionist.tell(Deregister(COUNTERS, world.runtime.resolve(a)))
    settle()
    return dump(world.runtime)


@pytest.mark.parametrize("every", range(1, 8))
def test_it_goes_through_snapshots(every: int) -> None:
    assert json.dumps(_run(every)) == json.dumps(_run(None))


def test_the_story_of_the_snapshots_ends_as_told() -> None:
    other = World()
    restore(other.runtime, _run(None))

    assert [ref.name for ref in _found(other, COUNTERS)] == ["c"]
    looker = other.runtime.top["looker"].behavior
    assert isinstance(looker, Looker)
    assert looker.sizes[-2:] == [2, 1]


async def test_a_local_system_has_one() -> None:
    async with LocalSystem() as system:
        counter = system.spawn(Counter(), "counter")
        await system.ask(system.receptionist, Register(COUNTERS, counter))

        listing = await system.ask(system.receptionist, Find(COUNTERS))

        assert listing.refs == (counter,)


def test_actors_of_other_runtimes_are_watched_there() -> None:
    world = World()
    remote = Ref[Any]("elsewhere/it")
    world.environment.remotes[remote.address] = remote
    world.tell(world.runtime.receptionist, Register(KEY, remote))
    assert world.environment.watched == [("elsewhere/it", world.runtime.receptionist.address)]

    world.runtime.terminated("elsewhere/it", world.runtime.receptionist.address)
    world.settle()

    assert _found(world) == []
