"""Subtasks over HTTP: adding, taking, reporting, reading."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from activities.ports import Page
from api import openapi
from api.body import read_body
from api.deps import All, LeanRoute
from api.errors import PreconditionFailed, PreconditionRequired
from api.etags import JSON, etag_of, matches, tagged
from api.idempotency import HEADER, Answer, Ids
from api.pages import list_response, load_page, one_cursor, refuse_query
from api.routes.tasks import TaskPath, known_task
from api.task_documents import Listed
from api.task_json import dumps
from api.task_pages import SubtaskQuery, subtask_cursor
from api.task_schemas import (
    Assignments,
    Beat,
    CreatedSubtasks,
    HeartbeatBody,
    ReleaseBody,
    Report,
    ReportBody,
    SubtaskBodies,
    SubtaskBody,
    SubtaskDocument,
    SubtaskList,
    TakeBody,
    UpdateSubtaskBody,
)
from api.task_work import render_beat
from goatherd.contracts.ids import subtask_number
from goatherd.contracts.model import rfc3339
from goatherd.contracts.task_messages import UpdateSubtask
from goatherd.errors import Conflict, NotFound

router = APIRouter(tags=["Subtasks"], route_class=LeanRoute)
# Those with a query that is validated.
queries = APIRouter(tags=["Subtasks"])

SubtaskPath = Annotated[
    str, Path(description="The subtask's id.", json_schema_extra=openapi.SUBTASK_ID_PARAMETER)
]

_INFO = ("title", "input", "labels")
_TOKEN = "7-3f0c5a7e9b1d2c4e6f8a0b1c"


def known_subtask(task: str, subtask: str) -> None:
    """As `known_task`."""
    known_task(task)
    if not subtask_number(task, subtask):
        raise NotFound(f"There is no subtask {subtask[:200]!r} in task {task!r}.")


@router.post(
    "/task/{task}/subtask",
    status_code=201,
    operation_id="addSubtasks",
    summary="Add subtasks",
    response_description="The subtask; or of an array, a list of those that were added.",
    responses={
        201: {
            "model": SubtaskDocument | CreatedSubtasks,
            "headers": {**openapi.LOCATION, **openapi.ETAG, **openapi.REPLAYED},
        },
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.one_or_several(
            SubtaskBody,
            SubtaskBodies,
            examples={
                "one": {"title": "Goat 7", "input": {"image": "goat-7.jpg"}, "priority": 1},
                "several": [{"key": "a", "input": 1}, {"input": 2, "depends_on": ["a"]}],
            },
        ),
    },
)
async def add_subtasks(request: Request, task: TaskPath, parts: All) -> Response:
    """Adds one, or an array of up to 10,000: all of them or none.

    One that depends on others is `blocked` until these are completed; if one of them is not going to be, it
    is cancelled (`dependency-failed`).
    """
    refuse_query(request)
    known_task(task)
    one = (await request.body()).lstrip()[:1] != b"["
    if one:
        body, raw = await read_body(request, SubtaskBody)
        bodies = [body]
    else:
        several, raw = await read_body(request, SubtaskBodies)
        bodies = several.root

    async def act(ids: Ids) -> Answer:
        added, made = await parts.tasks.service.add(
            parts.principal, task, ids, bodies, size=len(raw), one=one
        )
        if one:
            content = dumps(await parts.tasks.reads.subtask(parts.principal, task, made[0].id))
            headers = {"location": f"/task/{task}/subtask/{made[0].id}", "etag": etag_of(content)}
            return Answer(201, content, headers)
        at = rfc3339(added.created_at)
        data = [
            {
                "object": "subtask",
                "id": new.id,
                "task": task,
                "number": new.number,
                "key": new.key,
                "status": new.status.value,
                "created_at": at,
            }
            for new in made
        ]
        listed = {"data": data, "has_more": False, "first_id": made[0].id, "last_id": made[-1].id}
        return Answer(201, dumps({"object": "list", **listed}), {"location": f"/task/{task}/subtask"})

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@queries.get(
    "/task/{task}/subtask",
    operation_id="listSubtasks",
    summary="List subtasks",
    response_description="A part of the list.",
    responses={
        200: {"model": SubtaskList, "headers": openapi.LINK},
        **openapi.errors(*openapi.LIST_ERRORS),
    },
)
async def list_subtasks(
    request: Request, task: TaskPath, parts: All, query: Annotated[SubtaskQuery, Query()]
) -> Response:
    """The task's subtasks by number, or those with a status, or that a worker has."""
    known_task(task)
    one_cursor(query.after, query.before)
    after, before = subtask_cursor(task, query.after), subtask_cursor(task, query.before)

    async def load(page: Page) -> list[Listed]:
        return await parts.tasks.reads.subtasks(
            parts.principal, task, page, status=query.status, assignee=query.assignee
        )

    subtasks, has_more = await load_page(
        load, limit=query.limit, descending=query.order == "desc", after=after, before=before
    )
    return list_response(request, subtasks, has_more, query, after=query.after, before=query.before)


