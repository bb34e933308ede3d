"""What the routes of inference need of those who have it done, as a protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import ModelEntry, Outcome, Piece, WorkItem


class Inference(Protocol):
    """Models by their public names, and what is asked of them."""

    def entry(self, model: str) -> ModelEntry:
        """Raises `ModelNotFound`."""

    def entries(self) -> list[ModelEntry]: ...

    async def run(
        self,
        entry: ModelEntry,
        task: Task,
        items: Sequence[WorkItem],
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> list[Outcome]:
        """One outcome for each item, in their order. A file among the inputs may be a `Media`;
        once it is stored, its item's place in a list is taken by one without its bytes.

        Cancelled, it cancels the work.

        Raises only what concerns all of them: `WrongTask`, `Unavailable`, `TooManyRequests`,
        `DeadlineExceeded`.
        """

    def stream(
        self,
        entry: ModelEntry,
        task: Task,
        item: WorkItem,
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Piece | Outcome]:
        """Pieces as they are made, then exactly one outcome. Closing the iterator cancels the work. All of
        it is read, and closed, by one task.

        Raises as `run` does.
        """
