"""Words in Elasticsearch, beside vectors in FAISS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from activities.backends.retrieval import elastic_texts as module
from activities.backends.retrieval.elastic_engine import remove_elastic
from activities.backends.retrieval.elastic_schema import words_name
from activities.backends.retrieval.elastic_texts import ElasticTexts, elastic_texts
from activities.backends.retrieval.local_engine import open_engine
from activities.retrieval_ports import Engine, Keys
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Index, Version
from goatherd.errors import ModelBroken, Unavailable
from tests.activities.retrieval.contract_engine import EngineContract
from tests.activities.retrieval.elastic_server import NO_SHRINKING, ElasticServer, elastic_server
from tests.activities.retrieval.engine_cases import index_of
from tests.activities.retrieval.engine_checks import Make
from tests.activities.retrieval.reference_engine import STEMS


@pytest.fixture(scope="module")
def server() -> Iterator[ElasticServer]:
    with elastic_server() as server:
        yield server


class TestBesideFaiss(EngineContract):
    wish: ClassVar[Json] = {"backend": "faiss", "lexical": "elasticsearch"}
    machine_phases: ClassVar = NO_SHRINKING

    @pytest.fixture
    def make(self, tmp_path: Path, server: ElasticServer) -> Make:
        async def made(index: Index, version: Version) -> Engine:
            texts = elastic_texts(server.url, None, index.id, version.number)
            return open_engine(tmp_path, index, version, elastic_texts=texts)

        return made


class Pages:
    """In place of a client, for what is behind the first 10,000: a server that gives pages as documented, or
    the same one again and again."""

    def __init__(self, count: int, *, stuck: bool = False) -> None:
        self._hits = [{"_id": str(n), "_score": 1.0, "sort": [1.0, n]} for n in range(count)]
        self._stuck = stuck
        self.asked = 0

    def search(self, *, size: int, search_after: list[Any] | None, **_: Any) -> dict[str, Any]:
        self.asked += 1
        first = 0 if search_after is None or self._stuck else int(search_after[1]) + 1
        return {"hits": {"hits": self._hits[first : first + size]}}


def keys(*numbers: int) -> Keys:
    return np.array(numbers, np.int64)


class TestTexts:
    @pytest.fixture
    def of(self) -> tuple[Index, Version]:
        return index_of(lexical="elasticsearch")

    @contextmanager
    def opened(
        self, server: ElasticServer, of: tuple[Index, Version], snapshot: Path | None = None
    ) -> Iterator[ElasticTexts]:
        index, version = of
        opener = elastic_texts(server.url, None, index.id, version.number)
        with closing(opener(version.spec, snapshot, Path("unused"))) as texts:
            yield texts

    def test_what_is_upserted_is_found_at_once(
        self, server: ElasticServer, of: tuple[Index, Version]
    ) -> None:
        with self.opened(server, of) as texts:
            assert texts.search("cats", 5) == []
            texts.upsert(keys(2**62, 7), ["A cat sleeps", "Dogs"])
            assert [found.key for found in texts.search("cats", 5)] == [2**62]
            texts.upsert(keys(8), ["One more cat"])
            texts.upsert(keys(7), ["Dogs chase cats"])
            assert {found.key for found in texts.search("cats", 5)} == {2**62, 7, 8}
            texts.remove(keys(8, 9))
            assert {found.key for found in texts.search("cats", 5)} == {2**62, 7}
            (found,) = texts.search("sleeping", 5, highlight=True)
            assert found.highlights == ("A cat \2sleeps\3",)

    def test_best_of_many_that_are_allowed_are_found(
        self, server: ElasticServer, of: tuple[Index, Version], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_PAGE", 7)
        with self.opened(server, of) as texts:
            texts.upsert(keys(*range(300)), ["cat " + "meadow " * (n % 60) for n in range(300)])
            allowed = keys(*range(11, 300, 3))
            for k in (1, 5, 40, 1_000):
                asked = texts.search("cat", k, allowed)
                with monkeypatch.context() as few:
                    few.setattr(module, "ASKED_FOR", 3)
                    assert texts.search("cat", k, allowed) == asked
                assert len(asked) == min(k, len(allowed))
                assert {found.key for found in asked} <= set(allowed.tolist())
            assert texts.search("cat", 5, keys()) == []

    def test_what_is_far_behind_comes_page_by_page(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_RESULTS", 100)
        for stuck, wanted in ((False, [5, 99, 100, 349]), (True, [5, 99])):
            pages = Pages(350, stuck=stuck)
            texts = ElasticTexts(cast(Elasticsearch, pages), "alias", [5, 99, 100, 349])
            texts._unseen = False
            assert [one.key for one in texts.search("cat", 9)] == wanted
            assert pages.asked < 9

    def test_worker_finds_what_it_has_itself(self, server: ElasticServer, of: tuple[Index, Version]) -> None:
        with self.opened(server, of) as first, self.opened(server, of) as second:
            first.upsert(keys(*range(40)), ["cat"] * 40)
            first.search("cat", 1)
            assert second.search("cat", 9) == []
            second.upsert(keys(38, 39, 40), ["cat", "cat", "cat"])
            assert {found.key for found in second.search("cat", 2)} <= {38, 39, 40}
            assert {found.key for found in second.search("cat", 9)} == {38, 39, 40}
            assert {found.key for found in first.search("cat", 99)} == set(range(40))

    @pytest.mark.parametrize("count", range(14, 20))
    def test_its_own_are_found_among_others_that_fit_as_well(
        self, server: ElasticServer, of: tuple[Index, Version], count: int
    ) -> None:
        # Scores that a server may round in more than one way: a page that goes on behind one misses some.
        best, same = "connect jump cat run zebra quartz violet lantern", "cats zebra"
        with self.opened(server, of) as others, self.opened(server, of) as texts:
            others.upsert(keys(*range(count + 2)), [best] + [same] * (count + 1))
            own = keys(0, *range(2, count, 3))
            texts.upsert(own, [best] + [same] * (len(own) - 1))
            for k in range(1, len(own) + 1):
                assert [one.key for one in texts.search(" ".join(STEMS), k)] == own.tolist()[:k]

    def test_snapshot_belongs_to_the_texts_that_were_there(
        self, server: ElasticServer, of: tuple[Index, Version], tmp_path: Path
    ) -> None:
        with self.opened(server, of) as texts:
            texts.upsert(keys(1), ["cat"])
            texts.save(tmp_path)
        with self.opened(server, of, tmp_path) as texts:
            assert [found.key for found in texts.search("cat", 9)] == [1]
        name = words_name(of[0].id, of[1].number)
        with Elasticsearch(server.url) as client:
            client.indices.delete(index=name)
        with pytest.raises(ValueError, match="lost"), self.opened(server, of, tmp_path):
            pass
        with self.opened(server, of) as texts:
            assert texts.search("cat", 9) == []
        with pytest.raises(ValueError, match="lost"), self.opened(server, of, tmp_path):
            pass

    async def test_lost_words_are_told(self, server: ElasticServer, of: tuple[Index, Version]) -> None:
        with self.opened(server, of) as texts:
            texts.upsert(keys(1), ["cat"])
            await remove_elastic(server.url, None, of[0].id, of[1].number)
            # One that another worker has made meanwhile does not have them either.
            with self.opened(server, of):
                for _ in range(2):
                    with pytest.raises(Unavailable, match="lost"):
                        texts.search("cat", 9)
                    with pytest.raises(Unavailable, match="lost"):
                        texts.upsert(keys(2), ["cat"])

    def test_server_that_is_away_is_told(self, of: tuple[Index, Version]) -> None:
        with elastic_server() as server, self.opened(server, of) as texts:
            server.kill()
            with pytest.raises(Unavailable, match="GOATHERD_ELASTICSEARCH"):
                texts.upsert(keys(1), ["cat"])

    def test_missing_address_is_told(self, of: tuple[Index, Version]) -> None:
        with pytest.raises(ModelBroken, match="GOATHERD_ELASTICSEARCH"):
            elastic_texts(None, None, of[0].id, 1)(of[1].spec, None, Path("unused"))
