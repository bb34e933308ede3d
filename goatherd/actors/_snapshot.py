"""A whole tree of actors as JSON, and back: what a run of a workflow hands on to the next one.

All goes along: behaviors with their state, mailboxes, stashes, timers, watches, restart counters, open asks,
and whose turn it is. What the runtime can't write down stops it with `NotDurable`, and nothing is lost: work
that is under way (`pipe_to_self`) has to be waited for first, or put off.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from goatherd.actors._activity import Activity, ActivityOptions, PutOff
from goatherd.actors._cell import Cell
from goatherd.actors._errors import NotDurable
from goatherd.actors._mail import Adapted, Envelope, Notice, Piped, Rang, Stopped
from goatherd.actors._ref import Ref, resolving
from goatherd.actors._runtime import Runtime
from goatherd.actors._states import UNBOUNDED, Op, State
from goatherd.actors._supervision import Backoff, Record, Restart, Resume, Rule, Stop, Strategy
from goatherd.actors._timers import Timer
from goatherd.actors._wire import (
    Json,
    adapter,
    read,
    read_behavior,
    read_error,
    read_name,
    write,
    write_behavior,
    write_error,
    written_name,
)

# -- writing


def dump(runtime: Runtime) -> Json:
    """The tree as it is.

    Raises:
        NotDurable: something in it can't be written down; the message says what.
    """
    cells = list(runtime.cells())
    return {
        "counters": runtime.counters,
        "turn_left": runtime.turn_left,
        "cells": [dump_cell(cell) for cell in cells],
        "ready": [cell.address for cell in runtime.ready],
        "asks": [
            {
                "address": promise.address,
                "owner": promise.owner.cell.address,
                "ok": written_name(promise.owner.ok),
                "err": written_name(promise.owner.err),
                "deadline": promise.deadline,
                "number": promise.number,
            }
            for promise in runtime.promises.values()
            if promise.owner is not None and runtime.cell(promise.owner.cell.ref) is not None
        ],
    }


def dump_cell(cell: Cell) -> Json:
    """One actor, without those below it."""
    written: dict[str, Any] = {
        "name": cell.name,
        "path": cell.path,
        "address": cell.address,
        "parent": cell.parent.address if cell.parent is not None else None,
        "state": cell.state.name,
        "behavior": write_behavior(cell.behavior),
        "next_name": cell.next_name,
    }
    optional = {
        "initial": write_behavior(cell.initial) if cell.can_restart else None,
        "rules": [_dump_rule(rule) for rule in cell.rules],
        "mailbox": [_dump_envelope(cell, *envelope) for envelope in cell.mailbox],
        "stash": [_dump_envelope(cell, *envelope) for envelope in cell.stash],
        "system": [op.value for op in cell.system],
        "timers": [_dump_timer(timer) for timer in cell.timers.values()],
        "watching": [
            [address, None if message is None else write(message)]
            for address, (_, message) in cell.watching.items()
        ],
        "watchers": list(cell.watchers),
        "adapters": [written_name(adapt) for adapt in cell.adapters],
        "record": _dump_record(cell.record),
        "failure": None if cell.failure is None else write_error(cell.failure),
        "resume_at": cell.resume_at,
        "waiting": None if cell.waiting is None else cell.waiting.number,
        "work": [_dump_work(cell, piped) for piped in cell.work.values()],
        "capacity": None if cell.capacity == UNBOUNDED else cell.capacity,
        "limit": None if cell.limit == cell.capacity else cell.limit,
        "stash_capacity": cell.stash_capacity,
    }
    written.update({key: value for key, value in optional.items() if value not in (None, [])})
    return written


def _dump_work(cell: Cell, piped: Piped) -> Json:
    """Work that was put off; what is under way can't go along."""
    if not isinstance(piped.handle, PutOff):
        raise NotDurable(f"{cell.address} waits for work that is under way.")
    call = piped.handle.call
    return {
        "function": written_name(call.function),
        "argument": write(call.argument),
        "options": adapter(ActivityOptions).dump_python(call.options, mode="json"),
        "ok": written_name(piped.ok),
        "err": None if piped.err is None else written_name(piped.err),
        "key": piped.key,
    }


