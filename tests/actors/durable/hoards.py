"""An actor type for tests whose state, messages and answers are as large as one likes."""

from __future__ import annotations

import random
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from goatherd.actors import Behavior, Context, Request, behavior, message
from goatherd.actors.durable import DurableActor, actor
from goatherd.contracts.model import Contract
from workers.sandbox import workflow_runner

MB = 1_000_000


class OpenHoard(Contract):
    asks_per_run: int = 2


@message
class Fill(Request[int]):
    """Makes it hold so many bytes more; answered with how many it holds."""

    size: int
    seed: int = 0


@message
class Put(Request[int]):
    """Has it hold a thing."""

    thing: str


@message
class Drop:
    """Told: it holds nothing any more."""


@message
class Weight(Request[int]):
    """Answered with how many bytes it holds."""


@message
class Show(Request[str]):
    """Answered with all that it holds."""


def thing_of(size: int, seed: int = 0) -> str:
    """A text of this size that shrinks to about a half."""
    return random.Random(seed).randbytes(size // 2).hex().ljust(size, "g")


@behavior("tests.hoard")
class Hoarding(Behavior[Fill | Put | Drop | Weight | Show]):
    things: tuple[str, ...] = ()

    def receive(
        self, ctx: Context[Fill | Put | Drop | Weight | Show], message: Fill | Put | Drop | Weight | Show
    ) -> Behavior[Fill | Put | Drop | Weight | Show] | None:
        match message:
            case Fill(size=size, seed=seed):
                self.things = (*self.things, thing_of(size, seed))
                ctx.reply(message, self.weight)
            case Put(thing=thing):
                self.things = (*self.things, thing)
                ctx.reply(message, self.weight)
            case Drop():
                self.things = ()
            case Weight():
                ctx.reply(message, self.weight)
            case Show():
                ctx.reply(message, "".join(self.things))
        return None

    @property
    def weight(self) -> int:
        return sum(len(thing) for thing in self.things)


@actor("TestHoard", Fill, Put, Drop, Weight, Show)
class Hoard(DurableActor[OpenHoard]):
    def asks_per_run(self, start: OpenHoard) -> int:
        return start.asks_per_run

    def behavior(self, start: OpenHoard) -> Behavior[Fill | Put | Drop | Weight | Show]:
        return Hoarding()


def hoard_worker(client: Client, task_queue: str, *, sandboxed: bool = False) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[Hoard],
        workflow_runner=workflow_runner(sandboxed=sandboxed),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )
