"""A session's turns: the replies that are being made, one at a time, or wait, and what the sequence says."""

from __future__ import annotations

from dataclasses import dataclass, field

from goatherd.contracts.chat import EventType, Message, MessageStatus, QueuedTurn, Reply
from goatherd.contracts.inference import Generation
from workflows.chat_log import Clock, SessionLog, moment
from workflows.chat_reply import outcome


@dataclass
class Turns:
    """The queue. The first turn is `written` from its activity's start until it is closed."""

    queue: list[QueuedTurn] = field(default_factory=list)
    written: str | None = None

    def __bool__(self) -> bool:
        return bool(self.queue)

    def ask(
        self,
        clock: Clock,
        log: SessionLog,
        parent: str,
        reply: str | None,
        model: str,
        generation: Generation,
    ) -> str:
        """Adds a turn, with its message. Gives the reply's id."""
        idle = not self.queue
        turn = QueuedTurn(
            reply=reply or log.new_id(clock, "msg"),
            parent=parent,
            model=model,
            generation=generation,
            started=idle,
        )
        log.create(
            clock,
            Message(
                id=turn.reply,
                session=log.session,
                seq=log.last_seq + 1,
                version=log.last_seq + 1,
                role="assistant",
                content="",
                status=MessageStatus.IN_PROGRESS if idle else MessageStatus.QUEUED,
                parent=parent,
                model=turn.model,
                created_at=moment(clock),
                updated_at=moment(clock),
            ),
        )
        self.queue.append(turn)
        if idle:
            _emit_started(clock, log, turn)
        return turn.reply

    def begin(self, clock: Clock, log: SessionLog) -> QueuedTurn:
        """The first turn is about to be written."""
        turn = self.queue[0]
        if not turn.started:
            turn = self.queue[0] = turn.model_copy(update={"started": True})
            _emit_started(clock, log, turn)
        self.written = turn.reply
        return turn

    def find(self, reply: str) -> QueuedTurn | None:
        return next((turn for turn in self.queue if turn.reply == reply), None)

    def close(self, clock: Clock, log: SessionLog, turn: QueuedTurn, reply: Reply) -> None:
        """Takes a turn out of the queue, and says how it ended."""
        if turn.reply == self.written:
            self.written = None
        self.queue = [other for other in self.queue if other.reply != turn.reply]
        kind, data = outcome(reply)
        log.emit(clock, kind, message=turn.reply, parent=turn.parent, data=data)
        if turn.started:
            log.emit(
                clock,
                EventType.RUN_COMPLETED,
                message=turn.reply,
                parent=turn.parent,
                data={"status": reply.status},
            )


def _emit_started(clock: Clock, log: SessionLog, turn: QueuedTurn) -> None:
    log.emit(clock, EventType.RUN_STARTED, message=turn.reply, parent=turn.parent, data={"model": turn.model})
