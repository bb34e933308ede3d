"""Jobs over HTTP: what models are asked for durably."""

from __future__ import annotations

import hashlib
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from activities.ports import Page
from api import openapi
from api.body import parse_body
from api.deps import All, Parts
from api.errors import InvalidInput
from api.etags import JSON
from api.hf_inputs import asked, read_call, task_of
from api.hf_outputs import answer_each
from api.idempotency import Answer, Ids
from api.job_schemas import (
    DEFAULT_TIMEOUT_S,
    MOST_METADATA_BYTES,
    CreateJob,
    FileQuery,
    JobList,
    JobQuery,
    ResultQuery,
    WaitQuery,
)
from api.job_service import Wish
from api.media import MediaLimit
from api.pages import list_response, load_page, one_cursor, refuse_query
from goatherd.contracts.ids import is_job_id
from goatherd.contracts.inference_job import Job
from goatherd.contracts.inference_tasks import SHAPES
from goatherd.contracts.inference_work import ModelEntry
from goatherd.errors import Invalid, MalformedCursor, NotFound

router = APIRouter(tags=["Jobs"])

JobPath = Annotated[str, Path(description="The job's id.", json_schema_extra=openapi.JOB_ID_PARAMETER)]


def _known(job: str) -> None:
    if not is_job_id(job):
        raise NotFound(f"There is no job {job[:200]!r}.")


@router.post(
    "/inference/job",
    status_code=201,
    operation_id="createJob",
    summary="Have something computed durably",
    response_description="The job. It is computed, whatever dies meanwhile.",
    responses={
        201: {"model": Job, "headers": {**openapi.LOCATION, **openapi.REPLAYED}},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            CreateJob,
            required=True,
            examples={
                "texts": {
                    "model": "tiny",
                    "task": "text-generation",
                    "inputs": ["Goats are", "Sheep are"],
                    "parameters": {"max_new_tokens": 20},
                }
            },
        ),
    },
)
async def create_job(request: Request, parts: All, query: Annotated[FileQuery, Query()]) -> Response:
    """The body is JSON as at the model's own address, with `model` and maybe `task`. An image or a sound may
    be the whole body instead, or the file `inputs` of a form: model and task are in the query then."""
    raw = await request.body()
    entry, wish = await _wish(request, parts, query, raw)
    # What the key stands for, as JSON: the body need not be.
    told = orjson.dumps([hashlib.sha256(raw).hexdigest(), request.url.query])

    async def act(ids: Ids) -> Answer:
        job = await parts.jobs.create(ids, parts.principal, entry, wish)
        return Answer(201, job.model_dump_json().encode(), {"location": f"/inference/job/{job.id}"})

    return (await parts.idempotency.run(request, parts.principal, told, act)).response()


async def _wish(request: Request, parts: Parts, query: FileQuery, raw: bytes) -> tuple[ModelEntry, Wish]:
    limit = MediaLimit(parts.settings.max_media_bytes)
    if query.model is None:
        refuse_query(request)
        body = parse_body(raw or b"{}", CreateJob)
        if len(orjson.dumps(body.metadata)) > MOST_METADATA_BYTES:
            raise Invalid(f"Up to {MOST_METADATA_BYTES} bytes.", pointer="/metadata")
        if body.stream:
            raise InvalidInput([{"pointer": "/stream", "detail": "A job is not streamed."}])
        entry = parts.inference.entry(body.model)
        task = body.task or task_of(entry.spec.task, body)
        return entry, Wish(
            task, asked(task, body, limit, entry.spec.parameters), body.metadata, body.timeout_s
        )
    entry = parts.inference.entry(query.model)
    task = query.task or entry.spec.task
    call = await read_call(request, limit, media=SHAPES[task].media)
    return entry, Wish(task, asked(task, call, limit, entry.spec.parameters), {}, DEFAULT_TIMEOUT_S)


@router.get(
    "/inference/job",
    operation_id="listJobs",
    summary="List jobs",
    response_description="A part of the list.",
    responses={
        200: {"model": JobList, "headers": openapi.LINK},
        **openapi.errors(400, 403, 422, 500, 503),
    },
)
async def list_jobs(request: Request, parts: All, query: Annotated[JobQuery, Query()]) -> Response:
    """Yours, newest first. A job is kept for a week."""
    one_cursor(query.after, query.before)
    for cursor in (query.after, query.before):
        if cursor is not None and not is_job_id(cursor):
            raise MalformedCursor("A cursor here is a job's id, such as `last_id` of the page before.")

    async def load(page: Page) -> list[Job]:
        return await parts.jobs.jobs(parts.principal, page, status=query.status, model=query.model)

    jobs, has_more = await load_page(
        load,
        limit=query.limit,
        descending=query.order == "desc",
        after=query.after,
        before=query.before,
    )
    return list_response(request, jobs, has_more, query, after=query.after, before=query.before)


@router.get(
    "/inference/job/{job}",
    operation_id="getJob",
    summary="Read a job, or wait for it",
    response_description="The job.",
    responses={200: {"model": Job}, **openapi.errors(403, 404, 422, 500, 503)},
)
async def get_job(parts: All, job: JobPath, query: Annotated[WaitQuery, Query()]) -> Response:
    """How far it is. With `wait_s` the answer comes when it has ended, or the time is over."""
    _known(job)
    found = await parts.jobs.job(parts.principal, job, wait_s=query.wait_s)
    return Response(found.model_dump_json(), media_type=JSON)


@router.get(
    "/inference/job/{job}/result",
    operation_id="getJobResult",
    summary="Read a job's result",
    response_description="What the call would have been answered.",
    responses={
        200: {"content": {"application/json": {}, "image/png": {}, "audio/wav": {}}},
        **openapi.errors(403, 404, 409, 422, 500, 503),
    },
)
async def get_result(parts: All, job: JobPath, query: Annotated[ResultQuery, Query()]) -> Response:
    """As at the model's own address. In a list of results, that of an input that could not be computed is
    `{"error", "code"}`; the only input's error is the answer."""
    _known(job)
    result = await parts.jobs.result(parts.principal, job, partial=query.partial)
    return answer_each(result.task, result.asked, result.outcomes)


@router.delete(
    "/inference/job/{job}",
    status_code=202,
    operation_id="cancelJob",
    summary="Cancel a job",
    response_description="It stops within seconds.",
    responses={
        200: {"model": Job, "description": "It had ended; it stays as it is."},
        202: {"model": Job},
        **openapi.errors(403, 404, 422, 500, 503),
    },
)
async def cancel_job(request: Request, parts: All, job: JobPath) -> Response:
    """What is computed already is kept."""
    refuse_query(request)
    _known(job)
    found = await parts.jobs.cancel(parts.principal, job)
    status = 202 if found.finished_at is None else 200
    return Response(found.model_dump_json(), status, media_type=JSON)


@router.post(
    "/inference/job/{job}/retry",
    operation_id="retryJob",
    summary="Compute again what failed",
    response_description="The job, begun again.",
    responses={200: {"model": Job}, **openapi.errors(403, 404, 409, 422, 500, 503)},
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY]},
)
async def retry_job(request: Request, parts: All, job: JobPath) -> Response:
    """Of a job that has ended: the inputs that have no output, by the model as it is registered now."""
    refuse_query(request)
    _known(job)

    async def act(_: Ids) -> Answer:
        found = await parts.jobs.retry(parts.principal, job)
        return Answer(200, found.model_dump_json().encode())

    return (await parts.idempotency.run(request, parts.principal, b"{}", act)).response()
