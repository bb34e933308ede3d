"""Indexes, their documents and searches, as requests and answers have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from api.index_vectors import VectorText
from api.pages import DEFAULT_LIMIT, ListQuery, cursor_like
from api.schemas import List
from api.task_json import AnyJson, at_most, dumps
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.model import Contract, Json, Timestamp
from goatherd.contracts.retrieval import (
    DOC_ID,
    INDEX_NAME,
    MOST_DOC_ID,
    MOST_K,
    MOST_METADATA_BYTES,
    MOST_TEXT_BYTES,
    Counts,
    DocId,
    IndexName,
    IndexSpec,
    IndexWish,
    Mode,
    Rank,
)

LONGEST_WAIT_S = 60.0
MOST_QUERY_CHARS = 32_768
MOST_ID = MOST_DOC_ID
MOST_DOCUMENTS = 10_000
"""Of one body of JSON; lines have no such bound."""
MOST_LISTED = 1_000
"""Documents of one page."""


def _no_nul(value: Any) -> Any:
    if rb"\u0000" in dumps(value):
        raise ValueError("the character NUL can't be kept")
    return value


def _few_keys(value: Any) -> Any:
    """First of all: a million values that are wrong each would take seconds to tell."""
    if isinstance(value, dict) and len(value) > MOST_METADATA_BYTES // len('"":0,'):
        raise ValueError(f"metadata has at most {MOST_METADATA_BYTES} bytes as JSON")
    return value


Metadata = Annotated[
    dict[str, AnyJson],
    BeforeValidator(_few_keys),
    at_most(MOST_METADATA_BYTES, "metadata"),
    AfterValidator(_no_nul),
]


def _short(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > MOST_TEXT_BYTES:
        raise ValueError(f"a text has at most {MOST_TEXT_BYTES} bytes in UTF-8")
    return text


DocumentText = Annotated[str, Field(max_length=MOST_TEXT_BYTES), AfterValidator(_short)]


class Strict(BaseModel):
    """Base of bodies and queries: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# -- indexes


class CreateIndex(IndexWish):
    """An index under a name."""

    name: IndexName = Field(description="One of a kind among yours.", examples=["docs"])
    metadata: Metadata = Field({}, description="Yours: given back as it is, up to 16 KiB.")


class PatchIndex(Strict):
    """What can be changed without building anything."""

    metadata: Metadata = Field(description="In place of what there was.")


class RebuildIndex(IndexWish):
    """What the new version has otherwise than the one that serves. A field that is not given stays; an object
    stands in place of the whole former one."""


class VersionShown(Contract):
    """One build of the index."""

    number: int
    state: Literal["serving", "building"]
    spec: IndexSpec
    created_at: Timestamp


class IndexDocument(Contract):
    """An index. `spec` is that of the version that serves."""

    object: Literal["index"] = "index"
    id: str = Field(examples=["idx_01k9w2x6hj3v8m5r7t0q4n1b2c"])
    name: IndexName
    state: Literal["ready", "building", "paused"] = Field(
        description="`building`: a new version is made beside the one that serves. `paused`: nothing is "
        "taken in; it is searched all the same."
    )
    version: int = Field(description="The number of the version that serves.")
    building: int | None = Field(None, description="The number of the one that is being built.")
    spec: IndexSpec
    versions: list[VersionShown]
    seq: int = Field(description="Grows with all that is taken in or removed.")
    counts: Counts
    created_at: Timestamp
    updated_at: Timestamp
    metadata: Json


class IndexList(List[IndexDocument]):
    """Indexes. `first_id` and `last_id` are names here."""


class IndexQuery(ListQuery):
    after: str | None = Field(
        None, description="Those after the one of this name.", json_schema_extra=cursor_like(INDEX_NAME)
    )
    before: str | None = Field(
        None,
        description="Those right before the one of this name. Not together with `after`.",
        json_schema_extra=cursor_like(INDEX_NAME),
    )
    order: Literal["asc", "desc"] = Field("asc", description="By name.")


class Affected(Contract):
    """How much was changed."""

    documents: int = Field(description="Documents that it changed something for.")
    index: IndexDocument


class Cancelled(Affected):
    """What was given up."""

    given_up: int | None = Field(description="The number of the version that was being built.")


# -- documents


class DocumentFields(Strict):
    """What a document says."""

    text: DocumentText = Field("", description="Up to 1 MiB of UTF-8. It is cut in chunks.")
    vector: VectorText | None = Field(
        None, description="Of an index without a model: numbers, or base64 of little-endian float32."
    )
    metadata: Metadata = Field({}, description="What filters look at; up to 16 KiB.")


class PutDocument(DocumentFields):
    """A document under the id in the path."""


class NewDocument(DocumentFields):
    """A document with its id."""

    id: DocId = Field(
        description="Text in one line, such as a relative path; what has it already is replaced."
    )


class PutDocuments(Strict):
    """Many documents."""

    documents: list[NewDocument] = Field(min_length=1, max_length=MOST_DOCUMENTS)


class RemoveDocuments(Strict):
    """Which documents to remove."""

    ids: list[DocId] = Field(min_length=1, max_length=MOST_DOCUMENTS)


