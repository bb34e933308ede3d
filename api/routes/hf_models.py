"""Models at addresses of their own, as Hugging Face's clients ask them: `InferenceClient(model=URL)`."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api import inference_docs as docs
from api import openapi
from api.deps import All, LeanRoute, Parts
from api.hf_inputs import Asked, asked, read_call, task_of
from api.hf_outputs import answer
from api.hf_stream import text_events
from api.inference_calls import found, run, stream
from api.inference_schemas import ModelInfo
from api.media import MediaLimit
from api.outcomes import all_done
from api.pages import refuse_query
from api.sse import DataStream
from goatherd.contracts.inference_tasks import SHAPES, Task, tasks_of
from goatherd.contracts.inference_work import ModelEntry
from goatherd.errors import WrongTask

router = APIRouter(tags=["Models"], route_class=LeanRoute)
"""Paths that end in a word of theirs."""
address = APIRouter(tags=["Models"], route_class=LeanRoute)
"""The model's own: matches whatever is below /models, so it has to come last."""

ModelPath = Annotated[str, Path(description="The model's name.", examples=["smollm2-135m-instruct"])]
TaskPath = Annotated[
    str, Path(description="One of the model's tasks.", json_schema_extra={"enum": [*docs.TASKS]})
]


@router.post(
    "/models/{model_id:path}/pipeline/{task}",
    operation_id="askModelFor",
    summary="Ask a model for a task",
    response_description="The task's result.",
    responses=docs.CALL_ANSWERS,
    openapi_extra=docs.CALL_BODY,
)
async def ask_for_task(request: Request, parts: All, model_id: ModelPath, task: TaskPath) -> Response:
    """One of the model's tasks. The body is as at the model's own address."""
    refuse_query(request)
    entry = found(parts, model_id)
    try:
        wanted = Task(task)
    except ValueError:
        names = ", ".join(one.value for one in tasks_of(entry.spec.task))
        raise WrongTask(f"There is no task {task[:100]!r}. The model {entry.name!r} does: {names}.") from None
    limit = MediaLimit(parts.settings.max_media_bytes)
    call = await read_call(request, limit, media=SHAPES[wanted].media)
    return await _answer(request, parts, entry, wanted, asked(wanted, call, limit, entry.spec.parameters))


@address.post(
    "/models/{model_id:path}",
    operation_id="askModel",
    summary="Ask a model",
    response_description="The task's result.",
    responses=docs.CALL_ANSWERS,
    openapi_extra=docs.CALL_BODY,
)
async def ask(request: Request, parts: All, model_id: ModelPath) -> Response:
    """The task that the model is registered for; a model for conversations goes on from a mere text.

    `inputs` and `parameters` are Hugging Face's for the task. A list of inputs gives a list of results.
    Images and sounds may be the whole body instead, or the file `inputs` of a form. Text-to-image and
    text-to-speech give the file itself. Generated text comes as Server-Sent Events with `stream`.
    """
    refuse_query(request)
    entry = found(parts, model_id)
    limit = MediaLimit(parts.settings.max_media_bytes)
    call = await read_call(request, limit, media=SHAPES[entry.spec.task].media)
    task = task_of(entry.spec.task, call)
    return await _answer(request, parts, entry, task, asked(task, call, limit, entry.spec.parameters))


@router.get(
    "/models/{model_id:path}/health",
    operation_id="modelHealth",
    summary="Can a model be asked?",
    response_description="It can. One that is not loaded is when it is asked.",
    response_class=Response,
    responses=openapi.errors(*docs.READ_ERRORS, 503),
)
async def health(request: Request, parts: All, model_id: ModelPath) -> Response:
    """For `InferenceClient.health_check`. 503 if the last try to load it failed."""
    refuse_query(request)
    await parts.models.check_health(found(parts, model_id))
    return Response(status_code=200)


@router.get(
    "/models/{model_id:path}/info",
    operation_id="modelInfo",
    summary="What a model is for",
    response_description="Its name and tasks.",
    responses={200: {"model": ModelInfo}, **openapi.errors(*docs.READ_ERRORS)},
)
async def info(request: Request, parts: All, model_id: ModelPath) -> Response:
    """For `InferenceClient.get_endpoint_info`."""
    refuse_query(request)
    entry = found(parts, model_id)
    tasks = tasks_of(entry.spec.task)
    shown = ModelInfo(model_id=entry.name, pipeline_tag=entry.spec.task, tasks=list(tasks))
    return Response(orjson.dumps(shown.model_dump(mode="json")), media_type="application/json")


async def _answer(request: Request, parts: Parts, entry: ModelEntry, task: Task, wanted: Asked) -> Response:
    if wanted.stream:
        talk = await stream(request, parts, entry, task, wanted.items[0])
        return DataStream(text_events(request.scope, talk, wanted), talk)
    outcomes = await run(request, parts, entry, task, wanted.items)
    return answer(task, wanted, all_done(outcomes, many="/inputs" if wanted.many else None))
