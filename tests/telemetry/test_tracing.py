"""Traces as a collector gets them, from HTTP through a real workflow to its activity."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from goatherd.settings import Settings
from goatherd.telemetry import configure_tracing, log_context_interceptor
from tests.telemetry.echo import Echo, say


class Collector:
    """An OTLP collector on loopback."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {item.key: item.value.string_value for item in part.resource.attributes}
            for scope in part.scope_spans:
                self.spans.extend(scope.spans)
        return web.Response(content_type="application/x-protobuf")

    def span(self, name: str) -> Span:
        (span,) = [span for span in self.spans if span.name == name]
        return span


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield collector
    await runner.cleanup()


async def test_a_request_its_workflow_and_its_activity_are_one_trace(
    collector: Collector, temporal: WorkflowEnvironment
) -> None:
    tracing = configure_tracing(Settings(otlp_endpoint=collector.url), "api")
    assert tracing is not None
    config = temporal.client.config()
    config["interceptors"] = [log_context_interceptor(), *tracing.temporal_interceptors()]
    client = Client(**config)
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> None: ...

    @app.post("/echo/{name}")
    async def echo(name: str) -> list[str]:
        handle = await client.start_workflow(Echo.run, False, id=name, task_queue="traced")
        await handle.signal(Echo.say_later, "hi")
        return await handle.result()

    tracing.instrument_app(app)
    trace_id, parent = uuid.uuid4().hex, "00f067aa0ba902b7"
    transport = httpx.ASGITransport(app)
    async with (
        Worker(client, task_queue="traced", workflows=[Echo], activities=[say]),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        await http.get("/healthz")
        answer = await http.post(
            f"/echo/echo-{uuid.uuid4().hex}", headers={"traceparent": f"00-{trace_id}-{parent}-01"}
        )
    assert answer.json() == ["hi"]
    await asyncio.to_thread(tracing.shutdown)

    request = collector.span("POST /echo/{name}")
    chain = [request, *map(collector.span, ("StartWorkflow:Echo", "RunWorkflow:Echo", "StartActivity:say"))]
    chain.append(collector.span("RunActivity:say"))
    assert {span.trace_id.hex() for span in collector.spans} == {trace_id}
    assert request.parent_span_id.hex() == parent
    assert chain[1].parent_span_id == chain[0].span_id
    assert chain[2].parent_span_id == chain[1].span_id
    assert chain[4].parent_span_id == chain[3].span_id
    assert collector.resource["service.name"] == "goatherd"
    assert collector.resource["goatherd.component"] == "api"


async def test_the_standard_variable_turns_it_on_as_well(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    tracing = configure_tracing(Settings(), "worker")
    assert tracing is not None
    tracing.tracer.start_span("alone").end()
    await asyncio.to_thread(tracing.shutdown)
    assert collector.span("alone")


def test_a_dead_collector_does_not_hold_up_the_end() -> None:
    tracing = configure_tracing(Settings(otlp_endpoint="http://127.0.0.1:9"), "worker")
    assert tracing is not None
    tracing.tracer.start_span("lost").end()
    started = time.monotonic()
    tracing.shutdown(timeout_s=0.2)
    assert time.monotonic() - started < 2


def test_when_off_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    code = (
        "import sys; from goatherd.settings import Settings; import goatherd.telemetry as telemetry;"
        "print(telemetry.configure_tracing(Settings(), 'api'), 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "False"]
