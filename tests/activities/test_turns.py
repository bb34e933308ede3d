"""Who is computed next: fair between callers, like with like, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from activities.backends.turns import Turns, Waiting

callers = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 600)), min_size=1, max_size=60)


def line(*waiting: tuple[str, int]) -> Turns[int]:
    turns: Turns[int] = Turns()
    for n, (caller, weight) in enumerate(waiting):
        turns.add(Waiting(n, caller, weight))
    return turns


def everything(turns: Turns[int], most: int, most_weight: int) -> list[list[Waiting[int]]]:
    batches = []
    while batch := turns.take(most, most_weight):
        batches.append(batch)
    return batches


@given(callers, st.integers(1, 16), st.integers(1, 2_000))
def test_each_goes_once_and_bounds_are_kept(waiting: list[tuple[str, int]], most: int, weight: int) -> None:
    batches = everything(line(*waiting), most, weight)
    assert sorted(one.what for batch in batches for one in batch) == list(range(len(waiting)))
    for batch in batches:
        assert len(batch) <= most
        assert len(batch) == 1 or len(batch) * max(one.weight for one in batch) <= weight


@given(callers, st.integers(1, 16))
def test_equal_ones_of_a_caller_go_in_their_order(waiting: list[tuple[str, int]], most: int) -> None:
    batches = everything(line(*((caller, 7) for caller, _ in waiting)), most, 10_000)
    for caller in "abcde":
        mine = [one.what for batch in batches for one in batch if one.caller == caller]
        assert mine == sorted(mine)


@given(callers, st.integers(1, 4))
def test_nobody_waits_longer_than_the_turns_before_him(waiting: list[tuple[str, int]], most: int) -> None:
    turns = line(*waiting)
    place = {n: sum(other == who for other, _ in waiting[:n]) for n, (who, _) in enumerate(waiting)}
    for round_, batch in enumerate(everything(turns, most, 10_000)):
        for one in batch:
            assert round_ < (place[one.what] + 1) * 5


def test_callers_share_a_batch_evenly() -> None:
    turns = line(*[("many", 3)] * 100, *[("few", 3)] * 4)
    batch = turns.take(8, 1_000)
    assert [one.caller for one in batch].count("few") == 4


def test_like_ones_go_together() -> None:
    turns = line(*[("a", 4), ("a", 500)] * 8)
    first, second = everything(turns, 64, 16_384)
    assert {one.weight for one in first} == {4}
    assert {one.weight for one in second} == {500}


def test_oversized_one_goes_alone() -> None:
    turns = line(("a", 5_000), ("a", 5_000), ("b", 5_001))
    assert [len(batch) for batch in everything(turns, 64, 4_096)] == [1, 1, 1]


def test_one_that_left_is_not_taken() -> None:
    turns: Turns[str] = Turns()
    gone, stays = Waiting("gone", "a"), Waiting("stays", "a")
    turns.add(gone)
    turns.add(stays)
    assert turns.discard(gone)
    assert not turns.discard(gone)
    assert len(turns) == 1
    assert turns.take(4, 100) == [stays]
    assert turns.take(4, 100) == []
