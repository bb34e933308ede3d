"""A model that is elsewhere: what all providers of such models share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from activities.inference_ports import Item, Made, Result, Runner
from activities.ports import ChatModel
from goatherd.contracts.inference_tasks import Parameters, Task
from goatherd.errors import GoatherdError, Invalid, WrongTask


class RemoteModel:
    """See `LoadedModel`. It takes no memory here."""

    memory_bytes = 0

    def __init__(
        self,
        tasks: Sequence[Task],
        runners: Mapping[Task, Runner],
        *,
        chat: ChatModel | None = None,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self.tasks = tasks
        self.chat = chat
        self._runners = runners
        self._close = close

    def runner(self, task: Task) -> Runner:
        try:
            return self._runners[task]
        except KeyError:
            raise WrongTask(f"the model is for {', '.join(self.tasks)}, not for {task}") from None

    async def close(self) -> None:
        await self._close()


async def each(items: Sequence[Item], one: Callable[[Item], Awaitable[Made]], *, most: int) -> list[Result]:
    """Each item by a call of its own, at most `most` at once. One that fails has its error in its place."""
    turns = asyncio.Semaphore(most)

    async def run(item: Item) -> Result:
        async with turns:
            try:
                return await one(item)
            except GoatherdError as error:
                return error
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                # An answer of another shape: the other side's API is not what it is said to be.
                return GoatherdError(f"the answer can't be read: {type(error).__name__}: {error}")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(item)) for item in items]
    return [task.result() for task in tasks]


def refuse(parameters: Parameters, names: Sequence[str], provider: str) -> None:
    """Raises `Invalid` if one of these parameters is set to anything but its default: the provider has no way
    to follow it."""
    for name in names:
        if getattr(parameters, name) != type(parameters).model_fields[name].get_default():
            raise Invalid(f"the provider {provider} has no {name!r}", pointer=f"/parameters/{name}")
