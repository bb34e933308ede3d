"""Watching others: `Terminated`, `ChildFailed`, messages instead of them, and the death pact."""

from __future__ import annotations

from typing import Any

import pytest

from goatherd.actors import (
    ActorError,
    Behavior,
    ChildFailed,
    Context,
    DeathPact,
    Ref,
    Signal,
    Terminated,
    ignore,
    nobody,
    on,
    receive,
    restart,
    resume,
    same,
    stopped,
)

from .herd import Do, Log, does, puppet, raises, stops
from .manual import World


def _pair(log: Log, world: World) -> tuple[Ref[Any], Ref[Any]]:
    watched, watcher = world.spawn(puppet(log, "watched"), "watched"), world.spawn(puppet(log, "it"))
    log.clear()
    return watched, watcher


def test_terminated_comes_when_the_watched_stops() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    world.tell(watcher, does(lambda ctx: ctx.watch(watched)))

    world.tell(watched, stops())

    assert log == [("watched", "PostStop"), ("it", "Terminated watched")]


def test_a_late_watch_still_gives_terminated() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    world.tell(watched, stops())

    world.tell(watcher, does(lambda ctx: ctx.watch(watched)))

    assert log[-1] == ("it", "Terminated watched")


def test_a_watch_of_an_address_that_nobody_had_gives_terminated() -> None:
    world, log = World(), Log()
    watcher = world.spawn(puppet(log, "it"))

    world.tell(watcher, does(lambda ctx: ctx.watch(world.runtime.resolve("world/never#99"))))
    world.tell(watcher, does(lambda ctx: ctx.watch(nobody)))

    assert log[1:] == [("it", "Terminated never"), ("it", "Terminated nobody")]


def test_messages_that_were_sent_before_the_end_come_before_terminated() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)

    def last_words(ctx: Context[Any]) -> Behavior[Any]:
        watcher.tell("last words")
        return stopped

    world.tell(watcher, does(lambda ctx: ctx.watch(watched)))
    world.tell(watched, Do(last_words))

    assert log == [("watched", "PostStop"), ("it", "last words"), ("it", "Terminated watched")]


def test_watching_twice_gives_one_terminated() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    world.tell(watcher, *[does(lambda ctx: ctx.watch(watched))] * 2)

    world.tell(watched, stops())

    assert log.count(("it", "Terminated watched")) == 1


def test_unwatch_ends_a_watch() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    world.tell(watcher, does(lambda ctx: ctx.watch(watched)), does(lambda ctx: ctx.unwatch(watched)))

    world.tell(watched, stops())

    assert log == [("watched", "PostStop")]
    assert world.is_alive(watcher)


def test_unwatch_drops_a_terminated_that_is_queued_already() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    world.tell(watched, stops())
    log.clear()
    queued: list[int] = []

    def watch_and_unwatch(ctx: Context[Any]) -> None:
        ctx.watch(watched)
        queued.append(len(world.cell(watcher).mailbox))
        ctx.unwatch(watched)

    world.tell(watcher, does(watch_and_unwatch))

    assert queued == [1]
    assert log == []


def test_watch_with_gives_the_message_instead_of_the_signal() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    world.tell(watcher, does(lambda ctx: ctx.watch_with(watched, "gone")))

    world.tell(watched, stops())

    assert log == [("watched", "PostStop"), ("it", "gone")]


def test_a_late_watch_with_gives_the_message() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    world.tell(watched, stops())

    world.tell(watcher, does(lambda ctx: ctx.watch_with(watched, "gone")))

    assert log[-1] == ("it", "gone")


def test_a_watch_is_changed_only_by_way_of_unwatch() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)

    def change(ctx: Context[Any]) -> None:
        ctx.watch(watched)
        with pytest.raises(ValueError, match="unwatch"):
            ctx.watch_with(watched, "gone")
        ctx.unwatch(watched)
        ctx.watch_with(watched, "gone")
        ctx.watch_with(watched, "gone")
        with pytest.raises(ValueError, match="unwatch"):
            ctx.watch(watched)

    world.tell(watcher, does(change))
    world.tell(watched, stops())

    assert log == [("watched", "PostStop"), ("it", "gone")]


