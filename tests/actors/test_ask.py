"""Asking, from outside and from another actor, and who answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from goatherd.actors import (
    AskTimeout,
    Behavior,
    Context,
    LocalSystem,
    Ref,
    Refused,
    behavior,
    empty,
    on,
    receive,
    restart,
    resume,
    stopped,
)

from .herd import Do, Log, Query, Total, asks, does, puppet, raises, stops
from .manual import World


def _two(log: Log, world: World, **options: Any) -> tuple[Ref[Any], Ref[Any]]:
    asker, asked = world.spawn(puppet(log, "it"), **options), world.spawn(puppet(log, "asked"), "asked")
    log.clear()
    return asker, asked


def _ask(asked: Ref[Any], request: Any, timeout: Any = "5s", ok: Any = None) -> Do:
    def ask(ctx: Context[Any]) -> None:
        ctx.ask(asked, request, ok or (lambda value: ("ok", value)), lambda e: e.code, timeout=timeout)  # type: ignore[attr-defined]

    return does(ask)


ANSWER = asks(lambda ctx, request: ctx.reply(request, 42))
SILENCE = asks(lambda ctx, request: None)


def test_an_answer_comes_back_as_a_message() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)

    world.tell(asker, _ask(asked, ANSWER))

    assert log == [("it", ("ok", 42))]
    assert world.environment.due is None


def test_without_an_answer_in_time_the_asker_is_told_so() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)

    world.tell(asker, _ask(asked, SILENCE))
    world.advance("4.9s")
    assert log == []
    world.advance("0.2s")

    assert log == [("it", "ask-timeout")]


def test_a_late_answer_is_dropped() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)
    kept: list[Ref[Any]] = []

    world.tell(asker, _ask(asked, asks(lambda ctx, request: kept.append(ctx.reply_to(request)))))
    world.advance("5s")
    world.tell(kept[0], "late")

    assert log == [("it", "ask-timeout")]
    assert world.letters == []


def test_a_second_answer_is_dropped() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)

    def twice(ctx: Context[Any], request: Query) -> None:
        ctx.reply(request, 1)
        ctx.reply(request, 2)

    world.tell(asker, _ask(asked, asks(twice)))

    assert log == [("it", ("ok", 1))]


def test_asking_who_has_stopped_fails_at_once() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)
    world.tell(asked, stops())
    log.clear()

    world.tell(asker, _ask(asked, ANSWER))

    assert log == [("it", "actor-stopped")]
    assert world.environment.due is None


def test_asking_who_has_stopped_fails_at_once_with_the_address_in_a_field_too() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)
    world.tell(asked, stops())
    log.clear()

    world.tell(asker, _ask(asked, lambda reply_to: ("please", reply_to)))

    assert log == [("it", "actor-stopped")]


def test_who_stops_before_it_comes_to_a_request_tells_the_asker() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)
    asker.tell(_ask(asked, ANSWER))
    asked.tell(stops())

    world.settle()

    assert log[-1] == ("it", "actor-stopped")


def test_a_request_may_carry_the_address_of_its_answer() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)

    world.tell(asker, _ask(asked, lambda reply_to: does(lambda ctx: reply_to.tell(7))))

    assert log == [("it", ("ok", 7))]


def test_a_refusal_is_told_with_its_own_error() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)

    world.tell(asker, _ask(asked, asks(lambda ctx, request: ctx.refuse(request, Refused("no")))))

    assert log == [("it", "refused")]
    assert world.is_alive(asked)


def test_an_unhandled_request_is_told_to_the_asker() -> None:
    world, log = World(), Log()
    asker, _ = _two(log, world)
    deaf = world.spawn(empty, "deaf")

    world.tell(asker, _ask(deaf, ANSWER))

    assert log == [("it", "unhandled")]


def test_who_fails_at_a_request_tells_the_asker_only_that() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"))
    boom = raises(ValueError("a secret"))

    outcome = world.ask(ref, Query(lambda ctx, request: boom.act(ctx)))

    assert outcome.error.code == "actor-failed"
    assert "secret" not in outcome.error.message


def test_an_error_of_ours_is_told_as_it_is() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"), supervise=[on(Refused, resume)])
    no = raises(Refused("not today"))

    outcome = world.ask(ref, Query(lambda ctx, request: no.act(ctx)))

    assert (outcome.error.code, outcome.error.message) == ("refused", "not today")
    assert world.is_alive(ref)


def _raises(value: Any) -> Any:
    raise ValueError("a mapper that fails")


def test_a_mapper_that_raises_goes_to_supervision() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)

    world.tell(asker, _ask(asked, ANSWER, ok=_raises))

    assert not world.is_alive(asker)


def test_a_mapper_that_raises_may_be_resumed_from() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world, supervise=[on(ValueError, resume)])

    world.tell(asker, _ask(asked, ANSWER, ok=_raises), _ask(asked, ANSWER))

    assert log == [("it", ("ok", 42))]


def test_a_mapper_that_raises_is_not_told_to_who_asked_before() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world, supervise=[on(ValueError, resume)])
    kept: list[Ref[Any]] = []
    world.tell(asker, _ask(asked, asks(lambda ctx, request: kept.append(ctx.reply_to(request))), ok=_raises))
    outcome = world.ask(asker, asks(lambda ctx, request: kept.append(ctx.reply_to(request))))

    world.tell(kept[0], "an answer that its mapper fails at")
    assert outcome.is_open
    world.tell(kept[1], "later")

    assert outcome.value == "later"


@pytest.mark.parametrize("timeout", [0, "0s", -1, float("inf")])
def test_an_ask_needs_a_positive_timeout(timeout: Any) -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)

    def ask(ctx: Context[Any]) -> None:
        with pytest.raises(ValueError, match=r"timeout|duration"):
            ctx.ask(asked, ANSWER, str, str, timeout=timeout)
        log.append(("it", "refused"))

    world.tell(asker, does(ask))

    assert log == [("it", "refused")]


def test_the_address_of_an_asker_may_be_kept_for_later() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"))
    kept: list[Ref[Any]] = []
    one = world.ask(ref, asks(lambda ctx, request: kept.append(ctx.reply_to(request))))
    other = world.ask(ref, asks(lambda ctx, request: kept.append(ctx.reply_to(request))))

    kept[1].tell("other")
    kept[0].tell("one")

    assert (one.value, other.value) == ("one", "other")


def test_only_the_message_that_is_being_handled_has_an_asker() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))
    old: list[Query] = []
    world.ask(ref, asks(lambda ctx, request: old.append(request)))

    def late(ctx: Context[Any]) -> None:
        with pytest.raises(ValueError, match="being handled"):
            ctx.reply(old[0], 1)
        log.append(("it", "refused"))

    world.tell(ref, does(late))

    assert log[-1] == ("it", "refused")


def test_a_request_that_was_told_has_nobody_to_answer() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"))

    world.tell(ref, ANSWER)

    assert world.is_alive(ref)
    assert world.letters == []


def test_forward_keeps_the_asker() -> None:
    world, log = World(), Log()
    front, back = _two(log, world)

    def on_back(ctx: Context[Any], request: Query) -> None:
        if ctx.self == front:
            ctx.forward(back, request)
        else:
            ctx.reply(request, ctx.name)

    outcome = world.ask(front, asks(on_back))

    assert outcome.value == "asked"


def test_a_forwarded_request_to_the_dead_tells_the_asker() -> None:
    world, log = World(), Log()
    front, back = _two(log, world)
    world.tell(back, stops())

    outcome = world.ask(front, asks(lambda ctx, request: ctx.forward(back, request)))

    assert outcome.error.code == "actor-stopped"


def test_an_answer_still_comes_after_the_askers_restart() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world, supervise=[on(ValueError, restart())])
    kept: list[Ref[Any]] = []
    world.tell(asker, _ask(asked, asks(lambda ctx, request: kept.append(ctx.reply_to(request)))))

    world.tell(asker, raises(ValueError("boom")))
    world.tell(kept[0], 1)

    assert log[-1] == ("it", ("ok", 1))


def test_an_answer_to_who_has_stopped_is_dropped() -> None:
    world, log = World(), Log()
    asker, asked = _two(log, world)
    kept: list[Ref[Any]] = []
    world.tell(asker, _ask(asked, asks(lambda ctx, request: kept.append(ctx.reply_to(request)))), stops())
    log.clear()

    world.tell(kept[0], 1)
    world.advance("1h")

    assert log == []


@behavior("tests.ask.keeper")
class Keeper(Behavior[Any]):
    """Keeps an asker in its state."""

    asker: Ref[Any] | None = None

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        if isinstance(message, Total):
            self.asker = ctx.reply_to(message)
        elif self.asker is not None:
            self.asker.tell(message)
        return None


def test_an_asker_that_is_kept_in_the_state_is_answered_later() -> None:
    world = World()
    ref = world.spawn(Keeper())
    outcome = world.ask(ref, Total())

    world.tell(ref, 5)

    assert outcome.value == 5


async def test_a_local_system_times_out() -> None:
    async with LocalSystem() as system:
        ref = system.spawn(puppet(Log(), "it"), "it")

        with pytest.raises(AskTimeout):
            await system.ask(ref, SILENCE, timeout="10ms")
        assert not system.runtime.promises


async def test_who_no_longer_waits_for_an_answer_leaves_nothing_behind() -> None:
    async with LocalSystem() as system:
        ref = system.spawn(receive(lambda ctx, message: stopped if message == "stop" else None), "it")
        asking = asyncio.create_task(system.ask(ref, SILENCE))
        await asyncio.sleep(0)

        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        assert not system.runtime.promises
