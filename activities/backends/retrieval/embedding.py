"""From documents to entries: their texts are cut, and made vectors of by a model of this worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activities.indexing import Failed, MadeEntries
from activities.inference_items import ItemReader, problem
from activities.inference_ports import Item, Made, ModelHost, Result
from goatherd.contracts.inference import ModelSpec, fingerprint
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import Problem, WorkItem
from goatherd.contracts.retrieval import (
    ANOTHER_MODEL,
    MOST_CHUNKS,
    MOST_ENTRY_BYTES,
    Document,
    Entry,
    IndexSpec,
    Metric,
    Version,
)
from goatherd.errors import Conflict, GoatherdError, Invalid, ModelNotFound, Unavailable

GROUP_BYTES = 6 << 20
"""Of entries that are made and kept together; one that is larger is alone."""
_MB = 1 << 20
_LONGEST = 1e18
"""Of a vector: its length squared must be a number of float32."""

Rows = NDArray[np.float32]


@dataclass(slots=True)
class Cut:
    """A document in chunks. `size`: bytes that its entry takes."""

    document: Document
    spans: list[tuple[int, int]]
    texts: list[str]
    size: int

    def failed(self, why: Problem) -> Failed:
        return self.document.id, self.document.rev, why

    def entry(self, vectors: bytes) -> Entry:
        document = self.document
        return Entry(
            doc=document.id,
            rev=document.rev,
            texts=self.texts,
            spans=self.spans,
            vectors=vectors,
            metadata=document.metadata,
        )


class Embedding:
    """`EntryMaker` with the models of a host. Without one it makes entries of indexes that need no model.

    Texts are embedded as one caller's, a version of an index: whoever else asks the model keeps his turn.
    """

    def __init__(self, host: ModelHost | None = None) -> None:
        self._host = host
        self._shortened: set[tuple[str, int]] = set()
        """Models of which an index wants the first so many dimensions only."""

    async def make(
        self, index: str, version: Version, documents: Sequence[Document]
    ) -> AsyncIterator[MadeEntries]:
        """See `EntryMaker.make`."""
        if not documents:
            return
        spec = version.spec
        cuts, failed = await asyncio.to_thread(_cut_all, spec, documents)
        if failed:
            yield MadeEntries(failed=failed)
        for group in _groups(cuts):
            if spec.model is not None:
                yield await self._embedded(f"{index}@{version.number}", spec, spec.model, group)
            else:
                yield _as_given(spec, group)

    async def _embedded(self, caller: str, spec: IndexSpec, model: str, group: Sequence[Cut]) -> MadeEntries:
        texts = [text for cut in group for text in cut.texts]
        try:
            results = await self._results(caller, spec, model, texts)
        except GoatherdError as error:
            if error.retryable:
                raise
            why = _of_the_model(model, error)
            return MadeEntries(failed=[cut.failed(why) for cut in group])
        made, begin = MadeEntries(), 0
        for cut in group:
            own = results[begin : begin + len(cut.texts)]
            begin += len(cut.texts)
            errors = [one for one in own if isinstance(one, GoatherdError)]
            lasting = next((one for one in errors if not one.retryable), None)
            if errors and lasting is None:
                made.passing.append(cut.failed(problem(errors[0])))
                continue
            try:
                if lasting is not None:
                    place = own.index(lasting)
                    raise Invalid(
                        f"The model {model!r} refuses {_chunk(place, cut)}: {lasting.message}",
                        code=lasting.code,
                    )
                rows = _rows([one for one in own if isinstance(one, Made)], spec, model)
                made.entries.append(cut.entry(_checked(rows, spec.metric, cut)))
            except Invalid as error:
                made.failed.append(
                    cut.failed(
                        Problem(code=error.code, message=error.message, pointer=error.pointer or "/text")
                    )
                )
        return made

    async def _results(self, caller: str, spec: IndexSpec, model: str, texts: Sequence[str]) -> list[Result]:
        """Each text's vector, or its error. Raises what concerns the model."""
        if not texts:
            return []
        if self._host is None:
            raise Unavailable("This worker has no models.", code="no-worker")
        own = await self._host.spec(model)
        if spec.model_print not in (None, fingerprint(own)):
            raise Conflict(ANOTHER_MODEL.format(model), code="another-model")
        if (model, spec.dimensions) in self._shortened:
            return await self._computed(caller, model, own, texts, spec.dimensions)
        results = await self._computed(caller, model, own, texts)
        longer = [
            n for n, one in enumerate(results) if isinstance(one, Made) and _size(one) > spec.dimensions
        ]
        if longer:
            # An index may want less of them than the model makes: then the model is asked for so many.
            self._shortened.add((model, spec.dimensions))
            some = [texts[n] for n in longer]
            again = await self._computed(caller, model, own, some, spec.dimensions)
            for n, one in zip(longer, again, strict=True):
                results[n] = one
        return results

    async def _computed(
        self,
        caller: str,
        model: str,
        own: ModelSpec,
        texts: Sequence[str],
        dimensions: int | None = None,
    ) -> list[Result]:
        assert self._host is not None
        reader = ItemReader(Task.FEATURE_EXTRACTION, own)
        parameters = {} if dimensions is None else {"dimensions": dimensions}
        places: list[int] = []
        items: list[Item] = []
        results: list[Result] = []
        for text in texts:
            try:
                items.append(reader.read(WorkItem(inputs=text, parameters=parameters)))
                places.append(len(results))
                results.append(Invalid("It was not computed."))
            except GoatherdError as error:
                results.append(error)
        async with self._host.use(model, own) as hosted:
            computed = await hosted.compute(Task.FEATURE_EXTRACTION, items, callers=[caller] * len(items))
        for place, one in zip(places, computed, strict=True):
            results[place] = one.result
        return results


