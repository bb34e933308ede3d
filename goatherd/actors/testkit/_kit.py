"""What both asynchronous kits have: a test that takes one of these runs in plain asyncio and on Temporal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from goatherd.actors._behavior import Behavior
from goatherd.actors._duration import Duration
from goatherd.actors._message import Request
from goatherd.actors._ref import Ref
from goatherd.actors._supervision import Rule, Supervised
from goatherd.contracts.model import Contract
from goatherd.errors import GoatherdError

M = TypeVar("M")
Kind = TypeVar("Kind")
Answer = TypeVar("Answer")


class AnyProbe(Protocol):
    """See `Probe`."""

    ref: Ref[Any]

    async def receive(self) -> Any: ...

    async def expect(self, message: M) -> M: ...

    async def expect_type(self, kind: type[Kind]) -> Kind: ...

    async def expect_nothing(self, during: Duration = 0.1) -> None: ...

    async def expect_terminated(self, ref: Ref[Any]) -> None: ...

    def reply(self, answer: Any) -> None: ...

    def refuse(self, error: GoatherdError) -> None: ...


class AnyKit(Protocol):
    """See `ActorTestKit` and `DurableTestKit`."""

    async def spawn(
        self,
        behavior: Behavior[M] | Supervised[M],
        name: str,
        *,
        supervise: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
    ) -> Ref[M]: ...

    async def start(self, kind: Any, actor_id: str, start: Contract | None = None) -> Ref[Any]: ...

    def probe(self, name: str | None = None) -> AnyProbe: ...

    async def tell(self, ref: Ref[M], message: M) -> None: ...

    async def ask(
        self,
        ref: Ref[Any],
        request: Request[Answer] | Callable[[Ref[Answer]], Any],
        *,
        timeout: Duration = 5.0,
    ) -> Answer: ...

    async def advance(self, duration: Duration) -> None: ...

    async def stop(self, ref: Ref[Any]) -> None: ...
