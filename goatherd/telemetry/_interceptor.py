"""The part of the request id's way that runs outside workflows: the client's calls, and activities."""

from __future__ import annotations

from typing import Any

import temporalio.activity
from structlog.contextvars import get_contextvars
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.client import (
    OutboundInterceptor,
    QueryWorkflowInput,
    SignalWorkflowInput,
    StartWorkflowInput,
    StartWorkflowUpdateInput,
    StartWorkflowUpdateWithStartInput,
    WorkflowHandle,
    WorkflowUpdateHandle,
)
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, WorkflowInterceptorClassInput
from temporalio.worker import Interceptor as WorkerInterceptor

from goatherd.telemetry._logging import bind, session_of
from goatherd.telemetry._workflow import RequestIdInbound, add_request_id, request_id_in


class LogContextInterceptor(ClientInterceptor, WorkerInterceptor):
    """See `goatherd.telemetry.log_context_interceptor`."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _Client(next)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Activity(next)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[RequestIdInbound]:
        return RequestIdInbound


class _Client(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:
        input.headers = add_request_id(input.headers, _bound_request_id())
        return await super().start_workflow(input)

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:
        input.headers = add_request_id(input.headers, _bound_request_id())
        return await super().query_workflow(input)

    async def signal_workflow(self, input: SignalWorkflowInput) -> None:
        input.headers = add_request_id(input.headers, _bound_request_id())
        await super().signal_workflow(input)

    async def start_workflow_update(self, input: StartWorkflowUpdateInput) -> WorkflowUpdateHandle[Any]:
        input.headers = add_request_id(input.headers, _bound_request_id())
        return await super().start_workflow_update(input)

    async def start_update_with_start_workflow(
        self, input: StartWorkflowUpdateWithStartInput
    ) -> WorkflowUpdateHandle[Any]:
        for part in (input.start_workflow_input, input.update_workflow_input):
            part.headers = add_request_id(part.headers, _bound_request_id())
        return await super().start_update_with_start_workflow(input)


class _Activity(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = temporalio.activity.info()
        # Not put back: each execution is a task of its own, and the SDK still logs how it ended.
        bind(
            request_id=request_id_in(input.headers),
            session=session_of(info.workflow_id),
            workflow_id=info.workflow_id,
            run_id=info.workflow_run_id,
            workflow_type=info.workflow_type,
            activity=info.activity_type,
            attempt=info.attempt,
        )
        return await super().execute_activity(input)


def _bound_request_id() -> str | None:
    request_id = get_contextvars().get("request_id")
    return request_id if isinstance(request_id, str) else None
