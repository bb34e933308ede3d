"""Actors in plain asyncio, against pykka and against a bare deque."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pykka

from bench.measure import Load, ratio
from goatherd.actors import Behavior, Context, LocalSystem, Ref, Request, message

RING, HOPS, PYKKA_HOPS = 1_000, 500_000, 20_000
ASKS, PYKKA_ASKS = 20_000, 10_000
ROUNDS = 3


@message
class Ping(Request[int]):
    number: int


class Node(Behavior[Any]):
    """Sends a number on, less one."""

    following: Ref[Any]

    def __init__(self, done: asyncio.Event) -> None:
        self._done = done

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        if isinstance(message, Ref):
            self.following = message
        elif message == 0:
            self._done.set()
        else:
            self.following.tell(message - 1)
        return None


class Echo(Behavior[Ping]):
    def receive(self, ctx: Context[Ping], message: Ping) -> Behavior[Ping] | None:
        ctx.reply(message, message.number)
        return None


class PykkaNode(pykka.ThreadingActor):
    def __init__(self, done: Any) -> None:
        super().__init__()
        self._done = done
        self._following: Any = None

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, pykka.ActorRef):
            self._following = message
        elif message == 0:
            self._done.set()
        else:
            self._following.tell(message - 1)


class PykkaEcho(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message


async def ring() -> float:
    done = asyncio.Event()
    async with LocalSystem() as system:
        nodes = [system.spawn(Node(done), f"node-{number}") for number in range(RING)]
        for number, node in enumerate(nodes):
            node.tell(nodes[(number + 1) % RING])
        started = time.perf_counter()
        nodes[0].tell(HOPS)
        await done.wait()
        return HOPS / (time.perf_counter() - started)


def pykka_ring() -> float:
    done = pykka.ThreadingFuture[bool]()
    signal = type("Done", (), {"set": lambda self: done.set(True)})()
    nodes = [PykkaNode.start(signal) for _ in range(RING)]
    for number, node in enumerate(nodes):
        node.tell(nodes[(number + 1) % RING])
    started = time.perf_counter()
    nodes[0].tell(PYKKA_HOPS)
    done.get()
    rate = PYKKA_HOPS / (time.perf_counter() - started)
    pykka.ActorRegistry.stop_all()
    return rate


def deque_ring() -> float:
    """What nothing but a queue and a call can do."""
    ready: deque[tuple[Callable[[int], None], int]] = deque()

    def handle(hops: int) -> None:
        if hops:
            ready.append((handle, hops - 1))

    started = time.perf_counter()
    ready.append((handle, HOPS))
    while ready:
        call, hops = ready.popleft()
        call(hops)
    return HOPS / (time.perf_counter() - started)


async def asks() -> float:
    async with LocalSystem() as system:
        echo = system.spawn(Echo(), "echo")
        started = time.perf_counter()
        for number in range(ASKS):
            await system.ask(echo, Ping(number))
        return ASKS / (time.perf_counter() - started)


def pykka_asks() -> float:
    echo = PykkaEcho.start()
    started = time.perf_counter()
    for number in range(PYKKA_ASKS):
        echo.ask(number)
    rate = PYKKA_ASKS / (time.perf_counter() - started)
    echo.stop()
    return rate


async def main() -> None:
    def best(rates: list[float]) -> Load:
        return Load(sorted(rates)[len(rates) // 2], [])

    ours = best([await ring() for _ in range(ROUNDS)])
    theirs = best([pykka_ring() for _ in range(ROUNDS)])
    bare = best([deque_ring() for _ in range(ROUNDS)])
    print(f"tells round a ring of {RING} actors: ours {ours.rate:,.0f}/s, pykka {theirs.rate:,.0f}/s,")
    print(f"  a bare deque {bare.rate:,.0f}/s")
    ratio("tells against pykka", ours, theirs, 10)
    ratio("tells against a bare deque", ours, bare, 0.5)
    ours = best([await asks() for _ in range(ROUNDS)])
    theirs = best([pykka_asks() for _ in range(ROUNDS)])
    print(f"asks, one after the other: ours {ours.rate:,.0f}/s, pykka {theirs.rate:,.0f}/s")
    ratio("asks against pykka", ours, theirs, 10)


if __name__ == "__main__":
    asyncio.run(main())
