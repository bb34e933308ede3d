"""The activities of a chat session: thin shells around the store and the models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Protocol, Self, cast

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.attending import beating, handed_over
from activities.ports import ChatModel, ChatRequest, ChatStore, ModelHub
from goatherd.contracts.chat import (
    BranchCopied,
    CopyBranch,
    Delta,
    Event,
    EventType,
    FinishReply,
    Flush,
    Flushed,
    Message,
    MessageStatus,
    Reply,
    Salvage,
    Salvaged,
    WriteReply,
    Written,
)
from goatherd.contracts.ids import derived_id
from goatherd.contracts.inference import DEFAULT_MODEL, ChatTurn, Chunk, Finish, Generation
from goatherd.errors import Fenced, GoatherdError, Invalid, NotFound, Unavailable
from goatherd.telemetry import metrics
from goatherd.temporal import failure
from goatherd.waiting import put_down

BATCH_S = 0.075
"""How long text gathers before it is written: people read no faster, and the store is spared."""
CONTEXT_MESSAGES = 200
COPY_LIMIT = 100_000
_BEGINNINGS = (EventType.MESSAGE_CREATED, EventType.RUN_STARTED)
COPY_BATCH = 500


class StoreActivities:
    """What a session's actor has done in the store."""

    def __init__(self, store: ChatStore) -> None:
        self._store = store

    @activity.defn
    async def flush(self, flush: Flush) -> Flushed:
        """Writes what the store may lack. Idempotent."""
        try:
            if flush.session is not None:
                await self._store.put_session(flush.session)
            taken = await self._store.append(flush.events) if flush.events else set()
        except GoatherdError as error:
            raise failure(error) from error
        return Flushed(fenced=bool(taken))

    @activity.defn
    async def salvage(self, salvage: Salvage) -> Salvaged:
        """The text of a reply, as far as any worker has written it."""
        try:
            return Salvaged(content=_text(await self._store.deltas(salvage.message)))
        except GoatherdError as error:
            raise failure(error) from error

    @activity.defn
    async def copy_branch(self, copy: CopyBranch) -> BranchCopied:
        """Copies a branch of one session to the start of another. Idempotent: ids follow from both ends."""
        try:
            branch = await self._store.branch(copy.origin.session, copy.origin.message, limit=COPY_LIMIT + 1)
            if len(branch) > COPY_LIMIT:
                raise Invalid(f"More than {COPY_LIMIT} messages lead there: fork at an earlier one.")
            events = _copies(copy.session, branch)
            for start in range(0, len(events), COPY_BATCH):
                await self._store.append(events[start : start + COPY_BATCH])
                activity.heartbeat()
        except GoatherdError as error:
            raise failure(error) from error
        return BranchCopied(last_seq=len(events), leaf=events[-1].message if events else None)


class TurnActor(Protocol):
    """A session's actor, as the activity of a turn sees it. Both raise what asking an actor raises."""

    async def is_closed(self, session: str, reply: str) -> bool:
        """Whether the turn has ended already."""
        ...

    async def finish(self, session: str, order: FinishReply) -> Sequence[Event]:
        """Ends the turn, if it has not. Gives the events that the store may lack."""
        ...


class _Reset(Exception):
    """The store has another past than the actor: the run was reset."""


