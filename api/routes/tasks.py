"""Tasks over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from activities.ports import Page
from api import openapi
from api.body import read_body
from api.deps import All, LeanRoute, Parts
from api.etags import JSON, etag_of, tagged
from api.idempotency import Answer, Ids
from api.pages import list_response, load_page, one_cursor, refuse_query
from api.task_documents import Listed, brief, progress_of, render_task, task_document
from api.task_json import dumps
from api.task_pages import TaskQuery, task_cursor
from api.task_schemas import (
    CreatedTask,
    CreateTask,
    PauseBody,
    RequeueBody,
    RequeuedSubtasks,
    ResumeBody,
    TaskDocument,
    TaskList,
    TaskNumbers,
)
from goatherd.contracts.ids import is_task_id
from goatherd.contracts.model import rfc3339
from goatherd.errors import NotFound

router = APIRouter(tags=["Tasks"], route_class=LeanRoute)
# Those with a query that is validated.
queries = APIRouter(tags=["Tasks"])

TaskPath = Annotated[str, Path(description="The task's id.", json_schema_extra=openapi.TASK_ID_PARAMETER)]


def known_task(task: str) -> None:
    """What can't be an id is an unknown one, and nobody need be asked."""
    if not is_task_id(task):
        raise NotFound(f"There is no task {task[:200]!r}.")


@router.post(
    "/task",
    status_code=201,
    operation_id="createTask",
    summary="Create a task",
    response_description="The task. The secret of its callback is shown here only.",
    responses={
        201: {
            "model": CreatedTask,
            "headers": {**openapi.LOCATION, **openapi.ETAG, **openapi.REPLAYED},
        },
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            CreateTask,
            required=False,
            examples={
                "plain": {"title": "Label the goats"},
                "with subtasks": {
                    "title": "Render",
                    "lease_s": 30,
                    "max_attempts": 5,
                    "subtasks": [
                        {"key": "frames", "input": {"frames": [1, 240]}, "requires": ["gpu"]},
                        {"key": "cut", "depends_on": ["frames"]},
                    ],
                },
            },
        ),
    },
)
async def create_task(request: Request, parts: All) -> Response:
    """Makes a task, perhaps with its first subtasks. All of it or nothing; the body may be left out."""
    refuse_query(request)
    body, raw = await read_body(request, CreateTask)

    async def act(ids: Ids) -> Answer:
        created = await parts.tasks.service.create(parts.principal, ids, body, len(raw))
        document = task_document(created.task)
        if created.task.callback is not None:
            document["callback"]["secret"] = created.secret
        content = dumps(document)
        headers = {"location": f"/task/{created.task.id}", "etag": etag_of(content)}
        return Answer(201, content, headers)

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@queries.get(
    "/task",
    operation_id="listTasks",
    summary="List tasks",
    response_description="A part of the list.",
    responses={
        200: {"model": TaskList, "headers": openapi.LINK},
        **openapi.errors(400, 403, 422, 500, 503),
    },
)
async def list_tasks(request: Request, parts: All, query: Annotated[TaskQuery, Query()]) -> Response:
    """Your tasks, newest first, also those that are closed."""
    one_cursor(query.after, query.before)
    after, before = task_cursor(query.after), task_cursor(query.before)

    async def load(page: Page) -> list[Listed]:
        return await parts.tasks.reads.tasks(parts.principal, page, status=query.status, label=query.label)

    tasks, has_more = await load_page(
        load, limit=query.limit, descending=query.order == "desc", after=after, before=before
    )
    return list_response(request, tasks, has_more, query, after=query.after, before=query.before)


@router.get(
    "/task/{task}",
    operation_id="getTask",
    summary="Read a task",
    response_description="The task, with how many of its subtasks are where.",
    responses={
        200: {"model": TaskDocument, "headers": openapi.ETAG},
        304: {"description": "You have it already.", "headers": openapi.ETAG},
        **openapi.errors(*openapi.READ_ERRORS),
    },
    openapi_extra={"parameters": [openapi.IF_NONE_MATCH]},
)
async def get_task(request: Request, task: TaskPath, parts: All) -> Response:
    """The task: its settings, its status, its subtasks by status, how much of it is done."""
    refuse_query(request)
    known_task(task)
    return tagged(request, render_task(await parts.tasks.reads.task(parts.principal, task)))


