"""What workflow code may touch, and what is loaded anew for every workflow instance.

`workflows` itself is reloaded in the sandbox, and so are users' modules (`GOATHERD_ACTORS`), so that a stray
clock or random number is caught there. What `workflows` imports is passed through: contracts, errors and
activity shells hold no state, and reloading them would cost each new session tens of milliseconds.
"""

from __future__ import annotations

from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

_PASSED_THROUGH = (
    "goatherd.contracts",
    "goatherd.errors",
    "goatherd.settings",
    "goatherd.temporal",
    "goatherd.telemetry",
    "activities",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "annotated_types",
    "structlog",
    "prometheus_client",
)


def workflow_runner(*, sandboxed: bool) -> WorkflowRunner:
    """With the sandbox, as tests run workflows, or without it, as workers do (docs/adr/0004)."""
    if not sandboxed:
        return UnsandboxedWorkflowRunner()
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_passthrough_modules(*_PASSED_THROUGH)
    )
