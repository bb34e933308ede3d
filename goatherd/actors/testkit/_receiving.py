"""What all probes have in common: they take messages out of their mail, and answer."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from goatherd.actors.testkit._mail import Mail
from goatherd.errors import GoatherdError

M = TypeVar("M")
Kind = TypeVar("Kind")


class Receiving(Generic[M]):
    """One that fails raises `AssertionError` and takes nothing out."""

    def __init__(self, mail: Mail[M]) -> None:
        self._mail = mail

    async def receive(self) -> M:
        """Takes the next message out."""
        await self._arrival()
        return self._mail.take()

    async def expect(self, message: M) -> M:
        """Takes the next one out, which must be equal to `message`."""
        await self._arrival()
        return self._mail.take_equal(message)

    async def expect_type(self, kind: type[Kind]) -> Kind:
        """Takes the next one out, which must be of `kind`."""
        await self._arrival()
        return self._mail.take_kind(kind)

    def reply(self, answer: Any) -> None:
        """Answers the request that was taken out last."""
        self._mail.asker().tell(answer)

    def refuse(self, error: GoatherdError) -> None:
        """Answers the request that was taken out last with an error."""
        self._mail.asker().fail(error)

    async def _arrival(self) -> None:
        """Returns when a message is there, or none came in time: what is taken next says so."""
        raise NotImplementedError
