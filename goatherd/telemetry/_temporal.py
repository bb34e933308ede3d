"""The door to all that needs Temporal's SDK, which is loaded here and not before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from temporalio.runtime import Runtime

    from goatherd.settings import Settings
    from goatherd.telemetry._interceptor import LogContextInterceptor


def log_context_interceptor() -> LogContextInterceptor:
    """Carries the bound `request_id` through Temporal, and binds who is at work in each activity.

    Give it to the client alone: workers made with that client have it from there. Lines of an activity
    get request_id, session, workflow_id, run_id, workflow_type, activity and attempt; so do those of
    `workflow.logger`. Work that a workflow's main loop does has the request that the run was sent last,
    unless it says otherwise (`serve_request`).
    """
    import temporalio.activity
    import temporalio.workflow

    from goatherd.telemetry._interceptor import LogContextInterceptor

    # Their details are fields of the line; in the message they would be there twice.
    temporalio.activity.logger.activity_info_on_message = False
    temporalio.workflow.logger.workflow_info_on_message = False
    return LogContextInterceptor()


def temporal_runtime(settings: Settings) -> Runtime:
    """A runtime for Temporal's SDK whose own warnings go to Python's logging, as `temporalio.core`.

    With `settings.metrics_port`, its metrics are for Prometheus on the port after that one. Each runtime
    has threads of its own: make one a process.
    """
    from temporalio.runtime import (
        LogForwardingConfig,
        LoggingConfig,
        PrometheusConfig,
        Runtime,
        TelemetryConfig,
        TelemetryFilter,
    )

    metrics = None
    if settings.metrics_port:
        metrics = PrometheusConfig(
            bind_address=_socket_address(settings.host, settings.metrics_port + 1),
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
        )
    forwarding = LogForwardingConfig(
        logger=logging.getLogger("temporalio.core"),
        append_target_to_name=False,
        prepend_target_on_message=False,
        append_log_fields_to_message=False,
    )
    return Runtime(
        telemetry=TelemetryConfig(
            logging=LoggingConfig(
                filter=TelemetryFilter(core_level="WARN", other_level="ERROR"), forwarding=forwarding
            ),
            metrics=metrics,
        )
    )


def _socket_address(host: str, port: int) -> str:
    # The SDK's core takes addresses only, no names.
    if host == "localhost":
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
