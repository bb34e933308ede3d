"""Adapters: addresses of an actor for messages of another protocol."""

from __future__ import annotations

from typing import Any

from goatherd.actors import Ref, on, restart, resume

from .herd import Log, Query, asks, does, puppet, raises, stops
from .manual import World


def _lengths(text: Any) -> tuple[str, int]:
    return "length", len(text)


def _adapter(world: World, ref: Ref[Any], adapt: Any = _lengths) -> Ref[Any]:
    made: list[Ref[Any]] = []
    world.tell(ref, does(lambda ctx: made.append(ctx.adapter(adapt))))
    return made[0]


def test_what_comes_to_an_adapter_comes_to_the_actor_as_it_is_adapted() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))

    world.tell(_adapter(world, ref), "four")

    assert log[-1] == ("it", ("length", 4))


def test_messages_keep_their_order_by_whatever_address_they_come() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))
    adapter = _adapter(world, ref)
    log.clear()
    ref.tell(1)
    adapter.tell("ab")
    ref.tell(3)

    world.settle()

    assert log == [("it", 1), ("it", ("length", 2)), ("it", 3)]


def test_one_function_has_one_adapter_and_another_one_another() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"))

    first, again, other = _adapter(world, ref), _adapter(world, ref), _adapter(world, ref, str)

    assert first == again
    assert first != other
    assert world.runtime.resolve(first.address) == first


def test_an_adapter_adapts_in_the_actors_own_turn_and_its_failure_is_the_actors() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(TypeError, resume)])
    adapter = _adapter(world, ref)

    adapter.tell(5)  # has no length
    world.tell(adapter, "ab")
    assert log[-1] == ("it", ("length", 2))
    strict = world.spawn(puppet(log, "strict"), "strict")
    world.tell(_adapter(world, strict), 5)

    assert not world.is_alive(strict)


def test_who_asks_by_way_of_an_adapter_that_fails_is_told() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"), supervise=[on(TypeError, resume)])

    outcome = world.ask(_adapter(world, ref), 5)

    assert outcome.error.code == "actor-failed"


def test_who_asks_by_way_of_an_adapter_is_answered() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"))

    def as_query(what: Any) -> Query:
        return asks(lambda ctx, request: ctx.reply(request, what))

    assert world.ask(_adapter(world, ref, as_query), "hello").value == "hello"


def test_what_an_adapter_got_when_the_actor_stops_is_a_dead_letter_and_askers_are_told() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"))
    adapter = _adapter(world, ref)
    ref.tell(stops())
    outcome = world.ask(adapter, "queued")

    world.tell(adapter, "late")

    assert outcome.error.code == "actor-stopped"
    assert world.letters == [("queued", "stopped"), ("late", "stopped")]


def test_an_adapter_lives_on_over_a_restart() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, restart())])
    adapter = _adapter(world, ref)

    world.tell(ref, raises(ValueError("boom")))
    world.tell(adapter, "ab")

    assert log[-1] == ("it", ("length", 2))
