"""A task as it goes on: its events over SSE."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api import openapi
from api.deps import All
from api.frames import Cursor
from api.routes.tasks import TaskPath, known_task
from api.sse import MEDIA_TYPE, EventStream
from goatherd.contracts.task import TaskEvent

router = APIRouter(tags=["Events"])

_SEQ = r"^[0-9]{1,15}$"


def _cursor(schema: dict[str, Any]) -> None:
    """Tells a cursor's pattern without checking it: what doesn't match is a malformed cursor, not a 422."""
    schema["anyOf"] = [{"type": "string", "pattern": _SEQ}, {"type": "null"}]


class TaskStreamQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    since: str | None = Field(
        None,
        description="Only what came after the event of this `seq`. Default: from the task's beginning.",
        examples=["4"],
        json_schema_extra=_cursor,
    )


@router.get(
    "/task/{task}/events",
    operation_id="followTask",
    summary="Follow a task's events",
    response_class=Response,
    response_description="The events, for as long as the task goes on and you read.",
    responses={
        200: {
            "content": {
                MEDIA_TYPE: openapi.event_stream(
                    'event: task.created\nid: 1\ndata: {"v":1,"seq":1,…}\n\n', (TaskEvent,)
                )
            }
        },
        204: {"description": "The task is closed, and you have seen its end. Don't come back."},
        **openapi.errors(*openapi.LIST_ERRORS),
    },
)
async def follow_task(
    task: TaskPath,
    parts: All,
    query: Annotated[TaskStreamQuery, Query()],
    last_event_id: Annotated[
        str | None,
        Header(
            description="As `since`, and before it: an `EventSource` sends it by itself.",
            json_schema_extra=_cursor,
        ),
    ] = None,
) -> Response:
    """The task's events as Server-Sent Events: those after the cursor, then each as it happens.

    Each has the next `seq`, which is its `id`; none is left out. What was answered is not in them: read the
    subtask. An idle stream has a comment every 15 s. The stream ends when the task is closed;
    a client that reads too slowly is cut off, and may come back with the last id it got.
    """
    known_task(task)
    await parts.tasks.actors.authorize(parts.principal, task)
    since = last_event_id or query.since
    cursor = Cursor.parse("0" if since is None else since)
    if await parts.tasks.feed.check(task, cursor):
        return Response(status_code=204)
    return EventStream(parts.tasks.feed.follow(task, cursor))
