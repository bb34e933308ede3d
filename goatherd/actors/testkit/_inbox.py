"""An inbox: a ref to hand out in a synchronous test, and what was sent there."""

from __future__ import annotations

from itertools import count
from typing import Any, Generic, TypeVar

from goatherd.actors._ref import Ref
from goatherd.actors.testkit._mail import Mail, MailRef
from goatherd.errors import GoatherdError

M = TypeVar("M")
Kind = TypeVar("Kind")

_numbers = count(1)


class TestInbox(Generic[M]):
    """`ref` is for messages and for answers; no two inboxes have the same, unless they are given an address.

    An expectation that fails raises `AssertionError` and takes nothing out.
    """

    __test__ = False  # pytest collects what is called Test.

    def __init__(
        self,
        name: str = "inbox",
        *,
        address: str | None = None,
        mail: Mail[M] | None = None,
        ref: Ref[M] | None = None,
    ) -> None:
        self._mail: Mail[M] = Mail(name) if mail is None else mail
        if ref is None:
            ref = MailRef(address or f"inbox/{name}#{next(_numbers)}", self._mail)
        self.ref: Ref[M] = ref

    @property
    def has_messages(self) -> bool:
        return self._mail.has_messages

    def receive(self) -> M:
        """Takes the next message out."""
        return self._mail.take()

    def receive_all(self) -> list[M]:
        """Takes all of them out, in the order in which they came."""
        return self._mail.take_all()

    def expect(self, message: M) -> M:
        """Takes the next one out, which must be equal to `message`."""
        return self._mail.take_equal(message)

    def expect_type(self, kind: type[Kind]) -> Kind:
        """Takes the next one out, which must be of `kind`."""
        return self._mail.take_kind(kind)

    def expect_nothing(self) -> None:
        self._mail.take_none()

    def reply(self, answer: Any) -> None:
        """Answers the request that was taken out last."""
        self._mail.asker().tell(answer)

    def refuse(self, error: GoatherdError) -> None:
        """Answers the request that was taken out last with an error."""
        self._mail.asker().fail(error)
