"""Ping and pong: two actors play a ball. In plain asyncio, and durably, where the rally costs no history.

python -m examples.actors.ping_pong                    in this process
python -m examples.actors.ping_pong 127.0.0.1:7233     on Temporal (`goatherd up` says where it runs)
"""

from __future__ import annotations

from secrets import token_hex

from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from examples.running import run_example
from goatherd.actors import Behavior, Context, LocalSystem, Ref, Request, behavior, message
from goatherd.actors.durable import ActorSystem, DurableActor, actor
from goatherd.contracts.model import Contract


@message
class Play(Request[int]):
    """Answered with how often the ball was hit, when the rally is over."""

    hits: int


@message
class Ball:
    hits_left: int
    back_to: Ref[Ball]
    asker: Ref[int]
    hits: int = 0


@message
class Over:
    hits: int
    asker: Ref[int]


@behavior("examples.ping-pong.player")
class Player(Behavior[Ball]):
    """Hits the ball back to whoever it came from."""

    court: Ref[Over]

    def receive(self, ctx: Context[Ball], ball: Ball) -> Behavior[Ball] | None:
        if ball.hits_left == 0:
            self.court.tell(Over(ball.hits, ball.asker))
        else:
            ball.back_to.tell(Ball(ball.hits_left - 1, ctx.self, ball.asker, ball.hits + 1))
        return None


@behavior("examples.ping-pong.court")
class Court(Behavior[Play | Over]):
    """The parent of both players. Any number of rallies may be under way."""

    def on_start(self, ctx: Context[Play | Over]) -> Behavior[Play | Over] | None:
        for name in ("ping", "pong"):
            ctx.spawn(Player(ctx.self), name)
        return None

    def receive(self, ctx: Context[Play | Over], message: Play | Over) -> Behavior[Play | Over] | None:
        if isinstance(message, Over):
            message.asker.tell(message.hits)
            return None
        ping, pong = ctx.children
        ping.tell(Ball(message.hits, pong, ctx.reply_to(message)))
        return None


class Booked(Contract):
    """What a court starts with."""


@actor("ExamplePingPong", Play)
class CourtActor(DurableActor[Booked]):
    """The durable one: one workflow, in which both players are."""

    def behavior(self, start: Booked) -> Behavior[Play | Over]:
        return Court()


async def in_this_process(hits: int) -> int:
    async with LocalSystem() as system:
        court = system.spawn(Court(), "court")
        return await system.ask(court, Play(hits))


async def on_temporal(address: str, hits: int) -> tuple[int, int]:
    """How often the ball was hit, and how many events the workflow's history has after that."""
    system = await ActorSystem.connect(address, task_queue=f"ping-pong-{token_hex(4)}")
    worker = Worker(
        system.client,
        task_queue=system.task_queue,
        workflows=[CourtActor],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        court = system.entity(CourtActor, f"court-{token_hex(4)}")
        hit = await court.ask(Play(hits), start=Booked())
        handle = system.client.get_workflow_handle(court.id)
        events = len((await handle.fetch_history()).events)
        await handle.terminate("the example is over")
        return hit, events


async def rally_in_this_process() -> list[str]:
    return [f"{await in_this_process(1_000)} hits"]


async def rally_on_temporal(address: str) -> list[str]:
    hit, events = await on_temporal(address, 1_000)
    return [f"{hit} hits, {events} events"]


if __name__ == "__main__":
    run_example(rally_in_this_process, rally_on_temporal)
