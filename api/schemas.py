"""Bodies of requests and answers as HTTP clients see them. What is stored is in `goatherd.contracts`."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from api.errors import HAS_TEXT
from goatherd.contracts.chat import (
    ClientId,
    Content,
    Label,
    Message,
    MessageId,
    Metadata,
    OnBusy,
    Role,
    Session,
    SessionId,
)
from goatherd.contracts.inference import Generation
from goatherd.contracts.model import Json, Timestamp

Item = TypeVar("Item", bound=BaseModel)

# The pattern twice: behind the content's own validator, pydantic checks it, but doesn't tell it.
Text = Annotated[Content, Field(pattern=HAS_TEXT, json_schema_extra={"pattern": HAS_TEXT})]
Title = Annotated[str, Field(min_length=1, max_length=200)]
System = Annotated[str, Field(max_length=50_000)]
StopText = Annotated[str, Field(min_length=1, max_length=200)]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# To JSON, 5.0 is as whole a number as 5.
TokenCount = Annotated[int, Field(ge=1, le=32_768), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1), BeforeValidator(_whole)]

_MODELS_OWN = "Default: the session's, else the model's own."

# Pydantic says which keys may be, but not that no others may.
_NO_OTHERS: dict[str, JsonValue] = {"additionalProperties": False}


class Body(BaseModel):
    """A request's body: nothing unknown in it, and nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class GenerationBody(Generation):
    """Parameters of text generation. What is not given is the session's, then the model's own default."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    max_tokens: TokenCount | None = Field(
        None, description=f"Most tokens to generate. {_MODELS_OWN}", examples=[256]
    )
    temperature: float | None = Field(
        None, ge=0, le=2, description=f"0 is greedy, and deterministic. {_MODELS_OWN}", examples=[0.7]
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description=f"Nucleus sampling: the likeliest tokens up to this. {_MODELS_OWN}"
    )
    stop: list[StopText] | None = Field(
        None,
        max_length=4,
        description=f"Texts that end the reply; they are not part of it. {_MODELS_OWN}",
    )
    seed: Seed | None = Field(
        None,
        description="The same seed and input: the same reply. Default: the session's, else the model's own, "
        "else a new one for each reply.",
    )
    top_k: Annotated[int, Field(ge=0, le=2**31), BeforeValidator(_whole)] | None = Field(
        None, description=f"Only so many of the likeliest tokens; 0 is all. {_MODELS_OWN}"
    )

    def contract(self) -> Generation:
        return Generation.model_validate(self.model_dump())


class CreateSession(Body):
    """A new session. All is optional."""

    title: Title | None = None
    agent: str | None = Field(None, description="Who answers.")
    model: str | None = Field(None, description="Default: the server's default model.")
    system: System | None = Field(None, description="What the model is told before the conversation.")
    labels: list[Label] = Field([], max_length=16, description="To find sessions by: `GET /chat?label=`.")
    metadata: Metadata = Field({}, description="Yours; up to 16 short texts.", json_schema_extra=_NO_OTHERS)
    generation: GenerationBody | None = None


class PostMessageBody(Body):
    """A message, and whether and how it is to be replied to."""

    content: Text
    role: Role = "user"
    client_id: ClientId | None = Field(
        None, description="Your own id of the message. Posted again, it gives the message that is there."
    )
    parent_id: MessageId | None = Field(None, description="The message that it follows. Default: the newest.")
    on_busy: OnBusy = Field(
        "enqueue",
        description="While a reply is being made: `reject` this with 409 `session-busy`, `enqueue` its "
        "reply, or `interrupt` the other.",
    )
    reply: bool | None = Field(None, description="Whether the model replies. Default: to role `user` only.")
    model: str | None = Field(None, description="The model of this reply. Default: the session's.")
    generation: GenerationBody | None = None
    metadata: Metadata = Field({}, description="Yours; up to 16 short texts.", json_schema_extra=_NO_OTHERS)


class RegenerateBody(Body):
    """How the other reply is to be made. All is optional."""

    model: str | None = Field(None, description="The model of this reply. Default: the session's.")
    generation: GenerationBody | None = None
    on_busy: OnBusy = Field("enqueue", description="As for a message.")


class FeedbackBody(Body):
    """What you think of a message. It replaces what was said before."""

    rating: Literal["up", "down"]
    comment: str | None = Field(None, max_length=10_000)


class CancelBody(Body):
    """Nothing: which message it is, the path says."""


class ForkBody(Body):
    """Where the new session branches off. All is optional."""

    message: MessageId | None = Field(
        None, description="The last message to take along. Default: the newest."
    )
    title: Title | None = Field(None, description="Default: that of this session.")


FrameId = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": 128}, {"type": "integer"}, {"type": "null"}]}),
]


class ClientFrame(BaseModel):
    """What a client sends over a WebSocket: a method, and what it needs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: FrameId = Field(None, description="Yours; it comes back with the answer.")
    method: str
    params: Json = {}


