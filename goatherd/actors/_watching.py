"""Who is told when an actor has stopped: those that it watches, and those that watch it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from goatherd.actors._mail import Stopped
from goatherd.actors._pending import Pending
from goatherd.actors._ref import Ref
from goatherd.actors._states import SHUT

if TYPE_CHECKING:
    from goatherd.actors._cell import Cell
    from goatherd.actors._runtime import Runtime


class Watching(Pending):
    """The part of a cell that watches and is watched."""

    __slots__ = ("watchers", "watching")

    def __init__(self, runtime: Runtime, limit: int) -> None:
        super().__init__(runtime, limit)
        self.watching: dict[str, tuple[Ref[Any], Any]] = {}
        self.watchers: dict[str, Ref[Any]] = {}

    def addresses(self) -> Iterator[str]:
        """Its own, and those of its adapters: all that it can be watched by."""
        yield self.address
        for number in range(len(self.adapters)):
            yield f"{self.address}~{number}"

    def watch(self, ref: Ref[Any], message: Any) -> None:
        cell = self.runtime.owner(ref) or self.runtime.enter(ref.address)
        if cell is self or self.limit == SHUT:
            return
        known = self.watching.get(ref.address)
        if known is not None:
            if known[1] != message:
                raise ValueError(f"{ref.address} is watched otherwise already: unwatch it first.")
            return
        self.watching[ref.address] = (ref, message)
        if cell is not None:
            cell.watchers[self.address] = self.ref
        elif self.runtime.is_local(ref):
            self.deliver(Stopped(ref, None))
        else:
            self.runtime.environment.watch(ref, self.address)

    def unwatch(self, ref: Ref[Any]) -> None:
        if self.watching.pop(ref.address, None) is None:
            return
        cell = self.runtime.owner(ref)
        if cell is not None:
            if not any(address in self.watching for address in cell.addresses()):
                cell.watchers.pop(self.address, None)
        elif not self.runtime.is_local(ref):
            self.runtime.environment.unwatch(ref, self.address)

    def watched_stopped(self, ref: Ref[Any], cause: BaseException | None) -> None:
        if ref.address in self.watching:
            self.deliver(Stopped(ref, cause))

    def _tell_watchers(self, parent: Cell | None, failure: BaseException | None) -> None:
        """That it has stopped; its parent alone, of what."""
        for address, watcher in self.watchers.items():
            cell = self.runtime.cell(watcher)
            if cell is not None:
                cause = failure if cell is parent else None
                cell.watched_stopped(self.ref, cause)
                for number in range(len(self.adapters)):
                    cell.watched_stopped(self.adapter_at(number), cause)
            else:
                self.runtime.environment.tell_terminated(self.address, address)