# Before `{subtask}`, which it would be taken for.
@router.post(
    "/task/{task}/subtask/__take",
    operation_id="takeSubtasks",
    summary="Take subtasks to work on",
    response_description="The assignments; none if there is nothing to take.",
    responses={
        200: {"model": Assignments, "headers": openapi.REPLAYED},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            TakeBody,
            required=True,
            examples={
                "one": {"worker": "annotator-7"},
                "several, and wait": {
                    "worker": "renderer-1",
                    "capabilities": ["gpu"],
                    "max": 4,
                    "wait_s": 20,
                },
            },
        ),
    },
)
async def take_subtasks(request: Request, task: TaskPath, parts: All) -> Response:
    """Gives the caller up to `max` subtasks, each to him alone until the lease ends: by priority, then age,
    of those that require no more than his `capabilities`.

    `wait_s`: if there is nothing, the answer comes when there is, or after so long. With the same
    Idempotency-Key it gives the same leases.
    """
    refuse_query(request)
    known_task(task)
    body, raw = await read_body(request, TakeBody)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async def act(ids: Ids) -> Answer:
        take_id = ids.make("req", "take") if ids.keyed else None
        content = await parts.tasks.work.take(parts.principal, task, body, take_id=take_id, gone=gone)
        return Answer(200, content)

    if HEADER not in request.headers:
        return Response((await act(Ids())).body, media_type=JSON)
    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@router.get(
    "/task/{task}/subtask/{subtask}",
    operation_id="getSubtask",
    summary="Read a subtask",
    response_description="The subtask with its leases.",
    responses={
        200: {"model": SubtaskDocument, "headers": openapi.ETAG},
        304: {"description": "You have it already.", "headers": openapi.ETAG},
        **openapi.errors(*openapi.READ_ERRORS),
    },
    openapi_extra={"parameters": [openapi.IF_NONE_MATCH]},
)
async def get_subtask(request: Request, task: TaskPath, subtask: SubtaskPath, parts: All) -> Response:
    """The subtask: what is said of it, how it stands, who had it, and once it is done, its result.

    With overlap, what the others have answered is not shown before that.
    """
    refuse_query(request)
    known_subtask(task, subtask)
    return tagged(request, dumps(await parts.tasks.reads.subtask(parts.principal, task, subtask)))


@router.put(
    "/task/{task}/subtask/{subtask}",
    operation_id="updateSubtask",
    summary="Change what is said of a subtask",
    response_description="The subtask as it is now.",
    responses={
        200: {"model": SubtaskDocument, "headers": openapi.ETAG},
        **openapi.errors(*openapi.PUT_ERRORS, 412, 428),
    },
    openapi_extra={
        "parameters": [openapi.IF_MATCH],
        **openapi.body(
            UpdateSubtaskBody,
            required=True,
            examples={"sooner": {"priority": 1}, "elsewhere": {"requires": ["gpu"], "labels": ["slow"]}},
        ),
    },
)
async def update_subtask(request: Request, task: TaskPath, subtask: SubtaskPath, parts: All) -> Response:
    """Changes what is given, and nothing else. Who has it already keeps what he was given.

    `If-Match` has to be the ETag of what you have read, or `*` for whatever there is.
    """
    refuse_query(request)
    known_subtask(task, subtask)
    body, _ = await read_body(request, UpdateSubtaskBody)
    given = request.headers.get("if-match")
    if given is None:
        raise PreconditionRequired("Say in `If-Match` what you change: the ETag that you have read, or `*`.")
    current = await parts.tasks.reads.subtask(parts.principal, task, subtask)
    if not matches(given, etag_of(dumps(current))):
        raise PreconditionFailed("The subtask is not any more what you have read. Read it again.")
    info = {
        name: getattr(body, name) for name in ("title", "input", "labels") if name in body.model_fields_set
    }
    if info.get("labels", ()) is None:
        info["labels"] = []
    order = UpdateSubtask(
        subtask=subtask,
        priority=body.priority,
        requires=body.requires,
        info=info,
        info_version=None if given.strip() == "*" else current["info_version"],
    )
    try:
        await parts.tasks.service.update(parts.principal, task, order)
    except Conflict as error:
        if error.code != "version-conflict":
            raise
        raise PreconditionFailed("The subtask was changed at the same time. Read it again.") from None
    since = current["info_version"]
    content = dumps(await parts.tasks.reads.changed(parts.principal, task, subtask, since=since))
    return Response(content, media_type=JSON, headers={"etag": etag_of(content)})


