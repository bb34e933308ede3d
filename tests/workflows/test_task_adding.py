"""New subtasks: their numbers, what they depend on, and the same request again."""

from __future__ import annotations

from typing import Any

import pytest

from goatherd.contracts.task_messages import AddSubtasks, Place
from goatherd.errors import DependencyCycle, Invalid
from tests.workflows.task_bench import Bench, sub


def test_adding_gives_numbers_and_tells_what_they_are() -> None:
    task = Bench(priority=2)
    added = task.add({"input": 1, "labels": ["a"]}, {"input": 2, "key": "b", "priority": 1})
    assert (added.first, added.count, added.seq) == (1, 2, 2)
    (event,) = added.events
    assert event.type == "subtasks.created"
    one, two = event.data["subtasks"]
    assert (one["id"], one["input"], one["labels"], one["priority"]) == (sub(1), 1, ["a"], 2)
    assert (two["id"], two["key"], two["priority"], two["info_version"]) == (sub(2), "b", 1, 2)
    assert added.task.counts.pending == 2


def test_a_batch_is_only_named() -> None:
    task = Bench()
    added = task.ask(AddSubtasks(batch="batch_1", count=3, places=[Place(), Place(depends_on=[0])]))
    assert (added.first, added.count, added.blocked) == (1, 3, [2])
    assert added.events[0].data == {"first": 1, "count": 3, "batch": "batch_1"}


def test_a_batch_says_who_depends_on_nothing_that_is_left_to_do() -> None:
    task = Bench()
    task.add({})
    [lease] = task.take()
    task.report(lease)
    places = [Place(depends_on=[1]), Place(depends_on=[0]), Place()]
    added = task.ask(AddSubtasks(batch="batch_1", count=3, places=places))
    assert added.blocked == [3]
    assert added.events[0].data == {"first": 2, "count": 3, "batch": "batch_1", "ready": [2]}


@pytest.mark.parametrize("more", [{"id": "req_1"}, {"batch": "batch_1", "count": 1}])
def test_the_same_request_again_adds_nothing(more: dict[str, Any]) -> None:
    task = Bench()
    order = {"subtasks": [] if "batch" in more else [{"input": 1}], **more}
    first = task.ask(AddSubtasks.model_validate(order))
    second = task.ask(AddSubtasks.model_validate(order))
    assert (second.first, second.count, second.seq, second.events) == (1, 1, first.seq, [])
    assert len(task.task.items) == 1


def test_dependencies_are_named_by_key_or_id() -> None:
    task = Bench()
    task.add({"key": "a"})
    added = task.add({"key": "b", "depends_on": [sub(1), "c"]}, {"key": "c"})
    assert added.blocked == [2]
    assert added.events[0].data["subtasks"][0]["depends_on"] == [sub(1), sub(3)]
    with pytest.raises(Invalid, match="neither"):
        task.add({"depends_on": ["a"]})
    with pytest.raises(DependencyCycle, match="0 → 1 → 0"):
        task.add({"key": "x", "depends_on": ["y"]}, {"key": "y", "depends_on": ["x"]})
    with pytest.raises(DependencyCycle):
        task.add({"key": "x", "depends_on": ["x"]})
    assert len(task.task.items) == 3


def test_a_task_may_begin_with_subtasks() -> None:
    task = Bench(first={"subtasks": [{"input": 1}, {"input": 2}], "id": "req_1"})
    assert task.statuses() == ["pending", "pending"]
    assert [event.type for event in task.events()] == ["task.created", "subtasks.created"]
