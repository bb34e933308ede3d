"""A chat: what its actor takes and answers, what the store keeps, what clients see.

One durable sequence (`seq`) runs through a session: every event has the next number, given by the
session's actor. A message's `seq` is the number of the event that created it; its `version` that of the
last event that changed it. Text that a model is still making travels as `Delta`s, which are outside of the
sequence: they are told apart by message and offset (docs/adr/0003).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from goatherd.contracts.ids import CHAT_ID, MESSAGE_ID
from goatherd.contracts.inference import Generation, Usage
from goatherd.contracts.model import Contract, Json, Timestamp
from goatherd.contracts.request import Request

SessionId = Annotated[str, Field(pattern=CHAT_ID, examples=["chat_01k9w2x6hj3v8m5r7t0q4n1b2c"])]
MessageId = Annotated[str, Field(pattern=MESSAGE_ID, examples=["msg_01k9w2x6hj3v8m5r7t0q4n1b2c"])]
MOST_CONTENT_BYTES = 128 * 1024


def _bounded(content: str) -> str:
    # A post and what it is answered have to fit a payload of Temporal, of 2 MB, beside what the store lacks.
    if len(content.encode()) > MOST_CONTENT_BYTES:
        raise ValueError(f"has to be at most {MOST_CONTENT_BYTES // 1024} KiB of UTF-8")
    return content


Content = Annotated[str, Field(min_length=1, max_length=MOST_CONTENT_BYTES), AfterValidator(_bounded)]
FlusherId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        description="Who writes the answer's events to the store, and is handed each once.",
    ),
]
ClientId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$")]
MetadataKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Role = Literal["user", "assistant", "system"]
OnBusy = Literal["reject", "enqueue", "interrupt"]


class MessageStatus(StrEnum):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


class Failure(Contract):
    """Why a reply failed: a stable slug, and a sentence for people."""

    code: str
    message: str


class Feedback(Contract):
    """What a person thought of a message."""

    rating: Literal["up", "down"]
    comment: str | None = Field(None, max_length=10_000)


class Message(Contract):
    """A message as clients see it and the store keeps it."""

    object: Literal["message"] = "message"
    id: MessageId
    session: SessionId
    seq: int = Field(ge=1, description="The number of the event that created it.")
    version: int = Field(ge=1, description="The number of the event that changed it last.")
    role: Role
    content: str
    status: MessageStatus
    parent: MessageId | None = Field(None, description="The message it answers or follows: a tree.")
    client_id: str | None = Field(None, description="The sender's own id; unique in the session.")
    model: str | None = Field(None, description="The model that makes or made it.")
    finish_reason: str | None = Field(None, description="`stop`, `length` or `cancelled`, for a reply.")
    usage: Usage | None = None
    error: Failure | None = None
    feedback: Feedback | None = None
    metadata: Metadata = {}
    created_at: Timestamp
    updated_at: Timestamp


class Session(Contract):
    """A chat session as clients see it and the store keeps it."""

    object: Literal["chat"] = "chat"
    id: SessionId
    owner: str = Field(description="The principal it belongs to.")
    status: Literal["active", "ended"] = "active"
    end_reason: str | None = Field(None, description="Why it ended: `deleted`, `cancelled`, `terminated` …")
    title: str | None = None
    agent: str
    model: str
    system: str | None = None
    labels: list[Label] = []
    metadata: Metadata = {}
    generation: Generation = Generation()
    forked_from: ForkOrigin | None = None
    created_at: Timestamp
    ended_at: Timestamp | None = None


class ForkOrigin(Contract):
    """Where a forked session comes from: it starts with that session's messages up to this one."""

    session: SessionId
    message: MessageId


class EventType(StrEnum):
    MESSAGE_CREATED = "message.created"
    MESSAGE_COMPLETED = "message.completed"
    MESSAGE_FAILED = "message.failed"
    MESSAGE_CANCELLED = "message.cancelled"
    MESSAGE_DELETED = "message.deleted"
    MESSAGE_UPDATED = "message.updated"
    SESSION_ENDED = "session.ended"
    RUN_STARTED = "run.started"
    RUN_COMPLETED = "run.completed"


