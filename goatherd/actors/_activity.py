"""An activity to be run for an actor, as data: so that it can wait for the next run of a workflow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from goatherd.actors._duration import Duration, seconds

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ActivityOptions:
    """How an activity runs; times in seconds. `queue` None: the actor's own.

    `heartbeat_s`: a worker that says nothing for so long is taken for lost. `wait_cancel`: a cancelled one is
    waited for, and may still give a result. `attempts` 0: as many as it takes.
    """

    timeout_s: float = 30.0
    heartbeat_s: float | None = None
    queue: str | None = None
    attempts: int = 0
    backoff_s: float = 0.2
    max_backoff_s: float = 10.0
    wait_cancel: bool = False
    summary: str | None = None


class Activity(Generic[Result]):
    """A call of an activity: `Context.pipe_to_self` runs it. Awaited elsewhere, it is called right there."""

    __slots__ = ("argument", "function", "options")

    def __init__(
        self, function: Callable[..., Awaitable[Result]], argument: Any, options: ActivityOptions
    ) -> None:
        self.function = function
        self.argument = argument
        self.options = options

    def __await__(self) -> Generator[Any, None, Result]:
        return self.function(self.argument).__await__()


class PutOff:
    """The handle of an activity that a later run is to start. `on_cancel`: nobody runs it who would say that
    it was cancelled."""

    __slots__ = ("call", "on_cancel")

    def __init__(self, call: Activity[Any]) -> None:
        self.call = call
        self.on_cancel: Callable[[], None] | None = None

    def cancel(self) -> None:
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is not None:
            on_cancel()


def activity(
    function: Callable[..., Awaitable[Result]],
    argument: Any,
    *,
    timeout: Duration = 30.0,
    heartbeat: Duration | None = None,
    queue: str | None = None,
    attempts: int = 0,
    backoff: Duration = 0.2,
    max_backoff: Duration = 10.0,
    wait_cancel: bool = False,
    summary: str | None = None,
) -> Activity[Result]:
    """What `Context.pipe_to_self` runs as a Temporal activity: `function` may be one's method or a function.

    In a system that has no Temporal it is called in the process; of a class's method, one of the instances
    that the system was given is taken. See `ActivityOptions`.
    """
    return Activity(
        function,
        argument,
        ActivityOptions(
            timeout_s=seconds(timeout),
            heartbeat_s=None if heartbeat is None else seconds(heartbeat),
            queue=queue,
            attempts=attempts,
            backoff_s=seconds(backoff),
            max_backoff_s=seconds(max_backoff),
            wait_cancel=wait_cancel,
            summary=summary,
        ),
    )
