"""The durable actor of a chat session: workflow type `ChatSession`, one a session, its id the session's.

It decides the order of everything that happens in a session, gives it its numbers, and has one reply made
at a time. It holds no texts: these go to the store with the answer to whoever posted, with the turn's
activity, or after a quiet while, and stay with the actor until one of them has done so.

By hand: `temporal workflow update execute -w chat_… --name PostMessage --input '{"content":"hi"}'`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    FailureError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from activities.chat import ReplyActivities, StoreActivities
    from goatherd.contracts.chat import (
        CancelMessage,
        Changed,
        CopyBranch,
        DeleteMessage,
        EndSession,
        EventType,
        FinishReply,
        Flush,
        GiveFeedback,
        Message,
        MessageStatus,
        OnBusy,
        Posted,
        PostMessage,
        QueuedTurn,
        Ready,
        Receipt,
        Regenerate,
        Reply,
        Salvage,
        Session,
        SessionOutcome,
        SessionView,
        StartSession,
        WriteReply,
        Written,
    )
    from goatherd.contracts.ids import is_chat_id
    from goatherd.contracts.inference import DEFAULT_MODEL, Generation
    from goatherd.contracts.queues import Pool, task_queue
    from goatherd.errors import (
        ClientIdReused,
        Invalid,
        LookUp,
        SessionBusy,
        SessionEnded,
        TooManyRequests,
        Unavailable,
    )
    from goatherd.temporal import STATUS, failure

from workflows.chat_log import SessionLog
from workflows.chat_reply import digest, outcome, reason

QUIET = timedelta(seconds=10)
"""How long an event that its poster has promised to write may wait before the actor writes it."""
FLUSH_BATCH = 500
MOST_QUEUED = 100
MOST_UNFLUSHED_BYTES = 128 * 1024
"""Answers carry what the store may lack, ten of them in one call at most, and a call takes 4 MB."""
MOST_UPDATES_A_RUN = 1_900  # Temporal refuses more than 2,000.

_FLUSH_RETRY = RetryPolicy(initial_interval=timedelta(seconds=0.2), maximum_interval=timedelta(seconds=10))
_REPLY_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=0.5), maximum_interval=timedelta(seconds=10), maximum_attempts=20
)
_BY_HAND = StartSession()


@workflow.defn(name="ChatSession")
class ChatSession:
    @workflow.init
    def __init__(self, start: StartSession = _BY_HAND) -> None:
        info = workflow.info()
        self._start = start
        self._model = start.model or DEFAULT_MODEL
        self._log = SessionLog(
            info.workflow_id,
            start.state,
            now=workflow.now,
            entropy=lambda: workflow.random().getrandbits(80),
        )
        self._turns: list[QueuedTurn] = list(start.state.turns) if start.state else []
        self._writing: workflow.ActivityHandle[Written] | None = None
        self._written: str | None = None  # the reply that the activity may still close
        self._closed_at = 0
        self._ready = start.fork is None or start.state is not None
        self._stored = start.stored or start.state is not None
        self._urgent = not self._stored or not self._log.is_flushed
        self._ending: str | None = None
        self._ended = False
        self._fenced = False
        self._updates = 0
        self._created_at = start.created_at or workflow.now()
        self._cancelling = False
        self._flushing = False

    @workflow.run
    async def run(self, start: StartSession = _BY_HAND) -> SessionOutcome:
        if not is_chat_id(self._log.session):
            raise failure(Invalid("The workflow id of a ChatSession must be a chat id: chat_ and a ULID."))
        living = asyncio.create_task(self._live_flushed())
        cancelled = False
        try:
            # Shielded: a cancellation must not go straight to the activity, which has its text to give.
            go_on = await asyncio.shield(living)
        except asyncio.CancelledError:
            cancelled = True
            self._end("cancelled")
            go_on = await living
        await workflow.wait_condition(workflow.all_handlers_finished)
        if go_on:
            workflow.continue_as_new(
                self._start.model_copy(
                    update={
                        "state": self._log.state().model_copy(update={"turns": self._turns}),
                        "created_at": self._created_at,
                    }
                )
            )
        if cancelled:
            raise asyncio.CancelledError
        return SessionOutcome(reason=self._ending or "", last_seq=self._log.last_seq, posts=self._log.posts)

    # -- messages

    @workflow.update(name="PostMessage")
    def post_message(self, order: PostMessage) -> Posted:
        """Adds a message; asks for a reply to it unless told not to."""
        self._updates += 1
        if not self._log.agrees(order.flushed, order.flushed_event):
            self._give_way()
            raise failure(SessionEnded("The session was reset by an operator, which ends it."))
        self._log.confirm(order.flushed)
        known = self._log.receipt(order.id, order.client_id)
        if known is not None:
            return self._posted(known, duplicate=True, promised=order.flusher)
        wants_reply = self._wants_reply(order)
        if wants_reply and order.on_busy == "interrupt":
            self._cancel_turns()
        message = self._create(
            Message(
                id=order.id or self._log.new_id("msg"),
                session=self._log.session,
                seq=self._log.last_seq + 1,
                version=self._log.last_seq + 1,
                role=order.role,
                content=order.content,
                status=MessageStatus.COMPLETED,
                parent=order.parent or self._log.leaf,
                client_id=order.client_id,
                metadata=order.metadata,
                created_at=workflow.now(),
                updated_at=workflow.now(),
            )
        )
        reply = None
        if wants_reply:
            reply = self._ask_for_reply(message.id, order.reply_id, order.model, order.generation)
        receipt = Receipt(
            message=message.id,
            seq=message.seq,
            client_id=order.client_id,
            reply=reply,
            digest=digest(order.content),
        )
        self._log.posts += 1
        self._log.keep(receipt)
        return self._posted(receipt, promised=order.flusher)

    @post_message.validator
    def check_post(self, order: PostMessage) -> None:
        self._check_open(order.flushed)
        known = self._log.receipt(order.id, order.client_id)
        if known is not None and known.digest not in (None, digest(order.content)):
            raise failure(ClientIdReused("The client_id came with another content before. Use a new one."))
        if known is None and order.client_id is not None and self._log.forgot and not order.looked_up:
            raise failure(LookUp("The client_id may be an old one: look in the store, and set `looked_up`."))
        if known is None and self._wants_reply(order):
            self._check_free(order.on_busy)

    @workflow.update(name="Regenerate")
    def regenerate(self, order: Regenerate) -> Posted:
        """Asks for another reply to a message, beside those that it has."""
        self._updates += 1
        known = self._log.receipt(order.reply_id, None)
        if known is not None:
            return self._posted(known, duplicate=True, promised=order.flusher)
        if order.on_busy == "interrupt":
            self._cancel_turns()
        seq = self._log.last_seq + 1
        reply = self._ask_for_reply(order.parent, order.reply_id, order.model, order.generation)
        self._log.keep(Receipt(message=reply, seq=seq, reply=reply))
        return self._posted(Receipt(message=order.parent, seq=seq, reply=reply), promised=order.flusher)

    @regenerate.validator
    def check_regenerate(self, order: Regenerate) -> None:
        self._check_open()
        if self._log.receipt(order.reply_id, None) is None:
            self._check_free(order.on_busy)

    @workflow.update(name="DeleteMessage")
    def delete_message(self, order: DeleteMessage) -> Changed:
        """Makes a tombstone of a message; a reply that is not finished is cancelled instead."""
        self._updates += 1
        if not self._cancel_reply(order.message):
            self._log.emit(EventType.MESSAGE_DELETED, message=order.message)
        return self._changed(order.flusher)

    @workflow.update(name="CancelMessage")
    def cancel_message(self, order: CancelMessage) -> Changed:
        """Stops a reply that is not finished; one that is stays as it is."""
        self._updates += 1
        self._cancel_reply(order.message)
        return self._changed(order.flusher)

    @workflow.update(name="GiveFeedback")
    def give_feedback(self, order: GiveFeedback) -> Changed:
        """Notes what a person thinks of a message."""
        self._updates += 1
        self._log.emit(
            EventType.MESSAGE_UPDATED,
            message=order.message,
            data={"feedback": order.feedback.model_dump(mode="json")},
        )
        return self._changed(order.flusher)

    @workflow.update(name="FinishReply")
    def finish_reply(self, order: FinishReply) -> Changed:
        """Closes a turn, asked by its own activity, which writes the end to the store as whoever posts does.

        That saves a flush, which is six events of history. Asked again, it gives what the store may lack.
        """
        self._updates += 1
        self._log.confirm(order.flushed)
        if order.reply is not None and order.message == self._written:
            self._close_written(order.reply)
        return self._changed(promised=True)

    @delete_message.validator
    def check_delete(self, order: DeleteMessage) -> None:
        self._check_open(room=False)

    @cancel_message.validator
    def check_cancel(self, order: CancelMessage) -> None:
        self._check_open(room=False)

    @give_feedback.validator
    def check_feedback(self, order: GiveFeedback) -> None:
        self._check_open()

    @workflow.update(name="EndSession")
    async def end_session(self, order: EndSession) -> Changed:
        """Cancels what is in progress, then ends the session. Answered when it has ended."""
        self._end(order.reason)
        await workflow.wait_condition(lambda: self._ended)
        return self._changed(order.flusher)

    @workflow.update(name="Ready")
    async def ready(self, order: Ready) -> Changed:
        """Answered when a forked session has its messages."""
        await workflow.wait_condition(lambda: (self._ready and self._stored) or self._ended)
        return Changed()

    @workflow.query(name="Session")
    def view(self) -> SessionView:
        return SessionView(
            id=self._log.session,
            status="ended" if self._ended else "active",
            agent=self._start.agent,
            model=self._model,
            last_seq=self._log.last_seq,
            posts=self._log.posts,
            replying=self._written,
            queued=len(self._turns) - (self._written is not None),
            unflushed=len(self._log.unflushed()),
        )

    @workflow.query(name="Document")
    def document(self) -> Session:
        """The session as the store should have it, for when whoever started it could not write it."""
        return self._document()

    # -- what the handlers share

    def _wants_reply(self, order: PostMessage) -> bool:
        return order.reply if order.reply is not None else order.role == "user"

    def _check_open(self, flushed: int = 0, *, room: bool = True) -> None:
        if self._ending is not None:
            raise failure(SessionEnded("The session has ended."))
        if not self._ready:
            raise failure(SessionBusy("The session is still being forked. Try again in a moment."))
        if room and self._log.bytes_after(flushed) >= MOST_UNFLUSHED_BYTES:
            raise failure(Unavailable("The store does not keep up with this session. Try again in a moment."))
        if self._updates >= MOST_UPDATES_A_RUN:
            raise failure(Unavailable("The session tidies up behind a long reply. Try again in a moment."))

    def _check_free(self, on_busy: OnBusy) -> None:
        if self._turns and on_busy == "reject":
            raise failure(SessionBusy("A reply is being written, and `on_busy` is `reject`."))
        if len(self._turns) >= MOST_QUEUED and on_busy != "interrupt":
            raise failure(TooManyRequests(f"{MOST_QUEUED} replies are waiting already."))

    def _create(self, message: Message) -> Message:
        self._log.create(message)
        return message

    def _ask_for_reply(
        self, parent: str, reply: str | None, model: str | None, generation: Generation | None
    ) -> str:
        idle = not self._turns
        turn = QueuedTurn(
            reply=reply or self._log.new_id("msg"),
            parent=parent,
            model=model or self._model,
            generation=generation or self._start.generation,
            started=idle,
        )
        self._create(
            Message(
                id=turn.reply,
                session=self._log.session,
                seq=self._log.last_seq + 1,
                version=self._log.last_seq + 1,
                role="assistant",
                content="",
                status=MessageStatus.IN_PROGRESS if idle else MessageStatus.QUEUED,
                parent=parent,
                model=turn.model,
                created_at=workflow.now(),
                updated_at=workflow.now(),
            )
        )
        self._turns.append(turn)
        if idle:
            self._emit_started(turn)
        return turn.reply

    def _emit_started(self, turn: QueuedTurn) -> None:
        self._log.emit(
            EventType.RUN_STARTED, message=turn.reply, parent=turn.parent, data={"model": turn.model}
        )

    def _posted(self, receipt: Receipt, *, duplicate: bool = False, promised: bool) -> Posted:
        return Posted(
            message=receipt.message,
            seq=receipt.seq,
            reply=receipt.reply,
            duplicate=duplicate,
            events=self._changed(promised).events,
        )

    def _changed(self, promised: bool) -> Changed:
        """What the store may lack. Unless the asker promised to write it, the actor does so at once."""
        self._urgent |= not promised or self._log.bytes_after(0) >= MOST_UNFLUSHED_BYTES // 2
        self._show()
        return Changed(events=self._log.unflushed())

    def _show(self) -> None:
        state = "ended" if self._ended else "replying" if self._turns else "idle"
        workflow.set_current_details(
            f"**{state}** · {self._log.posts} messages posted · {len(self._turns)} replies to write"
            f" · last seq {self._log.last_seq} · model `{self._model}`"
        )

    # -- cancelling and ending

    def _cancel_reply(self, reply: str) -> bool:
        """Whether there was a reply of this id to cancel."""
        for turn in self._turns:
            if turn.reply == reply:
                self._cancel_turn(turn)
                return True
        return False

    def _cancel_turns(self) -> None:
        for turn in list(self._turns):
            self._cancel_turn(turn)

    def _cancel_turn(self, turn: QueuedTurn) -> None:
        if self._writing is not None and turn.reply == self._written:
            self._cancelling = True
            self._writing.cancel()  # Its text so far comes as the activity's result.
            return
        self._turns.remove(turn)
        self._close_turn(turn, Reply(status="cancelled", content="", finish_reason="cancelled"))

    def _end(self, reason: str) -> None:
        if self._ending is None:
            self._ending = reason
            self._cancel_turns()

    # -- the actor's life

    async def _live_flushed(self) -> bool:
        life = asyncio.create_task(self._live())
        flusher = asyncio.create_task(self._keep_flushed())
        await workflow.wait([life, flusher], return_when=asyncio.FIRST_COMPLETED)
        if flusher.done():
            flusher.result()  # It never ends by itself: whatever broke it has to be seen.
        flusher.cancel()
        return life.result()

    async def _live(self) -> bool:
        """Until the session ends (False) or the run is worn out and continues as new (True)."""
        if not self._ready:
            await self._copy_branch()
        while self._ending is None:
            if self._is_worn_out():
                # What the store may lack goes along: waiting for it could take for ever in a busy session. A
                # write under way is waited for, since what arrives in between has Temporal ask again.
                if self._stored and not self._flushing:
                    return True
                await workflow.wait_condition(
                    lambda: self._ending is not None or (self._stored and not self._flushing)
                )
            elif self._turns:
                await self._write_reply()
            else:
                await workflow.wait_condition(
                    lambda: self._ending is not None or bool(self._turns) or self._is_worn_out()
                )
        if not self._fenced:
            self._log.emit(EventType.SESSION_ENDED, data={"reason": self._ending})
        self._ended = True
        self._urgent = True
        self._show()
        if workflow.info().typed_search_attributes.get(STATUS) is not None:
            workflow.upsert_search_attributes([STATUS.value_set("ended")])
        await workflow.wait_condition(lambda: self._fenced or (self._log.is_flushed and self._stored))
        return False

    def _is_worn_out(self) -> bool:
        return self._updates >= self._start.posts_per_run or workflow.info().is_continue_as_new_suggested()

    async def _copy_branch(self) -> None:
        assert self._start.fork is not None
        await workflow.wait_condition(lambda: self._stored or self._ending is not None)
        copying = workflow.start_activity_method(
            StoreActivities.copy_branch,
            CopyBranch(session=self._log.session, origin=self._start.fork),
            task_queue=task_queue(Pool.STORE, self._start.task_queue_prefix),
            start_to_close_timeout=timedelta(minutes=30),
            heartbeat_timeout=timedelta(seconds=30),
        )
        await workflow.wait_condition(lambda: copying.done() or self._ending is not None)
        if self._ending is not None:
            copying.cancel()
            return
        copied = await copying
        self._log.last_seq, self._log.leaf = copied.last_seq, copied.leaf
        self._ready = True

    async def _write_reply(self) -> None:
        turn = self._turns[0]
        if not turn.started:
            turn = self._turns[0] = turn.model_copy(update={"started": True})
            self._emit_started(turn)
        carried = self._log.unflushed(FLUSH_BATCH)
        self._written = turn.reply
        self._writing = workflow.start_activity_method(
            ReplyActivities.write_reply,
            WriteReply(
                session=self._log.session,
                reply=turn.reply,
                parent=turn.parent,
                model=turn.model,
                system=self._start.system,
                generation=turn.generation,
                unflushed=carried,
            ),
            task_queue=task_queue(Pool.INFERENCE, self._start.task_queue_prefix),
            start_to_close_timeout=timedelta(minutes=15),
            heartbeat_timeout=timedelta(seconds=5),
            retry_policy=_REPLY_RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"reply {turn.reply}",
        )
        error: ActivityError | None = None
        try:
            written = await self._writing
        except ActivityError as caught:
            written, error = Written(), caught
        if self._written is not None and not written.fenced:
            reply = written.reply or await self._salvage(turn, error)
            if self._written is not None:  # An attempt that was given up may still have finished meanwhile.
                self._close_written(reply)
        self._writing, self._written, self._cancelling = None, None, False
        if written.fenced:
            self._turns = [other for other in self._turns if other.reply != turn.reply]
            self._give_way()
            return
        self._log.confirm(written.flushed)
        # What the activity has not written of the end is the actor's to write.
        self._urgent |= self._log.awaits(self._closed_at)
        self._show()

    def _close_written(self, reply: Reply) -> None:
        self._written = None
        self._close_turn(self._turns.pop(0), reply)
        self._closed_at = self._log.last_seq

    async def _salvage(self, turn: QueuedTurn, error: ActivityError | None) -> Reply:
        """The reply of a worker that gave none: what it had written, cancelled or failed."""
        cancelled = self._cancelling
        try:
            salvaged = await workflow.execute_local_activity_method(
                StoreActivities.salvage,
                Salvage(message=turn.reply),
                start_to_close_timeout=timedelta(seconds=5),
                retry_policy=RetryPolicy(maximum_attempts=2),
            )
            content = salvaged.content
        except FailureError:  # A local activity's own error comes bare, without an ActivityError.
            content = ""
        if cancelled or (error is not None and is_cancelled_exception(error)):
            return Reply(status="cancelled", content=content, finish_reason="cancelled")
        return Reply(status="failed", content=content, error=reason(error))

    def _close_turn(self, turn: QueuedTurn, reply: Reply) -> None:
        kind, data = outcome(reply)
        self._log.emit(kind, message=turn.reply, parent=turn.parent, data=data)
        if turn.started:
            self._log.emit(
                EventType.RUN_COMPLETED,
                message=turn.reply,
                parent=turn.parent,
                data={"status": reply.status},
            )

    async def _keep_flushed(self) -> None:
        while True:
            await workflow.wait_condition(self._should_flush)
            if self._urgent:
                await self._flush()
                continue
            try:
                await workflow.wait_condition(
                    lambda: self._urgent or self._log.is_flushed or self._writing is not None,
                    timeout=QUIET,
                    timeout_summary="write what nobody has",
                )
            except TimeoutError:
                self._urgent = True

    def _should_flush(self) -> bool:
        """Not while a turn is under way, whose activity writes what it finds, unless it is urgent; nor just
        before continuing as new."""
        if not self._stored:
            return True
        if self._log.is_flushed or (self._ending is None and self._is_worn_out()):
            return False
        return self._urgent or self._writing is None

    async def _flush(self) -> None:
        """Not by a local activity: that would write events of a workflow task which may yet be done anew,
        with other events in their place."""
        events = self._log.unflushed(FLUSH_BATCH)
        self._urgent, self._flushing = False, True
        flushed = await workflow.execute_activity_method(
            StoreActivities.flush,
            Flush(session=None if self._stored else self._document(), events=events),
            start_to_close_timeout=timedelta(seconds=5),
            retry_policy=_FLUSH_RETRY,
        )
        self._stored, self._flushing = True, False
        if flushed.fenced:
            self._give_way()
        elif events:
            self._log.confirm(events[-1].seq)
        self._urgent |= len(events) == FLUSH_BATCH

    def _document(self) -> Session:
        return self._start.document(self._log.session, now=self._created_at, model=self._model)

    def _give_way(self) -> None:
        """The store has another past than this run: an operator reset it. Readers keep what they saw."""
        self._fenced = True
        self._log.confirm(self._log.last_seq)
        self._end("reset")
