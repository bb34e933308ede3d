"""One actor with all below it: written, taken out of memory, and put back. For passivated entities."""

from __future__ import annotations

from collections.abc import Sequence

from goatherd.actors._cell import Cell
from goatherd.actors._ref import resolving
from goatherd.actors._runtime import Runtime
from goatherd.actors._snapshot import dump_cell, fill, make, settings
from goatherd.actors._states import RUNNING, SHUT, State
from goatherd.actors._wire import Json


def below(cell: Cell) -> list[Cell]:
    """The actor itself and all its descendants, parents first."""
    found = [cell]
    for one in found:
        found.extend(one.children.values())
    return found


def rests(
    cells: Sequence[Cell], askers: frozenset[str], until: float, *, whoever_waits: bool = False
) -> bool:
    """Whether nothing is under way in a subtree, and nobody else waits for its end: it can be taken out.

    What it owes an answer may wait: the asker's address goes along. So do timers that ring at `until` or
    later. `askers`: who waits for an answer itself. `whoever_waits`: no matter what is in a stash and who
    watches whom; all that is written too.
    """
    due = next_deadline(cells)
    if due is not None and due < until:
        return False
    inside = {cell.address for cell in cells}
    parent = cells[0].parent
    known = inside if parent is None else inside | {parent.address}
    return all(
        cell.state is RUNNING
        and not (cell.mailbox or cell.system or cell.work)
        and cell.address not in askers
        and (
            whoever_waits
            or (
                not cell.stash
                and all(_base(address) in inside for address in cell.watching)
                and all(_base(address) in known for address in cell.watchers)
            )
        )
        for cell in cells
    )


def next_deadline(cells: Sequence[Cell]) -> float | None:
    """When the first timer of a subtree rings."""
    return min((timer.when for cell in cells for timer in cell.timers.values()), default=None)


def askers(runtime: Runtime) -> frozenset[str]:
    """The actors that wait for an answer."""
    return frozenset(
        promise.owner.cell.address for promise in runtime.promises.values() if promise.owner is not None
    )


def dump(cells: Sequence[Cell]) -> Json:
    """A subtree as JSON.

    Raises:
        NotDurable: something in it can't be written down; the message says what.
    """
    return [dump_cell(cell) for cell in cells]


def evict(runtime: Runtime, cells: Sequence[Cell]) -> None:
    """Takes a subtree out, without a word to it: it does not stop. Its addresses stay good."""
    for cell in reversed(cells):
        for timer in cell.timers.values():
            runtime.deadlines.cancel(timer)
        cell.state, cell.limit = State.AWAY, SHUT
        runtime.forget(cell)


def restore(runtime: Runtime, cell: Cell, written: Json) -> None:
    """Puts a written subtree back. `cell` has its place, and the messages that came meanwhile.

    Raises:
        NotDurable: it names a behavior, message or function that is no more.
    """
    waiting = list(cell.mailbox)
    cell.mailbox.clear()
    try:
        settings(cell, written[0])
        cells = [cell, *(make(runtime, one) for one in written[1:])]
        # A system that has begun anew must not give an address a second time that one of these has.
        last = max(_number(one.address) for one in cells)
        uid, *others = runtime.counters
        runtime.counters = [max(uid, last), *others]
        with resolving(runtime.resolve):
            for one, fields in zip(cells, written, strict=True):
                fill(runtime, one, _renumbered(fields))
    finally:
        cell.mailbox.extend(waiting)
    if cell.mailbox:
        runtime.schedule(cell)


def _renumbered(written: Json) -> Json:
    """Timers have their places among those of the system that they come back to."""
    timers = sorted(written.get("timers", ()), key=lambda timer: int(timer["number"]))
    return {**written, "timers": [{**timer, "number": 0} for timer in timers]}


def _base(address: str) -> str:
    """Of an adapter's address, its actor's."""
    return address.partition("~")[0]


def _number(address: str) -> int:
    number = address.rpartition("#")[2]
    return int(number) if number.isdigit() else 0
