"""Whoever wants to hear of the end of a task is told."""

from __future__ import annotations

from goatherd.actors.testkit import Piped
from goatherd.contracts.task_messages import CallbackTold, TaskFlushed, TellCallback
from tests.workflows.task_bench import TASK, Bench
from workflows.task_callback import TRIES


def test_the_callback_is_told_once_of_each_end() -> None:
    task = Bench(callback={"url": "https://example.com/hook"}, first={"subtasks": [{}]})
    task.report(task.take()[0])
    (told,) = [one for one in task.works() if isinstance(one.awaitable.argument, TellCallback)]
    order = told.awaitable.argument
    assert (order.type, order.task, order.data["status"]) == ("task.completed", TASK, "completed")
    assert order.data["counts"]["completed"] == 1
    told.succeed(CallbackTold(status=404, error="The callback answered 404."))
    task.add({})
    task.report(task.take()[0])
    (again,) = [one for one in task.works() if isinstance(one.awaitable.argument, TellCallback)]
    assert again.awaitable.argument.id != order.id
    again.succeed(CallbackTold(status=200))
    assert not task.task.callbacks.calls


def test_a_callback_that_nobody_answers_is_tried_again_by_a_timer() -> None:
    """No try lasts: a run of the actor can't end before it."""
    task = Bench(callback={"url": "https://example.com/hook"}, first={"subtasks": [{}]}, linger_s=0)

    def tries() -> list[Piped]:
        return [one for one in task.works() if isinstance(one.awaitable.argument, TellCallback)]

    task.report(task.take()[0])
    works = task.works()
    told = next(one for one in works if isinstance(one.awaitable.argument, TellCallback))
    next(one for one in works if one is not told).succeed(TaskFlushed())
    ids = [told.awaitable.argument.id]
    assert told.awaitable.options.attempts == 1
    told.fail(RuntimeError("gone"))
    assert tries() == []
    task.kit.advance("1s")
    (told,) = tries()
    told.succeed(CallbackTold(status=503, error="busy", again=True, retry_after_s=90))
    task.kit.advance("89s")
    assert tries() == []
    while task.is_alive():
        task.kit.advance("1800s")
        for told in tries():
            ids.append(told.awaitable.argument.id)
            told.fail(RuntimeError("gone"))
    assert len(ids) == TRIES - 1
    assert len(set(ids)) == 1
