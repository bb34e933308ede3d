"""The behavior of a chat session's actor.

It decides the order of everything that happens in a session, gives it its numbers, and has one reply made at
a time. It holds no texts: these go to the store with the answer to whoever posted, with the turn's activity,
or after a quiet while, and stay with the actor until one of them has done so.
"""

from __future__ import annotations

from dataclasses import field

from activities.chat import ReplyActivities, StoreActivities
from goatherd.actors import (
    Behavior,
    CancelRequested,
    Context,
    Ref,
    Signal,
    activity,
    behavior,
    message,
    stopped,
)
from goatherd.contracts.chat import (
    BranchCopied,
    CancelMessage,
    Changed,
    CopyBranch,
    DeleteMessage,
    EndSession,
    EventType,
    Failure,
    FinishReply,
    GiveFeedback,
    HandOver,
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
    Salvaged,
    Session,
    StartSession,
    WriteReply,
    Written,
)
from goatherd.contracts.ids import is_chat_id
from goatherd.contracts.inference import DEFAULT_MODEL
from goatherd.contracts.model import Timestamp
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
from workflows.chat_flush import BATCH, Flushing, Quiet, StoreFlushed
from workflows.chat_handing import Handing
from workflows.chat_log import SessionLog, moment
from workflows.chat_reply import digest, is_cancelled, reason
from workflows.chat_turns import Turns

MOST_QUEUED = 100
MOST_UNFLUSHED_BYTES = 512 * 1024
"""One answer may carry all that the store may lack, and one message more; Temporal takes 2 MB."""
_WRITING = "reply"


@message
class ReplyWritten:
    written: Written


@message
class ReplyLost:
    """The turn's activity has failed for good, or was cancelled before it could say anything."""

    failure: Failure
    cancelled: bool


@message
class BranchIsCopied:
    copied: BranchCopied


def reply_lost(error: BaseException) -> ReplyLost:
    return ReplyLost(reason(error), is_cancelled(error))


def salvaged(salvaged: Salvaged) -> Salvaged:
    return salvaged


def not_salvaged(_: BaseException) -> Salvaged:
    return Salvaged(content="")


Asked = (
    PostMessage
    | Regenerate
    | DeleteMessage
    | CancelMessage
    | GiveFeedback
    | EndSession
    | Ready
    | HandOver
    | FinishReply
)
Messages = Asked | ReplyWritten | ReplyLost | Salvaged | BranchIsCopied | StoreFlushed | Quiet


