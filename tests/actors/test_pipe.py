"""Work outside of the actors, whose result comes back as a message."""

from __future__ import annotations

import asyncio
from typing import Any

from goatherd.actors import LocalSystem, Ref, on, restart, resume

from .herd import Log, asks, does, puppet, raises, stops
from .manual import Job, World


def _ok(value: Any) -> tuple[str, Any]:
    return "ok", value


def _err(error: BaseException) -> tuple[str, str]:
    return "err", type(error).__name__


def _it(log: Log, world: World) -> Ref[Any]:
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, resume), on(KeyError, restart())])
    log.clear()
    return ref


def test_a_result_comes_as_the_message_that_ok_makes_of_it() -> None:
    world, log, job = World(), Log(), Job()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(job, _ok, _err)))

    job.resolve(1)
    assert log == []
    world.settle()

    assert log == [("it", ("ok", 1))]
    assert not world.cell(ref).work


def test_an_error_comes_as_the_message_that_err_makes_of_it() -> None:
    world, log, job = World(), Log(), Job()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(job, _ok, _err)))

    job.fail(OSError("down"))
    world.settle()

    assert log == [("it", ("err", "OSError"))]


def test_without_err_the_actor_fails_with_the_error() -> None:
    world, log, job = World(), Log(), Job()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(job, _ok)))

    job.fail(KeyError("x"))
    world.settle()

    assert log == [("it", "PreRestart"), ("it", "start")]


def test_without_err_cancelled_work_is_a_failure_of_the_actor_and_of_nobody_else() -> None:
    world, log, job = World(), Log(), Job()
    ref, other = _it(log, world), world.spawn(puppet(log, "other"), "other")
    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(job, _ok)))

    job.fail(asyncio.CancelledError())
    other.tell("alive")
    world.settle()

    assert not world.is_alive(ref)
    assert log[-1] == ("other", "alive")


def test_a_mapper_that_raises_goes_to_supervision() -> None:
    world, log, job = World(), Log(), Job()
    ref = _it(log, world)

    def fails(value: Any) -> Any:
        raise KeyError("x")

    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(job, fails)))
    job.resolve(1)
    world.settle()

    assert log == [("it", "PreRestart"), ("it", "start")]


def test_work_is_cancelled_when_the_actor_stops_and_its_result_is_dropped() -> None:
    world, log, job = World(), Log(), Job()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(job, _ok, _err)), stops())
    assert job.cancelled

    job.fail(asyncio.CancelledError())
    world.settle()

    assert log == [("it", "PostStop")]
    assert world.letters == []


def test_work_goes_on_over_a_restart() -> None:
    world, log, job = World(), Log(), Job()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(job, _ok, _err)), raises(KeyError("x")))
    assert not job.cancelled

    job.resolve(1)
    world.settle()

    assert log[-1] == ("it", ("ok", 1))


def test_a_failing_pipe_is_not_told_to_who_asked_before() -> None:
    world, log, job = World(), Log(), Job()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(job, _ok)))
    kept: list[Ref[Any]] = []
    outcome = world.ask(ref, asks(lambda ctx, request: kept.append(ctx.reply_to(request))))

    job.fail(ValueError("resumed from"))
    world.settle()
    assert outcome.is_open
    kept[0].tell(1)

    assert outcome.value == 1


async def test_a_local_system_cancels_the_work_of_who_stops() -> None:
    log = Log()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with LocalSystem() as system:
        ref = system.spawn(puppet(log, "it", lambda ctx: ctx.pipe_to_self(never, _ok, _err)), "it")
        await system.ask(ref, asks(lambda ctx, request: ctx.reply(request, None)))
        await system.stop(ref)

    assert never.cancelled()
    assert log == [("it", "start"), ("it", "PostStop")]


async def test_a_local_system_brings_a_result_back() -> None:
    log = Log()
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ok(value: int) -> tuple[str, int]:
        answered.set_result(None)
        return "ok", value

    async with LocalSystem() as system:
        system.spawn(puppet(log, "it", lambda ctx: ctx.pipe_to_self(work, ok)), "it")
        work.set_result(3)
        await asyncio.wait_for(answered, 5)

    assert ("it", ("ok", 3)) in log
