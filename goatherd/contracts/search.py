"""One search of one version of an index, as it goes to the worker that has it, and what was found."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from goatherd.contracts.model import Contract, Json

MOST_K = 1_000

Mode = Literal["dense", "lexical", "hybrid"]


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
