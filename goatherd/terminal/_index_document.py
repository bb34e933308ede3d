"""A document as `goatherd index load` sends it, with a digest that tells whether it has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

DIGEST = "load_digest"
"""The name in the metadata. A document without it was not loaded: it is never taken for one that is gone."""
# Part of the digest: raise it when what is sent of the same file changes, and all is sent anew.
_FORM = "1"


class BadSource(Exception):
    """What is to be loaded can't be: nothing is sent. The text says why, in a line or more."""


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """`more`: metadata whose change alone is no reason to send it again."""

    id: str
    text: str = ""
    vector: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Stands for all but `more`."""
        about = json.dumps([_FORM, self.id, self.text, self.vector, self.metadata], sort_keys=True)
        return hashlib.sha256(about.encode()).hexdigest()[:32]

    def line(self) -> bytes:
        """As the API takes it, with its digest and a newline."""
        metadata = {**self.metadata, **self.more, DIGEST: self.digest()}
        body: dict[str, Any] = {"id": self.id, "text": self.text, "metadata": metadata}
        if self.vector is not None:
            body["vector"] = self.vector
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Source(Protocol):
    """Documents, which are read twice: once to see what has changed, once to send it."""

    def documents(self) -> Iterator[LoadedDocument]:
        """From the beginning. Raises `BadSource`, or `OSError`, if it can't be read at all."""

    @property
    def left_out(self) -> Mapping[str, str]:
        """Ids of documents that are there but can't be loaded, and why; known after one reading. What ends
        with `/`, as no id does, stands for all that may be below it."""