def test_death_pact_a_terminated_that_is_not_handled_stops_the_watcher() -> None:
    world, log = World(), Log()
    watched = world.spawn(puppet(log, "watched"), "watched")
    watcher = world.spawn(puppet(log, "it", takes_terminated=False))
    world.tell(watcher, does(lambda ctx: ctx.watch(watched)))
    log.clear()

    world.tell(watched, stops())

    assert log == [("watched", "PostStop"), ("it", "Terminated watched"), ("it", "PostStop")]


def test_death_pact_is_a_failure_that_rules_are_asked_about() -> None:
    world, log = World(), Log()
    watched = world.spawn(puppet(log, "watched"), "watched")
    watcher = world.spawn(puppet(log, "it", takes_terminated=False), supervise=[on(DeathPact, resume)])
    world.tell(watcher, does(lambda ctx: ctx.watch(watched)))

    world.tell(watched, stops())

    assert world.is_alive(watcher)


def test_an_actor_of_functions_without_signals_has_death_pacts() -> None:
    world = World()
    watched = world.spawn(ignore, "watched")

    def watch(ctx: Context[Any], message: Any) -> None:
        ctx.watch(watched)

    watcher = world.spawn(receive(watch))
    world.tell(watcher, "watch")
    world.stop(watched)
    world.settle()

    assert not world.is_alive(watcher)


def _signals_of(world: World, watch: Ref[Any], name: str, seen: list[Signal]) -> Ref[Any]:
    def note(ctx: Context[Any], signal: Signal) -> Behavior[Any]:
        seen.append(signal)
        return same

    def on_message(ctx: Context[Any], message: Any) -> None:
        ctx.watch(watch)

    ref = world.spawn(receive(on_message, note), name)
    world.tell(ref, "watch")
    return ref


def test_child_failed_has_the_cause_for_the_parent_and_others_get_terminated() -> None:
    world, log = World(), Log()
    of_parent: list[Signal] = []
    of_other: list[Signal] = []
    children: list[Ref[Any]] = []

    def spawn(ctx: Context[Any], message: Any) -> None:
        child = ctx.spawn(puppet(log, "child"), "child")
        ctx.watch(child)
        children.append(child)

    def note(ctx: Context[Any], signal: Signal) -> Behavior[Any]:
        of_parent.append(signal)
        return same

    parent = world.spawn(receive(spawn, note), "parent")
    world.tell(parent, "spawn")
    _signals_of(world, children[0], "other", of_other)
    boom = ValueError("boom")

    world.tell(children[0], raises(boom))

    assert of_parent == [ChildFailed(children[0], boom)]
    assert of_other == [Terminated(children[0])]
    assert type(of_other[0]) is Terminated


def test_a_child_that_stops_by_itself_has_not_failed() -> None:
    world, log = World(), Log()
    parent = world.spawn(puppet(log, "it"))

    def spawn(ctx: Context[Any]) -> None:
        ctx.watch(ctx.spawn(puppet(log, "child"), "child"))

    world.tell(parent, does(spawn))
    child = world.cell(parent).children["child"].ref
    world.tell(child, stops())

    assert log[-1] == ("it", "Terminated child")


def test_a_failure_climbs_by_death_pacts_and_each_parent_learns_its_own_childs() -> None:
    world, log = World(), Log()
    causes: list[BaseException] = []

    def middle(ctx: Context[Any]) -> None:
        ctx.watch(ctx.spawn(puppet(log, "leaf"), "leaf"))

    def note(ctx: Context[Any], signal: Signal) -> Behavior[Any]:
        if isinstance(signal, ChildFailed):
            causes.append(signal.cause)
        return same

    def spawn(ctx: Context[Any], message: Any) -> None:
        ctx.watch(ctx.spawn(puppet(log, "middle", middle, takes_terminated=False), "middle"))

    root = world.spawn(receive(spawn, note), "root")
    world.tell(root, "spawn")
    leaf = world.cell(root).children["middle"].children["leaf"].ref

    world.tell(leaf, raises(ValueError("boom")))

    assert [type(cause) for cause in causes] == [DeathPact]
    assert ("middle", "ChildFailed leaf") in log


