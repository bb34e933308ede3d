"""A post is confirmed when the store has its message and all before it, whatever was lost on the way."""

from __future__ import annotations

import asyncio

import pytest

from api.flusher import Flusher
from goatherd.contracts.chat import Changed, HandOver
from tests.api.flushing import SESSION, Actor, World


async def posted(world: World, who: int = 0) -> str:
    """A post that is answered, stored and confirmed."""
    ask_id = await world.post(who)
    await world.answer(world.open[0])
    world.store.writes[0].succeed()
    await world.settle()
    return ask_id


async def test_each_answer_brings_only_what_is_new() -> None:
    world = World()
    for _ in range(3):
        await world.post(0)
    for asked in world.open:
        await world.answer(asked)
    handed = [[event.seq for event in asked.answer.events] for asked in world.asked if asked.answer]
    assert handed == [[1], [2], [3]]
    # The first was written at once, the others together when that was done.
    world.store.writes[0].succeed()
    await world.settle()
    assert world.answered == 1
    assert [event.seq for event in world.store.writes[0].events] == [2, 3]
    await world.finish()
    assert world.answered == 3


async def test_a_lost_answer_is_a_gap_and_all_is_handed_over_once_for_all_who_wait() -> None:
    world = World()
    for _ in range(4):
        await world.post(0)
    lost, *others = world.open
    await world.apply(lost)
    lost.lose()
    for asked in others:
        await world.answer(asked)
    (catching_up,) = world.open
    assert isinstance(catching_up.request, HandOver)
    assert not world.store.events
    await world.answer(catching_up)
    assert [event.seq for event in world.store.writes[0].events] == [1, 2, 3, 4]
    await world.finish()
    assert (world.answered, world.refused) == (3, 1)


async def test_a_failed_write_takes_with_it_what_hangs_on_it() -> None:
    world = World()
    await posted(world)
    for _ in range(3):
        await world.post(0)
    for asked in world.open:
        await world.answer(asked)
    (write,) = world.store.writes
    assert [event.seq for event in write.events] == [2]
    write.fail()
    await world.settle()
    # Three and four were waiting for their turn: without two they are not written.
    assert not world.store.writes
    assert (world.answered, world.refused) == (1, 3)
    assert sorted(world.store.events) == [1]
    await world.post(0)
    await world.answer(world.open[0])
    assert [event.seq for event in world.store.writes[0].events] == [2, 3, 4, 5]
    await world.finish()
    assert world.answered == 2


async def test_a_kept_answer_does_not_pretend_to_another_process_that_it_has_what_came_before() -> None:
    world = World()
    await world.post(0)
    again = await world.post(0)
    for asked in world.open:
        await world.apply(asked)
    await world.restart(0)  # It dies before it writes the first.
    await world.post(1, again)
    await world.answer(world.open[-1])
    handed = world.asked[-2].answer
    assert handed is not None
    assert [event.seq for event in handed.events] == [2]
    (catching_up,) = [asked for asked in world.open if isinstance(asked.request, HandOver)]
    await world.answer(catching_up)
    assert [event.seq for event in world.store.writes[0].events] == [1, 2]
    await world.finish()


async def test_two_processes_in_turn_need_no_handing_over() -> None:
    world = World()
    for number in range(6):
        await posted(world, number % 2)
    assert not any(isinstance(asked.request, HandOver) for asked in world.asked)
    # What each has written it says with its next post.
    assert world.actor.log.stored == 4
    assert world.answered == 6


async def test_answers_in_another_order_are_stored_in_theirs() -> None:
    world = World()
    for _ in range(2):
        await world.post(0)
    first, second = world.open
    await world.apply(first)
    await world.answer(second)
    assert isinstance(world.open[-1].request, HandOver)
    first.deliver()
    await world.finish()
    assert world.answered == 2


@pytest.mark.parametrize("again", ["with a new message", "with the one before"])
async def test_a_run_that_was_reset_is_told_by_the_store(again: str) -> None:
    world = World()
    await posted(world)
    ask_id = await posted(world)
    other = Actor()  # The same session, from before its first event.
    other._clock.random.seed(2)
    handed = other.post(ask_id if again == "with the one before" else "new", None)
    flusher: Flusher = world.flushers[0]

    async def let_through() -> None:
        await world.settle()
        world.store.writes[0].succeed()

    fenced, _ = await asyncio.gather(flusher.take(SESSION, handed), let_through())
    assert fenced


async def test_all_who_wait_behind_one_of_a_reset_run_are_told_the_same() -> None:
    world = World()
    await posted(world)
    await posted(world)
    other = Actor()
    other._clock.random.seed(2)
    flusher: Flusher = world.flushers[0]
    takes = []
    for n in range(3):
        takes.append(asyncio.create_task(flusher.take(SESSION, other.post(f"new {n}", "it"))))
        await world.settle()
    # The others wait for the first one's write.
    (write,) = world.store.writes
    write.succeed()
    assert await asyncio.gather(*takes) == [True] * 3


async def test_nothing_to_hand_needs_no_write() -> None:
    world = World()
    await posted(world)
    assert not await world.flushers[0].take(SESSION, Changed(after=1, stored=0))
    assert not await world.flushers[1].take(SESSION, Changed(after=1, stored=1))
    assert not world.store.writes


async def test_a_process_that_is_forgotten_by_the_actor_is_handed_more_not_less() -> None:
    world = World()
    await world.post(0)
    await world.answer(world.open[0])
    for number in range(20):
        world.actor.post(f"by another {number}", f"another {number}")
    await world.post(0)
    await world.answer(world.open[0])
    await world.finish()
    assert world.answered == 2
    assert world.store.has(22)


async def test_a_repeated_post_waits_for_the_write_of_the_first() -> None:
    world = World()
    ask_id = await world.post(0)
    await world.answer(world.open[0])
    world.actor.kept.clear()
    await world.post(0, ask_id)
    await world.answer(world.open[0])
    again = world.asked[-1].answer
    assert again is not None
    assert (again.events, again.upto) == ([], 1)
    assert world.answered == 0
    world.store.writes[0].fail()
    await world.settle()
    assert world.refused == 2
    await world.finish()


async def test_an_answer_that_comes_after_a_failed_write_is_not_written_without_what_failed() -> None:
    world = World()
    for _ in range(3):
        await world.post(0)
    first, second, third = world.open
    await world.answer(first)
    await world.answer(second)
    await world.apply(third)
    world.store.writes[0].fail()
    await world.settle()
    third.deliver()
    await world.settle()
    assert not world.store.writes
    assert isinstance(world.open[-1].request, HandOver)
    await world.finish()
    assert (world.answered, world.refused) == (1, 2)