class ReplyActivities:
    """What a session's actor has done by a model."""

    def __init__(self, store: ChatStore, models: ModelHub, default_model: str, actor: TurnActor) -> None:
        self._store = store
        self._models = models
        self._default_model = default_model
        self._actor = actor

    @activity.defn
    async def write_reply(self, order: WriteReply) -> Written:
        """Makes one reply, and shows it piece by piece while it grows; its end is in the store afterwards.

        A second attempt, after the first one's worker was lost, goes on where the first one stopped.
        Cancelled, it gives what there is. Errors that may pass are raised as such, and Temporal retries.
        """
        name = self._default_model if order.model == DEFAULT_MODEL else order.model
        metrics.GENERATIONS.labels(name).inc()
        try:
            async with beating():
                reply = None if await self._is_closed(order) else await self._write(order, name)
                if reply is not None:
                    metrics.REPLIES.labels(name, reply.status).inc()
                return await self._finish(order, reply)
        except _Reset:
            return Written(fenced=True)
        except Fenced as error:
            # Some other attempt wrote a piece: if that one is the past, the next attempt goes on from it.
            raise ApplicationError(error.message, type=error.code) from error
        except GoatherdError as error:
            raise failure(error) from error
        finally:
            metrics.GENERATIONS.labels(name).dec()

    async def _write(self, order: WriteReply, name: str) -> Reply:
        # All three are on the way to the first token, so they are had at once: what the store lacks is mostly
        # there already, since whoever posted has written it. Not so the end of an earlier reply.
        said = all(event.type in _BEGINNINGS for event in order.unflushed)
        taken, deltas, branch = await asyncio.gather(
            self._store.append(order.unflushed) if order.unflushed else _nothing(),
            self._store.deltas(order.reply) if activity.info().attempt > 1 else _nothing(),
            self._branch(order) if said else _nothing(),
        )
        if taken:
            raise _Reset
        writer = _DeltaWriter(self._store, order, [*deltas])
        try:
            model = await self._models.get(name)
            request = self._request(order, name, branch or await self._branch(order), writer.text)
            async with writer:
                finish = await _run(model, name, request, writer)
        except asyncio.CancelledError:
            if (over := handed_over("the reply")) is not None:
                raise over from None
            details = activity.cancellation_details()
            if details is None or not details.cancel_requested:
                raise
            return Reply(status="cancelled", content=writer.text, finish_reason="cancelled")
        return Reply(status="completed", content=writer.text, finish_reason=finish.reason, usage=finish.usage)

    async def _is_closed(self, order: WriteReply) -> bool:
        """Whether an attempt before this one had told the actor how the turn ended, and was lost then."""
        return activity.info().attempt > 1 and await self._actor.is_closed(order.session, order.reply)

    async def _finish(self, order: WriteReply, reply: Reply | None) -> Written:
        """Has the actor close the turn, and writes what that makes. What fails here the actor does itself."""
        flushed = order.unflushed[-1].seq if order.unflushed else 0
        try:
            events = await self._actor.finish(
                order.session, FinishReply(message=order.reply, reply=reply, flushed=flushed)
            )
            if events and await self._store.append(events):
                return Written(fenced=True)
        except (GoatherdError, asyncio.CancelledError):
            return Written(reply=reply, flushed=flushed)
        return Written(flushed=events[-1].seq if events else flushed)

    async def _branch(self, order: WriteReply) -> Sequence[Message]:
        return await self._store.branch(order.session, order.parent, limit=CONTEXT_MESSAGES)

    def _request(self, order: WriteReply, model: str, branch: Sequence[Message], prefix: str) -> ChatRequest:
        if not branch:
            raise NotFound(f"There is no message {order.parent!r} to reply to.")
        turns = [ChatTurn(role="system", content=order.system)] if order.system else []
        turns += [
            ChatTurn(role=message.role, content=message.content) for message in branch if message.content
        ]
        spec = self._models.specs.get(model)
        defaults = spec.generation if spec is not None else Generation()
        chosen = order.generation.model_dump(exclude_none=True)
        return ChatRequest(turns=turns, generation=defaults.model_copy(update=chosen), prefix=prefix)


async def _nothing() -> tuple[()]:
    return ()


async def _run(model: ChatModel, name: str, request: ChatRequest, writer: _DeltaWriter) -> Finish:
    started: float | None = time.monotonic()
    async with aclosing(cast(AsyncGenerator[Chunk | Finish], model.stream(request))) as pieces:
        async for piece in pieces:
            if isinstance(piece, Finish):
                metrics.TOKENS_GENERATED.labels(name).inc(piece.usage.completion_tokens)
                return piece
            if started is not None:
                metrics.REPLY_FIRST_TOKEN_SECONDS.labels(name).observe(time.monotonic() - started)
                started = None
            writer.add(piece.text)
    raise Unavailable("The model stopped without an end.")


class _DeltaWriter:
    """Writes a growing text to the store: the first piece at once, then what has gathered every `BATCH_S`."""

    def __init__(self, store: ChatStore, order: WriteReply, prior: Sequence[Delta]) -> None:
        self._store = store
        self._order = order
        self.text = _text(prior)
        self._written = len(self.text)
        self._n = len(prior)
        self._more = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep_writing())
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        assert self._task is not None
        if error is None:
            self._closing.set()
            self._more.set()
            await self._task
            return
        await put_down(self._task)

    def add(self, text: str) -> None:
        """Raises what went wrong with an earlier write, so that nothing is made that nobody can see."""
        assert self._task is not None
        if self._task.done():
            self._task.result()
        self.text += text
        self._more.set()

    async def _keep_writing(self) -> None:
        while not self._closing.is_set() or self._written < len(self.text):
            await self._more.wait()
            self._more.clear()
            await self._write()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), BATCH_S)

    async def _write(self) -> None:
        text = self.text[self._written :]
        if not text:
            return
        delta = Delta(
            session=self._order.session,
            message=self._order.reply,
            n=self._n,
            offset=self._written,
            text=text,
            ts=datetime.now(UTC),
        )
        self._n += 1
        self._written += len(text)
        await self._store.put_delta(delta)


def _text(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def _copies(session: str, branch: Sequence[Message]) -> list[Event]:
    ids: dict[str, str] = {}
    events: list[Event] = []
    for message in branch:
        if message.status in (MessageStatus.QUEUED, MessageStatus.IN_PROGRESS, MessageStatus.DELETED):
            continue
        millis = int(message.created_at.timestamp() * 1000)
        seq = len(events) + 1
        parent = events[-1].message if events else None
        ids[message.id] = derived_id("msg", session, message.id, millis=millis)
        copy = message.model_copy(
            update={
                "id": ids[message.id],
                "session": session,
                "seq": seq,
                "version": seq,
                "parent": parent,
                "client_id": None,
            }
        )
        events.append(
            Event(
                seq=seq,
                id=derived_id("evt", session, message.id, millis=millis),
                type=EventType.MESSAGE_CREATED,
                session=session,
                message=copy.id,
                parent=parent,
                ts=message.created_at,
                data={"message": copy.model_dump(mode="json", exclude_none=True)},
            )
        )
    return events