class CancelParams(Body):
    """Of `message.cancel`."""

    message: MessageId = Field(description="A reply that is queued or in progress.")


class TypingParams(Body):
    """Of `typing`."""

    typing: bool = True


class PingParams(Body):
    """Of `ping`: none."""


class AckParams(Body):
    """Of `ack`."""

    seq: int = Field(ge=0, description="The last `seq` that you have dealt with.")


class DeltaData(BaseModel):
    """A piece of text, and where it belongs."""

    offset: int = Field(ge=0, description="Where the piece starts: Unicode code points from the beginning.")
    text: str


class DeltaEvent(BaseModel):
    """A piece of a reply in progress. It has no `seq`, and is not kept once the reply is finished."""

    v: Literal[1]
    type: Literal["message.delta"]
    id: str = Field(description="The message and the number of the piece.")
    session: SessionId
    message: MessageId
    ts: Timestamp
    data: DeltaData


class PassingEvent(BaseModel):
    """What is never kept and has no cursor: a `ping` after a quiet while; over WebSocket, who is `typing`."""

    v: Literal[1]
    type: Literal["ping", "typing"]
    session: SessionId
    ts: Timestamp
    data: Json = Field(description="`ping`: empty. `typing`: `{typing, connection, principal}`.")


class List(BaseModel, Generic[Item]):
    """A part of a list. Go on with `after` set to `last_id` while `has_more` is true."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    first_id: str | None
    last_id: str | None


class SessionList(List[Session]):
    """Sessions."""


class MessageList(List[Message]):
    """Messages."""


class SessionWithMessages(Session):
    """A session with a part of its messages, and what it is doing."""

    state: Literal["idle", "replying"] = Field(
        description="Whether a reply is being made or waits for its turn."
    )
    last_seq: int = Field(ge=0, description="The newest event's number: follow the session from here.")
    messages: MessageList


class PostedMessage(Message):
    """The message as stored, and the reply that is coming."""

    reply: MessageId | None = Field(description="The id of the reply, if one is coming.")
    reply_message: Message | None = Field(
        None, description="With `Prefer: wait=n`: the reply, finished or as far as it is after n seconds."
    )


class Fault(BaseModel):
    """One thing that is wrong with a request. It has one of `pointer`, `parameter` and `header`."""

    pointer: str | None = Field(None, description="Where in the body: a JSON pointer.", examples=["/content"])
    parameter: str | None = Field(None, description="The query parameter.")
    header: str | None = Field(None, description="The header.")
    detail: str


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:goatherd:error:session-ended"])
    title: str = Field(examples=["Session ended"])
    status: int = Field(ge=400, le=599, examples=[409])
    detail: str = Field(description="What is wrong, and what to do about it.")
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="A stable slug for programs.", examples=["session-ended"])
    request_id: str | None = Field(description="As in the header `x-request-id` and in the log.")
    errors: list[Fault] | None = Field(None, description="What is wrong with the input, if that is it.")


class CheckResult(BaseModel):
    """How one of the parts is."""

    ok: bool
    detail: str


class ReadyReport(BaseModel):
    """Whether requests can be served, part by part."""

    status: Literal["ready", "starting"]
    checks: dict[str, CheckResult]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Index(BaseModel):
    """Where to go from here."""

    name: str
    version: str
    links: dict[str, str]
    routes: list[RouteRow]


class RouteRow(BaseModel):
    """One route: its method (`WS` for a WebSocket), path and summary."""

    method: str
    path: str
    summary: str


Schema = dict[str, Any]
"""A JSON schema, or a part of an OpenAPI document."""
