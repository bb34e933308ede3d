"""Starting, changing behavior and stopping, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from goatherd.actors import (
    ActorStopped,
    Behavior,
    Context,
    LocalSystem,
    NameTaken,
    NotAChild,
    PostStop,
    Signal,
    behavior,
    empty,
    ignore,
    receive,
    same,
    setup,
    stopped,
    unhandled,
)

from .herd import Add, Counter, Do, Log, Total, asks, does, puppet, raises, stops
from .manual import World


def test_an_actor_starts_in_its_own_turn_and_before_its_first_message() -> None:
    world, log = World(), Log()
    ref = world.runtime.spawn(puppet(log, "it"), "it")
    ref.tell("hello")
    assert log == []

    world.settle()

    assert log == [("it", "start"), ("it", "hello")]


def test_messages_of_one_sender_keep_their_order() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))
    log.clear()

    world.tell(ref, *range(100))

    assert log == [("it", number) for number in range(100)]


def test_an_actor_gives_way_after_a_bounded_number_of_messages() -> None:
    world, log = World(), Log()
    one, other = world.spawn(puppet(log, "one"), "one"), world.spawn(puppet(log, "other"), "other")
    log.clear()
    for number in range(100):
        one.tell(number)
    other.tell("now")

    world.settle()

    assert log.index(("other", "now")) == 32


def _tree(log: Log, world: World) -> Any:
    """root - middle - leaf."""

    def middle(ctx: Context[Any]) -> None:
        ctx.spawn(puppet(log, "leaf"), "leaf")

    def root(ctx: Context[Any]) -> None:
        ctx.spawn(puppet(log, "middle", middle), "middle")

    return world.spawn(puppet(log, "root", root), "root")


def test_post_stop_comes_from_the_leaves_to_the_root_and_terminated_after_it() -> None:
    world, log = World(), Log()
    root = _tree(log, world)
    watcher = world.spawn(puppet(log, "watcher"), "watcher")
    world.tell(watcher, does(lambda ctx: ctx.watch(root)))
    log.clear()

    world.tell(root, stops())

    assert log == [
        ("leaf", "PostStop"),
        ("middle", "PostStop"),
        ("root", "PostStop"),
        ("watcher", "Terminated root"),
    ]


def test_a_stopping_actor_takes_no_more_messages() -> None:
    world, log = World(), Log()
    root = _tree(log, world)
    log.clear()
    root.tell(stops())
    root.tell("late")

    world.settle()
    root.tell("later")

    assert ("root", "late") not in log
    assert world.letters == [("late", "stopped"), ("later", "stopped")]


def test_while_its_children_stop_an_actor_gets_nothing_from_them() -> None:
    world, log = World(), Log()

    def child_signal(ctx: Context[Any], signal: Signal) -> None:
        if isinstance(signal, PostStop):
            parent.tell("last words")

    parent = world.spawn(
        puppet(log, "it", lambda ctx: ctx.spawn(receive(lambda c, m: None, child_signal), "child"))
    )
    log.clear()

    world.tell(parent, stops())

    assert log == [("it", "PostStop")]
    assert world.letters == [("last words", "stopped")]


def test_a_parent_stops_a_child_before_its_next_message() -> None:
    world, log = World(), Log()
    parent = world.spawn(puppet(log, "parent", lambda ctx: ctx.spawn(puppet(log, "child"), "child")))
    log.clear()

    def stop_it(ctx: Context[Any]) -> None:
        child = ctx.child("child")
        assert child is not None
        child.tell("never handled")
        ctx.stop(child)

    world.tell(parent, does(stop_it))

    assert log == [("child", "PostStop")]
    assert world.letters == [("never handled", "stopped")]
    assert world.is_alive(parent)


def test_only_the_parent_stops_an_actor() -> None:
    world, log = World(), Log()
    one, other = world.spawn(puppet(log, "one"), "one"), world.spawn(puppet(log, "other"), "other")

    def try_it(ctx: Context[Any]) -> None:
        with pytest.raises(NotAChild):
            ctx.stop(other)
        with pytest.raises(NotAChild):
            ctx.stop(ctx.self)
        log.append(("one", "refused"))

    world.tell(one, does(try_it))

    assert log[-1] == ("one", "refused")
    assert world.is_alive(other)


def test_stopping_a_child_twice_is_stopping_it_once() -> None:
    world, log = World(), Log()
    parent = world.spawn(puppet(log, "parent"))
    log.clear()

    def twice(ctx: Context[Any]) -> None:
        child = ctx.spawn(puppet(log, "child"), "child")
        ctx.stop(child)
        ctx.stop(child)

    world.tell(parent, does(twice))

    assert log == [("child", "start"), ("child", "PostStop")]


def test_a_name_is_free_again_after_post_stop_and_the_address_is_another() -> None:
    world, log = World(), Log()
    parent = world.spawn(puppet(log, "parent"))
    refs: list[Any] = []

    def spawn(ctx: Context[Any]) -> None:
        refs.append(ctx.spawn(puppet(log, "child"), "child"))

    def spawn_taken(ctx: Context[Any]) -> None:
        with pytest.raises(NameTaken):
            ctx.spawn(puppet(log, "child"), "child")

    world.tell(parent, does(spawn), does(spawn_taken))
    world.tell(refs[0], stops())
    world.tell(parent, does(spawn))
    world.tell(refs[0], "to the old one")

    assert refs[0] != refs[1]
    assert refs[0].name == refs[1].name == "child"
    assert world.letters == [("to the old one", "stopped")]


def test_siblings_stop_before_their_parent_whatever_their_depth() -> None:
    world, log = World(), Log()

    def start(ctx: Context[Any]) -> None:
        ctx.spawn(puppet(log, "flat"), "flat")
        ctx.spawn(puppet(log, "deep", lambda c: c.spawn(puppet(log, "leaf"), "leaf")), "deep")

    root = world.spawn(puppet(log, "root", start))
    log.clear()

    world.tell(root, stops())

    assert log.index(("leaf", "PostStop")) < log.index(("deep", "PostStop"))
    assert log[-1] == ("root", "PostStop")
    assert len(log) == 4


def test_a_failure_at_post_stop_does_not_keep_an_actor_from_stopping() -> None:
    world, log = World(), Log()

    def fails(ctx: Context[Any], signal: Signal) -> None:
        raise ValueError("at the end")

    ref = world.spawn(receive(lambda ctx, m: stopped, fails))
    watcher = world.spawn(puppet(log, "watcher"), "watcher")
    world.tell(watcher, does(lambda ctx: ctx.watch(ref)))

    world.tell(ref, "stop")

    assert log[-1] == ("watcher", "Terminated it")


def test_at_post_stop_nothing_new_begins() -> None:
    world, log = World(), Log()

    def at_the_end(ctx: Context[Any], signal: Signal) -> None:
        if not isinstance(signal, PostStop):
            return
        with pytest.raises(ActorStopped):
            ctx.spawn(puppet(log, "late"), "late")
        ctx.timers.every("tick", "tick", "1s")
        ctx.watch(watched)
        log.append(("it", "tried"))

    watched = world.spawn(puppet(log, "watched"), "watched")
    ref = world.spawn(receive(lambda ctx, m: stopped, at_the_end))

    world.tell(ref, "stop")

    assert log[-1] == ("it", "tried")
    assert world.environment.due is None
    assert not world.cell(watched).watchers


def test_an_actor_that_stops_in_its_setup_gets_no_post_stop() -> None:
    world, log = World(), Log()

    ref = world.spawn(setup(lambda ctx: stopped))

    assert not world.is_alive(ref)
    assert log == []


def test_a_setup_that_is_returned_is_made_at_once() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "old"))

    world.tell(ref, Do(lambda ctx: puppet(log, "new")), "hello")

    assert log == [("old", "start"), ("new", "start"), ("new", "hello")]


def test_the_behavior_that_stopped_by_way_of_a_setup_gets_the_post_stop() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))

    world.tell(ref, Do(lambda ctx: setup(lambda c: stopped)))

    assert log[-1] == ("it", "PostStop")


@behavior("tests.lifecycle.closed")
class Closed(Behavior[Any]):
    received: int = 0

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        self.received += 1
        return None

    def on_start(self, ctx: Context[Any]) -> Behavior[Any] | None:
        raise AssertionError("not called of a behavior that is merely returned")


def test_on_start_is_not_called_of_a_returned_behavior() -> None:
    world = World()
    closed = Closed()
    ref = world.spawn(receive(lambda ctx, message: closed))

    world.tell(ref, "become", "one", "two")

    assert closed.received == 2


def test_same_keeps_the_behavior_and_its_state() -> None:
    world = World()
    seen: list[Any] = []

    def take(ctx: Context[Any], message: Any) -> Behavior[Any]:
        seen.append(message)
        return same

    ref = world.spawn(receive(take))
    world.tell(ref, 1, 2)

    assert seen == [1, 2]


@pytest.mark.parametrize("behavior", [empty, receive(lambda ctx, m: unhandled)])
def test_what_is_unhandled_changes_nothing_and_is_told_to_an_asker(behavior: Behavior[Any]) -> None:
    world = World()
    ref = world.spawn(behavior)

    outcome = world.ask(ref, Total())

    assert outcome.error.code == "unhandled"
    assert world.is_alive(ref)
    assert world.letters == []


def test_ignore_takes_all_and_does_nothing() -> None:
    world = World()
    ref = world.spawn(ignore)

    outcome = world.ask(ref, Total())

    assert outcome.is_open
    assert world.is_alive(ref)


@pytest.mark.parametrize("name", ["", "a/b", "a#1", "a~0", "$a", " a", "a "])
def test_a_name_that_would_break_an_address_is_refused(name: str) -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))

    def spawn(ctx: Context[Any]) -> None:
        with pytest.raises(ValueError, match="actor's name"):
            ctx.spawn(empty, name)
        log.append(("it", "refused"))

    world.tell(ref, does(spawn))

    assert log[-1] == ("it", "refused")


def test_children_without_a_name_get_different_ones() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))
    names: list[str] = []

    def spawn(ctx: Context[Any]) -> None:
        ctx.spawn(empty)
        ctx.spawn(empty)
        names.extend(child.name for child in ctx.children)

    world.tell(ref, does(spawn))

    assert names == ["$1", "$2"]


def test_without_a_rule_a_failure_stops_an_actor_with_its_post_stop() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"))

    world.tell(ref, raises(ValueError("boom")), "never")

    assert log == [("it", "start"), ("it", "PostStop")]
    assert world.letters == [("never", "stopped")]


async def test_a_local_system_stops_its_actors_in_order() -> None:
    log = Log()

    async with LocalSystem() as system:
        root = system.spawn(puppet(log, "root", lambda ctx: ctx.spawn(puppet(log, "leaf"), "leaf")), "root")
        await system.ask(root, asks(lambda ctx, request: ctx.reply(request, None)))
        log.clear()
        await system.stop(root)

        assert log == [("leaf", "PostStop"), ("root", "PostStop")]
        with pytest.raises(ActorStopped):
            await system.ask(root, Total())


async def test_a_local_system_handles_what_it_is_told_in_order() -> None:
    async with LocalSystem() as system:
        counter = system.spawn(Counter(), "counter")
        for amount in range(100):
            counter.tell(Add(amount))

        assert await system.ask(counter, Total()) == sum(range(100))
