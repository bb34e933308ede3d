"""The request id on its way through a real Temporal, and the lines that have it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowContinuedAsNewError, WorkflowFailureError, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from goatherd.telemetry import bound, log_context_interceptor
from goatherd.telemetry._workflow import HEADER, add_request_id, request_id_in
from tests.telemetry.conftest import Captured
from tests.telemetry.echo import Echo, say


@pytest.fixture
async def client(temporal: WorkflowEnvironment) -> AsyncIterator[Client]:
    config = temporal.client.config()
    config["interceptors"] = [log_context_interceptor()]
    client = Client(**config)
    async with Worker(client, task_queue="echo", workflows=[Echo], activities=[say]):
        yield client


@pytest.fixture
def logs(configured: Callable[..., Captured]) -> Captured:
    return configured()


async def _start(client: Client) -> WorkflowHandle[Echo, list[str]]:
    return await client.start_workflow(Echo.run, False, id=f"chat_{uuid.uuid4().hex}", task_queue="echo")


async def test_a_signals_request_reaches_the_lines_of_the_activity_it_leads_to(
    logs: Captured, client: Client
) -> None:
    with bound(request_id="req_start"):
        handle = await _start(client)
    with bound(request_id="req_signal"):
        await handle.signal(Echo.say_later, "hi")
    assert await handle.result() == ["hi"]

    for event in ("structlog line", "sdk line"):
        line = logs.line(event)
        assert line["request_id"] == "req_signal"
        assert line["workflow_id"] == line["session"] == handle.id
        assert line["run_id"] == handle.result_run_id
        assert (line["activity"], line["workflow_type"], line["attempt"]) == ("say", "Echo", 1)
    started = logs.line("run started")
    assert (started["workflow_id"], started["session"], started["workflow_type"]) == (
        handle.id,
        handle.id,
        "Echo",
    )
    assert started["run_id"] == handle.result_run_id
    (trace,) = logs.line("failed on purpose")["exception"]
    assert trace["exc_value"] == "only to be logged"
    assert logs.line("failed on purpose")["request_id"] == "req_signal"


async def test_an_update_has_its_own_request_and_leaves_none_behind(logs: Captured, client: Client) -> None:
    with bound(request_id="req_start"):
        handle = await _start(client)
    # Answered after the first workflow task: the update then comes alone.
    assert await handle.query(Echo.request) is None
    with bound(request_id="req_update"):
        assert await handle.execute_update(Echo.say_now, "hi") == "req_update"
    with bound(request_id="req_query"):
        assert await handle.query(Echo.request) == "req_query"

    heard = logs.line("update heard")
    assert (heard["request_id"], heard["update"]) == ("req_update", "say_now")
    assert logs.line("structlog line")["request_id"] == "req_update"
    assert logs.line("run started")["request_id"] == "req_start"
    await handle.terminate()


async def test_it_survives_continue_as_new(logs: Captured, client: Client) -> None:
    handle = await _start(client)
    with bound(request_id="req_1"):
        await handle.signal(Echo.say_later, "again")
    with pytest.raises(WorkflowContinuedAsNewError):
        await client.get_workflow_handle(handle.id, run_id=handle.result_run_id).result(follow_runs=False)
    await client.get_workflow_handle(handle.id).signal(Echo.say_later, "hi")
    await handle.result()
    _, second = [line for line in logs.lines if line["event"] == "run started"]
    assert second["request_id"] == "req_1"


async def test_the_sdks_own_line_about_a_failed_activity_has_it_too(logs: Captured, client: Client) -> None:
    handle = await _start(client)
    with bound(request_id="req_bad"):
        await handle.signal(Echo.say_later, "bad")
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    (line,) = [line for line in logs.lines if line.get("error_kind") == "ActivityFailure"]
    assert (line["request_id"], line["activity"]) == ("req_bad", "say")
    assert "{" not in line["event"]


@pytest.mark.parametrize("data", [b"", b"\xff", b"7", b'""', b'"' + b"x" * 300 + b'"', b'{"a": 1}'])
def test_a_header_that_is_no_request_id_is_ignored(data: bytes) -> None:
    assert request_id_in({HEADER: Payload(data=data)}) is None


def test_a_request_id_goes_there_and_back() -> None:
    assert request_id_in(add_request_id({}, "req_ü")) == "req_ü"
    assert add_request_id({}, None) == {}
