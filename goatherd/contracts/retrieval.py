"""Indexes: documents that are found by meaning, by words, or by both.

A document is the truth, kept in the store. What searches look at is made of it: its text in chunks, a vector
for each. An *entry* is what one version of an index has of one document; entries are numbered within their
index (`seq`) in the order in which they count, and whoever has an index in memory follows these numbers.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from goatherd.contracts.inference import Limits, ModelName, ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.model import Contract, Json, Timestamp
from goatherd.contracts.search import MOST_K as MOST_K
from goatherd.contracts.search import Hit as Hit
from goatherd.contracts.search import Mode as Mode
from goatherd.contracts.search import Rank as Rank
from goatherd.contracts.search import SearchAnswer as SearchAnswer
from goatherd.contracts.search import SearchQuery as SearchQuery

MOST_TEXT_BYTES = 1 << 20
"""Of one document's text, in UTF-8."""
MOST_METADATA_BYTES = 16_384
MOST_DIMENSIONS = 4_096
MOST_CHUNKS = 4_096
"""Of one document: a chunk's id has twelve bits for it."""
MOST_ENTRY_BYTES = 12 << 20
"""Of one document's vectors and text together, as the store keeps at most 16 MB in one piece."""

INDEX_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
IndexName = Annotated[str, StringConstraints(pattern=INDEX_NAME)]
"""Chosen by its owner, and one of a kind among his: small letters, digits, `.`, `_`, `-`."""

MOST_DOC_ID = 512
_ID_CHAR, _ID_NO_DOT = r"[^/\x00-\x1f\x7f]", r"[^./\x00-\x1f\x7f]"
_ID_STEP = rf"(?:{_ID_NO_DOT}|{_ID_NO_DOT}{_ID_CHAR}|\.{_ID_NO_DOT}|{_ID_CHAR}{{3,}})"
DOC_ID = rf"^{_ID_STEP}(?:/{_ID_STEP})*$"
"""Also the end of a path: of dot segments and empty ones clients make another path, maybe the index's own."""
_ENCODED_DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
DOC_ID_RULE = (
    f"an id has 1 to {MOST_DOC_ID} characters in one line, no `/` at its ends, no `//`, and no `.` or `..` "
    "(nor `%2e` for a dot) between slashes, which clients take out of a path: name the document otherwise"
)


def _no_encoded_dots(id: str) -> str:
    if _ENCODED_DOTS.search(id):
        raise ValueError(DOC_ID_RULE)
    return id


DocId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MOST_DOC_ID, pattern=DOC_ID),
    AfterValidator(_no_encoded_dots),
]
"""Chosen by whoever brings the document: text in one line, such as a relative path."""
_DOC_ID = re.compile(DOC_ID)


