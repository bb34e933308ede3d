"""Texts found by their words, on tantivy.

Memory: 16 MiB for its writer, and what threads that merge segments take meanwhile. The index lies in files
that are mapped: a third of the texts' bytes for the words, and up to as many as they have for the texts
themselves, read only where they are highlighted. The system drops these pages when memory is short.

A commit waits for the disk, ten files each time: what came since the last search is one commit, made by the
next search. Scores are BM25's, over all texts: those that were removed or replaced count in how often a word
is found until their segment is merged, so that scores may move a little without a change of the text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray
from tantivy import Occur, Query

from activities.backends.retrieval.highlights import highlights
from activities.backends.retrieval.synced import sync
from activities.backends.retrieval.tantivy_files import copy_index, restore_index
from activities.backends.retrieval.words import analyzer, composed
from activities.retrieval_ports import Found, Keys, LexicalIndex

MOST_WORDS = 1_024
"""Of a search: what it says after as many different words is not looked for."""
MOST_HIGHLIGHTED = 64_000
"""Characters of a text, from its beginning, that pieces are taken from. Chunks are shorter, unless nothing
cuts them."""

FILE = "texts.json"
FORMAT = 1
"""Of the fields and the words. An index of another format can't be opened."""

_WRITER_BYTES = 16 << 20
_ANALYZER = "words"
_MORE = 16
"""Hits that are looked at beyond those asked for, as some may have the last one's score."""
_GROWTH = 8
_FEW_ALLOWED = 4_096
"""Up to here the query itself has the allowed keys, and above if they are less than an eighth of all texts.
Else hits are read, and more of them, until enough are allowed ones."""


def open_texts(folder: Path | None, live: Path, language: str) -> TantivyTexts:
    """An index that works in the folder `live`, and begins with what `save` wrote into `folder`.

    Whatever another one left in `live` is removed; `folder` is only read.

    Raises:
        ValueError, OSError: `folder` has no whole index, or one of another language.
    """
    shutil.rmtree(live, ignore_errors=True)
    live.mkdir(parents=True)
    if folder is not None:
        if json.loads((folder / FILE).read_bytes()) != _kind(language):
            raise ValueError(f"{folder} is of another format or language")
        restore_index(folder, live)
    return TantivyTexts(live, language)


