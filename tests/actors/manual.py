"""A world of actors that stands still until a test moves it: time, work and turns by hand."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from goatherd.actors import Behavior, DeadLetter, Duration, Ref, Request, Supervised
from goatherd.actors._cell import Cell
from goatherd.actors._duration import seconds
from goatherd.actors._runtime import Runtime
from goatherd.actors._snapshot import dump, restore
from goatherd.actors._supervision import Rule
from goatherd.errors import GoatherdError

_log = logging.getLogger("tests.actors")
_log.setLevel(logging.CRITICAL)

START = 1_000.0
"""What the clock says first: no time is so special as 0."""


class Job:
    """What `pipe_to_self` is given here: it ends when the test says so."""

    def __init__(self) -> None:
        self.cancelled = False
        self.done: Callable[[Any, BaseException | None], None] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        raise AssertionError("A manual job is resolved by the test, and never awaited.")

    def resolve(self, value: Any) -> None:
        assert self.done is not None
        self.done(value, None)

    def fail(self, error: BaseException) -> None:
        assert self.done is not None
        self.done(None, error)


@dataclass
class Outcome:
    """What became of an ask from outside."""

    values: list[Any] = field(default_factory=list)
    errors: list[GoatherdError] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        return not self.values and not self.errors

    @property
    def value(self) -> Any:
        (value,) = self.values
        return value

    @property
    def error(self) -> GoatherdError:
        (error,) = self.errors
        return error


class Manual:
    """`Environment` by hand."""

    logger = _log

    def __init__(self, random: Random, now: float) -> None:
        self.random = random
        self.clock = now
        self.due: float | None = None
        self.letters: list[DeadLetter] = []
        self.trace: list[Any] = []
        self.watched: list[tuple[str, str]] = []
        self.told_terminated: list[tuple[str, str]] = []
        self.remotes: dict[str, Ref[Any]] = {}

    def now(self) -> float:
        return self.clock

    def wake(self) -> None:
        """The test drains."""

    def alarm(self, when: float | None) -> None:
        self.due = when

    def run(self, work: Awaitable[Any], done: Callable[[Any, BaseException | None], None]) -> Any:
        assert isinstance(work, Job)
        work.done = done
        return _Handle(work)

    def dead_letter(self, letter: DeadLetter) -> None:
        self.letters.append(letter)

    def remote(self, address: str) -> Ref[Any] | None:
        return self.remotes.get(address)

    def start_child(self, kind: Any, child_id: str, start: Any) -> Ref[Any]:
        raise NotImplementedError("Durable children need a host.")

    def watch(self, watched: Ref[Any], watcher: str) -> None:
        self.watched.append((watched.address, watcher))

    def tell_terminated(self, watched: str, watcher: str) -> None:
        self.told_terminated.append((watched, watcher))

    def unwatch(self, watched: Ref[Any], watcher: str) -> None:
        self.watched.remove((watched.address, watcher))


class _Handle:
    def __init__(self, job: Job) -> None:
        self._job = job

    def cancel(self) -> None:
        self._job.cancelled = True


class World:
    """A runtime on a `Manual` environment. Everything that is told is also handled, unless said otherwise."""

    def __init__(self, seed: int = 0, host: str = "world") -> None:
        self.environment = Manual(Random(seed), START)
        self.runtime = Runtime(host, self.environment)

    # -- what a test does

    def spawn(
        self,
        behavior: Behavior[Any] | Supervised[Any],
        name: str = "it",
        *,
        supervise: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
    ) -> Ref[Any]:
        ref = self.runtime.spawn(behavior, name, rules=supervise, mailbox=mailbox, stash=stash)
        self.settle()
        return ref

    def tell(self, ref: Ref[Any], *messages: Any) -> None:
        """Puts all the messages in the mailbox, then lets everybody work."""
        for message in messages:
            ref.tell(message)
        self.settle()

    def ask(
        self,
        ref: Ref[Any],
        request: Request[Any] | Any,
        *,
        timeout: Duration | None = None,
        settle: bool = True,
    ) -> Outcome:
        outcome = Outcome()

        def done(value: Any, error: GoatherdError | None) -> None:
            if error is None:
                outcome.values.append(value)
            else:
                outcome.errors.append(error)

        deadline = None if timeout is None else self.now + seconds(timeout)
        ref.send(request, self.runtime.promise(done, deadline))
        if settle:
            self.settle()
        return outcome

    def stop(self, ref: Ref[Any]) -> None:
        """As its parent would; it has not stopped yet."""
        self.cell(ref).order_stop()

    def settle(self) -> None:
        """Until nobody has anything to do."""
        self.runtime.drain()

    def advance(self, duration: Duration) -> None:
        """Moves the time on, from one alarm to the next."""
        end = self.now + seconds(duration)
        while (due := self.environment.due) is not None and due <= end:
            self.environment.clock = max(self.now, due)
            self.ring()
            self.settle()
        self.environment.clock = end

    def oversleep(self, duration: Duration) -> None:
        """Moves the time on at once, as after a pause of the process; then rings."""
        self.environment.clock += seconds(duration)
        self.ring()
        self.settle()

    def ring(self) -> None:
        """The alarm, which counts once. What it puts in mailboxes stays there."""
        self.environment.due = None
        self.runtime.ring()

    def reborn(self) -> World:
        """Another world that goes on from this one's snapshot, which has gone through JSON.

        Who asked from outside waits for the answer still.
        """
        other = World(host=self.runtime.host)
        other.environment.clock = self.now
        other.environment.random = self.environment.random
        other.environment.letters = self.environment.letters
        other.environment.trace = self.environment.trace
        for promise in self.runtime.promises.values():
            if promise.owner is None and promise._done is not None:
                other.runtime.promise(
                    promise._done, promise.deadline, address=promise.address, number=promise.number
                )
        restore(other.runtime, json.loads(json.dumps(dump(self.runtime))))
        return other

    # -- what it sees

    @property
    def now(self) -> float:
        return self.environment.clock

    @property
    def letters(self) -> list[tuple[Any, str]]:
        """The dead letters: what, and why."""
        return [(letter.message, letter.reason) for letter in self.environment.letters]

    def cell(self, ref: Ref[Any]) -> Cell:
        cell = self.runtime.cell(ref)
        assert cell is not None, f"{ref} has stopped"
        return cell

    def is_alive(self, ref: Ref[Any]) -> bool:
        return self.runtime.cell(ref) is not None