# -- cutting


def _cut_all(spec: IndexSpec, documents: Sequence[Document]) -> tuple[list[Cut], list[Failed]]:
    cuts: list[Cut] = []
    failed: list[Failed] = []
    for document in documents:
        try:
            cuts.append(_cut(spec, document))
        except Invalid as error:
            why = Problem(code=error.code, message=error.message, pointer=error.pointer)
            failed.append((document.id, document.rev, why))
    return cuts, failed


def _cut(spec: IndexSpec, document: Document) -> Cut:
    text = document.text
    if spec.model is None and spec.dimensions:
        # One vector is one chunk.
        spans = [(0, len(text))]
    else:
        from activities.backends.retrieval.chunker import chunks

        spans = chunks(text, spec.chunking)
    if len(spans) > MOST_CHUNKS:
        raise Invalid(
            f"The document has {len(spans):,} chunks, and {MOST_CHUNKS:,} is the most. Bring it as several "
            "documents, or build the index with a greater chunking.size.",
            code="too-long",
            pointer="/text",
        )
    texts = [text[start:end] for start, end in spans]
    size = sum(len(one.encode(errors="surrogatepass")) for one in texts) + 4 * spec.dimensions * len(spans)
    if size > MOST_ENTRY_BYTES:
        raise Invalid(
            f"The document's {len(spans):,} chunks, with their vectors of {spec.dimensions:,} numbers, take "
            f"{-(-size // _MB)} MB, and {MOST_ENTRY_BYTES // _MB} MB is the most. Bring it as several "
            "documents, or build the index with a greater chunking.size.",
            code="too-long",
            pointer="/text",
        )
    return Cut(document, spans, texts, size)


def _groups(cuts: Sequence[Cut]) -> Iterator[list[Cut]]:
    group: list[Cut] = []
    taken = 0
    for cut in cuts:
        if group and taken + cut.size > GROUP_BYTES:
            yield group
            group, taken = [], 0
        group.append(cut)
        taken += cut.size
    if group:
        yield group


# -- vectors


def _as_given(spec: IndexSpec, group: Sequence[Cut]) -> MadeEntries:
    """Of an index without a model: what documents bring, if it wants vectors at all."""
    made = MadeEntries()
    for cut in group:
        try:
            vectors = _given(spec, cut) if spec.dimensions else b""
            made.entries.append(cut.entry(vectors))
        except Invalid as error:
            why = Problem(code=error.code, message=error.message, pointer="/vector")
            made.failed.append(cut.failed(why))
    return made


def _given(spec: IndexSpec, cut: Cut) -> bytes:
    data = cut.document.vector
    if data is None:
        raise Invalid(
            f"The index has no model: each document brings its vector, of {spec.dimensions} numbers."
        )
    if len(data) != 4 * spec.dimensions:
        raise Invalid(
            f"The vector has {len(data) / 4:g} numbers, and the index wants {spec.dimensions} of each."
        )
    return _checked(np.frombuffer(data, dtype="<f4").reshape(1, -1), spec.metric, cut)


def _rows(made: Sequence[Made], spec: IndexSpec, model: str) -> Rows:
    for one in made:
        if _size(one) != spec.dimensions:
            raise Invalid(
                f"The model {model!r} makes vectors of {_size(one):,} numbers, and the index wants "
                f"{spec.dimensions:,}: build a version of the index with this model's.",
                pointer="/dimensions",
            )
    data = b"".join(one.output.data for one in made)
    return np.frombuffer(data, dtype="<f4").reshape(len(made), spec.dimensions)


def _size(made: Made) -> int:
    shape = made.output.shape
    return shape[0] if len(shape) == 1 else 0


def _checked(rows: Rows, metric: Metric, cut: Cut) -> bytes:
    """The rows as they are kept: of length 1 for the cosine. Raises `Invalid` for what can't be compared."""
    wide = rows.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    for bad, what in (
        (~np.isfinite(lengths), "has numbers that are none (NaN or infinity)"),
        (lengths >= _LONGEST, f"is longer than {_LONGEST:g}, and can't be compared"),
        ((lengths == 0) & (metric == "cosine"), "has the length 0, and no direction that could be compared"),
    ):
        if bad.any():
            raise Invalid(f"The vector of {_chunk(int(np.flatnonzero(bad)[0]), cut)} {what}.")
    if metric == "cosine":
        wide /= lengths[:, None]
    return np.ascontiguousarray(wide, dtype="<f4").tobytes()


def _chunk(n: int, cut: Cut) -> str:
    if len(cut.spans) == 1:
        return "the document"
    start, end = cut.spans[n]
    return f"chunk {n} (characters {start} to {end})"


def _of_the_model(model: str, error: GoatherdError) -> Problem:
    """Why no text at all can be embedded, and what to do."""
    message = error.message[:1].upper() + error.message[1:].rstrip(".") + "."
    what = "Register it" if isinstance(error, ModelNotFound) else "Mend that"
    return Problem(
        code=error.code,
        message=f"The index's model {model!r} can't be used. {message} {what}, then have the index retry.",
        pointer="/model",
    )