class TantivyTexts(LexicalIndex):
    def __init__(self, live: Path, language: str) -> None:
        """In a folder that is empty or has an index, and belongs to this alone."""
        building = tantivy.SchemaBuilder()
        building.add_unsigned_field("key", indexed=True, fast=True)
        building.add_text_field("text", stored=True, tokenizer_name=_ANALYZER, index_option="freq")
        self._schema = building.build()
        self._live = live
        self._language = language
        self._analyzer = analyzer(language)
        self._index = tantivy.Index(self._schema, str(live))
        self._index.register_tokenizer(_ANALYZER, self._analyzer)
        self._index.config_reader("manual")
        self._writer = self._index.writer(_WRITER_BYTES, 1)
        self._changed = False
        self._allowed: tuple[Keys, Query] | None = None
        self._searcher = self._index.searcher()

    @property
    def memory_bytes(self) -> int:
        """What can't be dropped: the writer's, and the keys of the last filter."""
        return _WRITER_BYTES + (16 * len(self._allowed[0]) if self._allowed else 0)

    def upsert(self, keys: Keys, texts: Sequence[str]) -> None:
        self.remove(keys)
        for key, text in dict(zip(keys.tolist(), texts, strict=True)).items():
            document = tantivy.Document()
            document.add_unsigned("key", key)
            document.add_text("text", composed(text))
            self._writer.add_document(document)

    def remove(self, keys: Keys) -> None:
        if len(keys):
            # Not by term: tantivy 0.27 takes an unsigned key for a signed one there, and deletes nothing.
            self._writer.delete_documents_by_query(self._with(keys))
            self._changed = True

    def search(
        self, text: str, k: int, allowed: Keys | None = None, *, highlight: bool = False
    ) -> list[Found]:
        """The best `k` that have any of the words, best first; of the same score, the smaller key first.

        Highlights are of the composed text (NFC).
        """
        self._commit()
        words = list(dict.fromkeys(self._analyzer.analyze(composed(text))))[:MOST_WORDS]
        if not words or not self._searcher.num_docs or (allowed is not None and not len(allowed)):
            return []
        query = Query.boolean_query(
            [(Occur.Should, Query.term_query(self._schema, "text", word, "freq")) for word in words]
        )
        scores, keys, addresses = self._best(query, k, allowed)
        wanted = frozenset(words) if highlight else frozenset()
        return [
            Found(int(key), float(score), self._highlights(address, wanted) if highlight else ())
            for score, key, address in zip(scores, keys, addresses, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Writes all of it into an empty folder, synced; the files are links to the index's own where that
        can be."""
        self._commit()
        (folder / FILE).write_text(json.dumps(_kind(self._language)))
        sync(folder / FILE)
        copy_index(self._live, folder)

    def close(self) -> None:
        """Waits for merges that run: afterwards nothing writes into the folder."""
        self._writer.wait_merging_threads()

    def _commit(self) -> None:
        if self._changed:
            self._writer.commit()
            self._index.reload()
            self._searcher = self._index.searcher()
            self._changed = False

    def _best(
        self, query: Query, k: int, allowed: Keys | None
    ) -> tuple[NDArray[np.float64], Keys, list[tantivy.DocAddress]]:
        """The best `k`: more and more hits are looked at, until none that is left can be one of them."""
        total = self._searcher.num_docs
        limit = k + _MORE
        if allowed is not None:
            if len(allowed) <= max(_FEW_ALLOWED, total // 8):
                query = Query.boolean_query([(Occur.Must, query), (Occur.Must, self._one_of(allowed))])
                allowed = None
            else:
                limit = limit * total // len(allowed) + limit
        while True:
            limit = min(limit, total)
            hits = self._searcher.search(query, limit, count=False).hits
            addresses = [address for _, address in hits]
            scores = _rounded(np.fromiter((score for score, _ in hits), np.float64, len(hits)))
            keys = np.array(self._searcher.fast_field_values("key", addresses), np.int64)
            last = scores[-1] if len(hits) else 0.0
            order = np.lexsort((keys, -scores))
            if allowed is not None:
                order = order[_among(keys[order], allowed)]
            order = order[:k]
            if len(hits) < limit or limit == total or (len(order) == k and scores[order[-1]] > last):
                return scores[order], keys[order], [addresses[place] for place in order]
            limit *= _GROWTH

    def _one_of(self, allowed: Keys) -> Query:
        """That the key is one of these. Remembered for keys that nobody can change: a filter gives the same
        ones to many searches."""
        if self._allowed is not None and self._allowed[0] is allowed:
            return self._allowed[1]
        query = Query.const_score_query(self._with(allowed), 0.0)
        self._allowed = None if allowed.flags.writeable else (allowed, query)
        return query

    def _with(self, keys: Keys) -> Query:
        return Query.term_set_query(self._schema, "key", keys.tolist())

    def _highlights(self, address: tantivy.DocAddress, words: frozenset[str]) -> tuple[str, ...]:
        text = str(self._searcher.doc(address).get_first("text"))[:MOST_HIGHLIGHTED]
        tokens = self._analyzer.pre_tokenize(text).tokens
        found = [(one.char_offset_from, one.char_offset_to) for one in tokens if one.text in words]
        return highlights(text, found)


def _kind(language: str) -> dict[str, object]:
    return {"format": FORMAT, "language": language}


def _rounded(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """To 17 bits: the same words in the same number give scores that differ in the last of 24, as they are
    added up in any order."""
    mantissa, exponent = np.frexp(scores)
    return np.asarray(np.ldexp(np.rint(np.ldexp(mantissa, 17)), exponent - 17))


def _among(keys: Keys, allowed: Keys) -> NDArray[np.bool_]:
    """Which of the keys are among the allowed ones, which are sorted."""
    places = np.minimum(np.searchsorted(allowed, keys), len(allowed) - 1)
    return np.asarray(allowed[places] == keys)