def _dump_envelope(cell: Cell, message: Any, reply_to: Ref[Any] | None) -> Json:
    written: dict[str, Any]
    if isinstance(message, Rang):
        current = cell.timers.get(message.timer.key) is message.timer
        written = {"rang": message.timer.key if current else None}
    elif isinstance(message, Adapted):
        adapt = None if message.adapt is None else written_name(message.adapt)
        failed = isinstance(message.value, BaseException)
        value = write_error(message.value) if failed else write(message.value)
        written = {"adapt": adapt, "error" if failed else "value": value}
    elif isinstance(message, Stopped):
        cause = None if message.cause is None else write_error(message.cause)
        written = {"stopped": message.ref.address, "cause": cause}
    elif isinstance(message, Notice):
        written = {"notice": write(message.signal)}
    else:
        written = {"message": write(message)}
    if reply_to is not None:
        written["reply_to"] = reply_to.address
    return written


def _dump_timer(timer: Timer) -> Json:
    return {
        "key": timer.key,
        "message": write(timer.message),
        "when": timer.when,
        "interval_s": timer.interval_s,
        "fixed_rate": timer.fixed_rate,
        "number": timer.number,
        "over": timer.cancelled,
    }


def _dump_record(record: Record) -> Json:
    if not record.counts:
        return None
    return {
        "counts": list(record.counts.items()),
        "windows": list(record.window_began.items()),
        "last_began": record.last_began,
    }


def _dump_rule(rule: Rule) -> Json:
    strategy = rule.strategy
    written: dict[str, Any] = {"error": written_name(rule.error), "do": type(strategy).__name__.lower()}
    if isinstance(strategy, Restart):
        written |= {"limit": strategy.limit, "stop_children": strategy.stop_children}
        if strategy.within_s != float("inf"):
            written["within_s"] = strategy.within_s
        if (backoff := strategy.backoff) is not None:
            written["backoff"] = [
                backoff.min_s,
                backoff.max_s,
                backoff.jitter,
                backoff.reset_s,
                backoff.keep,
            ]
    return written


# -- reading


def restore(runtime: Runtime, written: Json) -> None:
    """Puts a written tree in an empty runtime, which then goes on as the other would have.

    Raises:
        NotDurable: it names a behavior, message or function that is no more.
    """
    runtime.counters = written["counters"]
    # Addresses can be read only when all that has one is there: cells, adapters, open asks.
    cells = {one["address"]: make(runtime, one) for one in written["cells"]}
    with resolving(runtime.resolve):
        for one in written["asks"]:
            _restore_ask(runtime, cells, one)
        for one in written["cells"]:
            fill(runtime, cells[one["address"]], one)
    for address in written["ready"]:
        runtime.schedule(cells[address])
    runtime.turn_left = written["turn_left"]


def make(runtime: Runtime, written: Json) -> Cell:
    """An actor in its place, of whom nothing else is read yet. Its parent must be there."""
    parent = written["parent"]
    cell = Cell(
        runtime,
        None if parent is None else runtime.cell_at(parent),
        name=written["name"],
        path=written["path"],
        address=written["address"],
        behavior=None,
        rules=(),
        mailbox=None,
        stash=None,
    )
    settings(cell, written)
    runtime.add(cell)
    return cell


def settings(cell: Cell, written: Json) -> None:
    """What an actor was spawned with, and what gives it more addresses than its own."""
    cell.rules = tuple(_read_rule(rule) for rule in written.get("rules", ()))
    cell.capacity = cell.limit = written.get("capacity", UNBOUNDED)
    cell.stash_capacity = written["stash_capacity"]
    cell.adapters = [read_name(name) for name in written.get("adapters", ())]


