"""The asynchronous testkit, each of its methods used as a test of an actor would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from goatherd.actors import (
    Behavior,
    Context,
    Ref,
    Refused,
    Request,
    behavior,
    ignore,
    message,
    on,
    receive,
    restart_with_backoff,
    setup,
    stopped,
)
from goatherd.actors.testkit import ActorTestKit, ManualTime, Probe, RealTime

# -- the actor under test: a beacon, which blinks until it is told to be dark


@message
class Blink:
    pass


@message
class Flash:
    number: int


@message
class Count(Request[int]):
    pass


@message
class Jam:
    pass


@message
class Dark:
    pass


Command = Blink | Count | Jam | Dark


@behavior("tests.kit.beacon")
class Beacon(Behavior[Command]):
    """Flashes each minute."""

    to: Ref[Flash]
    flashes: int = 0

    def on_start(self, ctx: Context[Command]) -> Behavior[Command] | None:
        ctx.timers.every("blink", Blink(), "1m")
        return None

    def receive(self, ctx: Context[Command], message: Command) -> Behavior[Command] | None:
        match message:
            case Blink():
                self.flashes += 1
                self.to.tell(Flash(self.flashes))
            case Count():
                ctx.reply(message, self.flashes)
            case Jam():
                raise OSError("jammed")
            case Dark():
                return stopped
        return None


@pytest.fixture
async def kit() -> AsyncIterator[ActorTestKit]:
    async with ActorTestKit() as kit:
        yield kit


# -- time


async def test_advance_has_everything_ring_that_is_due(kit: ActorTestKit) -> None:
    probe: Probe[Flash] = kit.probe()
    await kit.spawn(Beacon(probe.ref), "beacon")
    await probe.expect_nothing()
    await kit.advance("2m")
    await probe.expect(Flash(1))
    await probe.expect(Flash(2))
    await probe.expect_nothing()


async def test_timers_ring_in_their_order_each_at_its_own_time(kit: ActorTestKit) -> None:
    probe: Probe[tuple[str, float]] = kit.probe()

    def make(ctx: Context[str]) -> Behavior[str]:
        ctx.timers.once("late", "late", "3s")
        ctx.timers.once("early", "early", "1s")

        def note(ctx: Context[str], message: str) -> Behavior[str] | None:
            probe.ref.tell((message, ctx.now()))
            if message == "early":
                ctx.timers.once("next", "next", "1s")
            return None

        return receive(note)

    await kit.spawn(setup(make), "notes")
    await kit.advance("1h")
    assert [await probe.receive() for _ in range(3)] == [("early", 1.0), ("next", 2.0), ("late", 3.0)]


async def test_manual_time_starts_where_it_is_told_to() -> None:
    time = ManualTime(start=100.0)
    async with ActorTestKit(time=time) as kit:
        await kit.advance("1m")
    assert time.now() == 160.0


async def test_a_timer_without_delay_rings_while_the_clock_stands(kit: ActorTestKit) -> None:
    probe: Probe[str] = kit.probe()

    def make(ctx: Context[str]) -> Behavior[str]:
        ctx.timers.once("now", "now", 0)
        return receive(lambda ctx, message: probe.ref.tell(message))

    await kit.spawn(setup(make), "hasty")
    await probe.expect("now")


async def test_a_restart_waits_for_its_backoff(kit: ActorTestKit) -> None:
    probe: Probe[Flash] = kit.probe()
    rules = [on(OSError, restart_with_backoff("10s", "1m"))]
    beacon = await kit.spawn(Beacon(probe.ref), "beacon", supervise=rules)
    await kit.tell(beacon, Jam())
    await kit.tell(beacon, Blink())
    await kit.advance("9s")
    await probe.expect_nothing()
    await kit.advance("1s")
    await probe.expect(Flash(1))


async def test_real_time_waits_for_what_comes() -> None:
    async with ActorTestKit(time=RealTime()) as kit:
        probe: Probe[str] = kit.probe()

        def make(ctx: Context[str]) -> Behavior[str]:
            ctx.timers.every("tick", "tick", "20ms")
            return receive(lambda ctx, message: probe.ref.tell(message))

        ref = await kit.spawn(setup(make), "ticker")
        await probe.expect("tick")
        await kit.stop(ref)
        await probe.expect_terminated(ref)


async def test_real_time_has_patience_only_so_long() -> None:
    async with ActorTestKit(time=RealTime(), patience="10ms") as kit:
        probe = kit.probe("empty-handed")
        await probe.expect_nothing("1ms")
        with pytest.raises(AssertionError, match="empty-handed expected 'never', but nothing has come"):
            await probe.expect("never")


async def test_advance_in_real_time_lets_it_pass() -> None:
    time = RealTime()
    async with ActorTestKit(time=time) as kit:
        before = time.now()
        await kit.advance("5ms")
        assert time.now() > before


# -- probes


async def test_a_probe_takes_messages_in_their_order(kit: ActorTestKit) -> None:
    probe: Probe[int] = kit.probe()
    for number in (1, 2, 3):
        await kit.tell(probe.ref, number)
    assert await probe.receive() == 1
    assert await probe.expect(2) == 2
    assert await probe.expect_type(int) == 3
    await probe.expect_nothing()


async def test_a_probe_shows_what_is_there_instead(kit: ActorTestKit) -> None:
    probe = kit.probe("p")
    with pytest.raises(AssertionError, match="p expected a message, but nothing has come"):
        await probe.receive()
    probe.ref.tell(2)
    probe.ref.tell("three")
    with pytest.raises(AssertionError, match=r"p expected 1, but 2 has come\. Behind it: 'three'"):
        await probe.expect(1)
    with pytest.raises(AssertionError, match="p expected a str, but 2 has come"):
        await probe.expect_type(str)
    with pytest.raises(AssertionError, match="p expected nothing, but there is 2, 'three'"):
        await probe.expect_nothing()
    assert [await probe.receive(), await probe.receive()] == [2, "three"]


async def test_a_probe_answers_what_it_was_asked(kit: ActorTestKit) -> None:
    probe: Probe[Count] = kit.probe()
    asked = asyncio.create_task(kit.ask(probe.ref, Count()))
    await probe.expect(Count())
    probe.reply(3)
    assert await asked == 3
    asked = asyncio.create_task(kit.ask(probe.ref, Count()))
    await probe.expect(Count())
    probe.refuse(Refused("not now"))
    with pytest.raises(Refused, match="not now"):
        await asked
    with pytest.raises(AssertionError, match="has nobody to answer"):
        probe.reply(3)


async def test_a_probe_is_told_that_an_actor_has_stopped(kit: ActorTestKit) -> None:
    probe = kit.probe()
    beacon = await kit.spawn(Beacon(probe.ref), "beacon")
    with pytest.raises(AssertionError, match=r"expected that <test/beacon#\d+> stops, but only nothing did"):
        await probe.expect_terminated(beacon)
    await kit.tell(beacon, Dark())
    await probe.expect_terminated(beacon)
    late = kit.probe()
    await late.expect_terminated(beacon)


async def test_a_probe_waits_for_work_that_is_under_way(kit: ActorTestKit) -> None:
    probe: Probe[int] = kit.probe()

    def make(ctx: Context[int]) -> Behavior[int]:
        # In a thread: the one thing that the kit can't drain.
        ctx.pipe_to_self(asyncio.to_thread(sum, range(1_000)), int)
        return receive(lambda ctx, message: probe.ref.tell(message))

    await kit.spawn(setup(make), "worker")
    await probe.expect(499_500)


# -- the kit


async def test_ask_gives_the_answer(kit: ActorTestKit) -> None:
    beacon = await kit.spawn(Beacon(kit.probe().ref), "beacon")
    await kit.advance("3m")
    assert await kit.ask(beacon, Count()) == 3


async def test_an_ask_that_nobody_answers_fails_the_test() -> None:
    async with ActorTestKit(patience="10ms") as kit:
        mute = await kit.spawn(ignore, "mute")
        with pytest.raises(AssertionError, match=r"mute#1> did not answer Count\(\) in 0\.01 s"):
            await kit.ask(mute, Count())


async def test_stop_waits_until_the_actor_has_stopped(kit: ActorTestKit) -> None:
    beacon = await kit.spawn(Beacon(kit.probe().ref), "beacon")
    await kit.stop(beacon)
    await kit.tell(beacon, Blink())
    assert [(letter.message, letter.reason) for letter in kit.dead_letters] == [(Blink(), "stopped")]


async def test_settle_lets_all_come_to_rest(kit: ActorTestKit) -> None:
    seen: list[int] = []

    def count_down(ctx: Context[int], message: int) -> Behavior[int] | None:
        seen.append(message)
        if message:
            ctx.self.tell(message - 1)
        return None

    ref = await kit.spawn(receive(count_down), "count")
    ref.tell(3)
    await kit.settle()
    assert seen == [3, 2, 1, 0]


async def test_actors_that_never_rest_fail_the_test() -> None:
    async with ActorTestKit(patience="20ms") as kit:

        def spin(ctx: Context[str], message: str) -> Behavior[str] | None:
            ctx.self.tell(message)
            return None

        ref = await kit.spawn(receive(spin), "spin")
        ref.tell("on")
        with pytest.raises(AssertionError, match="did not come to rest"):
            await kit.settle()


async def test_luck_is_the_same_for_the_same_seed() -> None:
    async def throw(seed: int) -> float:
        async with ActorTestKit(seed=seed) as kit:
            probe: Probe[float] = kit.probe()

            def make(ctx: Context[str]) -> Behavior[str]:
                probe.ref.tell(ctx.random.random())
                return ignore

            await kit.spawn(setup(make), "dice")
            return await probe.receive()

    assert await throw(1) == await throw(1) != await throw(2)
