"""Reciprocal rank fusion."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.backends.retrieval.fusion import Fused, candidates_for, fuse

LISTS = st.lists(st.lists(st.integers(1, 12), unique=True, max_size=12), min_size=1, max_size=3)


def test_score_is_the_sum_of_weighted_reciprocal_ranks() -> None:
    found = fuse([[7, 5], [5, 9]], [1.0, 0.5], 60)
    assert [(one.key, one.ranks) for one in found] == [(5, (2, 1)), (7, (1, None)), (9, (None, 2))]
    assert [one.score for one in found] == pytest.approx([1 / 62 + 0.5 / 61, 1 / 61, 0.5 / 62], rel=1e-12)


def test_what_both_lists_have_comes_before_what_one_has_first() -> None:
    assert [one.key for one in fuse([[1, 2], [3, 2]], [1.0, 1.0], 60)] == [2, 1, 3]


def test_smaller_constant_lets_first_ranks_count_more() -> None:
    lists = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 2]]
    assert fuse(lists, [1.0, 1.0], 60)[0].key == 2
    assert fuse([[1, *range(20, 40), 2], [*range(40, 60), 2]], [1.0, 1.0], 1)[0].key == 1


def test_equal_scores_are_ordered_by_the_first_list_then_by_key() -> None:
    assert [one.key for one in fuse([[9, 1], [1, 9]], [1.0, 1.0], 60)] == [9, 1]
    assert [one.key for one in fuse([[5], [3]], [1.0, 1.0], 60)] == [5, 3]
    assert [one.key for one in fuse([[], [8, 3]], [1.0, 1.0], 60)] == [8, 3]


def test_list_without_weight_brings_nothing() -> None:
    assert fuse([[1], [2, 1]], [1.0, 0.0], 60) == [Fused(1, 1 / 61, (1, None))]


def test_empty_lists_make_an_empty_one() -> None:
    assert fuse([[], []], [1.0, 1.0], 60) == []


def test_candidates_are_more_than_are_asked_for() -> None:
    assert [candidates_for(k) for k in (1, 25, 26, 1_000)] == [100, 100, 104, 4_000]


@given(LISTS, st.integers(1, 100))
def test_order_of_the_lists_changes_no_score(lists: list[list[int]], constant: int) -> None:
    weights = [1.0 + n / 3 for n in range(len(lists))]
    expected = {one.key: one.score for one in fuse(lists, weights, constant)}
    for order in itertools.permutations(range(len(lists))):
        found = fuse([lists[n] for n in order], [weights[n] for n in order], constant)
        assert {one.key: one.score for one in found} == expected
        assert [one.score for one in found] == sorted(expected.values(), reverse=True)


@given(LISTS)
def test_every_key_is_there_once(lists: list[list[int]]) -> None:
    found = [one.key for one in fuse(lists, [1.0] * len(lists), 60)]
    assert sorted(found) == sorted(set(itertools.chain(*lists)))
