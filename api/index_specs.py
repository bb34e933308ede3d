"""What a wish for an index comes to, and whether it can be had."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from goatherd.contracts.ids import INDEX_ID
from goatherd.contracts.retrieval import Document, Index, IndexSpec, IndexWish
from goatherd.errors import Conflict, Invalid
from goatherd.settings import Settings

_INDEX_ID = re.compile(INDEX_ID)
_WISHES = tuple(IndexWish.model_fields)


def is_index_id(text: str) -> bool:
    return _INDEX_ID.fullmatch(text) is not None


def spec_with(wish: IndexWish, dimensions: int) -> IndexSpec:
    """The wish as a spec."""
    fields = {name: getattr(wish, name) for name in _WISHES}
    return IndexSpec.model_validate({**fields, "dimensions": dimensions})


def changed(spec: IndexSpec, wish: IndexWish) -> IndexWish:
    """The spec with the fields that the wish sets. What the model says is not kept when the model, or what
    it makes, may be another."""
    fields: dict[str, Any] = {name: getattr(spec, name) for name in _WISHES}
    fields |= {name: getattr(wish, name) for name in wish.model_fields_set if name in fields}
    if fields["model"] is not None and "dimensions" not in wish.model_fields_set:
        fields["dimensions"] = None
    return IndexWish.model_validate(fields)


def check_wish(wish: IndexWish, settings: Settings) -> None:
    """Raises `Invalid` unless what the wish names is there, and goes together."""
    if settings.elasticsearch is None:
        for name in ("backend", "lexical"):
            if getattr(wish, name) == "elasticsearch":
                raise Invalid(
                    "There is no Elasticsearch here: set GOATHERD_ELASTICSEARCH to the address of one, or "
                    "choose another.",
                    pointer=f"/{name}",
                )
    if wish.backend == "elasticsearch" and wish.lexical == "tantivy":
        raise Invalid("An index in Elasticsearch finds words by Elasticsearch, or not.", pointer="/lexical")
    if wish.model is None and not wish.dimensions and wish.lexical == "off":
        raise Invalid(
            "With neither vectors nor words there is nothing to find by: name a `model`, give `dimensions`, "
            "or leave `lexical` on.",
            pointer="/lexical",
        )


def check_change(old: IndexSpec, new: IndexSpec) -> None:
    """Raises `Invalid` if documents that the old version has can't be in the new one."""
    if new.model is not None or new.dimensions == 0:
        return
    if old.model is not None:
        raise Invalid(
            "The documents came without vectors. Without a model, set `dimensions` to 0: then words are "
            "found.",
            pointer="/model",
        )
    if old.dimensions not in (0, new.dimensions) or (old.dimensions == 0 and new.dimensions):
        raise Invalid(
            f"The documents' vectors have {old.dimensions} dimensions: make another index for others.",
            pointer="/dimensions",
        )


def same_or_conflict(index: Index, spec: IndexSpec, metadata: Mapping[str, Any] | None) -> None:
    """Raises `Conflict` (`index-exists`) unless the index is what was wished for once more."""
    newest = index.versions[-1].spec
    differ = [name for name in _WISHES if getattr(newest, name) != getattr(spec, name)]
    told = [f"`{name}` is {_told(getattr(newest, name))}" for name in differ]
    if metadata is not None and metadata != index.metadata:
        told.append("`metadata` differs")
    if told:
        raise Conflict(
            f"There is an index {index.name!r} already, and it is another: {'; '.join(told)}. Rebuild it "
            "(`__rebuild`), change its metadata (PATCH), delete it, or take another name.",
            code="index-exists",
        )


def _told(value: Any) -> str:
    if isinstance(value, str | int | None):
        return repr(value) if value is not None else "null"
    given: str = value.model_dump_json(exclude_defaults=True)
    return given


def status_of(document: Document, serving: int) -> str:
    """Whether this revision can be found."""
    if document.error is not None:
        return "failed"
    return "pending" if serving in document.todo else "ready"