def _seconds(value: object) -> object:
    """`true` is as long as may be."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if isinstance(value, bool):
        return LONGEST_WAIT_S if value else 0.0
    return value


def _number_or_boolean(schema: dict[str, Any]) -> None:
    for name in ("type", "minimum", "maximum"):
        schema.pop(name, None)
    schema["anyOf"] = [{"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_S}, {"type": "boolean"}]


Wait = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(
        ge=0,
        le=LONGEST_WAIT_S,
        description="Seconds, at most 60, that the answer may wait until what was written can be found, or "
        "can't be taken in; `true` is 60.",
        json_schema_extra=_number_or_boolean,
    ),
]


class WriteQuery(Strict):
    wait: Wait = 0.0


class DocumentBrief(Contract):
    """A document without its text."""

    object: Literal["document"] = "document"
    id: str
    index: str = Field(description="The index's id.")
    rev: int = Field(description="Grows with each write in the index: the greater was written later.")
    status: Literal["pending", "ready", "failed"] = Field(
        description="`ready`: this revision can be found. `pending`: not yet. `failed`: it can't be taken "
        "in; `error` says why."
    )
    characters: int = Field(description="Of its text.")
    metadata: Json
    error: Problem | None = None
    created_at: Timestamp
    updated_at: Timestamp


class DocumentShown(DocumentBrief):
    """A document."""

    text: str = ""
    vector: list[float] | None = Field(None, description="If it came with one.")


class DocumentList(List[DocumentBrief]):
    """Documents, without their texts."""


class DocumentQuery(ListQuery):
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MOST_LISTED, description="At most so many items.")
    after: str | None = Field(
        None, description="Those after the one with this id.", json_schema_extra=cursor_like(DOC_ID)
    )
    before: str | None = Field(
        None,
        description="Those right before the one with this id. Not together with `after`.",
        json_schema_extra=cursor_like(DOC_ID),
    )
    order: Literal["asc", "desc"] = Field("asc", description="By id.")
    failed: bool | None = Field(None, description="Only those that could (not) be taken in.")


class BadLine(Contract):
    """Why a line was not kept."""

    line: int = Field(description="From 1.")
    id: str | None = Field(None, description="Of the document, if it could be read.")
    pointer: str | None = Field(None, description="Where in the line: a JSON pointer.")
    detail: str


class BulkAnswer(Contract):
    """What became of many documents."""

    received: int
    kept: int = Field(description="They are durable.")
    refused: int = Field(description="Lines that are no documents that the index can take.")
    errors: list[BadLine] = Field([], description="Of the first 100 of these.")
    complete: bool = Field(description="Whether all that was kept can be found already, or has failed.")
    counts: Counts = Field(description="Of the whole index, afterwards.")


class RemovedDocuments(Contract):
    """What was removed: no search that begins after this finds it."""

    removed: int
    missing: list[str] = Field([], description="Ids that there was no document of.")


# -- searching


class Weights(Strict):
    """Of the lists that `hybrid` joins."""

    dense: float = Field(1.0, ge=0, le=1_000)
    lexical: float = Field(1.0, ge=0, le=1_000)

    @model_validator(mode="after")
    def _some(self) -> Weights:
        if self.dense + self.lexical == 0:
            raise ValueError("one of the weights is more than 0")
        return self


class SearchBody(Strict):
    """What to look for: a text, a vector, or both."""

    text: Annotated[str, StringConstraints(pattern=r"\S", max_length=MOST_QUERY_CHARS)] | None = Field(
        None, description="Found by its words, and by its meaning if the index has a model."
    )
    vector: VectorText | None = Field(
        None, description="In place of the one that the model would make of the text."
    )
    k: int = Field(10, ge=1, le=MOST_K, description="At most so many hits.")
    filter: dict[str, AnyJson] | None = Field(
        None, description='Which documents count: `{"lang": "en", "year": {"gte": 2020}}`. See the docs.'
    )
    mode: Mode | None = Field(
        None,
        description="`dense`: by meaning. `lexical`: by words. `hybrid`: both. Default: `hybrid` if it can "
        "be, else what can be.",
    )
    weights: Weights | None = None
    candidates: int | None = Field(
        None, ge=1, le=10 * MOST_K, description="Of each list that `hybrid` joins; at least `k`."
    )
    rank_constant: int = Field(60, ge=1, le=10_000, description="Of reciprocal rank fusion.")
    per_document: bool = Field(False, description="Only the best chunk of each document.")
    explain: bool = Field(False, description="Where each hit stands by meaning and by words.")
    highlight: bool = Field(False, description="The words that were found, in pieces of the text.")
    timeout_s: float = Field(30.0, ge=0.1, le=60)


class Explained(Contract):
    """Where a hit stands in the lists that were joined. Null: it is not in that list."""

    dense: Rank | None = None
    lexical: Rank | None = None


class HitShown(Contract):
    """A chunk that was found: characters `start` to `end` of the document's text."""

    id: str = Field(description="The document's.")
    chunk: int = Field(description="From 0.")
    score: float = Field(description="The higher the better; comparable within one answer only.")
    text: str
    start: int
    end: int
    metadata: Json
    highlights: list[str] | None = Field(
        None, description="With `highlight`: what was found stands between \\u0002 and \\u0003."
    )
    explain: Explained | None = Field(None, description="With `explain`.")


class SearchFound(Contract):
    """The best hits, best first. All that was committed up to `seq` was searched."""

    hits: list[HitShown]
    mode: Mode
    exact: bool = Field(description="Whether no nearer vector can have been missed.")
    complete: bool = Field(
        description="False if documents that were found changed so fast that they are left out: hits are "
        "missing."
    )
    seq: int
    took_ms: float


BODIES: tuple[type[BaseModel], ...] = (
    CreateIndex,
    PatchIndex,
    RebuildIndex,
    PutDocument,
    NewDocument,
    PutDocuments,
    RemoveDocuments,
    SearchBody,
)
"""Those that routes read themselves."""
