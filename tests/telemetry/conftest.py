"""Log capture that leaves logging as it was, and a real Temporal server."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from temporalio.testing import WorkflowEnvironment

from goatherd.settings import Settings
from goatherd.telemetry import configure_logging


class Captured(io.StringIO):
    """A stream for logs; `tty` says what it claims to be."""

    tty = False

    def isatty(self) -> bool:
        return self.tty

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def line(self, event: str) -> dict[str, Any]:
        """The one line with this event."""
        (line,) = [line for line in self.lines if line["event"] == event]
        return line


@pytest.fixture
def configured() -> Iterator[Callable[..., Captured]]:
    """Configures logging, with settings by name, and gives what is logged from then on."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(*, tty: bool = False, **settings: Any) -> Captured:
        stream = Captured()
        stream.tty = tty
        configure_logging(Settings(**settings), "api", stream=stream)
        return stream

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(scope="package")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    cli = Path(sys.executable).with_name("temporal")
    # The workflow sandbox imports `tests.telemetry.echo` anew, by its name.
    root = str(Path(__file__).parents[2])
    sys.path.insert(0, root)
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=str(cli)) as environment:
        yield environment
    sys.path.remove(root)