class Event(Contract):
    """One entry of a session's durable sequence: the store's documents follow from these alone.

    `data`, by type: `message.created` `{message}` (whole); `message.completed` and `.cancelled`
    `{content, finish_reason, usage}`; `message.failed` `{content, error}`; `message.deleted` `{}`;
    `message.updated` `{feedback}`; `session.ended` `{reason}`; `run.started` `{model}`;
    `run.completed` `{status}`.
    """

    v: Literal[1] = 1
    seq: int = Field(ge=1)
    id: str
    type: EventType
    session: SessionId
    message: MessageId | None = None
    parent: MessageId | None = None
    ts: Timestamp
    data: Json = {}


class Delta(Contract):
    """A piece of a reply in progress.

    `n` counts the pieces of one message from 0: whoever writes piece n first has it, so that two workers
    that both think the reply is theirs can't mix their texts. `offset` counts Unicode code points.
    """

    session: SessionId
    message: MessageId
    n: int = Field(ge=0)
    offset: int = Field(ge=0)
    text: str
    ts: Timestamp


class Ephemeral(Contract):
    """Something shown to whoever is looking right now, and never kept: who is typing."""

    session: SessionId
    type: Literal["typing", "presence"]
    ts: Timestamp
    data: Json = {}


# -- the session's actor: its start, its messages (Temporal updates), its queries -------------------------


class StartSession(Contract):
    """Input of the workflow `ChatSession`. By hand, `{}` will do."""

    owner: str = "local"
    title: str | None = None
    agent: str = "assistant"
    model: str | None = None
    system: str | None = None
    labels: list[Label] = []
    metadata: Metadata = {}
    generation: Generation = Generation()
    created_at: Timestamp | None = None
    fork: ForkOrigin | None = None
    stored: bool = Field(False, description="Whether the caller writes the session to the store.")
    task_queue_prefix: str = "goatherd"
    posts_per_run: int = Field(1_000, ge=1, le=1_500, description="Then it continues as new.")

    def document(self, session_id: str, *, now: Timestamp, model: str) -> Session:
        """The session's document, the same whoever writes it: the API, or the actor for one begun by hand."""
        return Session(
            id=session_id,
            owner=self.owner,
            title=self.title,
            agent=self.agent,
            model=self.model or model,
            system=self.system,
            labels=self.labels,
            metadata=self.metadata,
            generation=self.generation,
            forked_from=self.fork,
            created_at=self.created_at or now,
        )


class QueuedTurn(Contract):
    """A reply that waits for its turn, or has it."""

    reply: MessageId
    parent: MessageId
    model: str
    generation: Generation = Generation()
    started: bool = Field(False, description="Whether `run.started` is in the sequence.")


class Receipt(Contract):
    """What a post was answered, kept for a while so that a repeated post is answered the same."""

    message: MessageId
    seq: int
    client_id: str | None = None
    reply: MessageId | None = None
    digest: int | None = Field(None, description="CRC-32 of the content: a repetition has the same.")


class SessionState(Contract):
    """A session's log as it is carried through continue-as-new."""

    session: str
    last_seq: int = 0
    leaf: MessageId | None = None
    posts: int = Field(0, description="Messages posted in the session's life.")
    unflushed: list[Event] = []
    receipts: list[Receipt] = Field([], description="Oldest first; a window.")
    forgot: bool = Field(False, description="Whether receipts fell out of the window.")


class Handed(Contract):
    """What an answer hands to its asker, to be written to the store (docs/adr/0007).

    `events` are all those after number `after`, up to the answer's own. Whoever has written everything up to
    `after`, or knows that the store has it, and writes these, leaves the store without a gap up to this
    answer.
    """

    events: list[Event] = []
    after: int = Field(0, description="The number before the first of `events`, of none the newest.")
    stored: int = Field(0, description="The store has everything up to this number.")

    @property
    def upto(self) -> int:
        """The newest event's number, as the answer was given."""
        return self.after + len(self.events)


class Posted(Handed):
    """Answer to `PostMessage` and `Regenerate`. For `Regenerate`, `message` is the parent."""

    message: MessageId
    seq: int = Field(description="The number of the message's own event.")
    reply: MessageId | None = None
    duplicate: bool = Field(False, description="Known already by its id or client id; nothing was done.")


class Changed(Handed):
    """Answer to the other updates."""


