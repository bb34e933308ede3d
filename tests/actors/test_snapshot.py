"""A tree goes through a snapshot as if nothing had been."""

from __future__ import annotations

import pytest

from goatherd.actors import NotDurable, on, restart_with_backoff
from goatherd.actors._snapshot import dump

from .herd import Counter, Fail, Log, Total, puppet
from .manual import World
from .tree import Drive


@pytest.mark.parametrize("k", range(1, 8))
def test_a_snapshot_after_every_k_messages_changes_nothing(k: int) -> None:
    for seed in range(3):
        plain, cut = Drive(seed, None), Drive(seed, k)

        expected, actual = plain.run(400), cut.run(400)

        assert cut.snapshots > 100
        for wanted, got in zip(expected, actual, strict=True):
            assert got == wanted


def test_a_snapshot_of_a_snapshot_is_the_same() -> None:
    drive = Drive(4, None)
    drive.run(500)

    written = dump(drive.world.runtime)

    assert dump(drive.world.reborn().runtime) == written


def test_state_mailbox_and_asker_go_along() -> None:
    world = World()
    ref = world.spawn(Counter(total=3), "it")
    outcome = world.ask(ref, Total(), settle=False)

    world.reborn().settle()

    assert outcome.value == 3


def test_the_rest_of_a_backoff_goes_along() -> None:
    world = World()
    ref = world.spawn(Counter(), "it", supervise=[on(ValueError, restart_with_backoff("2s", "8s"))])
    world.tell(ref, Fail())
    world.advance("1s")

    world = world.reborn()
    outcome = world.ask(world.runtime.resolve(ref.address), Total())
    world.advance("0.9s")
    assert outcome.is_open
    world.advance("0.1s")

    assert outcome.value == 0


def test_a_behavior_of_functions_can_not_be_written_down() -> None:
    world = World()
    world.spawn(puppet(Log(), "it"))

    with pytest.raises(NotDurable):
        world.reborn()


def test_a_lambda_as_an_adapter_can_not_be_written_down() -> None:
    world = World()
    ref = world.spawn(Counter(), "it")
    world.cell(ref).adapter(lambda value: value)

    with pytest.raises(NotDurable):
        world.reborn()


def test_an_address_of_an_ask_that_is_over_swallows_answers() -> None:
    world = World()
    ref = world.spawn(Counter(), "it")
    world.ask(ref, Total())

    world = world.reborn()
    world.runtime.resolve("world/~1").tell(5)

    assert world.letters == []
