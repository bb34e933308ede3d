"""Temporal, seen from outside of workflows: connecting, asking an actor, and errors as they cross over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import (
    Client,
    Interceptor,
    RPCTimeoutOrCancelledError,
    WorkflowUpdateFailedError,
)
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ApplicationError
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

from goatherd.contracts.model import Contract
from goatherd.errors import DeadlineExceeded, GoatherdError, NotFound, Unavailable, from_code
from goatherd.payloads import PayloadStore, data_converter
from goatherd.settings import Settings

OWNER = SearchAttributeKey.for_keyword("GoatherdOwner")
STATUS = SearchAttributeKey.for_keyword("GoatherdStatus")

Answer = TypeVar("Answer", bound=Contract)

_DOWN = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.ABORTED,
    # A workflow task that failed because something came in between is done again at once.
    RPCStatusCode.FAILED_PRECONDITION,
}
_LATE = {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}


class ActorGone(NotFound):
    """The actor's workflow is closed, or was never started."""

    code = "actor-gone"


async def connect(
    settings: Settings,
    *,
    payloads: PayloadStore | None = None,
    interceptors: Sequence[Interceptor] = (),
    runtime: Runtime | None = None,
) -> Client:
    """A client of the Temporal server that the settings name (`settings.temporal` must be set).

    `payloads`: where what is too large for Temporal is kept.
    """
    if settings.temporal is None:
        raise Unavailable("No Temporal server is named: set GOATHERD_TEMPORAL, or start with `goatherd up`.")
    return await Client.connect(
        settings.temporal,
        namespace=settings.temporal_namespace,
        data_converter=data_converter(payloads),
        api_key=settings.temporal_api_key,
        tls=settings.temporal_tls,
        interceptors=interceptors,
        runtime=runtime,
    )


async def ensure_search_attributes(client: Client) -> None:
    """Registers the search attributes that sessions are started with, where the server lacks them.

    Raises `Unavailable` if it can't be done: without them no session could start.
    """
    wanted = (OWNER, STATUS)
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        missing = [key.name for key in wanted if key.name not in known.custom_attributes]
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace,
                    search_attributes=dict.fromkeys(missing, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD),
                )
            )
    except RPCError as error:
        if error.status == RPCStatusCode.ALREADY_EXISTS:
            return
        names = " and ".join(key.name for key in wanted)
        raise Unavailable(
            f"The Temporal namespace lacks the search attributes {names} (Keyword), and they can't be added "
            f"from here: add them by `temporal operator search-attribute create`. ({error.message})"
        ) from error


async def ask(
    client: Client,
    workflow_id: str,
    message: Contract,
    answer: type[Answer],
    *,
    timeout_s: float,
    ask_id: str | None = None,
    run_id: str | None = None,
) -> Answer:
    """Asks an actor: `execute` of the update named after `message`'s class."""
    asked: Answer = await execute(
        client,
        workflow_id,
        type(message).__name__,
        message,
        answer,
        timeout_s=timeout_s,
        ask_id=ask_id,
        run_id=run_id,
    )
    return asked


async def execute(
    client: Client,
    workflow_id: str,
    name: str,
    message: Any,
    answer: Any,
    *,
    timeout_s: float,
    ask_id: str | None = None,
    run_id: str | None = None,
    more: Sequence[Any] = (),
) -> Any:
    """Executes an update; its result is of the type `answer`. Passing outages are waited out.

    `more`: its inputs after the first. A retry carries the same update id, so that within one run the
    message counts once; across runs the actor's own window of message ids sees to that. `run_id` asks that
    run only.

    Raises:
        ActorGone: the workflow is closed or unknown.
        DeadlineExceeded: no answer within `timeout_s`; the message may still be applied.
        Unavailable: Temporal can't be reached.
        GoatherdError: what the actor answered, as its own kind.
    """
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    ask_id = ask_id or str(uuid4())
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    delay = 0.02
    while True:
        try:
            return await asyncio.wait_for(
                handle.execute_update(
                    name,
                    args=[message, *more],
                    id=ask_id,
                    result_type=answer,
                    rpc_timeout=timedelta(seconds=timeout_s),
                ),
                max(deadline - loop.time(), 0.001),
            )
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError):
                if error.cause.type == "AcceptedUpdateCompletedWorkflow":
                    failure: GoatherdError = ActorGone(f"{workflow_id!r} ended while it was asked.")
                else:
                    failure = told(error.cause)
            else:
                failure = GoatherdError(str(error.cause))
            raise failure from error
        except (TimeoutError, RPCTimeoutOrCancelledError) as error:
            raise _late(name, timeout_s) from error
        except RPCError as error:
            if is_gone(error):
                raise ActorGone(f"{workflow_id!r} is not running.") from error
            if error.status in _LATE:
                raise _late(name, timeout_s) from error
            if error.status not in _DOWN:
                raise translate(error) from error
            if loop.time() + delay >= deadline:
                raise translate(error) from error
        # Ten updates may be in flight on one workflow; a server that restarts is back in a moment.
        await asyncio.sleep(delay)
        delay = min(delay * 2, 0.5)


def is_gone(error: RPCError) -> bool:
    """Whether Temporal says that there is no such workflow; not that it lacks the whole namespace."""
    return error.status == RPCStatusCode.NOT_FOUND and not error.message.startswith("Namespace")


def translate(error: RPCError) -> GoatherdError:
    """A failed call to Temporal, as an error of ours."""
    text = error.message.lower()
    if "disk is full" in text or "no space left" in text:
        return Unavailable(
            "Temporal's disk is full: free some space, then try again. Nothing was lost.",
            code="storage-full",
            retry_after_s=30,
        )
    if error.status in _LATE:
        return DeadlineExceeded("Temporal gave no answer in time. Try again.")
    if is_gone(error):
        return ActorGone("The workflow is not running.")
    if error.status == RPCStatusCode.FAILED_PRECONDITION and "workflow task in failed state" in text:
        return Unavailable(
            "The actor's workflow task fails each time it is tried: its worker's log tells why. It goes on "
            "when that is mended."
        )
    return Unavailable(f"Temporal can't serve this now ({error.status.name.lower()}). Try again.")


def _late(name: str, timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{name} got no answer within {timeout_s:g} s: is a worker of the pool `actors` running? It may "
        "still be applied; repeat it with the same client_id or Idempotency-Key, and it counts once."
    )


def failure(error: GoatherdError) -> ApplicationError:
    """An error of ours as Temporal carries it: its code as the type. Retried only if it says so itself."""
    details: list[Any] = []
    if isinstance(error, Unavailable):
        details = [error.pointer, error.retry_after_s]
    elif error.pointer is not None:
        details = [error.pointer]
    return ApplicationError(error.message, *details, type=error.code, non_retryable=not error.retryable)


def told(error: ApplicationError) -> GoatherdError:
    """The error of ours that `failure` has written."""
    made = from_code(error.type, error.message)
    pointer, retry_after_s = (*error.details, None, None)[:2]
    made.pointer = pointer if isinstance(pointer, str) else None
    if isinstance(made, Unavailable) and isinstance(retry_after_s, int | float):
        made.retry_after_s = float(retry_after_s)
    return made
