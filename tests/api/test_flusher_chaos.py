"""Whatever is lost, late, repeated or dies, in any order: nobody is told too early, nothing stays away."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.flushing import World, play

Step = tuple[str, int]
STEPS = st.tuples(
    st.sampled_from(
        [
            *["post", "post", "answer", "answer", "write", "fail", "apply", "deliver", "lose"] * 3,
            *["again", "forget answers"] * 2,
            *["restart", "forget flushers", "continue as new", "flush", "evict"],
        ]
    ),
    st.integers(0, 7),
)


async def live(steps: Sequence[Step]) -> None:
    world = World()
    sent: list[str] = []
    for step, n in steps:
        await take(world, sent, step, n)
    await world.finish()
    assert world.store.events.keys() == set(range(1, world.actor.log.last_seq + 1))
    assert len(set(world.store.events.values())) == world.actor.log.last_seq == len(world.actor.posted)


async def take(world: World, sent: list[str], step: str, n: int) -> None:
    who = n % 2
    match step:
        case "post":
            sent.append(await world.post(who))
        case "again" if sent:
            await world.post(who, sent[n % len(sent)])
        case "answer" if world.open:
            await world.answer(world.open[n % len(world.open)])
        case "apply" if world.unapplied:
            await world.apply(world.unapplied[n % len(world.unapplied)])
        case "deliver":
            for asked in [one for one in world.open if one.answer is not None][n % 3 :]:
                asked.deliver()
        case "lose" if world.open:
            world.open[n % len(world.open)].lose()
        case "write" if world.store.writes:
            world.store.writes[n % len(world.store.writes)].succeed()
        case "fail" if world.store.writes:
            world.store.writes[n % len(world.store.writes)].fail(kept=n)
        case "restart":
            await world.restart(who)
        case "forget answers":
            world.actor.kept.clear()
        case "forget flushers":
            world.actor.handing.handed.clear()
        case "continue as new":
            world.actor.continue_as_new(remembering=bool(who))
        case "flush":
            world.flush()
        case "evict":
            world.flushers[who]._chains.clear()
        case _:
            pass
    await world.settle()


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, min_size=15, max_size=60))
def test_any_order_of_events_ends_well(steps: list[Step]) -> None:
    play(live(steps))