@router.delete(
    "/task/{task}",
    status_code=204,
    operation_id="cancelTask",
    summary="Cancel a task",
    response_description="It is closed.",
    responses={
        202: {"model": TaskDocument, "description": "Some of it is still held; it closes when that ends."},
        **openapi.errors(*openapi.DELETE_ERRORS),
    },
)
async def cancel_task(request: Request, task: TaskPath, parts: All) -> Response:
    """Cancels what nobody has; who has something learns it by heartbeat, or his lease runs out.

    Then the task is closed. It stays readable, with its history. Again is answered the same.
    """
    refuse_query(request)
    known_task(task)
    if await parts.tasks.service.cancel(parts.principal, task):
        return Response(status_code=204)
    document = await parts.tasks.reads.task(parts.principal, task)
    return Response(render_task(document), 202, media_type=JSON)


@router.post(
    "/task/{task}/__pause",
    operation_id="pauseTask",
    summary="Pause a task",
    response_description="The task as it is now.",
    responses={
        200: {"model": TaskDocument, "headers": {**openapi.ETAG, **openapi.REPLAYED}},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(PauseBody, required=False, examples={"plain": {}}),
    },
)
async def pause_task(request: Request, task: TaskPath, parts: All) -> Response:
    """Nothing is given out until it is resumed. Who has something may finish it. Again is fine."""
    refuse_query(request)
    known_task(task)
    _, raw = await read_body(request, PauseBody)

    async def act(_: Ids) -> Answer:
        await parts.tasks.service.pause(parts.principal, task)
        return await _as_it_is(parts, task)

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@router.post(
    "/task/{task}/__resume",
    operation_id="resumeTask",
    summary="Resume a task",
    response_description="The task as it is now.",
    responses={
        200: {"model": TaskDocument, "headers": {**openapi.ETAG, **openapi.REPLAYED}},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(ResumeBody, required=False, examples={"plain": {}}),
    },
)
async def resume_task(request: Request, task: TaskPath, parts: All) -> Response:
    """Ends a pause. Again is fine."""
    refuse_query(request)
    known_task(task)
    _, raw = await read_body(request, ResumeBody)

    async def act(_: Ids) -> Answer:
        await parts.tasks.service.resume(parts.principal, task)
        return await _as_it_is(parts, task)

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@router.post(
    "/task/{task}/__requeue",
    operation_id="requeueSubtasks",
    summary="Have subtasks done after all",
    response_description="How many are pending again.",
    responses={
        200: {"model": RequeuedSubtasks, "headers": openapi.REPLAYED},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            RequeueBody,
            required=False,
            examples={"the dead": {}, "more": {"statuses": ["dead", "failed"]}},
        ),
    },
)
async def requeue_subtasks(request: Request, task: TaskPath, parts: All) -> Response:
    """Dead subtasks (or failed, or cancelled ones) are pending again, with all of their attempts.

    Those that were cancelled because of them wait for them again.
    """
    refuse_query(request)
    known_task(task)
    body, raw = await read_body(request, RequeueBody)

    async def act(_: Ids) -> Answer:
        requeued, summary = await parts.tasks.service.requeue(
            parts.principal, task, body.statuses, body.subtasks
        )
        return Answer(200, dumps({"requeued": requeued, "task": brief(task, summary)}))

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@router.get(
    "/task/{task}/stats",
    operation_id="getTaskStats",
    summary="Read a task's statistics",
    response_description="Who does what, and what waits longest.",
    responses={200: {"model": TaskNumbers}, **openapi.errors(*openapi.READ_ERRORS)},
)
async def get_task_stats(request: Request, task: TaskPath, parts: All) -> Response:
    """By worker, what he holds and has reported; by status, since when the oldest subtask is there."""
    refuse_query(request)
    known_task(task)
    document, stats = await parts.tasks.reads.stats(parts.principal, task)
    content = {
        "object": "task.stats",
        "task": task,
        "status": document.status.value,
        "counts": document.counts.model_dump(),
        "progress": progress_of(document.counts),
        "workers": {
            name: {"leased": one.leased, "completed": one.completed, "failed": one.failed}
            for name, one in sorted(stats.workers.items())
        },
        "oldest": {status: rfc3339(at) for status, at in sorted(stats.oldest.items())},
    }
    return Response(dumps(content), media_type=JSON)


async def _as_it_is(parts: Parts, task: str) -> Answer:
    content = render_task(await parts.tasks.reads.task(parts.principal, task))
    return Answer(200, content, {"etag": etag_of(content)})
