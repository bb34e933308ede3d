"""One pipeline for every log line: structlog's, the standard library's, Temporal's and uvicorn's."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import orjson
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, merge_contextvars
from structlog.stdlib import ProcessorFormatter

from goatherd.telemetry._redaction import Redactor
from goatherd.telemetry._request import current_request_id

if TYPE_CHECKING:
    from structlog.types import EventDict, Processor

    from goatherd.settings import Settings

# They tell each request or command, some with its body: nobody who asks for `debug` of Goatherd wants that.
_NOISY = ("httpx", "httpcore", "pymongo", "urllib3", "asyncio", "sse_starlette", "elastic_transport")

_PLAIN_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
_ACTIVITY = {
    "workflow_id": "workflow_id",
    "workflow_run_id": "run_id",
    "workflow_type": "workflow_type",
    "activity_type": "activity",
    "activity_id": "activity_id",
    "attempt": "attempt",
    "task_queue": "task_queue",
}
_WORKFLOW = {
    "workflow_id": "workflow_id",
    "run_id": "run_id",
    "workflow_type": "workflow_type",
    "attempt": "attempt",
    "task_queue": "task_queue",
    "update_name": "update",
    "update_id": "update_id",
}


def configure_logging(settings: Settings, component: str, *, stream: TextIO | None = None) -> None:
    """Sends all logs of the process to `stream` (default: stderr), console or JSON as the settings say.

    Each line has timestamp, level, logger, component, event, and what is bound (see `bind`). For
    entrypoints; calling it again replaces what was set before.
    """
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not _is_terminal(stream))
    handler = _Handler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[merge_contextvars, _flatten_extra],
            processors=[
                _Stamp(component),
                _tracebacks() if as_json else structlog.processors.format_exc_info,
                ProcessorFormatter.remove_processors_meta,
                Redactor(log_text=settings.log_text),
                _json if as_json else _console(colors=_is_terminal(stream)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        # A server that ran in this process before may have set one of its own.
        logger.setLevel(logging.NOTSET)
        # The API writes its own access line, which has the request id.
        logger.propagate = name != "uvicorn.access"
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Safe, since what the settings change is in the handler.
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes an event and key-value pairs. May be called at import."""
    return structlog.stdlib.get_logger(name)


def bind(**values: object) -> None:
    """Puts values on every line of the current task, and of tasks it starts. None leaves a key as it is."""
    bind_contextvars(**{key: value for key, value in values.items() if value is not None})


@contextmanager
def bound(**values: object) -> Iterator[None]:
    """As `bind`, until the block ends."""
    with bound_contextvars(**{key: value for key, value in values.items() if value is not None}):
        yield


def session_of(workflow_id: str | None) -> str | None:
    """The chat session that a workflow is, by its id."""
    return workflow_id if workflow_id is not None and workflow_id.startswith("chat_") else None


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at that moment, unless it was given a stream."""

    def __init__(self, stream: TextIO | None) -> None:
        self._given = stream
        super().__init__(stream)

    @property
    def stream(self) -> TextIO:
        return self._given if self._given is not None else sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """The base class sets it once, to what this class knows already."""


def _is_terminal(stream: TextIO | None) -> bool:
    return (stream if stream is not None else sys.stderr).isatty()


class _Stamp:
    """Adds what every line has, by the record: a line that was held back keeps its own time."""

    def __init__(self, component: str) -> None:
        self._component = component

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event["_record"]
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return {
            "timestamp": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "component": self._component,
            **event,
        }


def _flatten_extra(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Adds a standard record's extra fields; of Temporal's, the parts, under the names that we use."""
    record: logging.LogRecord = event["_record"]
    extra = {key: value for key, value in vars(record).items() if key not in _PLAIN_RECORD}
    workflow = extra.pop("temporal_workflow", None)
    activity = extra.pop("temporal_activity", None)
    core = extra.pop("temporal_log", None)
    error_kind = extra.pop("__temporal_error_identifier", None)
    if error_kind is not None:
        event["error_kind"] = error_kind
    for details, names in ((workflow, _WORKFLOW), (activity, _ACTIVITY)):
        if isinstance(details, Mapping):
            for key, name in names.items():
                if details.get(key) is not None:
                    event[name] = details[key]
    if workflow is not None and (request_id := current_request_id()) is not None:
        event["request_id"] = request_id
    if core is not None:
        event["target"] = core.target
        for key, value in core.fields.items():
            event.setdefault(key, value)
    if (session := session_of(event.get("workflow_id"))) is not None:
        event.setdefault("session", session)
    for key, value in extra.items():
        event.setdefault(key, value)
    return event


def _tracebacks() -> Processor:
    # Local variables would show the texts.
    return structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )


def _json(_logger: Any, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # Half a surrogate pair, or an integer beyond 64 bits: rare, and no reason to lose the line.
        return json.dumps(event, default=str)


def _console(*, colors: bool) -> Processor:
    # Its pretty tracebacks show local variables too.
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
