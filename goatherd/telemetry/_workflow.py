"""The part of the request id's way that runs inside workflows.

Nothing but Temporal's SDK and `_request`, and no decision depends on a request id: replay is safe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import temporalio.workflow
from temporalio.api.common.v1 import Payload
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    HandleQueryInput,
    HandleSignalInput,
    HandleUpdateInput,
    SignalChildWorkflowInput,
    SignalExternalWorkflowInput,
    StartActivityInput,
    StartChildWorkflowInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from goatherd.telemetry._request import Heard, current_request_id, enter_run, serve_request

HEADER = "goatherd-request-id"
_MAX_LENGTH = 256

Headers = Mapping[str, Payload]


def add_request_id(headers: Headers, request_id: str | None) -> Headers:
    """The headers, with the request id as plain JSON, which Temporal's UI can show."""
    if request_id is None:
        return headers
    payload = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(request_id).encode())
    return {**headers, HEADER: payload}


def request_id_in(headers: Headers) -> str | None:
    """The request id that came along; anybody may have sent it, so what isn't one is ignored."""
    payload = headers.get(HEADER)
    if payload is None:
        return None
    try:
        value = json.loads(payload.data)
    except ValueError:
        return None
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_LENGTH else None


class RequestIdInbound(WorkflowInboundInterceptor):
    """Takes the request id from what a workflow is sent.

    Context variables are set and never put back: each run and each handler has a task of its own.
    """

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        self._heard = Heard()
        super().init(_RequestIdOutbound(outbound))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        # A signal that came with the start may have been handled before this.
        if self._heard.request_id is None:
            self._heard.request_id = request_id_in(input.headers)
        enter_run(self._heard)
        return await super().execute_workflow(input)

    async def handle_signal(self, input: HandleSignalInput) -> None:
        self._enter_handler(input.headers)
        await super().handle_signal(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:
        self._enter_handler(input.headers)
        return await super().handle_update_handler(input)

    async def handle_query(self, input: HandleQueryInput) -> Any:
        # A query leaves no trace in the run: it isn't what the main loop works for next.
        serve_request(request_id_in(input.headers))
        return await super().handle_query(input)

    def _enter_handler(self, headers: Headers) -> None:
        # None counts as well: what an operator sends by hand belongs to no earlier request.
        request_id = request_id_in(headers)
        self._heard.request_id = request_id
        serve_request(request_id)


class _RequestIdOutbound(WorkflowOutboundInterceptor):
    """Passes it on to all that the workflow starts or signals."""

    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:
        input.headers = add_request_id(input.headers, current_request_id())
        super().continue_as_new(input)

    async def signal_child_workflow(self, input: SignalChildWorkflowInput) -> None:
        input.headers = add_request_id(input.headers, current_request_id())
        await super().signal_child_workflow(input)

    async def signal_external_workflow(self, input: SignalExternalWorkflowInput) -> None:
        input.headers = add_request_id(input.headers, current_request_id())
        await super().signal_external_workflow(input)

    def start_activity(self, input: StartActivityInput) -> temporalio.workflow.ActivityHandle[Any]:
        input.headers = add_request_id(input.headers, current_request_id())
        return super().start_activity(input)

    def start_local_activity(self, input: StartLocalActivityInput) -> temporalio.workflow.ActivityHandle[Any]:
        input.headers = add_request_id(input.headers, current_request_id())
        return super().start_local_activity(input)

    async def start_child_workflow(
        self, input: StartChildWorkflowInput
    ) -> temporalio.workflow.ChildWorkflowHandle[Any, Any]:
        input.headers = add_request_id(input.headers, current_request_id())
        return await super().start_child_workflow(input)
