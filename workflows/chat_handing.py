"""Which events the answers of a session's actor hand to whom, so that he writes them: docs/adr/0007."""

from __future__ import annotations

from dataclasses import dataclass, field

from goatherd.contracts.chat import Changed
from workflows.chat_log import SessionLog

FLUSHERS = 16
"""So many are remembered. One that is forgotten is handed more than it lacks, never less."""


@dataclass
class Handing:
    """`handed`: up to which number each flusher was handed everything; who was answered last comes last.

    That is what it was answered, not what it got: answers are lost. It finds the gap, and asks anew.
    """

    handed: dict[str, int] = field(default_factory=dict)

    def hand(self, log: SessionLog, flusher: str | None) -> Changed:
        """What the store may lack and this flusher was not handed yet. All of the former to nobody known."""
        after = log.stored
        if flusher is not None:
            after = max(after, self.handed.pop(flusher, 0))
            self.handed[flusher] = log.last_seq
            if len(self.handed) > FLUSHERS:
                del self.handed[next(iter(self.handed))]
        return Changed(events=log.unflushed(after=after), after=after, stored=log.stored)
