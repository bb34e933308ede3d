from __future__ import annotations

import httpx
import pytest

from goatherd.settings import Settings
from goatherd.telemetry import metrics, temporal_runtime


def test_all_metrics_are_rendered_under_our_prefix() -> None:
    metrics.HTTP_REQUESTS.labels("GET", "/chat/{session}", "200").inc()
    metrics.OPEN_SOCKETS.labels("ws").set(2)
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    text = body.decode()
    assert 'goatherd_http_requests_total{method="GET",route="/chat/{session}",status="200"}' in text
    assert 'goatherd_open_sockets{transport="ws"} 2.0' in text
    foreign = [
        line
        for line in text.splitlines()
        if line.startswith("# TYPE") and not line.split()[2].startswith(("goatherd_", "process_", "python_"))
    ]
    assert foreign == []


async def test_a_worker_serves_them_and_frees_its_port() -> None:
    server = metrics.serve_metrics(0)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/metrics")
    assert "goatherd_replies" in answer.text
    with pytest.raises(OSError, match="in use"):
        metrics.serve_metrics(server.port)
    server.close()
    metrics.serve_metrics(server.port).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_temporals_own_metrics_are_on_the_next_port(host: str) -> None:
    free = metrics.serve_metrics(0)
    port = free.port
    free.close()
    runtime = temporal_runtime(Settings(host=host, metrics_port=port - 1))
    runtime.metric_meter.create_counter("goatherd_probe").add(1)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics")
    assert "goatherd_probe" in answer.text


def test_without_a_metrics_port_temporal_opens_none() -> None:
    runtime = temporal_runtime(Settings())
    assert type(runtime.metric_meter).__name__ == "_NoopMetricMeter"
