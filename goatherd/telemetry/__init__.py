"""Logs, traces and metrics, and the request id that ties them together across processes.

Cheap to import: the OpenTelemetry SDK and Temporal's are loaded by the functions that need them. The
metrics themselves are in `goatherd.telemetry.metrics`.
"""

from goatherd.telemetry._logging import bind, bound, configure_logging, get_logger
from goatherd.telemetry._request import current_request_id, serve_request
from goatherd.telemetry._temporal import log_context_interceptor, temporal_runtime
from goatherd.telemetry._tracing import Tracing, configure_tracing

__all__ = [
    "Tracing",
    "bind",
    "bound",
    "configure_logging",
    "configure_tracing",
    "current_request_id",
    "get_logger",
    "log_context_interceptor",
    "serve_request",
    "temporal_runtime",
]
