"""The root of a shard: has entities begin, leave the memory when they are idle, and come back.

Its state is what it knows of the entities in memory; of others, nothing. An entity counts as stored if the
store has something of it that would come back: what has stopped is deleted there.

```
        first message          nothing there: it begins
 AWAY ───────────────▶ loading ───────────────────────▶ HERE ──stops──▶ GONE ──deleted──▶ (forgotten)
   ▲                           ──────── it comes back ─▶  │
   └───────────────── saved, and the same as then ────────┘ idle
```
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from json import dumps
from typing import cast

from goatherd.actors import _subtree
from goatherd.actors._activity import activity
from goatherd.actors._behavior import Behavior, behavior, stopped
from goatherd.actors._cell import STASH
from goatherd.actors._context import Context
from goatherd.actors._errors import ActorFailed, NotDurable
from goatherd.actors._message import message
from goatherd.actors._signals import CancelRequested, Signal, Terminated
from goatherd.actors._wire import Json, read_error, write_error
from goatherd.actors.durable._entities import Enter, Entities, Forwarded, gone
from goatherd.actors.durable._state_activities import (
    FENCED,
    MOST_BYTES,
    Kept,
    KeptStates,
    LoadedState,
    LoadedStates,
    LoadStates,
    SaveStates,
    StateActivities,
    StateToSave,
    size,
)

MOST_TOGETHER = 200
"""Entities that are loaded or saved by one activity."""
_SAVE_ATTEMPTS = 5
_CLOSE_EVERY_S = 10.0
_SWEEP, _WAKE, _CLOSE = "sweep", "wake", "close"


class Place(Enum):
    """Where an entity is that the shard knows."""

    AWAY = "away"
    HERE = "here"
    GONE = "gone"
    """It has stopped, and the store is still to be told."""


@dataclass(slots=True)
class Known:
    """`version`: the last that may have been saved. `saving`: one that is on its way, and its digest."""

    place: Place
    last: float
    version: int = 0
    stored: bool = False
    saving: int | None = None
    digest: str = ""


@message
class Load:
    """To itself: those that wait are to be loaded. Comes after all that came with them."""


@message
class Sweep:
    pass


@message
class Wake:
    """To itself: timers of entities that are not in memory are due."""


@message
class Close:
    """To itself: are all entities saved now?"""


@message
class Loaded:
    result: LoadedStates


@message
class Saved:
    result: KeptStates


@message
class NotLoaded:
    error: Json


@message
class NotSaved:
    error: Json


def not_loaded(error: BaseException) -> NotLoaded:
    return NotLoaded(write_error(error))


def not_saved(error: BaseException) -> NotSaved:
    return NotSaved(write_error(error))


Messages = Enter | Forwarded | Load | Sweep | Wake | Close | Loaded | Saved | NotLoaded | NotSaved


@behavior("goatherd.shard")
class Shard(Behavior[Messages]):
    """`passivate_after_s` None: entities stay in memory, and there is no store."""

    kind: str
    passivate_after_s: float | None
    known: dict[str, Known] = field(default_factory=dict)
    wanted: list[str] = field(default_factory=list)
    loading: list[str] = field(default_factory=list)
    is_saving: bool = False
    wakes: dict[str, float] = field(default_factory=dict)
    """When the timers of those ring that are not in memory: they have to be back by then."""
    is_closing: bool = False
    """It was cancelled: it ends when all entities are saved."""

    def knows(self, name: str) -> bool:
        known = self.known.get(name)
        return known is not None and known.place is Place.HERE

    def touched(self, name: str, now: float) -> None:
        """A message for it has come."""
        known = self.known.get(name)
        if known is not None:
            known.last = now

    def receive(self, ctx: Context[Messages], message: Messages) -> Behavior[Messages] | None:
        match message:
            case Enter(entity=name):
                self._enter(ctx, name)
            case Forwarded():
                self._forward(ctx, message)
            case Load():
                self._load(ctx)
            case Loaded(result=result):
                self._loaded(ctx, result)
            case NotLoaded(error=error):
                self._not_loaded(ctx, error)
            case Sweep():
                self._sweep(ctx)
            case Wake():
                self._wake(ctx)
            case Saved(result=result):
                self.is_saving = False
                for kept in result.items:
                    self._kept(ctx, kept)
                self._save(ctx, [])
                return self._close(ctx)
            case NotSaved():
                self._not_saved(ctx)
            case Close():
                return self._close(ctx)
        return None

    def on_signal(self, ctx: Context[Messages], signal: Signal) -> Behavior[Messages] | None:
        if isinstance(signal, Terminated):
            self._stopped(ctx, signal.ref.name)
        elif isinstance(signal, CancelRequested):
            if self.passivate_after_s is None:
                # It would take with it what is in memory only.
                ctx.log.warning("%s has no store and can't be cancelled: stop its entities", ctx.self)
            else:
                self.is_closing = True
                return self._close(ctx)
        return None

    # -- into memory

    def _enter(self, ctx: Context[Messages], name: str) -> None:
        known = self.known.get(name)
        if known is not None and known.place is not Place.GONE:
            return
        if known is not None:
            # The store has, or will have, nothing that could come back.
            self._begin(ctx, name, known)
        elif self.passivate_after_s is None:
            self._begin(ctx, name, Known(Place.AWAY, ctx.now()))
        else:
            self.known[name] = Known(Place.AWAY, ctx.now())
            self.wanted.append(name)
            if len(self.wanted) == 1:
                ctx.self.tell(Load())

    def _load(self, ctx: Context[Messages]) -> None:
        if self.loading or not self.wanted:
            return
        self.loading, self.wanted = self.wanted[:MOST_TOGETHER], self.wanted[MOST_TOGETHER:]
        order = LoadStates(kind=self.kind, entities=self.loading)
        ctx.pipe_to_self(activity(StateActivities.load, order, summary="entities come"), Loaded, not_loaded)

    def _loaded(self, ctx: Context[Messages], result: LoadedStates) -> None:
        left = dict.fromkeys(self.loading)
        self.loading = []
        for one in result.items:
            left.pop(one.entity, None)
            self._come(ctx, one)
        self.wanted = [*left, *self.wanted]
        ctx.unstash_all()
        self._load(ctx)

    def _not_loaded(self, ctx: Context[Messages], error: Json) -> None:
        ctx.log.error("%s could not load %d entities: %s", ctx.self, len(self.loading), error)
        failed, self.loading = self.loading, []
        for name in failed:
            self._give_up(ctx, name, error)
        ctx.unstash_all()
        self._load(ctx)

    def _come(self, ctx: Context[Messages], loaded: LoadedState) -> None:
        name = loaded.entity
        known, cell = self.known.get(name), self._entities(ctx).find(name)
        if known is None or cell is None:
            return
        known.version = loaded.version
        if loaded.state is not None:
            try:
                self._entities(ctx).restore(cell, loaded.state)
            except Exception as error:
                ctx.log.error("%s can't read the state of %r", ctx.self, name, exc_info=error)
                self._give_up(ctx, name, write_error(error))
                return
            known.stored = True
            self._is_here(ctx, name, known)
        elif cell.mailbox:
            self._begin(ctx, name, known)
        else:
            # Somebody wanted to watch it, or one below it; or its timers were due, and the store has lost it.
            del self.known[name]
            self.wakes.pop(name, None)
            self._entities(ctx).give_up(cell, gone(cell.address))

    def _begin(self, ctx: Context[Messages], name: str, known: Known) -> None:
        cell = self._entities(ctx).find(name)
        if cell is None:
            return
        try:
            self._entities(ctx).begin(cell)
        except Exception as error:
            ctx.log.error("%s has no behavior for %r", ctx.self, name, exc_info=error)
            self._give_up(ctx, name, write_error(ActorFailed(f"{cell.address} could not begin: {error!r}.")))
            return
        self._is_here(ctx, name, known)

    def _is_here(self, ctx: Context[Messages], name: str, known: Known) -> None:
        self.wakes.pop(name, None)
        known.place = Place.HERE
        self.known[name] = known
        if self.passivate_after_s is not None and not ctx.timers.is_active(_SWEEP):
            ctx.timers.once(_SWEEP, Sweep(), self.passivate_after_s)

    def _give_up(self, ctx: Context[Messages], name: str, error: Json) -> None:
        """Nothing is lost of what is stored: its next message tries again."""
        self.known.pop(name, None)
        cell = self._entities(ctx).find(name)
        if cell is not None:
            self._entities(ctx).give_up(cell, read_error(error))

    def _forward(self, ctx: Context[Messages], forwarded: Forwarded) -> None:
        known = self.known.get(forwarded.entity)
        if known is not None and known.place is Place.AWAY:
            if ctx.stashed < STASH:
                ctx.stash()
                return
        elif known is not None:
            ref = ctx._cell.runtime.resolve(forwarded.to)
            if not self._entities(ctx).is_inner(ref):
                ctx.forward(ref, forwarded.message)
                return
        runtime, reply_to = ctx._cell.runtime, ctx._cell.reply_to
        runtime.dead(forwarded.message, forwarded.to, "no-such-actor", reply_to)

    def _wake(self, ctx: Context[Messages]) -> None:
        now = ctx.now() + 0.001
        for name, due in self.wakes.items():
            if due <= now:
                self._entities(ctx).place(name)
        self._set_alarm(ctx, [due for due in self.wakes.values() if due > now])

    def _set_alarm(self, ctx: Context[Messages], deadlines: Iterable[float]) -> None:
        earliest = min(deadlines, default=None)
        if earliest is not None:
            ctx.timers.once(_WAKE, Wake(), max(earliest - ctx.now(), 0.0))

    # -- out of memory

    def _sweep(self, ctx: Context[Messages]) -> None:
        assert self.passivate_after_s is not None
        now, after = ctx.now(), self.passivate_after_s
        due: list[str] = []
        earliest = now + after
        for name, known in self.known.items():
            if known.place is not Place.HERE:
                continue
            # Timers are as exact as a float: what is due but for a rounding is due.
            if known.last + after <= now + 0.001:
                due.append(name)
            else:
                earliest = min(earliest, known.last + after)
        if not self._save(ctx, due):
            earliest = now
        if self.known:
            ctx.timers.once(_SWEEP, Sweep(), max(earliest - now, after / 4))

    def _close(self, ctx: Context[Messages]) -> Behavior[Messages] | None:
        """Of one that was cancelled: all entities leave, then it ends. Those who come meanwhile leave too."""
        if not self.is_closing:
            return None
        assert self.passivate_after_s is not None
        self._save(ctx, [name for name, known in self.known.items() if known.place is Place.HERE])
        # One that has a place, and messages, may not be known yet.
        if not self.known and not ctx.children and not self._entities(ctx).is_sending:
            return stopped
        ctx.timers.once(_CLOSE, Close(), min(self.passivate_after_s / 4, _CLOSE_EVERY_S))
        return None

    def _save(self, ctx: Context[Messages], due: list[str]) -> bool:
        """One at a time: those that have stopped first, then of those that are due as many as there is room.
        Whether there was room for all that can go."""
        if self.is_saving:
            return False
        items = [
            StateToSave(entity=name, version=known.version)
            for name, known in self.known.items()
            if known.place is Place.GONE
        ][:MOST_TOGETHER]
        fits = True
        if due:
            idle, fits = self._idle(ctx, due, MOST_TOGETHER - len(items))
            items += idle
        if not items:
            return fits
        self.is_saving = True
        call = activity(
            StateActivities.save,
            SaveStates(kind=self.kind, items=items),
            attempts=_SAVE_ATTEMPTS,
            summary="entities leave",
        )
        ctx.pipe_to_self(call, Saved, not_saved)
        return fits

    def _idle(self, ctx: Context[Messages], due: list[str], most: int) -> tuple[list[StateToSave], bool]:
        askers = _subtree.askers(ctx._cell.runtime)
        items: list[StateToSave] = []
        room = MOST_BYTES
        for name in due:
            state = self._state(ctx, name, askers)
            if state is None:
                continue
            room -= size(state)
            if len(items) == most or (room < 0 and items):
                return items, False
            known = self.known[name]
            known.saving, known.digest = known.version + 1, _digest(state)
            items.append(StateToSave(entity=name, version=known.saving, state=state))
        return items, True

    def _state(self, ctx: Context[Messages], name: str, askers: frozenset[str]) -> Json | None:
        """What is to be saved of an entity; None: it has to stay."""
        cell = self._entities(ctx).find(name)
        if cell is None:
            return None
        cells = _subtree.below(cell)
        # One whose timer rings soon would only come back.
        until = 0.0 if self.is_closing else ctx.now() + (self.passivate_after_s or 0.0)
        if not _subtree.rests(cells, askers, until, whoever_waits=self.is_closing):
            return None
        try:
            return _subtree.dump(cells)
        except NotDurable as error:
            ctx.log.warning("%s stays in memory: %s", cell.address, error)
            return None

    def _kept(self, ctx: Context[Messages], kept: Kept) -> None:
        name = kept.entity
        known = self.known.get(name)
        if known is None:
            return
        if known.place is Place.GONE and known.version == kept.version:
            if kept.code is not None:
                ctx.log.error("%s could not delete %r: %s", ctx.self, name, kept.code)
            del self.known[name]
        elif known.saving == kept.version:
            known.saving = None
            known.version = kept.version
            if kept.code is not None:
                reason = "the store has a newer state" if kept.code == FENCED else kept.code
                ctx.log.error("%s can't save %r, which stays in memory: %s", ctx.self, name, reason)
                return
            known.stored = True
            # What it has done meanwhile is not in the store: it stays, until it is idle again.
            state = self._state(ctx, name, _subtree.askers(ctx._cell.runtime))
            cell = self._entities(ctx).find(name)
            if cell is not None and state is not None and _digest(state) == known.digest:
                due = _subtree.next_deadline(_subtree.below(cell))
                self._entities(ctx).evict(cell)
                del self.known[name]
                if due is not None:
                    self.wakes[name] = due
                    self._set_alarm(ctx, self.wakes.values())

    def _not_saved(self, ctx: Context[Messages]) -> None:
        ctx.log.error("%s could not save: the entities stay in memory", ctx.self)
        self.is_saving = False
        for known in self.known.values():
            if known.saving is not None:
                # It may be in the store all the same: its number must not be another's.
                known.version, known.stored, known.saving = known.saving, True, None

    def _stopped(self, ctx: Context[Messages], name: str) -> None:
        known = self.known.get(name)
        if known is None:
            return
        if not known.stored and known.saving is None:
            del self.known[name]
            return
        known.place = Place.GONE
        known.version = max(known.version, known.saving or 0) + 1
        known.stored, known.saving = True, None
        self._save(ctx, [])
        if not ctx.timers.is_active(_SWEEP) and self.passivate_after_s is not None:
            ctx.timers.once(_SWEEP, Sweep(), self.passivate_after_s)

    def _entities(self, ctx: Context[Messages]) -> Entities:
        return cast(Entities, ctx._cell.runtime.absent)


def _digest(state: Json) -> str:
    return blake2b(dumps(state, sort_keys=True).encode(), digest_size=16).hexdigest()
