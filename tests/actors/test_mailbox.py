"""Bounded mailboxes: what is too much is a dead letter, and an asker is told."""

from __future__ import annotations

from typing import Any

from goatherd.actors import LocalSystem, Ref, on, resume

from .herd import Add, Counter, Log, Total, asks, does, puppet, raises, stops
from .manual import World


def test_a_mailbox_without_a_bound_takes_all() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))

    world.tell(ref, *range(5_000))

    assert len(log) == 5_001
    assert world.letters == []


def test_what_a_bounded_mailbox_does_not_hold_is_a_dead_letter() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), mailbox=2)

    world.tell(ref, 1, 2, 3, 4)

    assert log[1:] == [("it", 1), ("it", 2)]
    assert world.letters == [(3, "mailbox-full"), (4, "mailbox-full")]


def test_who_asks_a_full_mailbox_is_told_at_once() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), mailbox=1)
    ref.tell(1)

    outcome = world.ask(ref, Total(), settle=False)

    assert outcome.error.code == "mailbox-full"
    assert outcome.error.retryable


def test_a_mailbox_that_was_full_takes_messages_again() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), mailbox=1)

    world.tell(ref, 1, 2)
    world.tell(ref, 3)

    assert log[1:] == [("it", 1), ("it", 3)]


def test_adapters_count_for_the_bound() -> None:
    world, log = World(), Log()
    made: list[Ref[Any]] = []
    ref = world.spawn(puppet(log, "it", lambda ctx: made.append(ctx.adapter(str))), mailbox=1)
    ref.tell(1)

    world.tell(made[0], 2)

    assert world.letters == [(2, "mailbox-full")]


def test_timers_answers_and_ends_of_others_always_have_room() -> None:
    world, log = World(), Log()
    other = world.spawn(puppet(log, "other"), "other")
    ref = world.spawn(puppet(log, "it"), mailbox=1)
    world.tell(ref, does(lambda ctx: ctx.timers.once("key", "rang", "1s")))
    world.tell(ref, does(lambda ctx: ctx.watch(other)))
    answer = asks(lambda ctx, request: ctx.reply(request, "answer"))
    world.tell(ref, does(lambda ctx: ctx.ask(other, answer, str, str, timeout="1s")))
    log.clear()
    world.environment.clock += 1
    ref.tell("fills it")
    world.ring()
    world.stop(other)

    world.settle()

    assert ("it", "rang") in log
    assert ("it", "Terminated other") in log
    assert world.letters == []


def test_a_stop_does_not_wait_behind_messages() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))
    for number in range(100):
        ref.tell(number)
    world.stop(ref)

    world.settle()

    assert log == [("it", "start"), ("it", "PostStop")]
    assert len(world.letters) == 100


def test_letters_of_a_dead_actor_are_in_their_order_and_askers_are_told() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))
    ref.tell(stops())
    ref.tell(1)
    outcome = world.ask(ref, Total(), settle=False)
    ref.tell(2)

    world.settle()

    assert [message for message, _ in world.letters] == [1, Total(), 2]
    assert outcome.error.code == "actor-stopped"


def test_a_failure_that_is_resumed_from_does_not_lose_what_waits() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, resume)])

    world.tell(ref, raises(ValueError("boom")), 1, 2)

    assert log[1:] == [("it", 1), ("it", 2)]


async def test_a_local_system_reports_dead_letters() -> None:
    letters: list[str] = []
    async with LocalSystem(on_dead_letter=lambda letter: letters.append(letter.reason)) as system:
        ref = system.spawn(Counter(), "it", mailbox=1)
        ref.tell(Add(1))
        ref.tell(Add(1))
        await system.stop(ref)
        ref.tell(Add(1))

    assert letters == ["mailbox-full", "stopped", "stopped"]
