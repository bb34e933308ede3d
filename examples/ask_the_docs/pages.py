"""The pages: this repository's README and docs, each with a digest that tells whether it has changed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_HEADING = re.compile(r"^# +(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """`path`: within the repository; its id in the index."""

    path: str
    text: str

    @property
    def title(self) -> str:
        heading = _HEADING.search(self.text)
        return heading[1].strip() if heading else self.path

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    def line(self) -> str:
        """As the API takes it among others."""
        metadata = {"path": self.path, "title": self.title, "digest": self.digest}
        return json.dumps({"id": self.path, "text": self.text, "metadata": metadata}, ensure_ascii=False)


def pages(root: Path = ROOT) -> list[Page]:
    files = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [Page(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")) for file in files]


def changed(found: Iterable[Page], known: Mapping[str, Any]) -> tuple[list[Page], list[str]]:
    """The pages that an index lacks, and the ids that it has too many. `known`: digests by id."""
    here = {page.path: page for page in found}
    lacking = [page for page in here.values() if known.get(page.path) != page.digest]
    return lacking, [id for id in known if id not in here]