@router.put(
    "/task/{task}/subtask/{subtask}/status",
    operation_id="reportSubtask",
    summary="Report on a subtask",
    response_description="What became of it. The same report again is answered the same.",
    responses={200: {"model": Report}, **openapi.errors(*openapi.PUT_ERRORS)},
    openapi_extra=openapi.body(
        ReportBody,
        required=True,
        examples={
            "done": {"status": "completed", "lease_token": _TOKEN, "result": {"label": "goat"}},
            "failed": {
                "status": "failed",
                "lease_token": _TOKEN,
                "error": {"code": "timeout", "message": "The renderer did not answer."},
                "retry_after_s": 30,
            },
        },
    ),
)
async def report_subtask(request: Request, task: TaskPath, subtask: SubtaskPath, parts: All) -> Response:
    """By who has it, with his `lease_token`: `completed`, `failed`, `pending` (gives it back), `cancelled`
    (gives up for good), or `leased` (progress and checkpoint only). By the owner, without: `cancelled`, or
    `pending` for one that is failed, dead or cancelled.

    A lease that has ended otherwise is 409 `lease-lost`; what can't be, 409 `invalid-transition`.
    """
    refuse_query(request)
    known_subtask(task, subtask)
    body, _ = await read_body(request, ReportBody)
    content = await parts.tasks.work.report(parts.principal, task, subtask, body)
    return Response(content, media_type=JSON)


@router.post(
    "/task/{task}/subtask/{subtask}/heartbeat",
    operation_id="beatSubtask",
    summary="Extend a lease",
    response_description="What its holder has to know.",
    responses={200: {"model": Beat, "headers": openapi.REPLAYED}, **openapi.errors(*openapi.POST_ERRORS)},
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            HeartbeatBody,
            required=True,
            examples={"plain": {"lease_token": _TOKEN, "extend_s": 60, "progress": 0.4}},
        ),
    },
)
async def beat_subtask(request: Request, task: TaskPath, subtask: SubtaskPath, parts: All) -> Response:
    """The lease lasts for `extend_s` from now. What is left as `checkpoint` is given to the next who has it.

    `cancel_requested`: the task is cancelled, and with this answer the lease is over.
    """
    refuse_query(request)
    known_subtask(task, subtask)
    body, raw = await read_body(request, HeartbeatBody)

    async def act(_: Ids) -> Answer:
        beaten = await parts.tasks.work.heartbeat(parts.principal, task, subtask, body)
        return Answer(200, render_beat(subtask, beaten))

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@router.post(
    "/task/{task}/subtask/{subtask}/release",
    operation_id="releaseSubtask",
    summary="Give a subtask back",
    response_description="What became of it. Again is answered the same.",
    responses={200: {"model": Report, "headers": openapi.REPLAYED}, **openapi.errors(*openapi.POST_ERRORS)},
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(ReleaseBody, required=True, examples={"plain": {"lease_token": _TOKEN}}),
    },
)
async def release_subtask(request: Request, task: TaskPath, subtask: SubtaskPath, parts: All) -> Response:
    """Ends the lease. It costs no attempt: others can take it at once."""
    refuse_query(request)
    known_subtask(task, subtask)
    body, raw = await read_body(request, ReleaseBody)

    async def act(_: Ids) -> Answer:
        return Answer(200, await parts.tasks.work.release(parts.principal, task, subtask, body.lease_token))

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()