def is_doc_id(text: str) -> bool:
    """Whether a document may have this id; `DOC_ID_RULE` says why not."""
    if len(text) > MOST_DOC_ID or not _DOC_ID.fullmatch(text) or _ENCODED_DOTS.search(text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


Metric = Literal["cosine", "ip", "l2"]
Backend = Literal["faiss", "scann", "elasticsearch"]
Lexical = Literal["auto", "tantivy", "elasticsearch", "off"]


class Options(Contract):
    """Base of what only one backend knows. An unknown name is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FaissOptions(Options):
    kind: Literal["auto", "flat", "ivf", "hnsw"] = Field(
        "auto", description="`auto` is exact (`flat`) up to 200,000 vectors, and `ivf` above."
    )
    nlist: int | None = Field(
        None, ge=1, le=65_536, description="Of ivf. Default: four times the root of the size."
    )
    nprobe: int | None = Field(None, ge=1, le=65_536, description="Of ivf: how many lists a search looks at.")
    m: int = Field(32, ge=4, le=128, description="Of hnsw: links of a vector.")
    ef_construction: int = Field(200, ge=8, le=2_000, description="Of hnsw.")
    ef_search: int = Field(128, ge=8, le=10_000, description="Of hnsw.")
    memory_mapped: bool = Field(
        False, description="Vectors are read from the snapshot's file, not held in memory."
    )


class ScannOptions(Options):
    leaves: int | None = Field(None, ge=1, le=65_536, description="Default: the root of the size.")
    leaves_to_search: int | None = Field(None, ge=1, le=65_536)
    reorder: int = Field(200, ge=1, le=10_000, description="Candidates whose exact score is computed.")


class ElasticsearchOptions(Options):
    num_candidates: int = Field(200, ge=10, le=10_000, description="Per shard, of its approximate search.")
    shards: int = Field(1, ge=1, le=64)
    replicas: int = Field(0, ge=0, le=8)


class Chunking(Options):
    """How texts are cut. In characters."""

    splitter: Literal["text", "markdown", "none"] = Field(
        "text",
        description="`text` cuts between paragraphs, sentences, words; `markdown` knows headings; `none` "
        "cuts nothing.",
    )
    size: int = Field(1_000, ge=50, le=32_000, description="Most characters of a chunk.")
    overlap: int = Field(
        100, ge=0, le=8_000, description="Characters that a chunk repeats of the one before."
    )

    @model_validator(mode="after")
    def _smaller(self) -> Chunking:
        if self.overlap * 2 > self.size:
            raise ValueError("overlap is at most half of size")
        return self


class IndexWish(Options):
    """What an index is to be, as its maker says it.

    With `model`, texts are made vectors of by that model. Without it, documents and searches bring vectors of
    `dimensions` numbers; an index with neither finds words only (`dimensions` 0).
    """

    model: ModelName | None = Field(
        None, description="An embedding model (task `feature-extraction`), by its name."
    )
    dimensions: int | None = Field(
        None,
        ge=0,
        le=MOST_DIMENSIONS,
        description="Of vectors. Default: the model's; without a model 0: no vectors.",
    )
    metric: Metric = Field(
        "cosine",
        description="A score is the cosine, the inner product, or, of `l2`, 1 / (1 + d²) of the distance d. "
        "The higher, the nearer.",
    )
    backend: Backend = "faiss"
    lexical: Lexical = Field(
        "auto",
        description="Which engine finds words. `auto`: Elasticsearch for its own indexes, else tantivy, "
        "which is embedded.",
    )
    language: Literal["none", "en", "de", "fr", "es", "it", "pt", "nl", "sv"] = Field(
        "en", description="Of the stemming of words. `none`: words are found as they are."
    )
    chunking: Chunking = Chunking()
    faiss: FaissOptions = FaissOptions()
    scann: ScannOptions = ScannOptions()
    elasticsearch: ElasticsearchOptions = ElasticsearchOptions()


class IndexSpec(IndexWish):
    """One version of an index, with all that is needed to build it. `dimensions` is set."""

    dimensions: int = Field(ge=0, le=MOST_DIMENSIONS)
    model_print: str | None = Field(
        None,
        description="What the model was when the version was begun: another under its name makes others.",
    )


ANOTHER_MODEL = (
    "The model {!r} is another one now than the one that this index was made with: their vectors can't be "
    "compared. Have the index built anew (`__rebuild`), or register the model as it was."
)

IndexState = Literal["ready", "building", "paused", "deleting"]


class Version(Contract):
    """One build of an index."""

    number: int
    spec: IndexSpec
    created_at: Timestamp


class Index(Contract):
    """An index as the store has it. `seq`: the number of the newest entry, of all versions.

    `building`: a version that is being made beside the one that serves; every document that comes meanwhile
    goes into both.
    """

    id: str
    name: IndexName
    owner: str
    serving: Version
    building: Version | None = None
    seq: int = 0
    paused: bool = False
    created_at: Timestamp
    updated_at: Timestamp
    metadata: Json = {}

    @property
    def versions(self) -> list[Version]:
        return [self.serving] if self.building is None else [self.serving, self.building]

    def version(self, number: int) -> Version | None:
        """None if it is none of the index, or no more."""
        return next((one for one in self.versions if one.number == number), None)


class Counts(Contract):
    """Of one index. `documents` does not count those that were deleted."""

    documents: int = 0
    pending: int = Field(0, description="Documents that the newest version has not taken in yet.")
    failed: int = Field(0, description="Documents that it can't take in: each has an `error`.")
    chunks: int = 0


class DocumentIn(Contract):
    """A document as it comes. `vector`: little-endian float32, if the index has no model."""

    id: str
    text: str = ""
    vector: bytes | None = Field(None, repr=False)
    metadata: Json = {}


class Document(Contract):
    """A document as the store has it. `rev` grows with each write of any document of the index: a document
    with a greater one was written later. `todo`: numbers of the versions that have not taken this revision
    in."""

    id: str
    rev: int
    text: str = ""
    vector: bytes | None = Field(None, repr=False)
    metadata: Json = {}
    created_at: Timestamp
    updated_at: Timestamp
    todo: list[int] = []
    error: Problem | None = None


class Entry(Contract):
    """What a version of an index has of a document: chunk `n` is `texts[n]`, characters `spans[n]` of the
    document's text, with the n-th of `vectors` (rows of little-endian float32). `deleted`: it has it no
    more."""

    doc: str
    rev: int
    seq: int = 0
    deleted: bool = False
    texts: list[str] = []
    spans: list[tuple[int, int]] = []
    vectors: bytes = Field(b"", repr=False)
    metadata: Json = {}

    @property
    def chunks(self) -> int:
        return len(self.texts)


# -- searching, as a workflow does


class SearchStep(Contract):
    """A search as a workflow asks for it: text is made a vector of on the way. `index`: a name or an id.

    `mode`: how; that of the query does not count. None: `hybrid` if the index and the query have what it
    takes, else what can be.
    """

    owner: str
    index: str
    query: SearchQuery
    mode: Mode | None = None
    timeout_s: float = 30.0


class FoundText(Contract):
    """A hit with what it says."""

    doc: str
    chunk: int
    score: float
    text: str
    start: int
    end: int
    metadata: Json = {}
    dense: Rank | None = None
    lexical: Rank | None = None
    highlights: list[str] = []


class StepFound(Contract):
    """`complete`: false if documents that were found changed so fast that they are left out."""

    hits: list[FoundText]
    seq: int
    exact: bool = True
    complete: bool = True


# -- taking in


class Ingest(Contract):
    """The workflow that takes an index's documents in: it runs while there are any to do.

    `rounds`: of how many parts of work this run of it knows at most; 0: the usual number. `ready`: the
    version that the run before has found complete, and had loaded.
    """

    index: str
    owner: str = ""
    task_queue_prefix: str = "goatherd"
    rounds: int = 0
    ready: int | None = None


class InHand(Contract):
    """Documents that a version is taking in, or is about to."""

    version: int
    docs: list[str]


class AskPlan(Contract):
    """What the planner is told. `in_hand`: what it must not give again. `busy`: versions that have enough to
    do. `gather`: more is on its way; it waits a moment for that."""

    index: str
    in_hand: list[InHand] = []
    busy: list[int] = []
    gather: bool = False


class VersionWork(Contract):
    """What a version is to do next. `parts`: ids of documents, each list for one activity. `more`: there is
    more than this."""

    version: Version
    parts: list[list[str]] = []
    more: bool = False


class Plan(Contract):
    """What is to be done next, by all versions of the index. `complete`: the version that is being built
    lacks nothing that it could not catch up with while the serving one takes nothing in."""

    work: list[VersionWork] = []
    paused: bool = False
    gone: bool = False
    complete: bool = False


class TakeIn(Contract):
    """One part of it: these documents, into this version. `alone`: nothing else of this index is under way,
    as one of them may be what its workers die of. `first`: instead of `docs`, so many of those to do."""

    index: str
    owner: str
    version: Version
    docs: list[str] = []
    alone: bool = False
    first: int = 0


class Taken(Contract):
    """What became of a part. `more`: there may be more to do, or something else, and a plan is wanted."""

    done: int = 0
    failed: int = 0
    chunks: int = 0
    more: bool = False


class VersionOf(Contract):
    """A version of an index, by numbers."""

    index: str
    version: int


INGEST_WORKFLOW = "Ingestion"
NUDGE = "nudge"
"""The signal that tells it of new work; whoever sends it starts the workflow, if it does not run."""
WARM_INDEX = "index.warm"
"""The activity of the pool `retrieval` that has a worker load a version (`VersionOf`) before it serves."""
TIDY_INDEX = "index.tidy"
"""The activity of the pool `retrieval` that removes what engines keep of versions that are no more."""
SEARCH_STEP = "index.search"
"""The activity of the pool `retrieval` that searches for a workflow: an agent's or a graph's step."""


def take_in_queue(pool: str) -> str:
    """On which the workers of a pool take documents in, besides the pool's own queue."""
    return f"{pool}.take-in"


def ingestion_id(index: str) -> str:
    """Of the workflow that takes this index's documents in: one at a time."""
    return f"ingest-{index}"


SEARCHES = Limits(batch=64, queue=4_096, timeout_s=60.0)
"""How many searches of one version of an index go together, wait, and how long they may."""


def hosted_name(index: str, version: int) -> str:
    """Under which a worker has a version of an index."""
    return f"{index}.v{version}"


def hosted_spec(index: str, version: int) -> ModelSpec:
    """A version of an index as what workers host: it is searched as models are asked."""
    return ModelSpec(
        provider="index", source=index, task=Task.SEARCH, limits=SEARCHES, options={"version": version}
    )


def version_number(spec: ModelSpec) -> int:
    """Of what `hosted_spec` made."""
    return int(spec.options["version"])


def chunk_key(seq: int, chunk: int) -> int:
    """The 63-bit number that backends know a chunk by: never used again for another."""
    return seq << 12 | chunk


def of_chunk_key(key: int) -> tuple[int, int]:
    return key >> 12, key & 0xFFF
