"""How a turn ended: the event it makes, and what readers are told of a failure."""

from __future__ import annotations

import zlib
from asyncio import CancelledError

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    from goatherd.contracts.chat import EventType, Failure, Reply
    from goatherd.contracts.model import Json
    from goatherd.errors import CODES, GoatherdError


def is_cancelled(error: BaseException) -> bool:
    return isinstance(error, CancelledError) or is_cancelled_exception(error)


def reason(error: BaseException) -> Failure:
    """What readers are told: errors of ours as they are, of others only that there was one."""
    cause = error.cause if isinstance(error, ActivityError) else error
    if isinstance(cause, GoatherdError) and cause.code in CODES:
        return Failure(code=cause.code, message=cause.message)
    if isinstance(cause, ApplicationError) and cause.type in CODES:
        return Failure(code=cause.type, message=cause.message)
    if isinstance(cause, ActivityTimeout):
        return Failure(code="worker-lost", message="The reply's workers were lost, again and again.")
    return Failure(code="internal", message="The reply failed for a reason that the workers' logs tell.")


def digest(content: str) -> int:
    return zlib.crc32(content.encode())


def outcome(reply: Reply) -> tuple[EventType, Json]:
    data: Json = {"content": reply.content}
    if reply.status == "failed":
        error = reply.error or Failure(code="unknown", message="The reply failed.")
        return EventType.MESSAGE_FAILED, data | {"error": error.model_dump(mode="json")}
    data["finish_reason"] = reply.finish_reason
    if reply.usage is not None:
        data["usage"] = reply.usage.model_dump(mode="json")
    if reply.status == "cancelled":
        return EventType.MESSAGE_CANCELLED, data
    return EventType.MESSAGE_COMPLETED, data
