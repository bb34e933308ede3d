"""What an actor has logged, kept for its test."""

from __future__ import annotations

import logging
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogEntry:
    """`level` as in `logging`; `error` if one was logged with it."""

    level: int
    message: str
    error: BaseException | None = None


class LogKeeper(logging.Handler):
    """Keeps what comes to `logger`, which belongs to nobody else and passes nothing on."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.DEBUG)
        self.entries: list[LogEntry] = []
        # Not from the registry of loggers: each kit has one of its own, whatever its name.
        self.logger = logging.Logger(name, logging.DEBUG)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.entries.append(LogEntry(record.levelno, record.getMessage(), error))
