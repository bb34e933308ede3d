"""Which API request a workflow is at work for.

Only context variables: deterministic, and no import that a workflow sandbox would mind. Both sides must
see the same module, so the sandbox has to pass `goatherd.telemetry` through.
"""

from __future__ import annotations

from contextvars import ContextVar


class Heard:
    """The request that one workflow run was sent last: what its main loop, outside of handlers, works for."""

    def __init__(self, request_id: str | None = None) -> None:
        self.request_id = request_id


_heard: ContextVar[Heard | None] = ContextVar("goatherd_heard", default=None)
_serving: ContextVar[str | None] = ContextVar("goatherd_serving", default=None)


def enter_run(heard: Heard) -> None:
    """Makes `heard` the last resort of the current task and of those it starts."""
    _heard.set(heard)


def serve_request(request_id: str | None) -> None:
    """In a workflow: from here on, the current task works for this request.

    For work that was queued with its request id and is done later, in another task than the handler's.
    """
    _serving.set(request_id)


def current_request_id() -> str | None:
    """In a workflow: the request that the current task works for; None outside of workflows."""
    own = _serving.get()
    if own is not None:
        return own
    heard = _heard.get()
    return heard.request_id if heard is not None else None
