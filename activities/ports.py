"""What activities and the API need from outside, as protocols. Backends implement them, tests fake them.

Every backend of a port passes the port's contract test (tests/activities/contract_*.py); so does its fake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from goatherd.contracts.chat import Delta, Ephemeral, Event, Message, Session
from goatherd.contracts.inference import ChatTurn, Chunk, Finish, Generation, ModelSpec
from goatherd.contracts.model import Json


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: at most `limit` items, strictly after or before a position, in an order."""

    limit: int = 20
    after: str | int | None = None
    before: str | int | None = None
    descending: bool = False


class ChatStore(Protocol):
    """The read side of chats. The truth is with the actors; here is what is read, and what is replayed."""

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""

    async def ping(self) -> None:
        """Returns if the store answers; raises `Unavailable` if not."""

    # -- written by idempotent calls only
    async def put_session(self, session: Session) -> None:
        """Keeps a session unless it is there already (also if it has ended since)."""

    async def append(self, events: Sequence[Event]) -> set[int]:
        """Keeps events, and applies each to its message and session documents.

        Idempotent, and independent of how calls are ordered or repeated: a document never goes back to
        an older version. All of `events` are durable on return. Returns the indices (into `events`) of those
        whose number is taken by another event, and of those of the same session with higher numbers: these
        were not kept and not applied.
        """

    async def put_delta(self, delta: Delta) -> None:
        """Keeps piece `n` of a message. Raises `Fenced` if that piece is there already."""

    async def publish(self, ephemeral: Ephemeral) -> None:
        """Shows something to whoever watches now, on any replica. Not kept."""

    # -- read
    async def session(self, session: str) -> Session | None: ...

    async def sessions(
        self, owner: str, page: Page, *, status: str | None = None, label: str | None = None
    ) -> list[Session]:
        """The owner's sessions by id (that is, by when they were made)."""

    async def active_sessions(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that the store has as active."""

    async def last_seq(self, session: str) -> int:
        """The newest event's number, 0 if there is none."""

    async def message(self, session: str, message: str) -> Message | None: ...

    async def message_by_client_id(self, session: str, client_id: str) -> Message | None: ...

    async def reply_to(self, session: str, message: str) -> Message | None:
        """The first reply (role `assistant`) whose parent is `message`."""

    async def messages(self, session: str, page: Page) -> list[Message]:
        """By `seq`; the page's positions are `seq`s."""

    async def unfinished(self, session: str) -> list[Message]:
        """Messages that are queued or in progress, by `seq`."""

    async def branch(self, session: str, leaf: str, *, limit: int) -> list[Message]:
        """The messages that lead to `leaf`, oldest first, at most the last `limit`, `leaf` included."""

    async def events(self, session: str, *, after: int, limit: int) -> list[Event]:
        """Events with `seq` > `after`, in order."""

    async def deltas(self, message: str) -> list[Delta]:
        """The pieces of a reply in progress, in order, without a gap. Kept for an hour."""

    # -- followed
    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[FeedItem]]:
        """Everything written from the time that the context is entered, by any process, in the order written.

        The iterator resumes after a lost connection by itself where the store allows it; where it does not,
        it yields `Resync` and goes on: what came in between has to be read again by `seq`.
        """


@dataclass(frozen=True, slots=True)
class Resync:
    """Some changes were missed: read what you follow again."""


FeedItem = Event | Delta | Ephemeral | Resync


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What an idempotent request was answered."""

    status: int
    body: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """What became of an attempt to claim an idempotency key.

    `fresh`: it is ours now, go on (`seed` gives the ids to use: the same ones if an earlier holder died);
    `done`: here is the stored answer; `running`: another request holds it; `mismatch`: it was used with
    another body.
    """

    outcome: Literal["fresh", "done", "running", "mismatch"]
    seed: str = ""
    seed_millis: int = 0
    answer: StoredAnswer | None = None


class IdempotencyStore(Protocol):
    """Keys of POSTs: kept for 24 hours. A claim not settled within `lease_s` may be taken over."""

    async def claim(self, key: str, body_hash: str, *, lease_s: float) -> KeyClaim: ...

    async def settle(self, key: str, answer: StoredAnswer) -> None: ...

    async def release(self, key: str) -> None:
        """Ends a claim's lease, so that the request may be tried again at once, with the same seed."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker process says of itself, every few seconds."""

    identity: str
    pools: tuple[str, ...]
    state: Literal["starting", "ready", "stopping"]
    detail: str = ""
    models: dict[str, str] = field(default_factory=dict)
    """By model name: `loading`, `loading: step`, `ready`, `failed: why`, or `unloaded`: it was ready, and
    was put out."""
    queue: str = ""
    """The task queue that only this worker polls, if it serves models."""
    memory_bytes: int = 0
    """What its models may take together."""
    used_bytes: int = 0
    """What they take now."""
    device: str = ""
    at: datetime | None = None

    def standing(self, model: str) -> tuple[str, str]:
        """Of a model here: `loading`, `ready`, `failed` or `unloaded`, and what there is to say of that."""
        state, _, detail = self.models.get(model, "unloaded").partition(": ")
        return state, detail


class WorkerRegistry(Protocol):
    """Which workers there are. Judge by age: a killed worker can't sign off."""

    async def report(self, status: WorkerStatus) -> None: ...

    async def sign_off(self, identity: str) -> None: ...

    async def alive(self, *, within_s: float) -> list[WorkerStatus]: ...


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`turns` are the conversation, oldest first; `prefix` is what there is of the reply already, which the
    model goes on from (its text is not yielded again; `max_tokens` and usage count it).

    With a `prompt` there are no turns: the model goes on from that text as it is, without a template.
    """

    turns: Sequence[ChatTurn]
    generation: Generation
    prefix: str = ""
    prompt: str | None = None
    prompt_tokens: int | None = None
    """Only the last so many tokens of `prompt` count. None: one that does not fit is `Invalid`."""
    details: bool = False
    """Whether chunks say their tokens."""
    passed_on: Json = field(default_factory=dict)
    """What only a remote provider understands, as its API names it."""


class ChatModel(Protocol):
    """A model that talks."""

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk | Finish]:
        """Yields chunks as they are made, then one `Finish`.

        The oldest turns are left out when all don't fit the model's window; system turns and the last one
        stay. Closing the iterator stops the computation within a second and frees what it held.

        Raises:
            Invalid: what has to stay does not fit the window.
            Unavailable: the model can't be reached or loaded now.
        """


class ModelHub(Protocol):
    """The models of this process, loaded at most once each."""

    @property
    def specs(self) -> dict[str, ModelSpec]: ...

    async def get(self, name: str, *, progress: Callable[[str], None] | None = None) -> ChatModel:
        """The loaded model. Raises `ModelNotFound`, or `Unavailable` if it can't be loaded now."""

    def states(self) -> dict[str, str]:
        """By name, as in `WorkerStatus.models`; models never asked for are absent."""
