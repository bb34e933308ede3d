"""What an engine in this process is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from activities.backends.retrieval.entry_table import open_table
from activities.retrieval_ports import EntryTable, LexicalIndex, VectorIndex
from goatherd.contracts.retrieval import IndexSpec
from goatherd.errors import ModelBroken, Unavailable


@dataclass(frozen=True, slots=True)
class Parts:
    """`vectors`: None if the index has none; `texts`: None if it finds no words. Each is named as its folder
    in a snapshot."""

    table: EntryTable
    vectors: VectorIndex | None
    texts: LexicalIndex | None

    @property
    def memory_bytes(self) -> int:
        parts = (self.table, self.vectors, self.texts)
        return sum(int(getattr(part, "memory_bytes", 0)) for part in parts if part is not None)

    def save(self, folder: Path) -> None:
        """Each into a folder of its own."""
        for name, part in (("table", self.table), ("vectors", self.vectors), ("texts", self.texts)):
            if part is not None:
                (folder / name).mkdir()
                part.save(folder / name)

    def close(self) -> None:
        try:
            if self.texts is not None:
                self.texts.close()
        finally:
            self.table.close()


OpenParts = Callable[[IndexSpec, Path | None, Path], Parts]
"""Parts that begin with what is in the first folder (None: with nothing), which is only read, and work in
the second one, which is theirs alone and thrown away later. Raises whatever it likes if the first has no
parts; a `GoatherdError` if that is not the reason."""

OpenTexts = Callable[[IndexSpec, Path | None, Path], LexicalIndex]
"""The same, of words alone."""


def opening(elastic_texts: OpenTexts | None = None) -> OpenParts:
    """Opens the parts that a spec asks for. `elastic_texts`: words in Elasticsearch, beside vectors in this
    process.

    What it gives raises `ModelBroken`: a library is missing; `Unavailable`: words are to be in Elasticsearch,
    and there is none.
    """

    def open_parts(spec: IndexSpec, folder: Path | None, live: Path) -> Parts:
        vectors = _open_vectors(spec, _sub(folder, "vectors")) if spec.dimensions else None
        texts = _open_texts(spec, elastic_texts, _sub(folder, "texts"), live / "texts")
        try:
            return Parts(open_table(_sub(folder, "table"), live / "table"), vectors, texts)
        except BaseException:
            if texts is not None:
                texts.close()
            raise

    return open_parts


def _open_vectors(spec: IndexSpec, folder: Path | None) -> VectorIndex:
    if spec.backend == "scann":
        _need("scann", "scann")
        from activities.backends.retrieval import scann_vectors

        return scann_vectors.open_vectors(spec, folder)
    _need("faiss", "faiss-cpu")
    from activities.backends.retrieval import faiss_vectors

    return faiss_vectors.open_vectors(spec, folder)


def _open_texts(
    spec: IndexSpec, elastic_texts: OpenTexts | None, folder: Path | None, live: Path
) -> LexicalIndex | None:
    if spec.lexical == "off":
        return None
    if spec.lexical == "elasticsearch":
        if elastic_texts is None:
            raise Unavailable("the words of this index are in Elasticsearch, which this worker has not")
        return elastic_texts(spec, folder, live)
    _need("tantivy", "tantivy")
    from activities.backends.retrieval import tantivy_texts

    return tantivy_texts.open_texts(folder, live, spec.language)


def _sub(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def _need(module: str, package: str) -> None:
    try:
        import_module(module)
    except ImportError as error:
        raise ModelBroken(f"this index needs the package {package} in its worker: {error}") from error
