"""Traces, from HTTP through workflow to activity, when there is somewhere to send them."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer
    from temporalio.contrib.opentelemetry import TracingInterceptor

    from goatherd.settings import Settings

_FROM_ENVIRONMENT = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORT_TIMEOUT_S = 3
# Asked every few seconds, by machines.
_UNTRACED = "healthz,readyz,metrics"


def configure_tracing(settings: Settings, component: str) -> Tracing | None:
    """Traces to `settings.otlp_endpoint`, or to where `OTEL_EXPORTER_OTLP_ENDPOINT` says; else None.

    None costs nothing: not even the SDK is imported. `OTEL_*` variables (sampler, headers, batch sizes) are
    honoured. Nothing global is set: give what it returns to those who need it.
    """
    endpoint = settings.otlp_endpoint
    if not endpoint and not any(os.environ.get(name) for name in _FROM_ENVIRONMENT):
        return None

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from goatherd import __version__

    resource = Resource.create(
        {
            "service.name": "goatherd",
            "service.version": __version__,
            "service.instance.id": f"{component}@{socket.gethostname()}:{os.getpid()}",
            "goatherd.component": component,
        }
    )
    exporter = OTLPSpanExporter(
        endpoint=_traces_url(endpoint) if endpoint else None, timeout=_EXPORT_TIMEOUT_S
    )
    # At exit we flush ourselves, within a bound.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


class Tracing:
    """A process's traces."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    @property
    def tracer(self) -> Tracer:
        """For spans of our own."""
        return self._provider.get_tracer("goatherd")

    def temporal_interceptors(self) -> list[TracingInterceptor]:
        """For the Temporal client; workers made with it have them from there."""
        from temporalio.contrib.opentelemetry import TracingInterceptor

        return [TracingInterceptor(self.tracer)]

    def instrument_app(self, app: FastAPI) -> None:
        """A span for each request, as part of the trace that its `traceparent` names, if it has one."""
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=_UNTRACED,
            # Else a streamed reply has a span for each piece.
            exclude_spans=["receive", "send"],
        )

    def shutdown(self, *, timeout_s: float = 4.0) -> None:
        """Sends what there is left. Blocks, but a collector that is dead holds it up for `timeout_s` only."""
        # The SDK's own bound is 30 s, and not ours to set.
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(timeout_s)


def _traces_url(endpoint: str) -> str:
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"
