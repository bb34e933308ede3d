"""Records the histories of jobs that test_replay replays: `python -m tests.replay.record_jobs`."""

from __future__ import annotations

import asyncio

from goatherd.contracts.inference_job import attempt_id
from goatherd.contracts.inference_work import InferAnswer, InferOrder
from goatherd.errors import WrongTask
from goatherd.leaving import leave
from tests.histories import record
from tests.inference.plant import ANN, Plant, shout
from tests.replay.record import HISTORIES
from tests.temporal import eventually, temporal_server


async def job_retried(plant: Plant) -> str:
    """Many parts, one of which fails, and the attempt that does what is left."""
    broken = True

    async def mended_later(order: InferOrder) -> InferAnswer:
        if broken and order.items[0].inputs == "t6":
            raise WrongTask("broken")
        return await shout(order)

    plant.answering = mended_later
    job = (await plant.create(*(f"t{number}" for number in range(20)))).id
    await plant.service.job(ANN, job, wait_s=20)
    broken = False
    await plant.service.retry(ANN, job)
    await plant.service.job(ANN, job, wait_s=20)
    return job


async def job_cancelled(plant: Plant) -> str:
    """While its parts are computed."""
    begun = asyncio.Event()

    async def never(order: InferOrder) -> InferAnswer:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    plant.answering = never
    job = (await plant.create(*(f"t{number}" for number in range(20)))).id
    await begun.wait()
    await plant.service.cancel(ANN, job)

    async def settled() -> bool:
        return (await plant.service.job(ANN, job)).status == "cancelled"

    await eventually(settled)
    return job


async def main() -> None:
    async with temporal_server() as environment:
        plant = Plant(environment)
        async with plant.workers():
            for scenario in (job_retried, job_cancelled):
                job = await scenario(plant)
                await record(environment.client, job, HISTORIES, scenario.__name__)
                if scenario is job_retried:
                    await record(environment.client, attempt_id(job, 2), HISTORIES, "job_again")


if __name__ == "__main__":
    asyncio.run(main())
    leave()  # Temporal's threads may abort an interpreter that ends.
