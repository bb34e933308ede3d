"""The addresses of actors of the same runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from goatherd.actors._mail import Adapted
from goatherd.actors._ref import Ref
from goatherd.actors._states import AWAY, RUNNING
from goatherd.errors import GoatherdError

if TYPE_CHECKING:
    from goatherd.actors._cell import Cell
    from goatherd.actors._pending import Pending


class LocalRef(Ref[Any]):
    """The ref of a cell of this runtime."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell.address)
        self._cell = cell

    def tell(self, message: Any) -> None:
        cell = self._cell
        mailbox = cell.mailbox
        if len(mailbox) >= cell.limit:
            cell.overflow(message, None)
            return
        mailbox.append((message, None))
        if not cell.scheduled and cell.state is RUNNING:
            cell.runtime.schedule(cell)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        cell = self._cell
        if len(cell.mailbox) >= cell.limit:
            cell.overflow(message, reply_to)
            return
        cell.mailbox.append((message, reply_to))
        if not cell.scheduled and cell.state is RUNNING:
            cell.runtime.schedule(cell)

    def fail(self, error: GoatherdError) -> None:
        self._cell.runtime.dead(error, self.address, "not-an-ask", None)


class Adapter(Ref[Any]):
    """An actor's address for messages of another protocol."""

    __slots__ = ("_adapt", "cell")

    def __init__(self, cell: Cell, number: int, adapt: Callable[[Any], Any]) -> None:
        super().__init__(f"{cell.address}~{number}")
        self.cell = cell
        self._adapt = adapt

    def tell(self, message: Any) -> None:
        self.send(message, None)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        cell = self.cell
        if len(cell.mailbox) >= cell.limit:
            if cell.state is AWAY:
                cell.runtime.resolve(self.address).send(message, reply_to)
            else:
                cell.overflow(message, reply_to)
            return
        cell.mailbox.append((Adapted(self._adapt, message), reply_to))
        if not cell.scheduled and cell.state is RUNNING:
            cell.runtime.schedule(cell)

    def fail(self, error: GoatherdError) -> None:
        self.cell.runtime.dead(error, self.address, "not-an-ask", None)


class Asked(NamedTuple):
    """Whose ask a promise belongs to, and what becomes of the answer."""

    cell: Pending
    ok: Callable[[Any], Any]
    err: Callable[[Any], Any]
