"""Indexes: documents that are found by meaning, by words, or by both.

A document is the truth, kept in the store. What searches look at is made of it: its text in chunks, a vector
for each. An *entry* is what one version of an index has of one document; entries are numbered within their
index (`seq`) in the order in which they count, and whoever has an index in memory follows these numbers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from goatherd.contracts.inference import ModelName
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.model import Contract, Json, Timestamp

MOST_TEXT_BYTES = 1 << 20
"""Of one document's text, in UTF-8."""
MOST_METADATA_BYTES = 16_384
MOST_DIMENSIONS = 4_096
MOST_CHUNKS = 4_096
"""Of one document: a chunk's id has twelve bits for it."""
MOST_ENTRY_BYTES = 12 << 20
"""Of one document's vectors and text together, as the store keeps at most 16 MB in one piece."""
MOST_K = 1_000

INDEX_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
IndexName = Annotated[str, StringConstraints(pattern=INDEX_NAME)]
"""Chosen by its owner, and one of a kind among his: small letters, digits, `.`, `_`, `-`."""
DocId = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Chosen by whoever brings the document: any text in one line."""

Metric = Literal["cosine", "ip", "l2"]
Backend = Literal["faiss", "scann", "elasticsearch"]
Lexical = Literal["auto", "tantivy", "elasticsearch", "off"]
Mode = Literal["dense", "lexical", "hybrid"]


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


# -- searching


class SearchQuery(Contract):
    """One search, of one version of an index. `vector`: little-endian float32."""

    model_config = ConfigDict(frozen=True, extra="ignore", val_json_bytes="base64", ser_json_bytes="base64")

    mode: Mode = "dense"
    text: str | None = None
    vector: bytes | None = Field(None, repr=False)
    k: int = Field(10, ge=1, le=MOST_K)
    filter: Json | None = None
    per_document: bool = Field(False, description="Only the best chunk of each document.")
    weights: dict[Literal["dense", "lexical"], float] = {}
    candidates: int | None = Field(None, ge=1, le=10 * MOST_K, description="Of each list that hybrid joins.")
    rank_constant: int = Field(60, ge=1, le=10_000, description="Of reciprocal rank fusion.")
    explain: bool = False
    highlight: bool = False
    min_seq: int = 0


class Rank(Contract):
    """Where a hit stands in one of the lists that were joined, from 1, and its score there."""

    rank: int
    score: float


class Hit(Contract):
    """A chunk that was found. `seq` is its entry's: what was found is what that entry says, nothing newer."""

    doc: str
    chunk: int
    seq: int
    score: float
    dense: Rank | None = None
    lexical: Rank | None = None
    highlights: list[str] = Field(
        [], description="Pieces of the text, the words that were found between \\u0002 and \\u0003."
    )


class SearchAnswer(Contract):
    """The best `k`, best first; fewer if there are no more. `seq`: what was searched has all up to this
    entry."""

    hits: list[Hit]
    seq: int
    exact: bool = Field(True, description="Whether no nearer vector can have been missed.")


class SearchStep(Contract):
    """A search as a workflow asks for it: text is made a vector of on the way. `index`: a name or an id."""

    owner: str
    index: str
    query: SearchQuery
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
    hits: list[FoundText]
    seq: int
    exact: bool = True


# -- taking in


class Ingest(Contract):
    """The workflow that takes an index's documents in: it runs while there are any to do.

    `rounds`: of how many parts of work this run of it knows.
    """

    index: str
    owner: str = ""
    task_queue_prefix: str = "goatherd"
    rounds: int = 0


class Plan(Contract):
    """What is to be done next. `parts`: ids of documents, each list for one activity. `version`: for
    which."""

    version: Version | None = None
    parts: list[list[str]] = []
    paused: bool = False
    gone: bool = False
    complete: bool = Field(False, description="A version that is being built has everything.")


class TakeIn(Contract):
    """One part of it: these documents, into this version."""

    index: str
    owner: str
    version: Version
    docs: list[str]


class Taken(Contract):
    done: int = 0
    failed: int = 0
    chunks: int = 0


class VersionOf(Contract):
    """A version of an index, by numbers."""

    index: str
    version: int


INGEST_WORKFLOW = "Ingestion"
NUDGE = "nudge"
"""The signal that tells it of new work; whoever sends it starts the workflow, if it does not run."""
WARM_INDEX = "index.warm"
"""The activity of the pool `retrieval` that has a worker load a version (`VersionOf`) before it serves."""
SEARCH_STEP = "index.search"
"""The activity of the pool `retrieval` that searches for a workflow: an agent's or a graph's step."""


def ingestion_id(index: str) -> str:
    """Of the workflow that takes this index's documents in: one at a time."""
    return f"ingest-{index}"


def chunk_key(seq: int, chunk: int) -> int:
    """The 63-bit number that backends know a chunk by: never used again for another."""
    return seq << 12 | chunk


def of_chunk_key(key: int) -> tuple[int, int]:
    return key >> 12, key & 0xFFF