def test_a_failure_in_setup_is_told_as_child_failed() -> None:
    world, log = World(), Log()

    def fails(ctx: Context[Any]) -> None:
        raise ActorError("can't start")

    parent = world.spawn(puppet(log, "it"))

    def spawn(ctx: Context[Any]) -> None:
        ctx.watch(ctx.spawn(puppet(log, "child", fails), "child"))

    world.tell(parent, does(spawn))

    assert log[-1] == ("it", "ChildFailed child")
    assert ("child", "PostStop") not in log


def test_a_restart_is_no_end_for_a_watcher() -> None:
    world, log = World(), Log()
    watched = world.spawn(puppet(log, "watched"), "watched", supervise=[on(ValueError, restart())])
    watcher = world.spawn(puppet(log, "it"))
    world.tell(watcher, does(lambda ctx: ctx.watch(watched)))

    world.tell(watched, raises(ValueError("boom")))
    assert ("it", "Terminated watched") not in log
    world.tell(watched, stops())

    assert log[-1] == ("it", "Terminated watched")


def test_watches_survive_the_watchers_restart() -> None:
    world, log = World(), Log()
    watched = world.spawn(puppet(log, "watched"), "watched")
    watcher = world.spawn(puppet(log, "it"), supervise=[on(ValueError, restart())])
    world.tell(watcher, does(lambda ctx: ctx.watch(watched)), raises(ValueError("boom")))

    world.tell(watched, stops())

    assert log[-1] == ("it", "Terminated watched")


def test_who_stops_watches_nobody() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    world.tell(watcher, does(lambda ctx: ctx.watch(watched)), stops())

    assert not world.cell(watched).watchers
    world.tell(watched, stops())
    assert world.letters == []


def test_actors_that_watch_each_other_both_learn_of_it() -> None:
    world, log = World(), Log()
    one, other = _pair(log, world)
    world.tell(one, does(lambda ctx: ctx.watch(other)))
    world.tell(other, does(lambda ctx: ctx.watch(one)))

    world.tell(one, stops())

    assert log == [("watched", "PostStop"), ("it", "Terminated watched")]
    assert not world.cell(other).watchers


def test_an_actor_does_not_watch_itself() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))

    world.tell(ref, does(lambda ctx: ctx.watch(ctx.self)), stops())

    assert log == [("it", "start"), ("it", "PostStop")]


def test_watching_an_adapter_is_watching_its_actor() -> None:
    world, log = World(), Log()
    watched, watcher = _pair(log, world)
    adapters: list[Ref[Any]] = []
    world.tell(watched, does(lambda ctx: adapters.append(ctx.adapter(str))))
    world.tell(watcher, does(lambda ctx: ctx.watch_with(adapters[0], "adapter gone")))
    world.tell(watcher, does(lambda ctx: ctx.watch(watched)), does(lambda ctx: ctx.unwatch(watched)))
    assert log == []

    world.tell(watched, stops())

    assert log == [("watched", "PostStop"), ("it", "adapter gone")]


def test_one_of_another_runtime_is_watched_through_the_environment() -> None:
    world, log = World(), Log()
    watcher = world.spawn(puppet(log, "it"))
    far = _Far("far/one")
    world.environment.remotes["far/one"] = far
    world.tell(watcher, does(lambda ctx: ctx.watch(far)))
    assert world.environment.watched == [("far/one", watcher.address)]

    world.runtime.terminated("far/one", watcher.address)
    world.settle()

    assert log[-1] == ("it", "Terminated one")


def test_unwatch_of_one_of_another_runtime_drops_what_still_comes() -> None:
    world, log = World(), Log()
    watcher = world.spawn(puppet(log, "it"))
    far = _Far("far/one")
    world.environment.remotes["far/one"] = far

    world.tell(watcher, does(lambda ctx: ctx.watch(far)), does(lambda ctx: ctx.unwatch(far)))
    world.runtime.terminated("far/one", watcher.address)
    world.settle()

    assert world.environment.watched == []
    assert log == [("it", "start")]


class _Far(Ref[Any]):
    """Of another runtime."""

    __slots__ = ()