@behavior("chat.session")
class ChatSessionBehavior(Behavior[Messages]):
    """One session. `writing`: a turn's activity is under way. `fenced`: the store has another past."""

    start: StartSession
    log: SessionLog
    turns: Turns
    flushing: Flushing
    handing: Handing = field(default_factory=Handing)
    created_at: Timestamp | None = None
    ready: bool = True
    writing: bool = False
    cancelling: bool = False
    copying: bool = False
    lost: ReplyLost | None = None
    closed_at: int = 0
    ending: str | None = None
    ended: bool = False
    fenced: bool = False
    enders: list[Ref[Changed]] = field(default_factory=list)
    waiters: list[Ref[Changed]] = field(default_factory=list)

    @property
    def model(self) -> str:
        return self.start.model or DEFAULT_MODEL

    def document(self) -> Session:
        assert self.created_at is not None
        return self.start.document(self.log.session, now=self.created_at, model=self.model)

    # -- what happens to it

    def on_start(self, ctx: Context[Messages]) -> Behavior[Messages] | None:
        if not is_chat_id(self.log.session):
            raise Invalid("The workflow id of a ChatSession must be a chat id: chat_ and a ULID.")
        self.created_at = self.start.created_at or moment(ctx)
        return self._go_on(ctx)

    def on_signal(self, ctx: Context[Messages], signal: Signal) -> Behavior[Messages] | None:
        if isinstance(signal, CancelRequested):
            self._end(ctx, "cancelled")
            return self._go_on(ctx)
        return super().on_signal(ctx, signal)

    def receive(self, ctx: Context[Messages], message: Messages) -> Behavior[Messages] | None:
        match message:
            case PostMessage():
                self._post(ctx, message)
            case Regenerate():
                self._regenerate(ctx, message)
            case FinishReply():
                self._finish_reply(ctx, message)
            case DeleteMessage():
                if not self._cancel_reply(ctx, message.message):
                    self.log.emit(ctx, EventType.MESSAGE_DELETED, message=message.message)
                ctx.reply(message, self._hand(message.flusher))
            case CancelMessage():
                self._cancel_reply(ctx, message.message)
                ctx.reply(message, self._hand(message.flusher))
            case GiveFeedback():
                data = {"feedback": message.feedback.model_dump(mode="json")}
                self.log.emit(ctx, EventType.MESSAGE_UPDATED, message=message.message, data=data)
                ctx.reply(message, self._hand(message.flusher))
            case EndSession():
                self.enders.append(ctx.reply_to(message))
                self._end(ctx, message.reason)
            case Ready():
                self.waiters.append(ctx.reply_to(message))
            case HandOver():
                if self._is_past_of(ctx, message):
                    ctx.reply(message, self._hand(message.flusher))
            case ReplyWritten(written=written):
                self._reply_written(ctx, written)
            case ReplyLost():
                self._salvage(ctx, message)
            case Salvaged(content=content):
                self._reply_salvaged(ctx, content)
            case BranchIsCopied(copied=copied):
                self.log.last_seq, self.log.leaf = copied.last_seq, copied.leaf
                self.ready = True
            case StoreFlushed(flushed=flushed):
                self.flushing.done(self.log)
                if flushed.fenced:
                    self._give_way(ctx)
            case Quiet():
                self.flushing.urgent = True
        return self._go_on(ctx)

    def check(self, message: Messages) -> None:
        """What is refused before it is taken."""
        match message:
            case PostMessage():
                self._check_post(message)
            case Regenerate():
                self._check_open()
                if self.log.receipt(message.reply_id, None) is None:
                    self._check_free(message.on_busy)
            case DeleteMessage() | CancelMessage():
                self._check_open(room=False)
            case GiveFeedback():
                self._check_open()
            case _:
                pass

    # -- messages

    def _post(self, ctx: Context[Messages], order: PostMessage) -> None:
        if not self._is_past_of(ctx, order):
            return
        known = self.log.receipt(order.id, order.client_id)
        if known is not None:
            ctx.reply(order, self._posted(known, duplicate=True, flusher=order.flusher))
            return
        if self._wants_reply(order) and order.on_busy == "interrupt":
            self._cancel_turns(ctx)
        made = Message(
            id=order.id or self.log.new_id(ctx, "msg"),
            session=self.log.session,
            seq=self.log.last_seq + 1,
            version=self.log.last_seq + 1,
            role=order.role,
            content=order.content,
            status=MessageStatus.COMPLETED,
            parent=order.parent or self.log.leaf,
            client_id=order.client_id,
            metadata=order.metadata,
            created_at=moment(ctx),
            updated_at=moment(ctx),
        )
        self.log.create(ctx, made)
        reply = None
        if self._wants_reply(order):
            reply = self._ask_for_reply(ctx, made.id, order)
        receipt = Receipt(
            message=made.id,
            seq=made.seq,
            client_id=order.client_id,
            reply=reply,
            digest=digest(order.content),
        )
        self.log.posts += 1
        self.log.keep(receipt)
        ctx.reply(order, self._posted(receipt, flusher=order.flusher))

    def _is_past_of(self, ctx: Context[Messages], order: PostMessage | HandOver) -> bool:
        """Whether this run made what its asker has written. If not, it gives way and refuses."""
        if not self.log.agrees(order.flushed, order.flushed_event):
            self._give_way(ctx)
        if self.fenced:
            ctx.refuse(order, SessionEnded("The session was reset by an operator, which ends it."))
            return False
        self.log.confirm(order.flushed)
        return True

    def _regenerate(self, ctx: Context[Messages], order: Regenerate) -> None:
        """Another reply to a message, beside those that it has."""
        receipt = known = self.log.receipt(order.reply_id, None)
        if receipt is None:
            if order.on_busy == "interrupt":
                self._cancel_turns(ctx)
            seq = self.log.last_seq + 1
            reply = self._ask_for_reply(ctx, order.parent, order)
            self.log.keep(Receipt(message=reply, seq=seq, reply=reply))
            receipt = Receipt(message=order.parent, seq=seq, reply=reply)
        ctx.reply(order, self._posted(receipt, duplicate=known is not None, flusher=order.flusher))

    def _ask_for_reply(self, ctx: Context[Messages], parent: str, order: PostMessage | Regenerate) -> str:
        return self.turns.ask(
            ctx,
            self.log,
            parent,
            order.reply_id,
            order.model or self.model,
            order.generation or self.start.generation,
        )

    def _finish_reply(self, ctx: Context[Messages], order: FinishReply) -> None:
        """Closes a turn, asked by its own activity, which writes the end to the store as whoever posts does.

        That saves a flush, which is six events of history. Asked again, it gives what the store may lack.
        """
        self.log.confirm(order.flushed)
        if order.reply is not None and order.message == self.turns.written:
            self._close(ctx, self.turns.queue[0], order.reply)
        ctx.reply(order, self.handing.hand(self.log, None))

    def _posted(self, receipt: Receipt, *, duplicate: bool = False, flusher: str | None) -> Posted:
        handed = self._hand(flusher)
        return Posted(
            message=receipt.message,
            seq=receipt.seq,
            reply=receipt.reply,
            duplicate=duplicate,
            events=handed.events,
            after=handed.after,
            stored=handed.stored,
        )

    def _hand(self, flusher: str | None) -> Changed:
        """What the asker is to write. If he has not said that he will, or much waits, the actor does too."""
        if flusher is None or self.log.bytes >= MOST_UNFLUSHED_BYTES // 2:
            self.flushing.urgent = True
        return self.handing.hand(self.log, flusher)

    # -- what is refused

    def _wants_reply(self, order: PostMessage) -> bool:
        return order.reply if order.reply is not None else order.role == "user"

    def _check_post(self, order: PostMessage) -> None:
        self._check_open(order.flushed)
        known = self.log.receipt(order.id, order.client_id)
        if known is not None:
            if known.digest not in (None, digest(order.content)):
                raise ClientIdReused("The client_id came with another content before. Use a new one.")
            return
        if order.client_id is not None and self.log.forgot and not order.looked_up:
            raise LookUp("The client_id may be an old one: look in the store, and set `looked_up`.")
        if self._wants_reply(order):
            self._check_free(order.on_busy)

    def _check_open(self, flushed: int = 0, *, room: bool = True) -> None:
        if self.ending is not None:
            raise SessionEnded("The session has ended.")
        if not self.ready:
            raise SessionBusy("The session is still being forked. Try again in a moment.")
        if room and self.log.bytes_after(flushed) >= MOST_UNFLUSHED_BYTES:
            raise Unavailable("The store does not keep up with this session. Try again in a moment.")

    def _check_free(self, on_busy: OnBusy) -> None:
        if self.turns and on_busy == "reject":
            raise SessionBusy("A reply is being written, and `on_busy` is `reject`.")
        if len(self.turns.queue) >= MOST_QUEUED and on_busy != "interrupt":
            raise TooManyRequests(f"{MOST_QUEUED} replies are waiting already.")

    # -- the turn

    def _write_reply(self, ctx: Context[Messages]) -> None:
        turn = self.turns.begin(ctx, self.log)
        self.writing = True
        order = WriteReply(
            session=self.log.session,
            reply=turn.reply,
            parent=turn.parent,
            model=turn.model,
            system=self.start.system,
            generation=turn.generation,
            unflushed=self.log.unflushed(BATCH),
        )
        ctx.pipe_to_self(
            activity(
                ReplyActivities.write_reply,
                order,
                queue=task_queue(Pool.INFERENCE, self.start.task_queue_prefix),
                timeout="15m",
                heartbeat="5s",
                attempts=20,
                backoff="500ms",
                wait_cancel=True,
                summary=f"reply {turn.reply}",
            ),
            ReplyWritten,
            reply_lost,
            key=_WRITING,
        )

    def _reply_written(self, ctx: Context[Messages], written: Written) -> None:
        self.log.confirm(written.flushed)
        if written.fenced:
            self._turn_over()
            self._give_way(ctx)
            return
        if self.turns.written is not None:
            if written.reply is None:
                # It told somebody else's run; what there is of the reply is in the store.
                failure = Failure(code="internal", message="The reply's end was lost.")
                self._salvage(ctx, ReplyLost(failure, cancelled=False))
                return
            self._close(ctx, self.turns.queue[0], written.reply)
        self._turn_over()

    def _salvage(self, ctx: Context[Messages], lost: ReplyLost) -> None:
        """A worker gave no reply: what it had written is fetched."""
        if self.turns.written is None:  # It had told how the turn ended, and was lost then.
            self._turn_over()
            return
        self.lost = lost
        ctx.pipe_to_self(
            activity(
                StoreActivities.salvage,
                Salvage(message=self.turns.written),
                timeout="5s",
                attempts=2,
            ),
            salvaged,
            not_salvaged,
        )

    def _reply_salvaged(self, ctx: Context[Messages], content: str) -> None:
        lost, self.lost = self.lost, None
        if self.turns.written is not None and lost is not None:
            reply = Reply(status="failed", content=content, error=lost.failure)
            if self.cancelling or lost.cancelled:
                reply = Reply(status="cancelled", content=content, finish_reason="cancelled")
            self._close(ctx, self.turns.queue[0], reply)
        self._turn_over()

    def _close(self, ctx: Context[Messages], turn: QueuedTurn, reply: Reply) -> None:
        self.turns.close(ctx, self.log, turn, reply)
        self.closed_at = self.log.last_seq

    def _turn_over(self) -> None:
        """The activity has ended. What it has not written of the turn's end is the actor's to write."""
        self.writing = self.cancelling = False
        if self.turns.written is not None:
            self.turns.queue.pop(0)
            self.turns.written = None
        if self.log.awaits(self.closed_at):
            self.flushing.urgent = True

    def _cancel_reply(self, ctx: Context[Messages], reply: str) -> bool:
        """Whether there was a reply of this id to cancel."""
        turn = self.turns.find(reply)
        if turn is not None:
            self._cancel_turn(ctx, turn)
        return turn is not None

    def _cancel_turns(self, ctx: Context[Messages]) -> None:
        for turn in list(self.turns.queue):
            self._cancel_turn(ctx, turn)

    def _cancel_turn(self, ctx: Context[Messages], turn: QueuedTurn) -> None:
        if turn.reply == self.turns.written:
            self.cancelling = True
            ctx.cancel_work(_WRITING)  # Its text so far comes as the activity's result.
            return
        self._close(ctx, turn, Reply(status="cancelled", content="", finish_reason="cancelled"))

    # -- its end

    def _end(self, ctx: Context[Messages], why: str) -> None:
        if self.ending is None:
            self.ending = why
            self._cancel_turns(ctx)

    def _give_way(self, ctx: Context[Messages]) -> None:
        """The store has another past than this run: an operator reset it. Readers keep what they saw."""
        self.fenced = True
        self.log.confirm(self.log.last_seq)
        self._end(ctx, "reset")

    def _go_on(self, ctx: Context[Messages]) -> Behavior[Messages] | None:
        """After each message: begins what can begin now."""
        if self.ending is not None and not self.ended and not self.writing:
            if not self.fenced:
                self.log.emit(ctx, EventType.SESSION_ENDED, data={"reason": self.ending})
            self.ended = self.flushing.urgent = True
        if self.ending is None and self.ready and self.turns and not self.writing:
            self._write_reply(ctx)
        if not (self.fenced and self.ended):
            self.flushing.go_on(ctx, self.log, document=self.document, writing=self.writing)
        if not self.ready and self.flushing.stored and self.ending is None:
            self._copy_branch(ctx)
        if self.ended or (self.ready and self.flushing.stored):
            self._answer(self.waiters, Changed())
        if not self.ended:
            return None
        # Who is fenced has nothing to hand, and does not know what the store has.
        self._answer(self.enders, Changed() if self.fenced else self.handing.hand(self.log, None))
        done = self.fenced or (self.log.is_flushed and self.flushing.stored)
        return stopped if done and self.flushing.upto is None else None

    def _copy_branch(self, ctx: Context[Messages]) -> None:
        if self.start.fork is None or self.copying:
            return
        self.copying = True
        ctx.pipe_to_self(
            activity(
                StoreActivities.copy_branch,
                CopyBranch(session=self.log.session, origin=self.start.fork),
                queue=task_queue(Pool.STORE, self.start.task_queue_prefix),
                timeout="30m",
                heartbeat="30s",
            ),
            BranchIsCopied,
        )

    def _answer(self, askers: list[Ref[Changed]], changed: Changed) -> None:
        for asker in askers:
            asker.tell(changed)
        askers.clear()
