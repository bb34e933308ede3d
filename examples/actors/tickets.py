"""A box office: seats are held, and given to who waits when nobody pays. In plain asyncio, and durably.

python -m examples.actors.tickets                    in this process
python -m examples.actors.tickets 127.0.0.1:7233     on Temporal (`goatherd up` says where it runs)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import field
from secrets import token_hex

from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from examples.running import run_example
from goatherd.actors import Behavior, Context, LocalSystem, Ref, Request, behavior, message
from goatherd.actors.durable import ActorSystem, DurableActor, actor
from goatherd.contracts.model import Contract
from goatherd.errors import Conflict


class Opening(Contract):
    """What a box office starts with."""

    seats: int = 2
    hold_s: float = 1.0


@message
class Hold(Request[int]):
    """Answered with a seat, as soon as there is one. It is given back unless it is paid in time."""

    who: str


@message
class Pay(Request[str]):
    seat: int


@message
class Expired:
    seat: int


Messages = Hold | Pay | Expired


@behavior("examples.box-office")
class BoxOffice(Behavior[Messages]):
    """Its fields are its state: they go wherever the actor goes, those who wait for an answer too."""

    free: list[int]
    hold_s: float
    held: dict[int, str] = field(default_factory=dict)
    sold: dict[int, str] = field(default_factory=dict)
    waiting: list[tuple[str, Ref[int]]] = field(default_factory=list)

    def receive(self, ctx: Context[Messages], message: Messages) -> Behavior[Messages] | None:
        match message:
            case Hold(who=who):
                if not self.free and not self.held:
                    ctx.refuse(message, Conflict("It is sold out."))
                else:
                    self.waiting.append((who, ctx.reply_to(message)))
            case Pay(seat=seat):
                if seat not in self.held:
                    ctx.refuse(message, Conflict(f"Seat {seat} is not held any more."))
                else:
                    ctx.timers.cancel(f"seat {seat}")
                    self.sold[seat] = self.held.pop(seat)
                    ctx.reply(message, f"Seat {seat} is yours, {self.sold[seat]}.")
            case Expired(seat=seat):
                del self.held[seat]
                self.free.append(seat)
        while self.free and self.waiting:
            seat = self.free.pop(0)
            who, asker = self.waiting.pop(0)
            self.held[seat] = who
            ctx.timers.once(f"seat {seat}", Expired(seat), self.hold_s)
            asker.tell(seat)
        return None


@actor("ExampleBoxOffice", Hold, Pay)
class BoxOfficeActor(DurableActor[Opening]):
    """The durable one: a workflow type, whose messages are updates that one can send by hand, too."""

    def behavior(self, start: Opening) -> Behavior[Messages]:
        return BoxOffice(free=list(range(1, start.seats + 1)), hold_s=start.hold_s)

    def describe(self, behavior: Behavior[object]) -> str:
        assert isinstance(behavior, BoxOffice)
        return f"**{len(behavior.sold)}** sold, {len(behavior.held)} held, {len(behavior.free)} free"


async def sell(hold: Callable[[str], Awaitable[int]], pay: Callable[[int], Awaitable[str]]) -> list[str]:
    """Two seats, three who want one."""
    said = [await pay(await hold("Ada"))]
    await hold("Bob")  # who does not pay
    said.append(f"Seat {(seat := await hold('Cem'))} is held for Cem.")
    said.append(await pay(seat))
    try:
        await hold("Dee")
    except Conflict as refusal:
        said.append(refusal.message)
    return said


async def in_this_process() -> list[str]:
    async with LocalSystem() as system:
        office = system.spawn(BoxOffice(free=[1, 2], hold_s=0.2), "office")
        return await sell(
            lambda who: system.ask(office, Hold(who)), lambda seat: system.ask(office, Pay(seat))
        )


async def on_temporal(address: str) -> list[str]:
    system = await ActorSystem.connect(address, task_queue=f"box-office-{token_hex(4)}")
    worker = Worker(
        system.client,
        task_queue=system.task_queue,
        workflows=[BoxOfficeActor],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        office = system.entity(BoxOfficeActor, f"box-office-{token_hex(4)}")
        await office.start(Opening(seats=2, hold_s=0.2))
        said = await sell(lambda who: office.ask(Hold(who)), lambda seat: office.ask(Pay(seat)))
        await system.client.get_workflow_handle(office.id).terminate("the example is over")
        return said


if __name__ == "__main__":
    run_example(in_this_process, on_temporal)
