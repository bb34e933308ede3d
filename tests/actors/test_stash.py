"""The stash: bounded, first in first out, and askers are not forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from goatherd.actors import Behavior, Context, Ref, StashFull, on, receive, restart, resume, setup, stopped

from .herd import Log, Query, asks, does, puppet, raises
from .manual import World


def closed(log: Log) -> Behavior[Any]:
    """Stashes all, until it is told to open; `stop` stops it, an error is raised."""

    def on_message(ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        if message == "open":
            ctx.unstash_all()
            return puppet(log, "it")
        if message == "stop":
            return stopped
        if isinstance(message, Exception):
            raise message
        ctx.stash()
        log.append(("stashed", ctx.stashed))
        return None

    return receive(on_message)


def _heard(log: Log) -> list[Any]:
    return [what for who, what in log if who == "it" and what != "start"]


def test_what_was_stashed_comes_in_its_order_before_what_is_in_the_mailbox() -> None:
    world, log = World(), Log()
    ref = world.spawn(closed(log))

    world.tell(ref, 1, 2, 3, "open", 4, 5)

    assert _heard(log) == [1, 2, 3, 4, 5]


def test_a_message_may_be_stashed_again_and_keeps_its_place() -> None:
    world, log = World(), Log()

    def on_message(ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        if message == "again":
            ctx.unstash_all()
        elif message == "open":
            ctx.unstash_all()
            return puppet(log, "it")
        else:
            ctx.stash()
        return None

    ref = world.spawn(receive(on_message))

    world.tell(ref, 1, 2, "again", 3, "open", 4)

    assert _heard(log) == [1, 2, 3, 4]


def test_the_answer_to_a_stashed_request_still_reaches_its_asker() -> None:
    world, log = World(), Log()
    ref = world.spawn(closed(log))
    first = world.ask(ref, asks(lambda ctx, request: ctx.reply(request, "one")))
    second = world.ask(ref, asks(lambda ctx, request: ctx.reply(request, "two")))
    assert first.is_open
    assert second.is_open

    world.tell(ref, "open")

    assert (first.value, second.value) == ("one", "two")


def test_the_stash_is_bounded_and_what_is_too_much_is_a_failure() -> None:
    world, log = World(), Log()
    ref = world.spawn(closed(log), stash=2, supervise=[on(StashFull, resume)])
    world.tell(ref, 1, 2)

    outcome = world.ask(ref, asks(lambda ctx, request: None))
    world.tell(ref, "open")

    assert outcome.error.code == "stash-full"
    assert _heard(log) == [1, 2]


def test_a_full_stash_without_a_rule_stops_the_actor() -> None:
    world, log = World(), Log()
    ref = world.spawn(closed(log), stash=1)

    world.tell(ref, 1, 2)

    assert not world.is_alive(ref)
    assert world.letters == [(1, "stopped")]


def test_unstashing_makes_room_again() -> None:
    world, log = World(), Log()

    def on_message(ctx: Context[Any], message: Any) -> None:
        if message == "again":
            ctx.unstash_all()
            log.append(("room", ctx.stashed))
        elif len(log) < 2:
            ctx.stash()
            log.append(("stashed", ctx.stashed))
        else:
            log.append(("it", message))

    ref = world.spawn(receive(on_message), stash=2)
    world.tell(ref, 1, 2, "again")

    assert log == [("stashed", 1), ("stashed", 2), ("room", 0), ("it", 1), ("it", 2)]


def test_what_is_stashed_when_the_actor_stops_is_a_dead_letter_and_askers_are_told() -> None:
    world, log = World(), Log()
    ref = world.spawn(closed(log))
    world.tell(ref, 1)
    outcome = world.ask(ref, asks(lambda ctx, request: None))

    world.tell(ref, "stop")

    assert outcome.error.code == "actor-stopped"
    assert [reason for _, reason in world.letters] == ["stopped", "stopped"]


def test_what_is_stashed_survives_a_restart_and_comes_before_the_mailbox() -> None:
    world, log = World(), Log()
    starts: list[int] = []

    def make(ctx: Context[Any]) -> Behavior[Any]:
        starts.append(1)
        return closed(log) if len(starts) == 1 else puppet(log, "it")

    ref = world.spawn(setup(make), supervise=[on(ValueError, restart())])

    world.tell(ref, 1, 2, ValueError("boom"), 3)

    assert _heard(log) == [1, 2, 3]


def test_only_a_message_can_be_stashed() -> None:
    world, log = World(), Log()

    def start(ctx: Context[Any]) -> None:
        with pytest.raises(ValueError, match="Only a message"):
            ctx.stash()
        log.append(("it", "refused"))

    world.spawn(puppet(log, "it", start))

    assert log[-1] == ("it", "refused")


def test_unstashing_nothing_is_nothing() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))

    world.tell(ref, does(lambda ctx: ctx.unstash_all()), 1)

    assert _heard(log) == [1]


def test_what_is_unstashed_may_be_more_than_a_bounded_mailbox_holds() -> None:
    world, log = World(), Log()
    ref = world.spawn(closed(log), mailbox=2)
    world.tell(ref, 1, 2)
    world.tell(ref, 3, 4)

    world.tell(ref, "open")

    assert _heard(log) == [1, 2, 3, 4]
    assert world.letters == []


def test_a_stashed_request_that_fails_later_tells_its_own_asker() -> None:
    world, log = World(), Log()
    ref = world.spawn(closed(log), supervise=[on(ValueError, resume)])
    boom = raises(ValueError("boom"))
    stashed = world.ask(ref, Query(lambda ctx, request: boom.act(ctx)))
    later: Ref[Any] = ref

    world.tell(later, "open")

    assert stashed.error.code == "actor-failed"
