"""What is sent to one receiver travels together, as far as Temporal would take it."""

from __future__ import annotations

from collections import deque

from pydantic_core import to_json

from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._outbox import MOST_BYTES, MOST_TOGETHER, _Post, _together


def posts(count: int, size: int) -> deque[_Post]:
    return deque(
        _Post(protocol.Signal(name=f"n{number}", inputs=["x" * size]), None, None) for number in range(count)
    )


def taken(waiting: deque[_Post]) -> list[list[_Post]]:
    calls = []
    while waiting:
        calls.append(_together(waiting))
    return calls


def test_small_ones_travel_together_in_their_order() -> None:
    waiting = posts(2 * MOST_TOGETHER + 1, 10)
    names = [post.signal.name for post in waiting]
    calls = taken(waiting)
    assert [len(call) for call in calls] == [MOST_TOGETHER, MOST_TOGETHER, 1]
    assert [post.signal.name for call in calls for post in call] == names


def test_those_that_are_large_together_travel_apart() -> None:
    calls = taken(posts(30, 100_000))
    assert sum(len(call) for call in calls) == 30
    for call in calls:
        whole = protocol.Signals(signals=[post.signal for post in call])
        assert len(to_json(whole)) <= MOST_BYTES + 1_000


def test_one_that_is_large_alone_travels_alone() -> None:
    assert [len(call) for call in taken(posts(3, MOST_BYTES))] == [1, 1, 1]
