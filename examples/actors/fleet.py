"""A fleet of devices: each is a supervised child, a pool of analysts judges what they report.

python -m examples.actors.fleet                    in this process
python -m examples.actors.fleet 127.0.0.1:7233     on Temporal (`goatherd up` says where it runs)
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import field
from secrets import token_hex
from typing import Any

from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from examples.running import run_example
from goatherd.actors import (
    ActorFailed,
    Behavior,
    ChildFailed,
    Context,
    LocalSystem,
    Ref,
    Request,
    Signal,
    Terminated,
    behavior,
    message,
    on,
    pool,
    restart_with_backoff,
)
from goatherd.actors.durable import ActorSystem, DurableActor, actor
from goatherd.contracts.model import Contract
from goatherd.errors import NotFound

ABSOLUTE_ZERO_K = 0.0
TOO_HOT_K = 350.0


@message
class Report(Request[str]):
    """A device has measured: answered with the verdict. The first of a device puts it in the fleet."""

    device: str
    kelvin: float


@message
class Retire(Request[str]):
    """Answered when the device has stopped."""

    device: str


@message
class Inventory(Request[list[str]]):
    """Answered with the devices of the fleet, and those that are lost."""


@message
class Judge(Request[str]):
    device: str
    number: int
    kelvin: float


@behavior("examples.fleet.analyst")
class Analyst(Behavior[Judge]):
    """One of a pool. It has no state: what is asked next may come to another."""

    def receive(self, ctx: Context[Judge], message: Judge) -> Behavior[Judge] | None:
        verdict = "too hot" if message.kelvin > TOO_HOT_K else "fine"
        ctx.reply(message, f"{message.device}, report {message.number}: {verdict}")
        return None


@behavior("examples.fleet.device")
class Device(Behavior[Report]):
    """Numbers its reports, and has them judged. A restart begins with the first again."""

    analysts: Ref[Judge]
    reports: int = 0

    def receive(self, ctx: Context[Report], message: Report) -> Behavior[Report] | None:
        if math.isinf(message.kelvin):
            raise ValueError("this device is broken for good")
        if message.kelvin < ABSOLUTE_ZERO_K:
            raise OSError("no sensor measures that")
        self.reports += 1
        ctx.forward(self.analysts, Judge(message.device, self.reports, message.kelvin))
        return None


Messages = Report | Retire | Inventory


@behavior("examples.fleet")
class Fleet(Behavior[Messages]):
    """The parent of all. A device whose sensor fails is restarted, later each time; any other failure ends
    it."""

    backoff_s: float = 1.0
    analysts: Ref[Judge] | None = None
    retiring: dict[str, Ref[str]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def on_start(self, ctx: Context[Messages]) -> Behavior[Messages] | None:
        self.analysts = ctx.spawn(pool(3, Analyst()), "analysts")
        return None

    def receive(self, ctx: Context[Messages], message: Messages) -> Behavior[Messages] | None:
        match message:
            case Report(device=device):
                ctx.forward(ctx.child(f"device-{device}") or self._added(ctx, device), message)
            case Retire(device=device):
                child = ctx.child(f"device-{device}")
                if child is None:
                    ctx.refuse(message, NotFound(f"There is no device {device!r}."))
                else:
                    self.retiring[device] = ctx.reply_to(message)
                    ctx.stop(child)
            case Inventory():
                names = [child.name.removeprefix("device-") for child in ctx.children]
                present = [name for name in names if name != "analysts"]
                ctx.reply(message, [*present, *(f"{name} (lost)" for name in self.lost)])
        return None

    def _added(self, ctx: Context[Messages], device: str) -> Ref[Report]:
        assert self.analysts is not None
        rule = on(OSError, restart_with_backoff(self.backoff_s, 60 * self.backoff_s, 0.2))
        child = ctx.spawn(Device(self.analysts), f"device-{device}", supervise=[rule])
        ctx.watch(child)
        return child

    def on_signal(self, ctx: Context[Messages], signal: Signal) -> Behavior[Messages] | None:
        if isinstance(signal, ChildFailed):
            self.lost.append(signal.ref.name.removeprefix("device-"))
        elif isinstance(signal, Terminated):
            device = signal.ref.name.removeprefix("device-")
            asker = self.retiring.pop(device, None)
            if asker is not None:
                asker.tell(f"{device} is retired")
        else:
            return super().on_signal(ctx, signal)
        return None


class Fitting(Contract):
    """What a fleet starts with."""

    backoff_s: float = 1.0


@actor("ExampleFleet", Report, Retire, Inventory)
class FleetActor(DurableActor[Fitting]):
    """The durable one: one workflow with all the devices in it, which outlives its workers."""

    def behavior(self, start: Fitting) -> Behavior[Messages]:
        return Fleet(backoff_s=start.backoff_s)


async def operate(ask: Callable[[Request[Any]], Awaitable[Any]]) -> list[str]:
    """A day of the fleet."""
    said = [
        await ask(Report("boiler", 340)),
        await ask(Report("boiler", 360)),
        await ask(Report("freezer", 250)),
    ]
    for impossible in (Report("boiler", -1.0), Report("freezer", math.inf)):
        try:
            await ask(impossible)
        except ActorFailed as failure:
            said.append(failure.message.rpartition(" ")[2])
    # The boiler's sensor is restarted: this one waits for that. The freezer is lost, and comes anew.
    said.append(await ask(Report("boiler", 345)))
    said.append(await ask(Retire("boiler")))
    said.append(await ask(Report("freezer", 251)))
    said.append(", ".join(await ask(Inventory())))
    return said


async def in_this_process() -> list[str]:
    async with LocalSystem() as system:
        fleet = system.spawn(Fleet(backoff_s=0.1), "fleet")
        return await operate(lambda request: system.ask(fleet, request))


async def on_temporal(address: str) -> list[str]:
    system = await ActorSystem.connect(address, task_queue=f"fleet-{token_hex(4)}")
    worker = Worker(
        system.client,
        task_queue=system.task_queue,
        workflows=[FleetActor],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        fleet = system.entity(FleetActor, f"fleet-{token_hex(4)}")
        await fleet.start(Fitting(backoff_s=0.1))
        said = await operate(fleet.ask)
        await system.client.get_workflow_handle(fleet.id).terminate("the example is over")
        return said


if __name__ == "__main__":
    run_example(in_this_process, on_temporal)