class PostMessage(Contract, Request[Posted]):
    """Update `PostMessage`: adds a message, and by default asks the model to reply to it."""

    content: Content
    role: Role = "user"
    id: MessageId | None = None
    client_id: ClientId | None = None
    parent: MessageId | None = Field(None, description="Default: the newest message.")
    on_busy: OnBusy = "enqueue"
    reply: bool | None = Field(None, description="Default: true for role `user`.")
    reply_id: MessageId | None = None
    model: str | None = None
    generation: Generation | None = None
    metadata: Metadata = {}
    flushed: int = Field(0, description="Events up to this number are known to be in the store.")
    flushed_event: str | None = Field(None, description="The id of the event of that number.")
    flusher: FlusherId | None = None
    looked_up: bool = Field(False, description="The store does not know the client id.")


class Regenerate(Contract, Request[Posted]):
    """Update `Regenerate`: another reply to `parent`, beside those that it has."""

    parent: MessageId
    reply_id: MessageId | None = None
    model: str | None = None
    generation: Generation | None = None
    on_busy: OnBusy = "enqueue"
    flusher: FlusherId | None = None


class DeleteMessage(Contract, Request[Changed]):
    """Update `DeleteMessage`: a tombstone; a reply in progress or queued is cancelled instead."""

    message: MessageId
    flusher: FlusherId | None = None


class CancelMessage(Contract, Request[Changed]):
    """Update `CancelMessage`: stops a reply in progress or queued; what there is of it stays."""

    message: MessageId
    flusher: FlusherId | None = None


class GiveFeedback(Contract, Request[Changed]):
    """Update `GiveFeedback`."""

    message: MessageId
    feedback: Feedback
    flusher: FlusherId | None = None


class EndSession(Contract, Request[Changed]):
    """Update `EndSession`: cancels what is in progress and closes the workflow. Idempotent."""

    reason: str = "deleted"


class Ready(Contract, Request[Changed]):
    """Update `Ready`: answered when a forked session has its messages."""


class HandOver(Contract, Request[Changed]):
    """Update `HandOver`: for a flusher that lacks an answer. A new flusher is handed all that the store may
    lack."""

    flusher: FlusherId
    flushed: int = 0
    flushed_event: str | None = None


class SessionView(Contract):
    """Query `Session`: the actor as it is now."""

    id: str
    status: Literal["active", "ended"]
    agent: str
    model: str
    last_seq: int
    posts: int
    replying: MessageId | None
    queued: int
    unflushed: int


class SessionOutcome(Contract):
    """Result of the workflow `ChatSession`."""

    reason: str
    last_seq: int
    posts: int


# -- activities -------------------------------------------------------------------------------------------


class Flush(Contract):
    """Writes to the store what it may not have yet."""

    session: Session | None = None
    events: list[Event] = []


class Flushed(Contract):
    """`fenced`: the store has other events under these numbers; this run is not the session's truth."""

    fenced: bool = False


class WriteReply(Contract):
    """One turn of the model."""

    session: SessionId
    reply: MessageId
    parent: MessageId
    model: str
    system: str | None = None
    generation: Generation = Generation()
    unflushed: list[Event] = []


class Reply(Contract):
    """How a turn ended."""

    status: Literal["completed", "cancelled", "failed"]
    content: str
    finish_reason: str | None = None
    usage: Usage | None = None
    error: Failure | None = None


class FinishReply(Contract, Request[Changed]):
    """Update of the same name, by the activity that wrote a turn: how it ended. The activity then writes what
    the answer holds. No `reply` if it is known to have ended. `flushed`: the store has all events up to
    this number."""

    message: MessageId
    reply: Reply | None
    flushed: int = 0


class Written(Contract):
    """The end of a turn's activity. `reply` is how the turn ended, if the actor does not know yet."""

    reply: Reply | None = None
    flushed: int = 0
    fenced: bool = False


class Salvage(Contract):
    """What is left of a reply whose worker gave no answer."""

    message: MessageId


class Salvaged(Contract):
    content: str


class CopyBranch(Contract):
    """Copies the messages that lead to `origin.message` into a new session, with numbers from 1."""

    session: SessionId
    origin: ForkOrigin


class BranchCopied(Contract):
    last_seq: int
    leaf: MessageId | None


Session.model_rebuild()
StartSession.model_rebuild()
