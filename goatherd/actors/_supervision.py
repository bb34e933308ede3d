"""Supervision: what becomes of an actor that raised, by the kind of what it raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Generic, TypeVar

from goatherd.actors._behavior import Behavior
from goatherd.actors._duration import Duration, seconds

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Resume:
    """The failing message is dropped, and nothing else happens. Failing at its start stops it even so."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The actor stops, as it does without any rule."""


@dataclass(frozen=True, slots=True)
class Restart:
    """A new start with the behavior it was spawned with; messages that came meanwhile are kept.

    `limit` restarts in `within_s` seconds from the first failure of a window, then it stops; None: for ever.
    With `backoff`, not at once. `stop_children`: its children stop before, else they stay.
    """

    limit: int | None = None
    within_s: float = float("inf")
    backoff: Backoff | None = None
    stop_children: bool = True


@dataclass(frozen=True, slots=True)
class Backoff:
    """The n-th restart in a row waits min(max_s, min_s * 2^n) * (1 + rand * jitter) seconds, n from 0.

    After `reset_s` seconds without a failure, n is 0 again. Up to `keep` messages wait meanwhile; more are
    dead letters.
    """

    min_s: float
    max_s: float
    jitter: float = 0.0
    reset_s: float | None = None
    keep: int = 1_000

    def delay_s(self, restarts: int, random: Random) -> float:
        # The exponent is bounded where the maximum is long reached: 2.0**1100 would overflow.
        bare = min(self.max_s, self.min_s * 2.0 ** min(restarts, 60))
        return bare * (1 + random.random() * self.jitter)

    @property
    def quiet_s(self) -> float:
        return (self.min_s + self.max_s) / 2 if self.reset_s is None else self.reset_s


Strategy = Resume | Stop | Restart


@dataclass(frozen=True, slots=True)
class Rule:
    """`strategy` for failures of kind `error` and below."""

    error: type[BaseException]
    strategy: Strategy


resume = Resume()
stop = Stop()


def restart(
    *, limit: int | None = None, within: Duration | None = None, stop_children: bool = True
) -> Restart:
    """Restart at once, at most `limit` times within a window of time.

    Raises:
        ValueError: `limit` is negative.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"A limit of {limit} restarts makes no sense: 0 or more.")
    return Restart(limit, float("inf") if within is None else seconds(within), None, stop_children)


def restart_with_backoff(
    min_delay: Duration,
    max_delay: Duration,
    jitter: float = 0.0,
    *,
    limit: int | None = None,
    reset_after: Duration | None = None,
    keep: int = 1_000,
    stop_children: bool = True,
) -> Restart:
    """Restart, each time after twice the delay. See `Backoff`; `limit`: that many in a row, then it stops.

    Raises:
        ValueError: the delays or the jitter are out of order.
    """
    low, high = seconds(min_delay), seconds(max_delay)
    if not 0 < low <= high:
        raise ValueError(f"0 < min_delay <= max_delay must hold, not {min_delay!r} and {max_delay!r}.")
    if not 0 <= jitter <= 1:
        raise ValueError(f"The jitter must be from 0 to 1, not {jitter}.")
    backoff = Backoff(low, high, jitter, None if reset_after is None else seconds(reset_after), keep)
    return Restart(limit, float("inf"), backoff, stop_children)


def on(error: type[BaseException], strategy: Strategy) -> Rule:
    """A rule for `supervise` and `spawn`."""
    return Rule(error, strategy)


@dataclass(frozen=True, slots=True)
class Supervised(Generic[M]):
    """A behavior, and the rules that it is spawned with."""

    behavior: Behavior[M]
    rules: tuple[Rule, ...]


def supervise(behavior: Behavior[M] | Supervised[M], *rules: Rule) -> Supervised[M]:
    """Adds rules to a behavior that is about to be spawned. Nested, the inner ones are asked first."""
    if isinstance(behavior, Supervised):
        return Supervised(behavior.behavior, behavior.rules + rules)
    return Supervised(behavior, rules)


@dataclass(slots=True)
class Record:
    """How often an actor has been restarted, by rule; part of its snapshot."""

    counts: dict[int, int] = field(default_factory=dict)
    window_began: dict[int, float] = field(default_factory=dict)
    last_began: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """`strategy`, and for a restart how long it waits."""

    strategy: Strategy
    delay_s: float = 0.0


def decide(
    rules: Sequence[Rule], record: Record, error: BaseException, *, now: float, random: Random, starting: bool
) -> Decision:
    """What becomes of an actor that raised `error`; notes it in `record`.

    `starting`: it raised while it started, so that there is nothing to go on with.
    """
    for index, rule in enumerate(rules):
        if not isinstance(error, rule.error):
            continue
        strategy = rule.strategy
        if isinstance(strategy, Resume) and starting:
            return Decision(stop)
        if not isinstance(strategy, Restart):
            return Decision(strategy)
        return _restart(strategy, index, record, now, random)
    return Decision(stop)


def _restart(strategy: Restart, index: int, record: Record, now: float, random: Random) -> Decision:
    count = record.counts.get(index, 0)
    backoff = strategy.backoff
    if backoff is not None:
        if count and now - record.last_began >= backoff.quiet_s:
            count = 0
    elif count == 0 or now > record.window_began[index] + strategy.within_s:
        record.window_began[index], count = now, 0
    if strategy.limit is not None and count >= strategy.limit:
        return Decision(stop)
    record.counts[index] = count + 1
    return Decision(strategy, 0.0 if backoff is None else backoff.delay_s(count, random))
