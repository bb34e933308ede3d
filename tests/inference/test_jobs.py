"""A job is done, whoever dies meanwhile; it can be waited for, cancelled and retried."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.job_reconcile import JobReadSide
from activities.ports import Page
from activities.reconcile import Ended
from api.hf_inputs import Asked
from api.idempotency import Ids
from api.job_service import JobNotDone, Wish
from goatherd.contracts.inference_job import SettleJob
from goatherd.contracts.inference_tasks import Media
from goatherd.contracts.inference_work import InferAnswer, InferOrder, Outcome, Problem, WorkItem
from goatherd.contracts.queues import Pool
from goatherd.errors import Conflict, ModelBroken, NotFound, Unavailable, WrongTask
from goatherd.security.access import Principal
from tests.inference.plant import ANN, Plant, shout
from tests.temporal import cli, eventually, temporal_server
from workers.reconciler import Reconciler


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with temporal_server() as environment:
        yield environment


@pytest.fixture
def plant(temporal: WorkflowEnvironment) -> Plant:
    return Plant(temporal)


async def never(order: InferOrder) -> InferAnswer:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def test_a_job_is_computed_part_by_part_and_read_in_order(plant: Plant) -> None:
    texts = [f"t{n}" for n in range(20)]
    async with plant.workers():
        made = await plant.create(*texts)
        assert (made.status, made.progress.total, made.owner) == ("queued", 20, "ann")
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert (job.status, job.progress.done, job.progress.failed) == ("completed", 20, 0)
        assert job.metadata == {"by": "a test"}
        assert await plant.labels(job) == [text.upper() for text in texts]
        assert len(plant.orders) == 7
        history = await plant.temporal.client.get_workflow_handle(job.id).fetch_history()
        assert len(history.events) < 7 * 6 + 12


async def test_an_input_that_fails_is_told_and_the_others_are_done(plant: Plant) -> None:
    async with plant.workers():
        job = await plant.service.job(ANN, (await plant.create("a", "bad b", "c", "d")).id, wait_s=20)
        assert (job.status, job.progress.failed) == ("completed", 1)
        assert await plant.labels(job) == ["A", None, "C", "D"]


async def test_a_model_that_is_away_is_waited_for(plant: Plant) -> None:
    tries = 0
    seen: list[tuple[str, str]] = []

    async def at_last(order: InferOrder) -> InferAnswer:
        nonlocal tries
        tries += 1
        if tries > 1:
            error = (await plant.service.job(ANN, order.owner)).error
            seen.append(("", "") if error is None else (error.code, error.message))
        if tries < 3:
            raise Unavailable("not yet", code="model-unavailable")
        return await shout(order)

    plant.answering = at_last
    async with plant.workers():
        job = await plant.service.job(ANN, (await plant.create("a")).id, wait_s=30)
        assert (job.status, tries, job.error) == ("completed", 3, None)
        assert seen == [("model-unavailable", "not yet")] * 2


async def test_a_model_that_is_broken_fails_the_job_at_once(plant: Plant) -> None:
    tries = 0

    async def broken(order: InferOrder) -> InferAnswer:
        nonlocal tries
        tries += 1
        raise ModelBroken("there is no such folder")

    plant.answering = broken
    async with plant.workers():
        job = await plant.service.job(ANN, (await plant.create("a")).id, wait_s=20)
        assert (job.status, tries) == ("failed", 1)
        assert job.error is not None
        assert (job.error.code, job.error.message) == ("model-broken", "there is no such folder")


async def test_what_can_never_be_computed_fails_the_job_and_says_why(plant: Plant) -> None:
    async def refuse(order: InferOrder) -> InferAnswer:
        raise WrongTask("it is for something else", pointer="/task")

    plant.answering = refuse
    async with plant.workers():
        job = await plant.service.job(ANN, (await plant.create("a")).id, wait_s=20)
        assert job.status == "failed"
        assert job.error is not None
        assert (job.error.code, job.error.pointer) == ("wrong-task", "/task")
        with pytest.raises(JobNotDone):
            await plant.service.result(ANN, job.id)


async def test_a_job_that_is_not_done_in_its_time_fails(plant: Plant) -> None:
    async def away(order: InferOrder) -> InferAnswer:
        raise Unavailable("not yet")

    plant.answering = away
    async with plant.workers():
        job = await plant.service.job(ANN, (await plant.create("a", timeout_s=2.0)).id, wait_s=20)
        assert job.status == "failed"
        assert job.error is not None


async def test_a_cancelled_job_stops_and_keeps_what_it_has(plant: Plant) -> None:
    begun = asyncio.Event()

    async def first_only(order: InferOrder) -> InferAnswer:
        if order.items[0].inputs == "t0":
            return await shout(order)
        begun.set()
        return await never(order)

    plant.answering = first_only
    async with plant.workers():
        made = await plant.create(*(f"t{n}" for n in range(6)))
        await begun.wait()
        await eventually(lambda: _done(plant, made.id, 3))
        await plant.service.cancel(ANN, made.id)
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert (job.status, job.progress.done) == ("cancelled", 3)
        assert (await plant.service.cancel(ANN, made.id)).status == "cancelled"
        with pytest.raises(JobNotDone, match="3 of 6"):
            await plant.service.result(ANN, made.id)
        partial = await plant.service.result(ANN, made.id, partial=True)
        problems = [one.problem.code if one.problem else None for one in partial.outcomes]
        assert problems == [None] * 3 + ["not-computed"] * 3


async def _done(plant: Plant, id: str, count: int) -> bool:
    return (await plant.service.job(ANN, id)).progress.done >= count


async def test_a_retry_computes_what_has_no_output_only(plant: Plant) -> None:
    broken = True

    async def mended_later(order: InferOrder) -> InferAnswer:
        if broken and order.items[0].inputs == "t3":
            raise WrongTask("broken")
        return await shout(order)

    plant.answering = mended_later
    async with plant.workers():
        made = await plant.create(*(f"t{n}" for n in range(6)))
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert job.status == "failed"
        broken = False
        await eventually(lambda: _done(plant, made.id, 3))
        plant.orders.clear()
        again = await plant.service.retry(ANN, made.id)
        assert (again.status, again.attempt) == ("queued", 2)
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert (job.status, job.error) == ("completed", None)
        assert await plant.labels(job) == [f"T{n}" for n in range(6)]
        assert [order.items[0].inputs for order in plant.orders] == ["t3"]
        with pytest.raises(Conflict, match="all of its outputs"):
            await plant.service.retry(ANN, made.id)


async def test_a_job_that_runs_is_not_begun_again(plant: Plant) -> None:
    plant.answering = never
    async with plant.workers():
        made = await plant.create("a")
        with pytest.raises(Conflict, match="has not ended"):
            await plant.service.retry(ANN, made.id)
        await plant.service.cancel(ANN, made.id)
        await plant.service.job(ANN, made.id, wait_s=20)


async def test_a_request_that_is_repeated_makes_one_job(plant: Plant) -> None:
    async with plant.workers():
        entry = plant.registry.entry("shout")
        wish = Wish(entry.spec.task, Asked([WorkItem(inputs="a")], False, {}), {}, 600.0)
        first = await plant.service.create(Ids("seed", 1), ANN, entry, wish)
        await plant.service.job(ANN, first.id, wait_s=20)
        again = await plant.service.create(Ids("seed", 1), ANN, entry, wish)
        assert (again.id, again.status) == (first.id, "completed")
        assert len(plant.orders) == 1
        assert len(await plant.service.jobs(ANN, Page(), status=None, model=None)) == 1


async def test_files_are_kept_by_claim_and_read_with_their_bytes(plant: Plant) -> None:
    image, sound = secrets.token_bytes(300_000), secrets.token_bytes(400_000)

    async def look(order: InferOrder) -> InferAnswer:
        media = await plant.blobs.fetch(Media.model_validate(order.items[0].inputs))
        assert media.data == image
        return InferAnswer(outcomes=[Outcome(output=[{"label": "goat", "score": 1.0}])])

    async def speak(order: InferOrder) -> InferAnswer:
        output = await plant.blobs.stow_output(order.task, Media(data=sound, mime="audio/wav"), order.owner)
        return InferAnswer(outcomes=[Outcome(output=output)])

    async with plant.workers():
        plant.answering = look
        seen = await plant.create(Media(data=image), model="eye", many=False)
        assert (await plant.service.job(ANN, seen.id, wait_s=20)).status == "completed"
        plant.answering = speak
        said = await plant.create("hello", model="voice", many=False)
        await plant.service.job(ANN, said.id, wait_s=20)
        result = await plant.service.result(ANN, said.id)
        assert Media.model_validate(result.outcomes[0].output).data == sound


async def test_somebody_elses_job_is_not_there(plant: Plant) -> None:
    made = await plant.create("a")
    for asked in (
        plant.service.job(Principal("bob"), made.id),
        plant.service.cancel(Principal("bob"), made.id),
        plant.service.retry(Principal("bob"), made.id),
        plant.service.result(Principal("bob"), made.id),
    ):
        with pytest.raises(NotFound):
            await asked
    await plant.service.cancel(ANN, made.id)


async def test_a_result_is_not_given_before_it_is_there(plant: Plant) -> None:
    made = await plant.create("a")
    with pytest.raises(JobNotDone, match="0 of 1"):
        await plant.service.result(ANN, made.id)
    await plant.temporal.client.get_workflow_handle(made.id).terminate()


async def test_waiting_for_a_job_ends_in_time(plant: Plant) -> None:
    made = await plant.create("a")
    assert (await plant.service.job(ANN, made.id, wait_s=0.3)).status == "queued"
    await plant.temporal.client.get_workflow_handle(made.id).terminate()


async def test_a_job_that_an_operator_terminates_has_failed(plant: Plant) -> None:
    plant.answering = never
    async with plant.workers():
        made = await plant.create("a")
        client = plant.temporal.client
        await cli(client, "workflow", "terminate", "--workflow-id", made.id)
        sides = [JobReadSide(plant.store)]
        reconciler = Reconciler(client, sides, plant.settings.task_queue(Pool.ACTORS))

        async def ended() -> bool:
            await reconciler.look()
            plan = await plant.store.plan(made.id)
            return plan is not None and plan.job.status == "failed"

        await eventually(ended)


async def test_whoever_waits_for_a_job_that_is_gone_is_told(plant: Plant) -> None:
    made = await plant.create("a")
    await plant.temporal.client.get_workflow_handle(made.id).terminate()
    job = await plant.service.job(ANN, made.id, wait_s=5)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "job-ended"


async def test_a_job_whose_workflow_says_how_it_ended_is_settled_so(plant: Plant) -> None:
    made = await plant.create("a")
    await JobReadSide(plant.store).end(made.id, Ended("closed", {"status": "completed"}))
    plan = await plant.store.plan(made.id)
    assert plan is not None
    assert plan.job.status == "completed"
    await plant.temporal.client.get_workflow_handle(made.id).terminate()


async def test_a_retry_that_runs_is_not_taken_for_the_attempt_before(plant: Plant) -> None:
    go_on = asyncio.Event()

    async def mended(order: InferOrder) -> InferAnswer:
        await go_on.wait()
        return InferAnswer(outcomes=[Outcome(output=[{"label": "MENDED", "score": 1.0}])])

    async with plant.workers():
        made = await plant.create("a", "bad b")
        await plant.service.job(ANN, made.id, wait_s=20)
        plant.answering = mended
        assert (await plant.service.retry(ANN, made.id)).attempt == 2
        sides = [JobReadSide(plant.store)]
        reconciler = Reconciler(plant.temporal.client, sides, plant.settings.task_queue(Pool.ACTORS))
        for _ in range(3):
            await reconciler.look()
        go_on.set()
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert job.status == "completed"
        assert await plant.labels(job) == ["A", "MENDED"]


async def test_a_retry_keeps_the_outputs_that_are_there(plant: Plant) -> None:
    async def worse(order: InferOrder) -> InferAnswer:
        assert [item.inputs for item in order.items] == ["bad b"]
        raise WrongTask("worse")

    async with plant.workers():
        made = await plant.create("a", "bad b")
        await plant.service.job(ANN, made.id, wait_s=20)
        plant.answering = worse
        await plant.service.retry(ANN, made.id)
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert (job.status, job.attempt) == ("failed", 2)
        assert await plant.labels(job) == ["A", None]


async def test_a_job_that_says_that_it_has_ended_can_be_retried_at_once(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, retried = plant.store.settle, asyncio.Event()

    async def settled_and_retried(settled: SettleJob) -> bool:
        done = await settle(settled)
        if settled.attempt == 1:
            plant.answering = mended
            await plant.service.retry(ANN, settled.job)
            retried.set()
        return done

    async def mended(order: InferOrder) -> InferAnswer:
        return InferAnswer(outcomes=[Outcome(output=[{"label": "MENDED", "score": 1.0}])])

    monkeypatch.setattr(plant.store, "settle", settled_and_retried)
    async with plant.workers():
        made = await plant.create("bad a")
        await retried.wait()
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert (job.attempt, await plant.labels(job)) == (2, ["MENDED"])


async def test_who_looks_while_a_retry_is_being_started_does_not_end_it(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_again = plant.store.begin_again

    async def looked_at(job: str, attempt: int) -> bool:
        begun = await begin_again(job, attempt)
        await plant.service.job(ANN, job, wait_s=0.1)
        return begun

    monkeypatch.setattr(plant.store, "begin_again", looked_at)
    async with plant.workers():
        made = await plant.create("bad a")
        await plant.service.job(ANN, made.id, wait_s=20)
        await plant.service.retry(ANN, made.id)
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert (job.status, job.attempt) == ("completed", 2)


async def test_an_inputs_error_that_may_pass_is_waited_out_and_the_others_are_done_once(plant: Plant) -> None:
    seen: list[list[object]] = []

    async def busy_at_first(order: InferOrder) -> InferAnswer:
        seen.append([item.inputs for item in order.items])
        answer = await shout(order)
        if len(seen) < 3:
            passing = Problem(code="too-many-requests", message="slow down", retry_after_s=0.1)
            last = Outcome(problem=passing)
            return InferAnswer(outcomes=[*answer.outcomes[:-1], last])
        return answer

    plant.answering = busy_at_first
    async with plant.workers():
        made = await plant.create("a", "bad b", "c")
        job = await plant.service.job(ANN, made.id, wait_s=30)
        assert (job.status, job.progress.failed) == ("completed", 1)
        assert await plant.labels(job) == ["A", None, "C"]
        assert seen == [["a", "bad b", "c"], ["c"], ["c"]]


async def test_the_time_is_the_jobs_not_each_parts(plant: Plant) -> None:
    async def slow(order: InferOrder) -> InferAnswer:
        await asyncio.sleep(1.0)
        return await shout(order)

    plant.answering = slow
    async with plant.workers():
        made = await plant.create(*(f"t{n}" for n in range(60)), timeout_s=2.0)
        job = await plant.service.job(ANN, made.id, wait_s=20)
        assert job.status == "failed"
        assert job.error is not None
        assert job.error.code == "deadline-exceeded"


async def test_a_part_that_loses_its_worker_again_and_again_is_given_up(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that is killed by what it computes: no answer, and no beat any more."""
    monkeypatch.setattr("activities.jobs.MOST_LOST", 2)
    monkeypatch.setattr("workflows.inference_job._LOST_AFTER", timedelta(seconds=1))
    tries = 0

    async def deadly(order: InferOrder) -> InferAnswer:
        nonlocal tries
        if order.items[0].inputs != "t3":
            return await shout(order)
        tries += 1
        await asyncio.sleep(0.3)
        for task in asyncio.all_tasks():
            if getattr(task.get_coro(), "__name__", "") == "_beat":
                task.cancel()
        return await never(order)

    plant.answering = deadly
    async with plant.workers(sandboxed=False):
        made = await plant.create(*(f"t{n}" for n in range(6)))
        job = await plant.service.job(ANN, made.id, wait_s=30)
        assert (job.status, job.progress.failed, tries) == ("completed", 3, 2)
        assert (await plant.labels(job))[:3] == ["T0", "T1", "T2"]


async def test_an_error_is_no_loss_of_a_worker(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.jobs.MOST_LOST", 2)
    tries = 0

    async def away(order: InferOrder) -> InferAnswer:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0.3)
        if tries < 4:
            raise Unavailable("not yet")
        return await shout(order)

    plant.answering = away
    async with plant.workers():
        job = await plant.service.job(ANN, (await plant.create("a")).id, wait_s=30)
        assert (job.status, job.progress.failed, tries) == ("completed", 0, 4)