def fill(runtime: Runtime, cell: Cell, written: Json) -> None:
    """All else. Every actor that it knows must have its place."""
    cell.state = State[written["state"]]
    cell.behavior = read_behavior(written["behavior"])
    initial = written.get("initial")
    cell.initial = cell.behavior if initial is None else read_behavior(initial)
    cell.next_name = written["next_name"]
    cell.limit = written.get("limit", cell.capacity)
    cell.system = deque(Op(op) for op in written.get("system", ()))
    for address, message in written.get("watching", ()):
        cell.watching[address] = (runtime.resolve(address), None if message is None else read(message))
    for address in written.get("watchers", ()):
        cell.watchers[address] = runtime.resolve(address)
    for one in written.get("timers", ()):
        _restore_timer(runtime, cell, one)
    if (record := written.get("record")) is not None:
        cell.record = Record(dict(record["counts"]), dict(record["windows"]), record["last_began"])
    if (failure := written.get("failure")) is not None:
        cell.failure = read_error(failure)
    for one in written.get("mailbox", ()):
        cell.mailbox.append(_read_envelope(runtime, cell, one))
    for one in written.get("stash", ()):
        cell.stash.append(_read_envelope(runtime, cell, one))
    for one in written.get("work", ()):
        _restore_work(cell, one)
    cell.resume_at = written.get("resume_at")
    if cell.state is State.WAITING:
        cell.wait(written["waiting"])


_OVER = Timer("", None, 0.0, lambda _: None)


def _restore_timer(runtime: Runtime, cell: Cell, written: Json) -> None:
    timer = Timer(
        written["key"],
        read(written["message"]),
        written["when"],
        cell.rang,
        interval_s=written["interval_s"],
        fixed_rate=written["fixed_rate"],
        number=written["number"],
    )
    cell.timers[timer.key] = timer
    if written["over"]:
        timer.cancelled = True  # It has rung: its message is in the mailbox.
    else:
        runtime.deadlines.add(timer)


def _restore_work(cell: Cell, written: Json) -> None:
    options = adapter(ActivityOptions).validate_python(written["options"])
    call = Activity[Any](read_name(written["function"]), read(written["argument"]), options)
    err = written["err"]
    cell.pipe(call, read_name(written["ok"]), None if err is None else read_name(err), key=written["key"])


def _restore_ask(runtime: Runtime, cells: dict[str, Cell], written: Json) -> None:
    cell = cells.get(written["owner"])
    if cell is not None:
        cell.await_answer(
            written["address"],
            read_name(written["ok"]),
            read_name(written["err"]),
            written["deadline"],
            number=written["number"],
        )


def _read_envelope(runtime: Runtime, cell: Cell, written: Json) -> Envelope:
    address = written.get("reply_to")
    reply_to = None if address is None else runtime.resolve(address)
    if "rang" in written:
        # One that counts no more still takes its place in the turn of its actor.
        key = written["rang"]
        return Rang(_OVER if key is None else cell.timers[key]), None
    if "adapt" in written:
        adapt = None if written["adapt"] is None else read_name(written["adapt"])
        value = read_error(written["error"]) if "error" in written else read(written["value"])
        return Adapted(adapt, value), reply_to
    if "stopped" in written:
        cause = None if written["cause"] is None else read_error(written["cause"])
        return Stopped(runtime.resolve(written["stopped"]), cause), None
    if "notice" in written:
        return Notice(read(written["notice"])), None
    return read(written["message"]), reply_to


def _read_rule(written: Json) -> Rule:
    error: type[BaseException] = read_name(written["error"])
    strategy: Strategy
    if written["do"] == "resume":
        strategy = Resume()
    elif written["do"] == "stop":
        strategy = Stop()
    else:
        backoff = written.get("backoff")
        strategy = Restart(
            limit=written["limit"],
            within_s=written.get("within_s", float("inf")),
            backoff=None if backoff is None else Backoff(*backoff),
            stop_children=written["stop_children"],
        )
    return Rule(error, strategy)
